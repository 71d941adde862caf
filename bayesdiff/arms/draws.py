"""One draw of many Gaussian tensors at once: noise, sigma and the weights in use lie in flat buffers.

A tensor has a slice of every buffer. Off the CPU an operation takes a whole buffer, so that the number of launches does not
grow with the number of layers. On the CPU it takes one slice after the other, as committed records were made. On a GPU the
kernels of ``fused`` take the place of the longest sequences of operations, once they were seen to give the same bits there.

Memory, for a trained sigma of every weight, in bytes a weight: rho 4, its two moments 8, the weights in use 4, and 4 for the
noise, which the backward pass turns into rho's gradient. A second backward pass with the same draw makes the noise again.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

from bayesdiff.core.errors import first_line
from bayesdiff.core.seeds import sent

ALIGNMENT = 16
"""Slices begin at multiples of this many numbers: 64 bytes, which vector units and fused kernels want."""
CHUNK = 2**27
"""Numbers drawn at once off the CPU without the kernel: 1 GB of integers beside the result."""
SCALE = 2.0**-31 * (1 - 2.0**-24)
"""Takes integers in [-2³¹, 2³¹) a little less far than ±1, where the quantile is infinite."""
GAMMA, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""The constants of SplitMix64 (Steele, Lea and Flood 2014, OOPSLA, figure 13 and section 5)."""


def signed(number: int) -> int:
    """The 64 bits of an integer as a signed one, as tensors hold them."""
    return (number + 2**63) % 2**64 - 2**63


def _mixed(state: torch.Tensor) -> torch.Tensor:
    """SplitMix64's output function, in place, of counters (N,), int64."""
    shifted = torch.empty_like(state)
    for shift, factor in ((30, MIX_1), (27, MIX_2), (31, 0)):
        torch.bitwise_right_shift(state, shift, out=shifted)
        state.bitwise_xor_(shifted.bitwise_and_(2 ** (64 - shift) - 1))  # the shift is arithmetic: its sign bits go
        if factor:
            state.mul_(signed(factor))
    return state


def _numbers(numbers: list[int], device: torch.device) -> torch.Tensor:
    """Integers (N,) on a device."""
    return sent(torch.tensor(numbers, dtype=torch.int64), device)


