"""What a run's training needs in memory, worked out without any: the models' shapes, and one step on tensors that hold nothing.

The step runs forward and backward under torch's fake tensors. What its operations hold at most, beyond the gradients, are the
activations. They are close to a GPU's, whose kernels keep some other intermediate results; CUDA itself takes about 1 GB more.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bayesdiff.arms.gaussian import rho_parameters
from bayesdiff.config.identity import run_name
from bayesdiff.config.prompts import image_count
from bayesdiff.config.schema import Config, Optimizer, Precision, Weights
from bayesdiff.core.errors import UserError
from bayesdiff.corruption.planning import power_sentence
from bayesdiff.diffusion.batch import Batch, Conditioning
from bayesdiff.diffusion.pipeline import choose_device, model_location
from bayesdiff.training.loop import DTYPES, attach_arm, prepare_weights, save_memory
from bayesdiff.training.objective import training_loss

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

GB = 1e9
OF_CUDA = 1.0
"""GB that CUDA's context and libraries take beside tensors."""
TOKENS, SIZES, FLOAT = 77, 6, 4
"""Tokens of a text, numbers that tell SDXL the sizes of a picture, bytes of a weight."""
_SD2 = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "sd14": ({"cross_attention_dim": 768}, 206_714_343),
    "sd15": ({"cross_attention_dim": 768}, 206_714_343),
    "sd20": (_SD2, 424_041_703),
    "sd21": (_SD2, 424_041_703),
    "sdxl": (
        {
            "block_out_channels": (320, 640, 1280), "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048, "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816, "use_linear_projection": True,
        },
        901_374_183,
    ),
}  # fmt: skip
"""Of the published models: what their ``unet/config.json`` sets beside the library's defaults, and the weights of their decoder
and text encoders."""
_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
_CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "projection_dim": 1280}
ENCODERS: dict[str, tuple[dict[str, Any], ...]] = {
    "sd14": (_CLIP_L,), "sd15": (_CLIP_L,), "sd20": (_CLIP_H,), "sd21": (_CLIP_H,), "sdxl": (_CLIP_L, _CLIP_G),
}  # fmt: skip
"""Of the published models: what their text encoders' ``config.json`` set beside the library's defaults."""
PLACES = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Sizes:
    """Bytes that training needs, by what they are for."""

    weights: int
    frozen: int
    """Autoencoder, and text encoders unless they are trained."""
    gradients: int
    moments: int
    sigmas: int
    drawn: int
    """Gaussian weights in use, and their noise, which becomes rho's gradient."""
    averages: int
    activations: int
    """The step's peak, beyond the gradients."""

    @property
    def total(self) -> int:
        return sum(vars(self).values())


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within the block: ``peak`` is the largest number of bytes that results of operations held at once, each memory counted once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._hold(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def _hold(self, storage: torch.UntypedStorage) -> None:
        if (place := storage._cdata) not in self.held:
            self.held[place] = storage.nbytes()
            self.now += storage.nbytes()
            weakref.finalize(storage, self._release, place)

    def _release(self, place: int) -> None:
        self.now -= self.held.pop(place, 0)


def sizes_of(cfg: Config) -> Sizes:
    """What training of a configuration needs; raises ``UserError`` where the model's shapes are not known."""
    from unittest.mock import patch

    from torch._subclasses.fake_tensor import FakeTensorMode

    # peft moves an adapter to its layer's device; modules of fake tensors cannot be moved, and need not
    with FakeTensorMode(allow_non_fake_inputs=True), patch.object(torch.nn.Module, "to", lambda module, *_, **__: module):
        return _sizes(cfg)


def _sizes(cfg: Config) -> Sizes:
    unet, frozen, factor = _shapes(cfg)
    encoders = _encoders(cfg) if cfg.method.train_text_encoder else {}
    frozen -= sum(p.numel() for one in encoders.values() for p in one.parameters())
    pipe: Any = SimpleNamespace(unet=unet, scheduler=None, **encoders)
    parts, trained = prepare_weights(pipe, cfg)
    arm = attach_arm(pipe, _without_text(cfg), trained)
    if cfg.training.gradient_checkpointing:
        save_memory(parts)
    rhos = rho_parameters(arm.layers)
    gradients = _bytes(trained)
    peak = _step(cfg, parts, arm, factor)
    moment = FLOAT if cfg.training.optimizer is Optimizer.adamw else 1
    averages = {one.ema_decay for one in cfg.evaluations.values() if one.weights is Weights.ema}
    copies = len(averages) + (cfg.bnn.kind in ("ema", "l2_to_pretrained"))
    return Sizes(
        weights=sum(_bytes(part.parameters()) for part in parts.values()) - _bytes(rhos), frozen=frozen * FLOAT, gradients=gradients,
        moments=2 * moment * sum(p.numel() for p in [*trained, *rhos]), sigmas=_bytes(rhos), drawn=_drawn(arm.layers),
        averages=copies * gradients, activations=max(peak - gradients, 0),
    )  # fmt: skip


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _drawn(layers: Any) -> int:
    """Buffers of the draw, and the means before training where a KL keeps them."""
    draws = dict.fromkeys(layer.gaussian.draw for layer in layers)
    prior = [layer.gaussian.prior_mean for layer in layers if layer.gaussian.prior_mean is not None]
    return _bytes(buffer for draw in draws for buffer in (draw.eps, draw.weights)) + _bytes(prior)


def _without_text(cfg: Config) -> Config:
    """The same run with an arm that asks for no text encoder: the empty prompt takes no memory to speak of."""
    return cfg if cfg.bnn.kind != "prompt_dropout" else replace(cfg, bnn=replace(cfg.bnn, kind="off"))


def _shapes(cfg: Config) -> tuple[UNet2DConditionModel, int, int]:
    """The U-Net without weights, the number of frozen weights, and pixels a latent pixel's side."""
    from diffusers import UNet2DConditionModel

    location = Path(model_location(cfg.model))
    if not location.is_dir() and cfg.model.name in PUBLISHED:
        config, frozen = PUBLISHED[cfg.model.name]
        return UNet2DConditionModel(**config), frozen, 8
    try:
        unet = UNet2DConditionModel.from_config(json.loads((location / "unet" / "config.json").read_text(encoding="utf-8")))
        halvings = len(json.loads((location / "vae" / "config.json").read_text(encoding="utf-8"))["block_out_channels"]) - 1
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"model.path={cfg.model.path}: --dry-run cannot read its config.json files ({error}); give a folder") from error
    return unet, sum(_stored(location / part) for part in ("vae", *PLACES)), 2**halvings


