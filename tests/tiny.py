"""A U-Net of a few thousand weights and the data to train it on: what training does, in milliseconds a step."""

from __future__ import annotations

import hashlib
import itertools
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

from bayesdiff.config.schema import Config, ModelConf
from bayesdiff.core.files import atomic_write
from bayesdiff.diffusion.batch import Conditioning, Encoded
from bayesdiff.diffusion.pipeline import load_pipeline
from bayesdiff.diffusion.precision import use_arithmetic
from bayesdiff.pretraining.denoiser import build_scheduler
from bayesdiff.toybox.vocabulary import BOS, EOS, MAX_TOKENS, PAD, vocabulary
from bayesdiff.training.loop import Training, prepare, train

Make = Callable[..., Config]
BNN_ON = "bnn=on"
BNN_OFF = "bnn=off"
ARMS = [BNN_OFF, BNN_ON]
METHOD_NAMES = ["dreambooth", "lora", "oft"]
CONTROLS = ["weight_noise", "ema", "input_noise", "dropout", "lr_decay", "l2_to_pretrained"]
RANKED = {name: [f"method={name}"] + ["method.rank=2"] * (name != "dreambooth") for name in METHOD_NAMES}
"""The words of a method on the tiny U-Net: adapters of a rank that divides its layers."""
METHOD_ARMS = [[*RANKED[method], arm] for method in METHOD_NAMES for arm in ARMS]
"""Overrides for every method with and without Gaussian weights, on the tiny U-Net."""


def tiny_unet() -> UNet2DConditionModel:
    """Self-attention, cross-attention and feed-forward, as Stable Diffusion names them."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=2, cross_attention_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    return unet.requires_grad_(False).eval()


def tiny_text_encoder() -> CLIPTextModel:
    torch.manual_seed(1)
    sizes = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return CLIPTextModel(CLIPTextConfig(max_position_embeddings=5, bos_token_id=17, eos_token_id=18, pad_token_id=19, **sizes)).eval()


def thin_unet() -> UNet2DConditionModel:
    """The toybox's U-Net with two levels, each of an eighth of the width, for latents of a quarter of the side."""
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4,
    )  # fmt: skip


def thin_text_encoder() -> CLIPTextModel:
    """The toybox's text encoder with one layer of a sixth of the width, for the same tokens."""
    words = vocabulary()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": words[BOS], "eos_token_id": words[EOS], "pad_token_id": words[PAD]}
    return CLIPTextModel(CLIPTextConfig(vocab_size=len(words), max_position_embeddings=MAX_TOKENS, **sizes, **ends))


def thin_vae() -> AutoencoderKL:
    """The toybox's autoencoder, an eighth as wide, and of factor 8: a run's time is its U-Net's, which reads 16 times fewer latents."""
    return AutoencoderKL(
        latent_channels=4, sample_size=64, scaling_factor=1.0, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=4,
        mid_block_add_attention=False,
    )  # fmt: skip


def tiny_inputs() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    latents, states = torch.randn(2, 4, 8, 8, generator=g), torch.randn(2, 5, 8, generator=g)
    return {"sample": latents, "timestep": torch.tensor([3, 700]), "encoder_hidden_states": states}


def encoded(count: int = 3, std: float = 0.1) -> Encoded:
    """Posteriors of ``count`` pictures; picture i has the mean i everywhere."""
    mean = torch.arange(count, dtype=torch.float32)[:, None, None, None].expand(-1, 4, 8, 8).clone()
    states = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(2))
    return Encoded(mean, torch.full_like(mean, std), Conditioning(states))


def tiny_training(cfg: Config, instance: Encoded | None = None, classes: Encoded | None = None) -> Training:
    pipe: Any = SimpleNamespace(unet=tiny_unet(), scheduler=build_scheduler("linear"))
    use_arithmetic(pipe.unet, cfg.training)
    return prepare(pipe, cfg, encoded() if instance is None else instance, classes)


def silent(step: int, parts: dict[str, float]) -> None:
    """A report to nobody."""


def trained(cfg: Config, steps: int, **data: Encoded) -> Training:
    state = tiny_training(cfg, **data)
    train(state, cfg, 0, steps, silent)
    return state


def weights(state: Training) -> dict[str, torch.Tensor]:
    """Everything of the trained models that a step changes: plain weights, mu and rho."""
    return {name: value.detach().clone() for part in state.parts.values() for name, value in part.state_dict().items()}


def differing(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    """Names whose tensors are not bit-equal."""
    return sorted(name for name in a.keys() | b.keys() if name not in a or name not in b or not torch.equal(a[name], b[name]))


def artists(artist: Any) -> Iterator[Any]:
    """A figure and all in it, of an axis its label alone: its hundreds of ticks are made when somebody asks for them."""
    from matplotlib.axis import Axis

    yield artist
    for child in artist.get_children():
        yield from [child.label] if isinstance(child, Axis) else artists(child)


def save_few_pixels(figure: Any, *targets: Path) -> None:
    """In place of ``save_figure``: a picture that is another one where a line, a text or an image of the figure is."""
    import matplotlib.pyplot as plt
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

    digest = hashlib.sha256()
    for artist in artists(figure):
        if isinstance(artist, Line2D):
            digest.update(np.asarray(artist.get_xydata()).tobytes())
        elif isinstance(artist, Text):
            digest.update(artist.get_text().encode())
        elif isinstance(artist, AxesImage):
            digest.update(np.asarray(artist.get_array()).tobytes())
    for target in targets:
        with atomic_write(target) as part:
            Image.frombytes("L", (8, 4), digest.digest()).save(part, format="PNG")
    plt.close(figure)


def stop_at(patch: pytest.MonkeyPatch, name: str, call: int, error: type[BaseException] | BaseException = KeyboardInterrupt) -> None:
    """Ctrl-C, or an error, when the function is called for the ``call``-th time."""
    real, calls = pkgutil.resolve_name(name), itertools.count(1)

    def stopped(*arguments: Any, **named: Any) -> Any:
        if next(calls) == call:
            raise error
        return real(*arguments, **named)

    patch.setattr(name, stopped)


def load(folder: Path) -> StableDiffusionPipeline:
    return load_pipeline(ModelConf("toybox", str(folder), resolution=64), torch.device("cpu"))