def counter_normal(out: torch.Tensor, starts: Sequence[int], keys: Sequence[int]) -> None:
    """Fill a flat buffer (N,) with standard normal numbers that are a function of a slice's key and the place in it alone.

    Numbers 2i and 2i + 1 of a slice are the halves of SplitMix64's i-th output from the state ``key``, as quantiles of the
    normal distribution; the largest is 5.4. Integers are exact, so that every device draws the same.

    Args:
        starts: first place of every slice, even, the first 0; a slice ends where the next begins.
        keys: one a slice, 63 bits.
    """
    bases = [signed(key - start // 2 * GAMMA) for start, key in zip(starts, keys, strict=True)]
    if kernels := _kernels(out):
        kernels.uniform(out, starts, _numbers(bases, out.device), SCALE, (GAMMA, MIX_1, MIX_2))
    else:
        _uniform(out, starts, bases)
    out.erfinv_().mul_(2.0**0.5)


def _uniform(out: torch.Tensor, starts: Sequence[int], bases: Sequence[int]) -> None:
    """Fill a flat buffer (N,) with halves of outputs times ``SCALE``; ``bases`` are the states that slices would have at place 0."""
    stops = [*starts[1:], len(out)]
    for first in range(0, len(out), CHUNK):
        last = min(first + CHUNK, len(out))
        within = [i for i, (a, b) in enumerate(zip(starts, stops, strict=True)) if a < last and b > first]
        counts = [(min(stops[i], last) - max(starts[i], first)) // 2 for i in within]
        state = torch.repeat_interleave(
            _numbers([bases[i] for i in within], out.device), _numbers(counts, out.device), output_size=(last - first) // 2
        )  # fmt: skip
        state.add_(torch.arange(first // 2, last // 2, device=out.device), alpha=signed(GAMMA))
        out[first:last].copy_(_mixed(state).view(torch.int32))
    out.mul_(SCALE)


def _kernels(out: torch.Tensor) -> Any:
    """The kernels (``fused``) that can fill a buffer (N,), or None."""
    return _verified(out.device) if out.device.type == "cuda" and out.dtype is torch.float32 else None


@cache
def _verified(device: torch.device) -> Any:
    """The kernels, once a small draw has the bits of the plain operations on a device; else None, with a warning that says why."""
    try:
        from bayesdiff.arms import fused  # it needs Triton, which needs a C compiler

        why = _difference(fused, device)
    except Exception as error:  # whatever is missing or fails there, the plain operations are left
        why = first_line(error)
    if why:
        warnings.warn(f"{device}: Gaussian weights are drawn without the fused kernels, which takes longer: {why}", stacklevel=2)
    return None if why else fused


def _difference(kernels: Any, device: torch.device) -> str:
    """What kernels give other bits of, empty if nothing: slices of none to many tiles, and states that leave 63 bits."""
    starts, size = [0, 16, 16, 48, 5008, 70544, 70560], 90_000
    bases = [0, 1, -1, 2**63 - 1, -(2**63), signed(GAMMA), signed(-(size // 2) * GAMMA)]
    plain, ours = (torch.full((size,), float("nan"), device=device) for _ in range(2))
    _uniform(plain, starts, bases)
    kernels.uniform(ours, starts, _numbers(bases, device), SCALE, (GAMMA, MIX_1, MIX_2))
    if not _same_bits(plain, ours):
        return "their draw is another one"
    sigmas = plain[: len(starts) * ALIGNMENT : ALIGNMENT].clone()
    counts = [after - start for start, after in zip(starts, [*starts[1:], size], strict=True)]
    kernels.scaled(ours, plain, sigmas, starts)
    wide = torch.repeat_interleave(sigmas, _numbers(counts, device), output_size=size)
    return "" if _same_bits(wide.mul_(plain), ours) else "their products are other ones"


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


class Draw:
    """The buffers of Gaussian tensors that are drawn together, and the draw that they hold.

    Args:
        names: what each is called, for its stream of noise.
        means: the parameters themselves, of any shapes (…).
        rhos: rho of each, of shapes that broadcast; where they are parameters they move into a buffer of their own.
        direct: whether rho is sigma itself.
    """

    def __init__(self, names: list[str], means: list[torch.Tensor], rhos: list[torch.Tensor], direct: bool):
        self.names, self.means, self.rhos, self.direct = names, means, rhos, direct
        first = means[0]
        self.by_slice = first.device.type == "cpu"
        if self.by_slice:
            _read_rare_constants()
        self.starts, size = _layout(means)
        self.eps, self.weights = (torch.zeros(size, device=first.device, dtype=first.dtype) for _ in range(2))
        self.one_each = all(mean.shape == rho.shape for mean, rho in zip(means, rhos, strict=True))
        self.one_a_tensor = not self.one_each and all(rho.numel() == 1 for rho in rhos)
        self.rho = self._gather()
        self.noise, self.in_use = self._views(self.eps), self._views(self.weights)
        self.keys: list[int] = []
        self.spent = False

    def _views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        pairs = zip(self.starts, self.means, strict=True)
        return [flat[start : start + mean.numel()].view(mean.shape) for start, mean in pairs]

    @torch.no_grad()
    def _gather(self) -> torch.Tensor:
        """Move all rhos into one flat buffer, laid out as the weights where each weight has one."""
        self.rho_starts, size = starts, size = (self.starts, len(self.eps)) if self.one_each else _layout(self.rhos)
        flat = torch.zeros(size, device=self.eps.device, dtype=self.eps.dtype)
        for start, rho in zip(starts, self.rhos, strict=True):
            view = flat[start : start + rho.numel()].view(rho.shape)
            view.copy_(rho)
            rho.data = view
        self.repeats = [] if self.one_each else _repeats(starts, size, self.rhos, self.starts, len(self.eps), self.means)
        return flat

    def new(self, keys: list[int]) -> list[torch.Tensor]:
        """Draw anew, one key a tensor; the weights in use mean + sigma · eps, with their gradient, shapes (…) as the means'."""
        self.keys, self.spent = keys, False
        with torch.no_grad():
            if self.direct:
                self.rho.clamp_(min=SMALLEST)
            self._fill(self.eps)
        trained = [*self.means, *self.rhos]
        return list(_Weights.apply(self, *trained))

    def _fill(self, eps: torch.Tensor) -> None:
        if self.by_slice:
            generator = torch.Generator()
            for view, key in zip(self.noise if eps is self.eps else self._views(eps), self.keys, strict=True):
                view.normal_(generator=generator.manual_seed(key))
        else:
            counter_normal(eps, self.starts, self.keys)

    def combine(self) -> None:
        """Put mean + sigma · eps into the buffer (N,) of the weights in use."""
        if self.by_slice:
            for mean, rho, eps, out in zip(self.means, self.rhos, self.noise, self.in_use, strict=True):
                torch.addcmul(mean, sigma_of(rho, self.direct), eps, out=out)
            return
        self._scale()
        torch._foreach_add_(self.in_use, self.means)

    def _scale(self) -> None:
        """Put sigma · eps into the buffer (N,) of the weights in use."""
        if self.one_a_tensor and (kernels := _kernels(self.weights)):
            kernels.scaled(self.weights, self.eps, sigma_of(self.rho, self.direct)[::ALIGNMENT], self.starts)
            return
        if self.one_each and not self.direct:
            torch.ops.aten.softplus.out(self.rho, out=self.weights)
        else:
            self.weights.copy_(self._wide(sigma_of(self.rho, self.direct)))
        self.weights.mul_(self.eps)

    def _wide(self, sigma: torch.Tensor) -> torch.Tensor:
        """Sigma of every weight (N,), from one a weight, row or tensor."""
        if self.one_each:
            return sigma
        return torch.repeat_interleave(sigma, _numbers(self.repeats, sigma.device), output_size=len(self.eps))

    def collect(self, gradients: Sequence[torch.Tensor | None]) -> None:
        """Add the gradient of the weights in use, shapes (…), times eps and sigma's slope, to rho's; the noise is spent on it."""
        eps = self.eps if not self.spent else torch.empty_like(self.eps)
        if self.spent:
            self._fill(eps)
        self.spent = True
        views = self.noise if eps is self.eps else self._views(eps)
        known = [(i, gradient) for i, gradient in enumerate(gradients) if gradient is not None]
        torch._foreach_mul_([views[i] for i, _ in known], [gradient for _, gradient in known])
        flat, slopes = (eps, views) if self.one_each else self._sums(views)
        if not self.direct:
            self._slope(flat, slopes)
        for i, _ in known:
            rho = self.rhos[i]
            rho.grad = slopes[i] if rho.grad is None else rho.grad.add_(slopes[i])

    def _sums(self, views: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Gradients of sigmas that several weights share: a flat buffer as rho's, and its slices."""
        flat = torch.zeros_like(self.rho)
        slices = [flat[start : start + rho.numel()].view(rho.shape) for start, rho in zip(self.rho_starts, self.rhos, strict=True)]
        for view, rho, out in zip(views, self.rhos, slices, strict=True):
            out.copy_(view) if view.shape == rho.shape else torch.sum(
                view, [i for i, length in enumerate(rho.shape) if length == 1], keepdim=True, out=out
            )  # fmt: skip
        return flat, slices

    def _slope(self, flat: torch.Tensor, slices: list[torch.Tensor]) -> None:
        """Multiply gradients of sigma, in place, by softplus' slope at rho."""
        slope = torch.ops.aten.softplus_backward.grad_input
        for gradient, rho in zip(slices, self.rhos, strict=True) if self.by_slice else [(flat, self.rho)]:
            slope(gradient, rho, 1, 20, grad_input=gradient)


@cache
def _read_rare_constants() -> None:
    """Make softplus ten times as quick on CPUs with AVX-512, without another bit: 2.5 ms, not 24.5, for 2.3 million numbers.

    PyTorch's log1p (SLEEF's, seen in 2.14.1 on an AMD EPYC) loads constants that only -0 and the like need under a mask, for every
    vector. While their page was never read, the processor suppresses a page fault at each of these loads. One -0 reads it.
    """
    torch.log1p(torch.full((64,), -0.0))


SMALLEST = 1e-7
"""Where sigmas that are stored directly are clamped (code of record: ``models/layers/linear.py``)."""


def sigma_of(rho: torch.Tensor, direct: bool) -> torch.Tensor:
    """Standard deviation of any shape (…), that of ``rho``."""
    return rho if direct else nn.functional.softplus(rho)


def _layout(tensors: Sequence[torch.Tensor]) -> tuple[list[int], int]:
    """Where the slice of every tensor begins, and the length of the buffer."""
    starts, size = [], 0
    for tensor in tensors:
        starts.append(size)
        size += -(-tensor.numel() // ALIGNMENT) * ALIGNMENT
    return starts, size


def _repeats(
    starts: list[int], size: int, rhos: list[torch.Tensor], wide: list[int], total: int, means: list[torch.Tensor]
) -> list[int]:  # fmt: skip
    """How often each number of the rhos' buffer stands in the weights' one; what fills a slice up goes to its last number."""
    counts = [0] * size
    for start, rho, mean, first, after in zip(starts, rhos, means, wide, [*wide[1:], total], strict=True):
        counts[start : start + rho.numel()] = [mean.numel() // rho.numel()] * rho.numel()
        counts[start + rho.numel() - 1] += after - first - mean.numel()
    return counts


class _Weights(torch.autograd.Function):
    """Means and rhos to the weights in use. A backward pass hands the gradient to the means as it is, and ``collect``s rho's.

    rho's gradient is set here and not returned: autograd would copy it.
    """

    @staticmethod
    def forward(ctx: Any, draw: Draw, *trained: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.draw = draw
        ctx.set_materialize_grads(False)
        draw.combine()
        return tuple(view.view_as(view) for view in draw.in_use)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        draw: Draw = ctx.draw
        if any(ctx.needs_input_grad[1 + len(draw.means) :]):
            draw.collect(gradients)
        return (None, *gradients, *(None for _ in draw.rhos))
