"""How large the swings of a run are from one checkpoint to the next, and over how many steps they last.

A weight update moves all images together. Between checkpoints that are far apart such swings are independent; between
close ones they are shared, and then many low checkpoints in a row are one swing and no stage. What a curve shows beside
its slow course (a line with few knots) has, as a Gaussian, the likelihood

    l(s, time) = N(0; covariance of images + s² exp(-|steps apart| / time)),

restricted to what no such line explains (Patterson and Thompson 1971). Averaged over s it weighs the correlation times
(Berger, Liseo and Wolpert 1999). Those are *plausible* whose evidence is within a factor e of the best: from far-apart
checkpoints alone nearly all of them, from clusters of checkpoints a correlation time apart few. The test of a stage
(``detector``) has to hold under every plausible one. ``make calibration`` measures that it does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayesdiff.corruption.covariance import Array, ImageError, candidate_times, correlation
from bayesdiff.corruption.noise import Noise

PLAUSIBLE, PLAUSIBLE_BARE = 1.0, 1.25
"""Correlation times are plausible whose log evidence is within this of the best; on a longer bare curve, whose noise is less known."""
SLOW = 3.0
"""Factor by which the evidence has to favour times above the spacing over those below it, to say that they are longer."""
KNOTS = (4, 8)
"""Fewest and most knots of the slow course; between them, half as many as checkpoints."""
SHORT = 24
"""On so few checkpoints the size of the swings is read off the roughness alone, and a doubtful correlation time costs nothing.

The likelihood has too few contrasts there.
"""
_SIZES = np.geomspace(0.03, 12.0, 36)
"""Sizes of the swings that are weighed, in units of what the curve shows beside its slow course."""


@dataclass(frozen=True)
class Timescale:
    """What a curve says of its swings: sizes and correlation times, and how much speaks for each."""

    times: Array
    """(K,) correlation times in steps; 0 is white noise."""
    evidence: Array
    """(K,) logarithms, to a constant."""
    sizes: Array
    """(S,) standard deviations of the swings, in the metric's units."""
    weights: Array
    """(K, S) what each size counts for, given the time; rows sum to 1."""
    spacing: float
    """Mean distance of neighbouring checkpoints, in steps."""
    within: float = PLAUSIBLE
    """How far below the best the log evidence of a plausible time may lie."""

    @property
    def plausible(self) -> NDArray[np.bool_]:
        """(K,) which times a verdict has to hold under; all of them where the swings outlast the spacing."""
        return np.asarray(self.evidence >= self.evidence.max() - self.within) | self.slow

    @property
    def chance_short(self) -> float:
        """How much speaks for swings that are over by the next checkpoint, 0 to 1: the posterior of even prior odds."""
        odds, longer = np.exp(self.evidence - self.evidence.max()), self.times > self.spacing
        if longer.all() or not longer.any():
            return float(not longer.any())
        short, long = odds[~longer].mean(), odds[longer].mean()
        return float(short / (short + long))

    @property
    def slow(self) -> bool:
        """Whether the curve says that its swings last longer than the distance of its checkpoints."""
        return self.chance_short < 1 / (1 + SLOW)

    @property
    def surely_short(self) -> float:
        """From 0, where the curve is about to say so, to 1, where nothing speaks for it."""
        return max((self.chance_short - 1 / (1 + SLOW)) / (1 - 1 / (1 + SLOW)), 0.0)

    @property
    def best(self) -> int:
        """Index of the time with the most evidence."""
        return int(self.evidence.argmax())

    @property
    def span(self) -> tuple[float, float]:
        """Shortest and longest plausible time, in steps."""
        times = self.times[self.evidence >= self.evidence.max() - self.within]
        return float(times.min()), float(times.max())


