"""Kernels that write in one pass over GPU memory what ``draws`` writes in many, to the bit. ``draws`` imports them on a GPU alone.

A program of a kernel takes a tile, consecutive numbers of one slice: it reads once what the slice has one of.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
import triton
import triton.language as tl

TILE = 1024
"""Pairs of numbers that a program writes."""


@triton.jit  # type: ignore[untyped-decorator]
def _write_uniform(
    out: tl.tensor, places: tl.tensor, owners: tl.tensor, bases: tl.tensor,
    SCALE: tl.constexpr, GAMMA: tl.constexpr, MIX_1: tl.constexpr, MIX_2: tl.constexpr, TILE: tl.constexpr,
) -> None:  # fmt: skip
    tile = tl.program_id(0)
    place = tl.load(places + tile) + tl.arange(0, TILE)
    base = tl.load(bases + tl.load(owners + tile))
    z = (base + tl.zeros_like(place)).to(tl.uint64, bitcast=True) + place.to(tl.uint64, bitcast=True) * GAMMA
    z = (z ^ (z >> 30)) * MIX_1  # of unsigned integers the shift is logical, and what leaves 64 bits is dropped
    z = (z ^ (z >> 27)) * MIX_2
    z = z ^ (z >> 31)
    low = z.to(tl.uint32).to(tl.int32, bitcast=True).to(tl.float32) * SCALE
    high = (z >> 32).to(tl.uint32).to(tl.int32, bitcast=True).to(tl.float32) * SCALE
    pair = low.to(tl.uint32, bitcast=True).to(tl.uint64) | (high.to(tl.uint32, bitcast=True).to(tl.uint64) << 32)
    tl.store(out + place, pair.to(tl.int64, bitcast=True), mask=place < tl.load(places + tile + 1))


@triton.jit  # type: ignore[untyped-decorator]
def _write_scaled(
    out: tl.tensor, eps: tl.tensor, sigmas: tl.tensor, places: tl.tensor, owners: tl.tensor, STRIDE: tl.constexpr, TILE: tl.constexpr
) -> None:
    tile = tl.program_id(0)
    place = 2 * tl.load(places + tile) + tl.arange(0, 2 * TILE)
    there = place < 2 * tl.load(places + tile + 1)
    sigma = tl.load(sigmas + STRIDE * tl.load(owners + tile))
    tl.store(out + place, tl.load(eps + place, mask=there) * sigma, mask=there)


@cache
def _tiles(starts: tuple[int, ...], size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Where tiles begin, in pairs, and the last one ends (T + 1,); the slice of each (T,). A table for a layout: 12 bytes a tile."""
    firsts = [torch.arange(a // 2, b // 2, TILE) for a, b in zip(starts, [*starts[1:], size], strict=True)]
    owners = torch.repeat_interleave(torch.tensor([len(one) for one in firsts]))
    return torch.cat([*firsts, torch.tensor([size // 2])]).to(device), owners.int().to(device)


def uniform(out: torch.Tensor, starts: Sequence[int], bases: torch.Tensor, scale: float, constants: tuple[int, int, int]) -> None:
    """Fill a flat float32 buffer (N,), N even, as ``draws._uniform`` does.

    Args:
        starts: first place of every slice, even, the first 0; a slice ends where the next begins.
        bases: the states (S,), int64, that slices would have at the buffer's place 0.
        scale: of the integers.
        constants: of SplitMix64: gamma and its two factors.
    """
    places, owners = _tiles(tuple(starts), len(out), out.device)
    with torch.cuda.device(out.get_device()):
        _write_uniform[(len(owners),)](out.view(torch.int64), places, owners, bases, scale, *constants, TILE)


def scaled(out: torch.Tensor, eps: torch.Tensor, sigmas: torch.Tensor, starts: Sequence[int]) -> None:
    """Put sigma · eps into a flat buffer (N,), from eps (N,) and one sigma a slice (S,), all float32."""
    places, owners = _tiles(tuple(starts), len(out), out.device)
    with torch.cuda.device(out.get_device()):
        _write_scaled[(len(owners),)](out, eps, sigmas, places, owners, sigmas.stride(0), TILE)
