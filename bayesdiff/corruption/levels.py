"""Which checkpoints are worse than what came before and after, for the images at hand.

A contrast is the mean of a *side* (1, 2 or 4 neighbouring checkpoints) less that of a *window* (1, 2, 3, 5 … neighbours),
in units of its standard error over images, which are paired: the same prompt and seed at every checkpoint. Where all
checkpoints are equally good, the largest of all contrasts stays below ``Contrasts.limit`` in all but a share alpha of
cases (the max-t test; Westfall and Young 1993). A window is *fallen* when one side before it and one after it both exceed
the limit (intersection and union; Berger 1982). Expected curves with one mode have, for every window, a side on which
nothing exceeds, so that the error rate holds for all of them, over all places and widths.

The test says what is so of these weights, whatever made them: a stage, or a swing of the training (``timescale``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesdiff.corruption.covariance import ImageError, image_error

Array = NDArray[np.float64]
MIN_IMAGES = 4
SIDES = (1, 2, 4)
MOST_PLACES = 60
"""Longer curves are looked at in units of several checkpoints, so that the contrasts stay few."""
DRAWS = 600


@dataclass(frozen=True)
class Run:
    """Neighbouring checkpoints ``start`` to ``stop - 1`` (indices) that are worse than what came before and after."""

    start: int
    stop: int
    depth: float
    """Mean of the lower side less that of the run, over the images, in the metric's units."""
    strength: float
    """The weaker contrast as a multiple of the limit; above 1."""


@dataclass(frozen=True)
class Told:
    """What images tell apart in one run, at one error rate for all of it."""

    limit: float
    """Standard errors that a contrast has to exceed."""
    runs: tuple[Run, ...]
    """Of two or more checkpoints each, none of them overlapping, in order."""
    worse: NDArray[np.bool_]
    """(T, T) whether checkpoint i is told from checkpoint j, and worse."""


def told_apart(steps: NDArray[np.int64], scores: Array, alpha: float, min_depth: float, rng: np.random.Generator) -> Told | None:
    """Judge the images of one run; None where it has fewer than ``MIN_IMAGES`` a checkpoint, or fewer than 3 checkpoints.

    Args:
        steps: (T,) increasing training steps.
        scores: (T, images), columns paired over checkpoints, finite; higher is better.
        alpha: error rate of all that is returned together.
        min_depth: smallest depth that counts, in the metric's units.
    """
    count, images = scores.shape
    if images < MIN_IMAGES or count < 3:
        return None
    error, curve = image_error(steps, scores), scores.mean(1)
    windows, sides = _windows(count)
    standard = _standard_errors(error, windows, sides)
    limit = _limit(error, windows, sides, standard, alpha, rng)
    single = _standard_errors(error, np.eye(count), np.eye(count))
    rounding = 1e-12 * max(float(np.abs(curve).max()), 1e-100)
    margin, single = (limit * np.where(np.isfinite(e), e, 0.0) + np.where(np.isfinite(e), rounding, np.inf) for e in (standard, single))
    worse = (curve - curve[:, None]) > np.maximum(single, min_depth)
    runs = _runs(curve, windows, sides, margin, worse, min_depth)
    return Told(limit, runs, worse)


def _means(count: int, width: int, stride: int) -> Array:
    """(places, count) weights of the means of ``width`` neighbours that begin at every ``stride``-th checkpoint."""
    starts = np.arange(0, count - width + 1, stride)
    at = np.arange(count)
    return ((at >= starts[:, None]) & (at < starts[:, None] + width)) / width


