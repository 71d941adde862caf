"""How often is the verdict wrong, and how small a stage does it find? Simulated, with noise measured on real runs.

Curves of known shape get noise from both sources (``noise``), and the test of ``corruption`` judges
them. Null families have no stage and count false flags; alternatives have one of known depth and width
and count how often it is found and whether the intervals hold the truth.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from bayesdiff.corruption.detector import detect_corruption, is_stage
from bayesdiff.corruption.noise import correlated
from bayesdiff.corruption.power import SHOULDER, stage_curve
from bayesdiff.corruption.shape import Array


@dataclass
class NoiseLevel:
    """Standard deviations of one kind of run, in the metric's units."""

    level: float = 0.14
    """Of an image's own level over all checkpoints."""
    image: float = 0.13
    """Of one image at one checkpoint around its level."""
    checkpoint: float = 0.03
    """Of what moves all images of a checkpoint together."""
    image_correlation: float = 0.5
    """Of an image's deviations at neighbouring checkpoints."""


@dataclass
class Study:
    """What ``experiments/detector_calibration.yaml`` holds."""

    output: str = "results/detector"
    runs: str = "results/toybox/records/*/images.csv"
    """Per-image curves of real runs that the noise is read off."""
    noise: NoiseLevel = field(default_factory=NoiseLevel)
    quiet: NoiseLevel = field(default_factory=NoiseLevel)
    loud: NoiseLevel = field(default_factory=NoiseLevel)
    lora: NoiseLevel = field(default_factory=NoiseLevel)
    """Other kinds of runs, for power."""
    checkpoints: list[int] = field(default_factory=lambda: [6, 8, 12, 20, 40])
    covered: list[int] = field(default_factory=lambda: [12, 20, 40])
    """Checkpoints of the table of coverage."""
    images: list[int] = field(default_factory=lambda: [1, 4, 16, 100])
    depths: list[float] = field(default_factory=lambda: [0.03, 0.05, 0.1, 0.2])
    widths: list[float] = field(default_factory=lambda: [0.2, 0.35, 0.45])
    """Of the stage, as a share of the checkpoints."""
    seeds: list[int] = field(default_factory=lambda: [4, 8])
    """Runs that are judged together, of 16 images each and with ``noise``."""
    alpha: float = 0.05
    correlation: float = 0.3
    """Between neighbouring checkpoints in the family of AR(1) noise."""
    bound: float = 0.06
    repeats: int = 400
    most_repeats: int = 2000
    """Of cells whose upper bound is above ``bound`` after ``repeats``."""
    resamples: int = 300
    level_repeats: int = 200
    """Of every cell of the tables of levels; cells whose upper bound is above ``bound`` get up to five times as many."""
    difference_repeats: int = 20_000
    """Of every cell of the table of paired differences."""
    workers: int = 2
    seed: int = 2405


Shape = Callable[[int], Array]


def _at(count: int) -> Array:
    return np.arange(count) / (count - 1)


NULL_SHAPES: dict[str, Shape] = {
    "flat": lambda n: np.full(n, SHOULDER),
    "saturating rise": lambda n: 0.3 + 0.5 * (1 - np.exp(-6 * _at(n))),
    "rise and decline": lambda n: np.interp(_at(n), [0, 0.3, 1], [0.3, 0.8, 0.5]),
    "step change": lambda n: np.where(_at(n) < 0.5, 0.8, 0.5),
    "slow drift": lambda n: np.interp(_at(n), [0, 0.15, 1], [0.5, 0.75, 0.65]),
}
CORRELATED = ("correlated", "strongly correlated")
DISTURBED = (*CORRELATED, "heavy tails", "uneven images")
"""Families that are flat or rise, with another noise; strongly is as the verdict assumes."""
FAMILIES = (*NULL_SHAPES, *DISTURBED)
STRONG = 0.6
"""Correlation of neighbouring checkpoints in the family that is strongly correlated."""
SPACING = 50
"""Training steps between the checkpoints of a simulated run."""


