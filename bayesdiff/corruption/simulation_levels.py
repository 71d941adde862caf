"""How often is each level wrong, and what does it find? Simulated curves with noise of known size and correlation time.

``null_row`` has curves without a stage: for the first level, images whose own deviations last over steps, have heavy tails
or grow from one checkpoint to the next; for the third, swings that all images share, with a correlation of 0 to .95 between
neighbouring checkpoints. ``power_row`` has curves with one, among them the paper's Figure 1 as a single run.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesdiff.corruption.covariance import Array, correlation
from bayesdiff.corruption.detector import decide, detect_corruption
from bayesdiff.corruption.levels import told_apart
from bayesdiff.corruption.outcome import NOT_MEASURED, SLOW
from bayesdiff.corruption.power import stage_curve

LEVEL, IMAGE = 0.14, 0.13
"""Standard deviations of an image's own level and of its deviation at one checkpoint, as measured on toybox runs."""
SPACING = 50
FIGURE_1_STEPS = (
    0, 20, 50, 70, 100, 150, 200, 250, 300, 350, 400, 450, 500, 550, 600, 700, 800, 900, 1000, 1200, 1400, 1600, 1800, 2000, 2200,
    2400, 2600, 2800, 3000, 3200, 3400, 3600, 3800, 4000, 4200, 4400, 4600,
)  # fmt: skip
FIGURE_1 = (
    0.363, 0.483, 0.633, 0.682, 0.727, 0.646, 0.826, 0.898, 0.855, 0.718, 0.552, 0.570, 0.462, 0.473, 0.477, 0.395, 0.476, 0.371, 0.387,
    0.434, 0.496, 0.448, 0.510, 0.622, 0.631, 0.666, 0.707, 0.846, 0.753, 0.883, 0.898, 0.903, 0.939, 0.945, 0.946, 0.952, 0.954,
)  # fmt: skip
"""The baseline of Figure 1 of arXiv 2405.19931, read off the plot."""
PAIRS = (0, 60, 120, 180, 240, 300, 360, 430, 510, 600, 700, 820, 960, 1120, 1310, 1530, 1790, 2090, 2440, 2850, 3330, 3890, 4560)
PAIRED_STEPS = np.array([step + apart for step in PAIRS for apart in (0, 20)])
"""46 checkpoints in clusters of two, 20 steps apart, over the course of Figure 1."""


@dataclass(frozen=True)
class Sizes:
    """How much is simulated; the defaults take about 40 minutes on one core."""

    repeats: int = 500
    most_repeats: int = 2_500
    """Of cells whose upper bound is above ``bound`` after ``repeats``.

    A rate of 4 % shows a bound of 6 % (one-sided, 95 %) after about 400 repeats on average, after 1,200 in nine cases of ten.
    """
    power_repeats: int = 100
    bound: float = 0.06
    checkpoints: tuple[int, ...] = (15, 45)
    first_images: tuple[int, ...] = (4, 5, 16)
    third_images: tuple[int, ...] = (1, 16)
    correlations: tuple[float, ...] = (0.0, 0.2, 0.6, 0.9, 0.95)
    swings: float = 0.1
    alpha: float = 0.05
    seed: int = 2405


QUICK = Sizes(repeats=10, most_repeats=10, power_repeats=5)
"""About a minute."""


def _at(count: int) -> Array:
    return np.arange(count) / (count - 1)


NULLS: dict[str, Callable[[int], Array]] = {
    "flat": lambda n: np.full(n, 0.7),
    "saturating rise": lambda n: 0.3 + 0.5 * (1 - np.exp(-6 * _at(n))),
    "step down": lambda n: np.where(_at(n) < 0.5, 0.8, 0.5),
}
IMAGE_NOISE = ("normal", "heavy tails", "uneven")


def time_of(rho: float, spacing: float = SPACING) -> float:
    """Correlation time in steps of neighbours ``spacing`` steps apart that correlate by ``rho``."""
    return -spacing / float(np.log(rho)) if rho > 0 else 0.0


def lasting(steps: NDArray[np.int64], time: float, white: Array) -> Array:
    """Unit noise with this correlation time from white noise (T, …)."""
    return np.asarray(np.linalg.cholesky(correlation(steps, time) + 1e-12 * np.eye(len(steps))) @ white)


def scores_of(
    mean: Array, steps: NDArray[np.int64], images: int, rng: np.random.Generator, *, swings: float = 0.0, time: float = 0.0,
    image_time: float = 0.0, kind: str = "normal",
) -> Array:  # fmt: skip
    """Scores (T, images) around a mean curve; one image is a bare curve that has the swings alone.

    Args:
        swings: standard deviation of what all images share.
        time: its correlation time in steps.
        image_time: that of an image's own deviations.
        kind: one of ``IMAGE_NOISE``: normal, Student's t with 3 degrees of freedom, or a size that differs by checkpoint.
    """
    curve = mean + swings * lasting(steps, time, rng.standard_normal(len(steps)))
    if images == 1:
        return curve[:, None]
    white = rng.standard_t(3, (len(steps), images)) / np.sqrt(3) if kind == "heavy tails" else rng.standard_normal((len(steps), images))
    own = lasting(steps, image_time, white) * (np.exp(rng.uniform(-1, 1, (len(steps), 1))) if kind == "uneven" else 1.0)
    return np.asarray(curve[:, None] + LEVEL * rng.standard_normal(images) + IMAGE * own)


