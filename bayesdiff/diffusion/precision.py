"""The U-Net's arithmetic while sampling: half precision where the GPU has it.

Only the U-Net's forward pass runs in half precision. Guidance, the scheduler's steps, the text encoders and the decoder stay in
float32: SDXL's decoder overflows in fp16, and half precision there would add grain that high-frequency energy measures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from bayesdiff.config.schema import SamplerPrecision, TrainingConf
from bayesdiff.core.errors import UserError

HALVES = {SamplerPrecision.bf16: torch.bfloat16, SamplerPrecision.fp16: torch.float16}


def resolved(precision: SamplerPrecision, device: torch.device, key: str = "sampler.precision") -> SamplerPrecision:
    """What ``auto`` is on a device while sampling.

    Raises:
        UserError: the device cannot compute in the precision that the setting ``key`` asks for.
    """
    on_gpu = device.type == "cuda"
    has_bf16 = not on_gpu or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision is SamplerPrecision.auto:
        return SamplerPrecision.bf16 if on_gpu and has_bf16 else SamplerPrecision.fp32
    if precision is SamplerPrecision.fp16 and not on_gpu:
        raise UserError(f"{key}=fp16: needs a CUDA device; choose bf16 or fp32")
    if precision is SamplerPrecision.bf16 and not has_bf16:
        raise UserError(f"{key}=bf16: this GPU has no bf16; choose fp16 or fp32")
    return precision


def use_arithmetic(unet: nn.Module, conf: TrainingConf) -> None:
    """Set what ``training.tf32`` and ``training.channels_last`` ask for, before an optimiser knows the weights."""
    torch.backends.cuda.matmul.allow_tf32 = conf.tf32
    torch.backends.cudnn.allow_tf32 = conf.tf32  # torch's own default is True: convolutions alone would round
    if conf.channels_last:
        unet.to(memory_format=torch.channels_last)


@contextmanager
def unet_in(unet: nn.Module, precision: SamplerPrecision) -> Iterator[None]:
    """Within the block the U-Net computes in a precision, and returns float32; ``fp32`` changes nothing."""
    if precision not in HALVES:
        yield
        return
    inner, own = unet.forward, vars(unet).get("forward")
    device = next(unet.parameters()).device.type

    def forward(*given: Any, **named: Any) -> Any:
        # no cache: a recorded forward pass must cast the weights anew, which training moves
        with torch.autocast(device, HALVES[precision], cache_enabled=False):
            found = inner(*given, **named)
        if named.get("return_dict") is False:
            return (found[0].float(), *found[1:])
        found.sample = found.sample.float()
        return found

    unet.forward = forward
    try:
        yield
    finally:
        if own is None:
            del unet.forward
        else:
            unet.forward = own