def simulate(mean: Array, images: int, noise: NoiseLevel, rng: np.random.Generator, family: str = "", correlation: float = 0.0) -> Array:
    """Scores (T, images) around a mean curve; ``family`` disturbs the noise."""
    count = len(mean)
    draw = partial(rng.standard_t, 3) if family == "heavy tails" else rng.standard_normal
    scale = 1 / np.sqrt(3) if family == "heavy tails" else 1.0  # unit variance
    between = correlated(np.asarray(scale * draw(size=count)), correlation if family in CORRELATED else 0.0)
    spread = np.exp(rng.uniform(-1, 1, (count, 1))) if family == "uneven images" else 1.0
    lasting = correlated(np.asarray(draw(size=(images, count))), noise.image_correlation).T
    own = noise.image * spread * scale * lasting
    return mean[:, None] + noise.level * rng.standard_normal(images) + noise.checkpoint * between[:, None] + own


def _flag(scores: Array, study: Study, seed: int, min_depth: float, known: float | None = None, *, runs: bool = False) -> bool:
    """Whether the verdict flags scores (T, images), or of several runs (T, runs), checkpoints ``SPACING`` steps apart."""
    steps = SPACING * np.arange(len(scores))
    values = scores.T[:, :, None] if runs else scores
    return is_stage(steps, values, alpha=study.alpha, min_depth=min_depth, seed=seed, checkpoint_noise=known)[0]