def measure_timescale(
    steps: NDArray[np.int64], curve: Array, error: ImageError, *, size: float | None = None, time: float | None = None
) -> Timescale:
    """Weigh sizes and correlation times of the swings in a mean curve (T,), T at least 6.

    Args:
        steps: (T,) increasing training steps.
        error: what images add to the curve's noise; zero for a bare curve.
        size: standard deviation of the swings where it was measured elsewhere.
        time: their correlation time in steps, the same.
    """
    basis = _beside_slow_course(len(curve))
    seen, images = basis.T @ curve, basis.T @ error.covariance @ basis
    scale = max(float(np.sqrt((seen**2).mean())), 1e-12 * float(np.abs(curve).max()), 1e-100)
    sizes = scale * _SIZES if size is None else np.array([max(size, 1e-9 * scale)])
    prior = sizes**2 / (sizes**2 + float(np.trace(images)) / len(seen))  # flat in log s above the noise of images
    times = candidate_times(steps) if time is None else [time]
    logs = np.array([_likelihoods(seen, images, basis.T @ correlation(steps, at) @ basis, sizes) for at in times]) + np.log(prior)
    top = logs.max(1, keepdims=True)
    weights = np.exp(logs - top)
    evidence = np.log(weights.sum(1)) + top[:, 0]
    weights /= weights.sum(1, keepdims=True)
    within = PLAUSIBLE_BARE if len(curve) > SHORT and not error.freedom else PLAUSIBLE
    return Timescale(np.array(times), evidence, sizes, weights, float(steps[-1] - steps[0]) / (len(steps) - 1), within)


def _beside_slow_course(count: int) -> Array:
    """(count, count - knots) orthonormal contrasts that every line with equally many checkpoints between its knots passes."""
    knots = int(np.clip(count // 2, *KNOTS))
    at, places = np.arange(count), np.linspace(0, count - 1, knots)
    hats = np.maximum(0.0, 1 - np.abs(at[:, None] - places) / (places[1] - places[0]))
    return np.asarray(np.linalg.qr(hats, mode="complete")[0][:, knots:])


def _likelihoods(seen: Array, images: Array, unit: Array, sizes: Array) -> Array:
    """(S,) restricted log likelihoods: ``seen`` is normal with covariance ``images`` + s² ``unit``."""
    from scipy.linalg import eigh  # loaded by a curve, not by a help

    ratios, vectors = eigh(images, unit)
    variance = np.maximum(ratios, 0.0) + np.maximum(sizes[:, None] ** 2, 1e-200)
    log_unit = np.linalg.slogdet(unit)[1]
    return np.asarray(-0.5 * (log_unit + np.log(variance).sum(1) + ((vectors.T @ seen) ** 2 / variance).sum(1)))


def noises_at(noise: Noise, steps: NDArray[np.int64], scale: Timescale, index: int) -> tuple[Noise, ...]:
    """The noise of a curve at ``steps`` (T,) if its swings had the correlation time of this index.

    Their size is read off in one way or two.

    First off the roughness, which corners of the curve move little; on longer curves also by the likelihood, which uses what
    far-apart checkpoints show and takes corners for swings.
    """
    root: Array = np.asarray(np.linalg.cholesky(correlation(steps, float(scale.times[index])) + 1e-9 * np.eye(len(steps))))
    rough = replace(noise, root=root)
    if noise.checkpoint is not None or len(steps) <= SHORT:
        return (rough,)
    return rough, replace(rough, sizes=scale.sizes, weights=scale.weights[index])


def extra_steps(steps: NDArray[np.int64], start: int, stop: int, scale: Timescale, most: int = 12) -> tuple[int, ...]:
    """Steps at which further checkpoints would measure the swings around a dip (indices ``start`` to ``stop - 1`` of ``steps``, (T,)).

    One beside each checkpoint of the dip and of two before and after it, one correlation time away (as far as that is
    known), where the next checkpoint is not that close already.
    """
    gaps = np.diff(steps)
    time = float(np.exp(np.log(np.maximum(scale.times[scale.plausible], 1e-9)).mean()))
    apart = max(1, round(float(np.clip(time, 0.2 * gaps.min(), 0.4 * np.median(gaps)))))
    near = range(max(start - 2, 0), min(stop + 2, len(steps) - 1))
    found = [int(steps[i]) + min(apart, int(gaps[i]) // 2) for i in near if gaps[i] >= 2]
    return tuple(found[:most])
