"""Latents to pixels: as many images at once as fit a bound, always in float32.

SDXL's decoder overflows in fp16, which its configuration calls ``force_upcast``. Here every decoder stays in float32, as it was
loaded, also where the U-Net samples in half precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

MOST_BYTES = 4 * 10**9
"""Of the results that decoding holds at once; no more than a training step's gradients, which are not there while sampling."""
HELD = 4
"""Results of the widest layer that are held at once, at most: three by count, and what convolutions need beside them."""


def images_at_once(vae: Any, height: int, width: int) -> int:
    """How many latents (C, height, width) are decoded together: a function of sizes alone, so that a picture is too."""
    channels = vae.config.block_out_channels
    pixels = height * width * 4 ** (len(channels) - 1)
    widest = max(channels[:2]) * pixels * torch.finfo(torch.float32).bits // 8  # the last block begins with its predecessor's channels
    return max(1, int(MOST_BYTES // (HELD * widest)))


@contextmanager
def decoded_in_parts(vae: Any) -> Iterator[None]:
    """Within the block ``vae.decode`` takes a batch in parts of ``images_at_once``, in float32."""
    if vae is None or "decode" in vars(vae):
        yield
        return
    own = vae.decode

    def decode(latents: torch.Tensor, return_dict: bool = True, **named: Any) -> Any:
        parts = torch.split(latents, images_at_once(vae, *latents.shape[-2:]))
        with torch.autocast(latents.device.type, enabled=False):
            pixels = torch.cat([own(part, return_dict=False, **named)[0] for part in parts])
        return SimpleNamespace(sample=pixels) if return_dict else (pixels,)

    vae.decode = decode
    try:
        yield
    finally:
        del vae.decode