def _generator(*key: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def upper_bound(flags: int, repeats: int) -> float:
    """One-sided 95 % Clopper-Pearson upper bound of a rate, by itself: neither many cells nor several looks are reckoned with."""
    from scipy.stats import beta

    return float(beta.ppf(0.95, flags + 1, repeats - flags)) if flags < repeats else 1.0


def null_cell(study: Study, cell: tuple[str, int, int]) -> dict[str, Any]:
    """False flags of the test alone (no smallest depth) in one family, more repeats where it is close."""
    family, count, images = cell
    shapes = ("flat", "saturating rise") if family in DISTURBED else (family,)
    correlation = STRONG if family == "strongly correlated" else study.correlation
    flags = repeats = 0
    while repeats < study.most_repeats and (repeats == 0 or upper_bound(flags, repeats) > study.bound):
        for repeat in range(repeats, repeats + study.repeats):
            mean = NULL_SHAPES[shapes[repeat % len(shapes)]](count)
            scores = simulate(mean, images, study.noise, _generator(study.seed, cell, repeat), family, correlation)
            flags += _flag(scores, study, repeat, 0.0)
        repeats += study.repeats
    rate = flags / repeats
    return {
        "family": family,
        "checkpoints": count,
        "images": images,
        "repeats": repeats,
        "rate": rate,
        "upper_95": upper_bound(flags, repeats),
    }


@dataclass(frozen=True)
class SimulatedStage:
    """A stage that is to be found: in one run of ``images`` images, or in several."""

    noise: str
    checkpoints: int
    images: int
    depth: float
    width: float
    runs: int = 1


def most_power(mean: Array, covariance: Array, alpha: float) -> float:
    """Largest power of any test of size ``alpha`` against a mean curve (T,) with known covariance (T, T).

    Neyman and Pearson's bound for the curve with one mode that is hardest to tell from it: a test that
    holds its size on every curve with one mode cannot do better, even if it is told both curves.
    """
    from scipy.optimize import lsq_linear
    from scipy.stats import norm

    count = len(mean)
    root = np.linalg.cholesky(covariance)
    levels = np.tril(np.ones((count, count)))  # a level and the steps between checkpoints
    whitened = np.linalg.solve(root, levels), np.linalg.solve(root, mean)
    distance = np.inf
    for mode in range(count):
        signs = np.where(np.arange(count) <= mode, 1.0, -1.0)
        lower = np.concatenate([[-np.inf], np.zeros(count - 1)])
        found = lsq_linear(whitened[0] * signs, whitened[1], (lower, np.full(count, np.inf)))
        distance = min(distance, np.sqrt(2 * found.cost))
    return float(norm.cdf(distance - norm.ppf(1 - alpha)))


def covariance(count: int, images: int, noise: NoiseLevel) -> Array:
    """Of the mean curve of one run that ``simulate`` makes, (count, count)."""
    lag = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    of_images = noise.level**2 + noise.image**2 * noise.image_correlation**lag
    return np.asarray(of_images / images + noise.checkpoint**2 * np.eye(count))


def power_cell(study: Study, cell: SimulatedStage) -> dict[str, Any]:
    """How often a stage is flagged, with the noise between checkpoints read off and with it known, and how often it could be.

    Several runs need no such knowledge: their scatter has it.
    """
    noise: NoiseLevel = getattr(study, cell.noise)
    mean, together, repeats = stage_curve(cell.checkpoints, cell.depth, cell.width), cell.runs > 1, study.repeats // 2
    known_noise = noise.checkpoint if cell.images > 1 else float(np.hypot(noise.checkpoint, noise.image))  # a bare curve has one noise
    ways = {"found": None} if together else {"found": None, "found_known_noise": known_noise}
    found = dict.fromkeys(ways, 0)
    for repeat in range(repeats):
        rng = _generator(study.seed, cell, repeat)
        several = np.stack([simulate(mean, cell.images, noise, rng) for _ in range(cell.runs)])
        scores = several.mean(2).T if together else several[0]
        for name, known in ways.items():
            found[name] += _flag(scores, study, repeat, 0.0, known, runs=together)
    shares = {name: hits / repeats for name, hits in found.items()}
    possible = most_power(mean, covariance(cell.checkpoints, cell.images, noise) / cell.runs, study.alpha)
    return {**asdict(cell), "repeats": repeats, **shares, "possible": possible}


def slow_stage_curve(count: int, depth: float) -> Array:
    """A stage without corners at its shoulders or a flat floor: falls and returns over a quarter of training each, (count,)."""
    return np.interp(_at(count), [0, 0.15, 0.3, 0.55, 0.6, 0.85, 1], [0.35, *[SHOULDER] * 2, *[SHOULDER - depth] * 2, *[SHOULDER] * 2])


def _truth(mean: Array) -> tuple[float, int, int]:
    """Depth of a curve without noise, and its checkpoints of onset (a quarter of the fall) and recovery (half of it)."""
    late = _at(len(mean)) > 0.2  # the rise is over
    trough = int(np.where(late, mean, np.inf).argmin())
    depth = float(min(mean[:trough].max(), mean[trough:].max()) - mean[trough])
    onset = int(np.flatnonzero((mean < mean[:trough].max() - 0.25 * depth) & late)[0])
    return depth, onset, trough + int(np.flatnonzero(mean[trough:] >= mean[trough] + 0.5 * depth)[0])


def coverage_cell(study: Study, cell: tuple[str, int, int, float, float, bool]) -> dict[str, Any]:
    """How often the 95 % intervals of flagged stages hold the true depth, onset and recovery, and the depth's mean error."""
    shape, count, images, checkpoint, correlation, known = cell
    mean, steps = stage_curve(count, 0.3, 0.35) if shape == "flat floor" else slow_stage_curve(count, 0.3), np.arange(count) * 50
    depth, onset, recovery = _truth(mean)
    of_images = (study.noise.level, study.noise.image / 2) if images > 1 else (0.0, 0.0)  # a bare curve has one noise
    noise = NoiseLevel(*of_images, checkpoint, study.noise.image_correlation)
    held: dict[str, list[bool]] = {"depth": [], "onset": [], "recovery": []}
    errors: list[float] = []
    for repeat in range(study.repeats // 2):
        scores = simulate(mean, images, noise, _generator(study.seed, cell, repeat), "correlated", correlation)
        found = detect_corruption(steps, scores, seed=repeat, checkpoint_noise=checkpoint if known else None)
        if found.flagged and found.onset_interval and found.recovery_interval:
            errors.append(found.depth - depth)
            held["depth"].append(found.depth_interval[0] <= depth <= found.depth_interval[1])
            held["onset"].append(found.onset_interval[0] <= steps[onset] <= found.onset_interval[1])
            held["recovery"].append(found.recovery_interval[0] <= steps[recovery] <= found.recovery_interval[1])
    shares = {name: float(np.mean(hits)) if hits else float("nan") for name, hits in held.items()}
    error = float(np.mean(errors)) if errors else float("nan")
    described = {
        "shape": shape,
        "checkpoints": count,
        "images": images,
        "checkpoint_noise": checkpoint,
        "correlation": correlation,
        "known": known,
        "flagged": len(errors),
    }
    return {**described, **shares, "depth_error": error}
