"""Where a stage lies, how deep it is, and how sure both are.

The stage itself is read off the fit of a rise, a fall and a return (``shape.stage_fit``). How sure it is comes from
the basic bootstrap (Davison and Hinkley 1997, section 5.2) around two curves that the data do not tell apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesdiff.corruption.noise import Noise, roughness
from bayesdiff.corruption.shape import CLEAR_STEP, Array, flattened, stage_fit, strongest_stages

REFITS = 100
"""Resampled curves that intervals of depth and steps are taken from."""
EQUAL = 1e-12
"""Levels of a fit that are no further apart are one level: arithmetic alone parts them so far."""
Span = tuple[int, int]


@dataclass(frozen=True)
class Stage:
    """Indices into the checkpoints, and levels of the fitted curve."""

    peak: int
    onset: int
    """A quarter of the fall is done."""
    trough: int
    recovery: int
    """Half of the depth is won back."""
    floor: int
    """The lowest checkpoint: where the fall ends and the return begins."""
    depth: float
    """From the lower of the two shoulders to the floor; below 0 where there is no stage."""
    fit: Array


def _depth(fit: Array, floor: int) -> float:
    """Depth of a fitted curve whose return begins at checkpoint ``floor``, 1 or later."""
    before, after = fit[:floor], fit[floor:]
    return float(min(before.max(), after.max()) - min(before[-1], after[0]))


def read_stage(curve: Array) -> Stage:
    """The strongest stage of a mean curve (T,), T at least 4."""
    return read_stages(curve[None])[0]


def read_stages(curves: Array) -> list[Stage]:
    """The strongest stage of each of the mean curves (N, T), T at least 4."""
    starts, widths = (found.tolist() for found in strongest_stages(curves))
    floors = [start + int(curve[start : start + width].argmin()) for curve, start, width in zip(curves, starts, widths, strict=True)]
    return [_stage_around(curve, floor) for curve, floor in zip(curves, floors, strict=True)]


def _stage_around(curve: Array, floor: int) -> Stage:
    """The stage of a curve (T,) whose lowest checkpoint is ``floor``, 1 or later."""
    fit = stage_fit(curve, floor)
    before, after, depth = fit[:floor], fit[floor:], _depth(fit, floor)
    top, back, low = float(before.max()), float(after.max()), float(min(before[-1], after[0]))
    peak = int(np.where(before >= top - EQUAL, curve[:floor], -np.inf).argmax())
    returned = floor + int(np.where(after >= back - EQUAL, curve[floor:], -np.inf).argmax())
    inside = np.arange(peak + 1, max(returned, peak + 2))
    deep = inside[fit[inside] <= low + 0.5 * depth] if depth > EQUAL else inside  # around the floor: a lone low one elsewhere is a blip
    trough = int(deep[curve[deep].argmin()])
    below = fit[peak + 1 : trough + 1] < top - 0.25 * (top - low)
    onset = peak + 1 + int(below.argmax()) if below.any() else trough
    above = fit[trough + 1 : returned + 1] >= low + 0.5 * depth
    recovery = trough + 1 + int(above.argmax()) if above.any() else returned
    return Stage(peak, onset, trough, recovery, floor, depth, fit)


@dataclass(frozen=True)
class Spread:
    """What other draws of the noise would have shown in place of a stage."""

    levels: Array
    """(T,) the stage with the levels that noise tells apart."""
    depth: float
    """Of the stage, less what the fit adds to it by following noise to its extremes."""
    depth_interval: tuple[float, float]
    """95 % or more."""
    area: float
    """``depth`` over the stage, in the metric's units times checkpoints' ``steps``."""
    stage: Stage
    refits: tuple[list[Stage], ...]

    def span(self, steps: NDArray[np.int64], name: str) -> Span:
        """The ``steps`` (T,) of a checkpoint of the stage, and of the central 95 % of it under each of the curves drawn around."""
        bounds = [np.quantile([getattr(refit, name) for refit in refits], [0.025, 0.975]) for refits in self.refits]
        own = getattr(self.stage, name)
        return int(steps[int(min(own, *(low for low, _ in bounds)))]), int(steps[int(np.ceil(max(own, *(high for _, high in bounds))))])


def _told_apart(fit: Array, size: Array) -> Array:
    """The levels of a fit that noise tells apart; the longer a curve, the clearer they must be.

    The largest of T draws of noise reaches sqrt(2 log T) standard deviations (the universal threshold of Donoho and
    Johnstone 1994): with a fixed limit long flat stretches show levels that are none.
    """
    return flattened(fit, size, max(CLEAR_STEP, float(np.sqrt(2 * np.log(len(fit))))))


def spread_of(stage: Stage, steps: NDArray[np.int64], size: Array, draws: Array) -> Spread:
    """Basic bootstrap around two curves: the stage with the levels that noise tells apart, and with all levels of its fit.

    A fit of noise is deeper than the curve behind it, most where that curve is flat, as the first is; where the curve has
    slopes, the first flattens them and the second is nearer. The data do not say which: the intervals cover both, and the
    depth lies between.

    Args:
        steps: (T,) of the checkpoints.
        size: (T,) standard deviation of one checkpoint.
        draws: (refits, T) of the noise.
    """
    levels = _told_apart(stage.fit, size)
    if _depth(levels, stage.floor) <= 0:  # noise tells no stage apart
        levels = stage.fit
    around = (levels,) if levels is stage.fit else (levels, stage.fit)
    refits = tuple(read_stages(center + draws) for center in around)
    excess = [
        np.array([refit.depth for refit in found]) - _depth(center, stage.floor) for found, center in zip(refits, around, strict=True)
    ]
    bounds = np.array([np.quantile(stage.depth - more, [0.025, 0.975]) for more in excess])
    interval = max(float(bounds[:, 0].min()), 0.0), max(float(bounds[:, 1].max()), 0.0)
    depth = max(stage.depth - float(np.mean([np.median(more) for more in excess])), 0.0)
    return Spread(levels, depth, interval, _area(stage, steps, levels, depth), stage, refits)


def _area(stage: Stage, steps: NDArray[np.int64], levels: Array, depth: float) -> float:
    """Integral of the stage over steps, scaled to its depth."""
    fitted = _depth(levels, stage.floor)
    shoulder = min(levels[: stage.floor].max(), levels[stage.floor :].max())
    inside = slice(stage.peak, stage.recovery + 1)
    below = np.maximum(shoulder - levels, 0.0)[inside]
    return float(np.trapezoid(below, steps[inside])) * depth / fitted if fitted > 0 else 0.0


def draws_beside(stage: Stage, curve: Array, noise: Noise, rng: np.random.Generator) -> Array:
    """Draws of the noise (refits, T) beside a stage that was found: its corners are no noise.

    Read off a whole curve, the noise between checkpoints holds the stage's own corners. Less the stage, the curve has a
    roughness, and so has every draw less the stage that is read off *it*; a draw is scaled down by what it is rougher
    than the curve (the fiducial argument of ``noise``, again), not below what images explain.
    """
    draws = noise.draw(rng, REFITS)
    if noise.checkpoint is not None:
        return draws
    size = noise.size()
    levels = _told_apart(stage.fit, size)
    seen = float(roughness(curve - levels))
    if seen == 0:  # every step is a level: nothing is left to tell
        return draws
    beside = levels + draws
    shown = roughness(beside - np.array([_told_apart(drawn.fit, size) for drawn in read_stages(beside)]))
    least = float(np.sqrt((noise.images**2).mean() / (size**2).mean()))
    shrunk: Array = draws * np.clip(seen / np.maximum(shown, seen), least, 1.0)[:, None]
    return shrunk