def _generator(*key: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def _rate(flags: Callable[[int], bool], sizes: Sizes) -> dict[str, Any]:
    """Share of repeats that are flagged, with a one-sided 95 % upper bound (Clopper and Pearson); more repeats where it is close."""
    found = done = 0
    while done == 0 or (done < sizes.most_repeats and _upper(found, done) > sizes.bound):
        found += sum(flags(repeat) for repeat in range(done, done + sizes.repeats))
        done += sizes.repeats
    return {"repeats": done, "rate": found / done, "upper_95": _upper(found, done)}


def _upper(found: int, done: int) -> float:
    from scipy.stats import beta

    return float(beta.ppf(0.95, found + 1, done - found)) if found < done else 1.0


@dataclass(frozen=True)
class NullCell:
    """Curves without a stage, whose false flags are counted."""

    level: str
    """L1 or L3."""
    shape: str
    noise: str
    """One of ``IMAGE_NOISE``, or swings that all images share."""
    checkpoints: int
    images: int
    correlation: float
    """Of neighbouring checkpoints, ``SPACING`` steps apart: of an image's own deviations (L1), or of the swings (L3)."""


def null_cells(sizes: Sizes) -> list[NullCell]:
    """Every cell of the table of false flags."""
    first = [
        NullCell("L1", shape, kind, count, images, rho)
        for count in sizes.checkpoints
        for images in sizes.first_images
        for shape in NULLS
        for kind in IMAGE_NOISE
        for rho in (sizes.correlations if kind == "normal" else (0.0,))
    ]
    third = [
        NullCell("L3", shape, "swings", count, images, rho)
        for count in sizes.checkpoints
        for images in sizes.third_images
        for shape in NULLS
        for rho in sizes.correlations
    ]
    return third + first


def null_row(sizes: Sizes, cell: NullCell) -> dict[str, Any]:
    """False flags of a cell, and how often the third level says that swings outlast the spacing."""
    steps, mean = np.arange(cell.checkpoints) * SPACING, NULLS[cell.shape](cell.checkpoints)
    time, slow = time_of(cell.correlation), 0

    def first(repeat: int) -> bool:
        rng = _generator(sizes.seed, cell, repeat)
        scores = scores_of(mean, steps, cell.images, rng, image_time=time, kind=cell.noise)
        told = told_apart(steps, scores, sizes.alpha, 0.0, rng)
        return bool(told and told.runs)

    def third(repeat: int) -> bool:
        nonlocal slow
        scores = scores_of(mean, steps, cell.images, _generator(sizes.seed, cell, repeat), swings=sizes.swings, time=time)
        decision = decide(steps, scores, alpha=sizes.alpha, min_depth=0.0, seed=repeat)
        slow += decision.slow
        return decision.stage

    rate = _rate(first if cell.level == "L1" else third, sizes)
    return {**asdict(cell), **rate, "said_slow": slow / rate["repeats"] if cell.level == "L3" else float("nan")}


@dataclass(frozen=True)
class Design:
    """A planned run and what it is to find."""

    name: str
    steps: NDArray[np.int64]
    images: int
    mean: Array
    swings: float
    time: float
    """Correlation time of the swings, in steps."""


def _clusters(count: int, apart: int, last: int) -> NDArray[np.int64]:
    starts = np.linspace(0, last - 2 * apart, count).round().astype(np.int64)
    return np.asarray((starts[:, None] + apart * np.arange(3)).ravel())


def designs() -> list[Design]:
    """Figure 1 as one run, and the same 240 images spent in three ways on a stage of known depth."""
    figure = [
        Design(name, steps, images, np.interp(steps, FIGURE_1_STEPS, FIGURE_1), 0.1, time)
        for name, steps in (("Figure 1, pairs", PAIRED_STEPS), ("Figure 1, its own steps", np.array(FIGURE_1_STEPS)))
        for images in (5, 16)
        for time in (0.0, 20.0)
    ]
    ways = (
        ("15 x 16", np.arange(15) * 135, 16),
        ("45 x 5", np.arange(45) * 45, 5),
        ("15 clusters of 3, 30 steps apart, x 5", _clusters(15, 30, 1980), 5),
    )
    stages = [
        Design(f"depth {depth}, {name}", steps, images, _stage_on(steps, depth), swings, 31.0)
        for swings, depths in ((0.035, (0.1, 0.2)), (0.18, (0.4,)))
        for depth in depths
        for name, steps, images in ways
    ]
    return figure + stages


def _stage_on(steps: NDArray[np.int64], depth: float) -> Array:
    fine = stage_curve(401, depth, 0.35)
    return np.asarray(np.interp(steps / steps[-1], np.linspace(0, 1, 401), fine))


def power_row(sizes: Sizes, design: Design) -> dict[str, Any]:
    """What each level finds: share with steps to avoid, with a stage, and where the swings could not be judged."""
    found = []
    for repeat in range(sizes.power_repeats):
        rng = _generator(sizes.seed, design.name, design.images, design.swings, design.time, repeat)
        scores = scores_of(design.mean, design.steps, design.images, rng, swings=design.swings, time=design.time)
        verdict = detect_corruption(design.steps, scores, alpha=sizes.alpha, seed=repeat)
        found.append((bool(verdict.avoid), verdict.flagged, verdict.level_3 in (NOT_MEASURED, SLOW)))
    first, third, open_ = np.mean(found, axis=0).tolist()
    cell = {"design": design.name, "images": design.images, "swings": design.swings, "time": design.time, "repeats": len(found)}
    return {**cell, "L1": first, "L3": third, "not_judged": open_}
