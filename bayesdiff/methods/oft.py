"""OFT: the input of the attention projections is rotated, W · R with R block-diagonal (arXiv 2306.07280), by peft.

As in the code of record (``oft_utils/attention_processor.py``): four blocks, exact Cayley map, no
bound on the rotation (not COFT), attention linears only. There each block holds a full matrix of
which the skew half 0.5 · (R - Rᵀ) acts, so that noise of sigma on R is noise of sigma / √2 on the skew
entries, which is what peft stores: ``SIGMA_SCALE``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bayesdiff.arms.gaussian import copy_tensors, mean_state, storable
from bayesdiff.arms.layers import select_names
from bayesdiff.config.schema import BnnConf, MethodConf
from bayesdiff.core.errors import UserError
from bayesdiff.methods.lora import TEXT_TARGETS, check_targets

if TYPE_CHECKING:
    from peft import OFTConfig

SIGMA_SCALE = 1 / math.sqrt(2)
UNRECORDABLE = "OFT solves linear systems, which no graph can hold"
FILE, PREFIX = "adapter_model.safetensors", "base_model.model."
UNET_MEANS = (f"unet/{FILE}", PREFIX)
PRESETS = {"default": r"^up_blocks\.", "up_blocks": r"^up_blocks\.", "all": ""}


def _config(conf: MethodConf, targets: list[str]) -> OFTConfig:
    from peft import OFTConfig

    # the Cayley series that peft takes by default leaves the rotation group away from zero
    return OFTConfig(r=conf.rank, oft_block_size=0, use_cayley_neumann=False, coft=False, target_modules=targets)


def _refuse_convolutions(unet: nn.Module, targets: list[str]) -> None:
    """Raises ``UserError``: the patches of a k×k kernel overlap, and a rotation of them is not one of the image."""
    for name, module in unet.named_modules():
        if isinstance(module, nn.Conv2d) and any(name == target or name.endswith(f".{target}") for target in targets):
            size = "×".join(map(str, module.kernel_size))
            raise UserError(f"method.targets: {name} is a {size} convolution, which OFT cannot rotate exactly; name linear layers")


def build(parts: dict[str, nn.Module], conf: MethodConf, seed: int) -> list[nn.Parameter]:
    """Add the adapter, the identity at the start. Raises ``UserError`` for convolutions and sizes that do not divide."""
    check_targets(parts["unet"], conf.targets)
    _refuse_convolutions(parts["unet"], conf.targets)
    for name, part in parts.items():
        targets = conf.targets if name == "unet" else TEXT_TARGETS
        for key, module in part.named_modules():
            if isinstance(module, nn.Linear) and key.endswith(tuple(targets)) and module.in_features % conf.rank:
                raise UserError(
                    f"method.rank={conf.rank}: does not divide the {module.in_features} inputs of {key}; give a number that does, such as 4"
                )
        part.add_adapter(_config(conf, targets))  # type: ignore[operator]
    return [p for part in parts.values() for p in part.parameters() if p.requires_grad]


def bayesian_targets(unet: nn.Module, conf: BnnConf) -> list[str]:
    """``up_blocks`` (default, as released), ``all``, or an expression on the names of the rotations."""
    names = [name for name, _ in unet.named_modules() if name.endswith(".oft_R.default")]
    return select_names(names, conf.layers, PRESETS)


def _adapter(part: nn.Module) -> dict[str, torch.Tensor]:
    """The adapter's mean by the names of a saved peft model."""
    return {PREFIX + key.replace(".default", ""): value for key, value in mean_state(part) if ".oft_R." in key}


def export(parts: dict[str, nn.Module], folder: Path) -> None:
    """Write ``folder/<part>`` as peft does: ``PeftModel.from_pretrained(unet, folder)`` reads it."""
    for name, part in parts.items():
        part.peft_config["default"].save_pretrained(folder / name)  # type: ignore[index,union-attr]
        save_file(storable(_adapter(part).items()), folder / name / FILE, metadata={"format": "pt"})


def load(parts: dict[str, nn.Module], folder: Path) -> None:
    for name, part in parts.items():
        copy_tensors(_adapter(part), load_file(folder / name / FILE))