def _windows(count: int) -> tuple[Array, Array]:
    """Weights (…, count) of the windows' and of the sides' means."""
    unit = -(-count // MOST_PLACES)
    widths = [1, 2]
    while (wider := widths[-2] + widths[-1]) * unit <= count // 2:
        widths.append(wider)
    windows = [_means(count, width * unit, unit) for width in widths]
    sides = [_means(count, width * unit, unit) for width in SIDES if width * unit < count]
    return np.concatenate(windows), np.concatenate(sides)


def _standard_errors(error: ImageError, windows: Array, sides: Array) -> Array:
    """(windows, sides) of the differences; infinite where the two overlap."""
    between = windows @ error.covariance @ sides.T
    own, other = (np.einsum("wt,ts,ws->w", w, error.covariance, w) for w in (windows, sides))
    variance = np.maximum(own[:, None] + other - 2 * between, 1e-24)
    return np.where((windows > 0).astype(float) @ (sides > 0).T.astype(float) > 0, np.inf, np.sqrt(variance))


def _limit(error: ImageError, windows: Array, sides: Array, standard: Array, alpha: float, rng: np.random.Generator) -> float:
    """What the largest contrast of equally good checkpoints exceeds in a share ``alpha`` of draws."""
    values, vectors = np.linalg.eigh(error.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    drawn = rng.standard_normal((DRAWS, len(root))) @ root.T
    scale = np.sqrt(error.freedom / rng.chisquare(error.freedom, DRAWS))
    inside, beside, inverse = drawn @ windows.T, drawn @ sides.T, (1 / standard).astype(np.float32)
    contrasts, largest = np.empty_like(inverse), np.zeros(DRAWS)
    for i, (w, s) in enumerate(zip(inside.astype(np.float32), beside.astype(np.float32), strict=True)):
        np.subtract.outer(w, s, out=contrasts)
        contrasts *= inverse
        largest[i] = max(float(contrasts.max()), -float(contrasts.min()))
    return float(np.quantile(largest * scale, 1 - alpha))


def _runs(curve: Array, windows: Array, sides: Array, margin: Array, worse: NDArray[np.bool_], min_depth: float) -> tuple[Run, ...]:
    """Fallen windows of two or more checkpoints, strongest first, as long as they do not touch."""
    count = len(curve)
    first, last = (windows > 0).argmax(1), count - 1 - (windows[:, ::-1] > 0).argmax(1)
    begins, ends = (sides > 0).argmax(1), count - 1 - (sides[:, ::-1] > 0).argmax(1)
    lowest = np.array([curve[f : e + 1].min() for f, e in zip(first, last, strict=True)])
    width = last - first + 1
    floor = (windows @ curve * width - lowest) / np.maximum(width - 1, 1)  # one low checkpoint alone is no run
    gap = sides @ curve - np.maximum(floor, windows @ curve)[:, None]
    ratio = np.where(gap >= min_depth, gap / margin, -np.inf)
    before = np.where(ends < first[:, None], ratio, -np.inf)
    after = np.where(begins > last[:, None], ratio, -np.inf)
    strength = np.where(width >= 2, np.minimum(before.max(1), after.max(1)), -np.inf)
    found: list[Run] = []
    taken = np.zeros(count, dtype=bool)
    for i in np.argsort(-strength):
        if strength[i] <= 1:
            break
        start, stop = int(first[i]), int(last[i]) + 1
        if taken[max(start - 1, 0) : stop + 1].any():
            continue
        start, stop = _extended(start, stop, worse, taken)
        taken[start:stop] = True
        depth = min(float(gap[i, before[i].argmax()]), float(gap[i, after[i].argmax()]))
        found.append(Run(start, stop, depth, float(strength[i])))
    return tuple(sorted(found, key=lambda run: run.start))


def _extended(start: int, stop: int, worse: NDArray[np.bool_], taken: NDArray[np.bool_]) -> tuple[int, int]:
    """The run with neighbours that are told by themselves from one checkpoint before and one after."""
    count = len(worse)
    fallen = np.array([worse[i, :i].any() and worse[i, i + 1 :].any() for i in range(count)]) & ~taken
    while start > 0 and fallen[start - 1]:
        start -= 1
    while stop < count and fallen[stop]:
        stop += 1
    return start, stop
