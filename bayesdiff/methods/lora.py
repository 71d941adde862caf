"""LoRA: W + (alpha / rank) · up · down on the attention projections (arXiv 2106.09685), by peft.

As in the code of record (``train_dreambooth_bayes_lora.py``): rank 4, alpha = rank, query, key, value
and output of every attention, ``down`` from N(0, 1 / rank²), ``up`` from zero, and ``up`` Gaussian.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import nn

from bayesdiff.arms.gaussian import copy_tensors, mean_state, storable
from bayesdiff.arms.layers import select_names
from bayesdiff.config.schema import BnnConf, MethodConf
from bayesdiff.core.errors import UserError, did_you_mean, shortened
from bayesdiff.core.seeds import generator

if TYPE_CHECKING:
    from peft import LoraConfig

SIGMA_SCALE = 1.0
FILE = "pytorch_lora_weights.safetensors"
UNET_MEANS = (FILE, "unet.")
TEXT_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj"]
PRESETS = {"default": r"\.lora_B\.", "up": r"\.lora_B\.", "down": r"\.lora_A\.", "both": r"\.lora_[AB]\."}


def _config(conf: MethodConf, targets: list[str]) -> LoraConfig:
    from peft import LoraConfig

    alpha = conf.rank if conf.alpha is None else conf.alpha
    return LoraConfig(r=conf.rank, lora_alpha=alpha, target_modules=targets, init_lora_weights="gaussian")  # type: ignore[arg-type]


def check_targets(unet: nn.Module, targets: list[str]) -> None:
    """Raises ``UserError`` for an end of layers' names that no linear or convolution layer of the U-Net has."""
    layers = [name for name, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            known = sorted({re.sub(r".*\.(?=[^.]*[a-z])", "", name) for name in layers})
            near = did_you_mean(target, known)
            raise UserError(f"method.targets: no layer's name ends in {shortened(target)!r}; such ends are {', '.join(known)}{near}")


def build(parts: dict[str, nn.Module], conf: MethodConf, seed: int) -> list[nn.Parameter]:
    """Add the adapter; ``down`` starts from a draw that is a function of (seed, layer)."""
    check_targets(parts["unet"], conf.targets)
    trained = []
    for name, part in parts.items():
        part.add_adapter(_config(conf, conf.targets if name == "unet" else TEXT_TARGETS))  # type: ignore[operator]
        for key, parameter in part.named_parameters():
            if ".lora_A." in key:
                draw = torch.randn(parameter.shape, generator=generator(seed, f"lora/{name}/{key}")) / conf.rank
                parameter.data.copy_(draw)
            if parameter.requires_grad:
                trained.append(parameter)
    return trained


def bayesian_targets(unet: nn.Module, conf: BnnConf) -> list[str]:
    """``up`` (default), ``down``, ``both``, or an expression on the names of these matrices."""
    names = [name for name, _ in unet.named_modules() if name.endswith((".lora_A.default", ".lora_B.default"))]
    return select_names(names, conf.layers, PRESETS)


def _adapter(part: nn.Module) -> dict[str, torch.Tensor]:
    """The adapter's mean by the names of a saved LoRA file (without the part's prefix)."""
    return {key.replace(".default", ""): value for key, value in mean_state(part) if ".lora_" in key}


def export(parts: dict[str, nn.Module], folder: Path) -> None:
    """Write the file that ``pipe.load_lora_weights(folder)`` reads; it carries alpha."""
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    from diffusers.training_utils import _collate_lora_metadata

    layers = {f"{name}_lora_layers": storable(_adapter(part).items()) for name, part in parts.items()}
    pipeline = StableDiffusionXLPipeline if "text_encoder_2" in parts else StableDiffusionPipeline
    pipeline.save_lora_weights(folder, **layers, **_collate_lora_metadata(parts))


def load(parts: dict[str, nn.Module], folder: Path) -> None:
    stored = load_file(folder / FILE)
    for name, part in parts.items():
        own = {key.removeprefix(f"{name}."): value for key, value in stored.items() if key.startswith(f"{name}.")}
        copy_tensors(_adapter(part), own)
