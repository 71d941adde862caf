"""Randomness as a function of (seed, stream, step), never of what was drawn before.

Every draw of the suite names its stream ("noise", "timesteps", "weights/<layer>" …). A run that was
stopped and resumed, and the two arms of a pair, therefore see the same draws.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, stream: str, step: int = 0) -> int:
    """A 63-bit seed for one stream at one step; stable across platforms and versions."""
    digest = hashlib.sha256(f"{seed}\0{stream}\0{step}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, stream: str, step: int = 0) -> torch.Generator:
    """A CPU generator for one stream at one step.

    Draws are made on the CPU and moved, so that a GPU run sees the same noise as a CPU run.
    """
    import torch

    return torch.Generator().manual_seed(derive(seed, stream, step))


def sent(drawn: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU, any shape (…), on another device; the host does not wait for the copy."""
    return (drawn.pin_memory() if device.type == "cuda" else drawn).to(device, non_blocking=True)