def _encoders(cfg: Config) -> dict[str, nn.Module]:
    """The text encoders without weights, by their names in the pipeline; raises ``UserError`` where their shapes are not known."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    location = Path(model_location(cfg.model))
    if not location.is_dir() and cfg.model.name in ENCODERS:
        found = dict(zip(PLACES, ENCODERS[cfg.model.name], strict=False))
    else:
        files = {name: location / name / "config.json" for name in PLACES}
        try:
            found = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in files.items() if path.exists()}
        except (OSError, ValueError) as error:
            raise UserError(f"model.path={cfg.model.path}: --dry-run cannot read its text encoders ({error}); give a folder") from error
    kinds = dict(zip(PLACES, (CLIPTextModel, CLIPTextModelWithProjection), strict=True))
    return {name: kinds[name](CLIPTextConfig(**shape)) for name, shape in found.items()}


def _stored(folder: Path) -> int:
    """Numbers in a part's safetensors files."""
    from math import prod

    from safetensors import safe_open

    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "np") as file:
            count += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return count


def _step(cfg: Config, parts: dict[str, nn.Module], arm: Any, factor: int) -> int:
    """Peak bytes of one step's forward and backward pass, of trained text encoders too."""
    unet, encoders = cast("UNet2DConditionModel", parts["unet"]), [part for name, part in parts.items() if name != "unet"]
    texts = 2 if cfg.method.prior_preservation else 1
    rows, side = cfg.training.batch_size * texts, cfg.model.resolution // factor
    latents = torch.zeros(rows, unet.config.in_channels, side, side)
    batch = Batch(latents, latents.clone(), torch.zeros(rows, dtype=torch.long), _no_text(unet, rows))
    schedule: Any = SimpleNamespace(config=SimpleNamespace(prediction_type="epsilon"), add_noise=lambda clean, noise, _: clean + noise)
    dtype = DTYPES.get(Precision.bf16 if cfg.training.mixed_precision is Precision.fp16 else cfg.training.mixed_precision)
    for part in parts.values():
        part.train()
    arm.before_step(0)
    with PeakMemory() as memory:
        with torch.autocast("cpu", dtype) if dtype else nullcontext():
            if encoders:
                batch = replace(batch, text=Conditioning.stack([_text(encoders) for _ in range(texts)], rows // texts))
            loss, _ = training_loss(unet, schedule, batch, arm.penalty())
        loss.backward()  # type: ignore[no-untyped-call]
    return int(memory.peak)


def _no_text(unet: UNet2DConditionModel, rows: int) -> Conditioning:
    """What frozen encoders make of a text, without numbers."""
    conf = unet.config
    states = torch.zeros(1, TOKENS, conf.cross_attention_dim).expand(rows, -1, -1)
    if not conf.addition_embed_type:
        return Conditioning(states)
    pooled = conf.projection_class_embeddings_input_dim - SIZES * conf.addition_time_embed_dim
    return Conditioning(states, {"text_embeds": torch.zeros(rows, pooled), "time_ids": torch.zeros(rows, SIZES)})


def _text(encoders: Sequence[Any]) -> Conditioning:
    """A text of trained encoders, one row, as the pipelines of Stable Diffusion (one encoder) and SDXL (two) read it."""
    read = [one(torch.zeros(1, one.config.max_position_embeddings, dtype=torch.long), output_hidden_states=True) for one in encoders]
    if len(read) == 1:
        return Conditioning(read[0].last_hidden_state)
    states = torch.cat([one.hidden_states[-2] for one in read], -1)
    return Conditioning(states, {"text_embeds": read[-1].text_embeds, "time_ids": torch.zeros(1, SIZES)})


def planned(cfg: Config) -> str:
    """What a run would be called, what its verdict could show, and the memory that training needs; raises as ``report``."""
    said = power_sentence(cfg.schedule.checkpoints, image_count(cfg.sampler.prompts, cfg.sampler.images_per_prompt))
    return f"{run_name(cfg)}: {cfg.schedule.steps} steps. {said}\n{report(cfg)}"


def report(cfg: Config) -> str:
    """GB by what they are for, a line each; raises ``UserError`` where they do not fit the GPU that the run would use."""
    sizes, device = sizes_of(cfg), choose_device(cfg.device)
    rows = [f"{size / GB:8.2f} GB  {name}" for name, size in [*vars(sizes).items(), ("in all", sizes.total)]]
    if device.type == "cuda":
        room, needed = torch.cuda.mem_get_info(device)[1] / GB, sizes.total / GB + OF_CUDA
        if needed > room:
            raise UserError(
                f"training needs {needed:.1f} GB with CUDA's own, and {torch.cuda.get_device_name(device)} has {room:.1f}; {remedy(cfg)}"
            )
    return "\n".join(rows)


def remedy(cfg: Config) -> str:
    """What to change first where a run does not fit."""
    if cfg.training.mixed_precision is Precision.no:
        return "add training.mixed_precision=bf16"
    if not cfg.training.gradient_checkpointing:
        return "add training.gradient_checkpointing=true"
    return "add training=low_memory" if cfg.training.optimizer is Optimizer.adamw else "take method=lora, or a larger GPU"
