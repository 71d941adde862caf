"""torch.compile on the U-Net: all of it, or its repeated transformer blocks alone."""

from __future__ import annotations

from typing import Any

import torch

from bayesdiff.config.schema import TrainingConf
from bayesdiff.core.errors import first_line
from bayesdiff.core.output import say
from bayesdiff.core.processes import is_main_process

WHOLE, BLOCKS = "the whole U-Net", "its repeated blocks"
VARIANTS = 4
"""Of each block at most: in training and not, with drawn weights and at their mean. Beyond the limit PyTorch runs eagerly, unasked."""


def compile_unet(unet: Any, conf: TrainingConf) -> str:
    """Do what ``training.compile`` and ``training.compile_blocks`` ask for; compiling itself waits for the first call.

    Returns:
        What is compiled, or ``nothing:`` and why, which is printed too; empty where nothing was asked for.
    """
    if conf.compile:
        unet.compile()
        return WHOLE
    if not conf.compile_blocks:
        return ""
    if why := no_compiler(next(unet.parameters()).device):
        return _left_out(why)
    kinds = getattr(unet, "_repeated_blocks", None) or []
    blocks = [module for module in unet.modules() if type(module).__name__ in kinds]
    if not blocks:
        return _left_out(f"{type(unet).__name__} names no repeated blocks, or has none of them")
    limit = VARIANTS * len(blocks)  # every width and resolution is a variant of the same code
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, limit)
    unet.compile_repeated_blocks()
    return BLOCKS


def _left_out(why: str) -> str:
    if is_main_process():
        say(f"training.compile_blocks=true: nothing is compiled: {why}")
    return f"nothing: {why}"


def no_compiler(device: torch.device) -> str:
    """Why torch.compile cannot make kernels for a device here; empty where it can."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return "" if has_triton() else "Triton is not installed, or does not know this GPU"
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:  # torch has an exception of its own, which moves between versions
        return f"there is no C++ compiler ({first_line(error)})"
    return ""
