"""The verdict: does a fidelity curve rise, fall, and come back by more than noise?

The null hypothesis is "rises or stays, or declines to a new level without coming back": a curve with
one mode in expectation. The statistic (``shape.stage_strength``) is a maximum over all stages and
their two sides, so that one test covers every (peak, trough, recovery) triple. Its null distribution
is a parametric bootstrap around the flattest curve with one mode that the data do not rule out
(``shape.flattened``; the bootstrap of a fitted shape as in Silverman's 1981 test of modality, with
inequalities believed only where they are clear: Andrews and Soares 2010), with noise from both of its
sources (``noise``). ``make calibration`` measures error rates and power by simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesdiff.core.seeds import derive
from bayesdiff.corruption.best import possible_best
from bayesdiff.corruption.noise import CHECKPOINT_CORRELATION, Noise, measure_noise
from bayesdiff.corruption.shape import CLEAR_STEP, Array, fall_strength, flattened, monotone_fit, stage_strength, unimodal_fit
from bayesdiff.corruption.stage import REFITS, Span, Stage, draws_beside, read_stage, spread_of

RESAMPLES = 1_000
MIN_POINTS = 6
"""Rise, two checkpoints of fall, two of recovery, and one to spare."""
LARGEST = 1e9
"""A score of this size is no similarity in any unit: it counts as not finite."""
LARGEST_STEP = 2**53
KINDS = ("corruption", "in_progress", "unstable", "overfit", "none", "undertrained", "broken_sampling", "too_few_points", "diverged")
IN_STAGE = ("corrupted", "recovering")
"""Labels of checkpoints that are not to be kept."""
OF_RUNS = "the scatter of runs"


@dataclass(frozen=True)
class CorruptionVerdict:
    """What the curve shows. Steps are training steps; depth is in the metric's units."""

    flagged: bool
    kind: str
    """One of ``KINDS``: in_progress is fallen and not back at the end, undertrained is still rising there, unstable is a
    fall and return that images do not explain and the run's own swings between checkpoints do."""
    p_value: float
    depth: float
    """From the lower of the two shoulders to the floor; of a flagged stage less what noise adds to a fit, else as fitted."""
    depth_interval: tuple[float, float]
    """95 % or more; where nothing is flagged, of the deepest dip, less what noise adds to a fit."""
    peak_step: int | None
    onset_step: int | None
    trough_step: int | None
    recovery_step: int | None
    best_step: int
    best_reason: str
    labels: tuple[str, ...]
    """For every checkpoint: rising, peak (also a plateau after it), corrupted (from the onset on), recovering, recovered or overfit."""
    checkpoint_noise: float
    """Standard deviation of the noise that moves all images of a checkpoint together."""
    sentence: str
    area: float = 0.0
    """Depth integrated over the stage, in the metric's units times steps."""
    peak_interval: Span | None = None
    onset_interval: Span | None = None
    trough_interval: Span | None = None
    recovery_interval: Span | None = None
    best_steps: tuple[int, ...] = ()
    """Steps outside the stage that have the best one among them in 95 % of cases (``best.possible_best``)."""
    blips: tuple[int, ...] = ()
    """Single low checkpoints, which are no stage."""
    image_noise: float = 0.0
    """Standard error of a checkpoint's mean from images, averaged over checkpoints; 0 for a bare curve."""
    noise_source: str = ""
    """Where the noise was read off: images and roughness, the curve alone, runs, or given."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``from_dict`` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> CorruptionVerdict:
        fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return CorruptionVerdict(**fields)


@dataclass(frozen=True)
class _Reading:
    """A curve that can be judged, and its noise."""

    steps: NDArray[np.int64]
    curve: Array
    noise: Noise
    source: str


def detect_corruption(
    steps: ArrayLike, scores: ArrayLike, *, alpha: float = 0.05, min_depth: float = 0.03, seed: int = 0,
    groups: ArrayLike | None = None, checkpoint_noise: float | None = None,
) -> CorruptionVerdict:  # fmt: skip
    """Test a fidelity curve for a corruption stage.

    Args:
        steps: (T,) increasing training steps.
        scores: (T, images), columns paired over checkpoints (same prompt and seed); (T,) for a bare
            curve, whose noise is estimated from its roughness alone; (runs, T, images) for several
            runs, whose scatter has all the noise. Higher is better.
        alpha: false-flag rate over the whole curve, not per triple; 1 / 1001 or more, the smallest that the test's resamples show.
        min_depth: smallest depth of the fitted curve that counts as a stage, in the metric's units.
        seed: of the resampling; the result is a function of (data, seed).
        groups: (images,) label of each column's prompt, when prompts are a sample too: images are
            then averaged within a prompt and prompts are what varies.
        checkpoint_noise: standard deviation of the noise between checkpoints where it was measured
            elsewhere (other runs); None reads it off the curve's roughness. For a bare curve it has to be
            all the noise of a checkpoint's mean, that of its images too: nothing else shows it there.

    Raises:
        ValueError: shapes that do not match, steps that do not increase, or options out of range.
    """
    _check_options(alpha, min_depth, checkpoint_noise)
    at, values, runs = _clean(steps, scores, groups)
    finite = np.asarray(np.isfinite(values).all(axis=1))
    if not finite.all():
        return _plain(at, values, "diverged", _not_finite(at, finite))
    if len(at) < MIN_POINTS:
        count = "1 checkpoint is" if len(at) == 1 else f"{len(at)} checkpoints are"
        return _plain(at, values, "too_few_points", f"{count} too few for a verdict; give {MIN_POINTS} or more.")
    noise = measure_noise(values, runs=runs, checkpoint=checkpoint_noise, rho=CHECKPOINT_CORRELATION)
    reading = _Reading(at, values.mean(1), noise, _source(values.shape[1], runs, checkpoint_noise))
    rng = np.random.default_rng(derive(seed, "verdict"))
    p, stage = stage_p_value(reading.curve, noise, rng), read_stage(reading.curve)
    if p <= alpha and stage.depth >= min_depth:
        return _corrupted(reading, stage, p, alpha, min_depth, rng)
    return _not_flagged(reading, stage, p, alpha, min_depth, rng)


def _check_options(alpha: float, min_depth: float, checkpoint_noise: float | None) -> None:
    least = 1 / (RESAMPLES + 1)
    if not least <= alpha < 1:
        raise ValueError(f"alpha={alpha} must lie below 1, and at {least:.4f} or above: {RESAMPLES} resamples show no smaller p-value")
    for name, value in (("min_depth", min_depth), ("checkpoint_noise", checkpoint_noise or 0.0)):
        if not 0 <= value < np.inf:
            raise ValueError(f"{name}={value} must be a number at 0 or above")


def _not_finite(at: NDArray[np.int64], finite: NDArray[np.bool_]) -> str:
    """Diverged for good, or checkpoints in between that someone can leave out."""
    if finite[-1]:
        others = f" and {int((~finite).sum()) - 1} others" if (~finite).sum() > 1 else ""
        return f"Scores are not finite at step {at[~finite][0]}{others}: leave out these images or checkpoints to have the rest judged."
    last = int(np.flatnonzero(finite)[-1]) + 1 if finite.any() else 0
    return f"Scores are not finite from step {at[last]} on: training diverged."


def stage_p_value(curve: Array, noise: Noise, rng: np.random.Generator, resamples: int = RESAMPLES) -> float:
    """p-value of a stage in a mean curve (T,), by the test of this module; at least 1 / (resamples + 1)."""
    return _p_value(stage_strength, unimodal_fit, curve, noise, rng, resamples)


def stage_depth(curve: Array) -> float:
    """Depth of the strongest stage of a mean curve (T,), of the fitted curve; below 0 where there is none."""
    return read_stage(curve).depth


def _clean(steps: ArrayLike, scores: ArrayLike, groups: ArrayLike | None) -> tuple[NDArray[np.int64], Array, bool]:
    """Steps (T,), scores (T, columns), and whether columns are runs."""
    at, values = np.asarray(steps), np.asarray(scores, dtype=np.float64)
    whole = at.ndim == 1 and len(at) > 0 and bool(((np.round(at.astype(np.float64)) == at) & (np.abs(at) < LARGEST_STEP)).all())
    if not whole or (np.diff(at) <= 0).any():
        raise ValueError("steps must be a list of increasing, distinct whole numbers")
    runs = values.ndim == 3 and values.shape[0] > 1
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim not in (2, 3) or values.shape[-2] != len(at) or 0 in values.shape:
        raise ValueError(
            f"scores of shape {np.shape(scores)} do not match {len(at)} steps: give (checkpoints, images), (checkpoints,) for a bare "
            "curve, or (runs, checkpoints, images)"
        )
    if groups is not None:
        labels = np.asarray(groups)
        if labels.shape != values.shape[-1:]:
            raise ValueError(f"groups of shape {labels.shape} do not match {values.shape[-1]} images: give one label an image")
        values = np.stack([values[..., labels == label].mean(-1) for label in np.unique(labels)], axis=-1)
    if values.ndim == 3:
        values = values.mean(2).T if runs else values[0]
    return at.astype(np.int64), np.where(np.abs(values) < LARGEST, values, np.inf), runs


def _source(columns: int, runs: bool, given: float | None) -> str:
    if runs:
        return OF_RUNS
    between = "the curve's roughness" if given is None else "a given noise between checkpoints"
    return f"images and {between}" if columns > 1 else between


def _p_value(
    strength: Callable[[Array], Array], fit: Callable[[Array], Array], curve: Array, noise: Noise, rng: np.random.Generator, resamples: int
) -> float:
    """Chance of a statistic this large under the flattest curve of the null's shape, with this noise."""
    drawn = strength(flattened(fit(curve), noise.size(), CLEAR_STEP) + noise.draw(rng, resamples))
    rounding = 1e-12 * np.abs(curve).max()
    return float((1 + (drawn >= strength(curve) - rounding).sum()) / (1 + resamples))


def _labels(stage: Stage, count: int) -> list[str]:
    """Of ``count`` checkpoints with one stage; a plateau before the onset belongs to the peak."""
    labels = ["rising"] * stage.peak + ["peak"] * (stage.onset - stage.peak) + ["corrupted"] * (stage.trough - stage.onset + 1)
    return labels + ["recovering"] * (stage.recovery - stage.trough - 1) + ["recovered"] * (count - stage.recovery)


def _part(reading: _Reading, start: int, stop: int) -> _Reading:
    """Some checkpoints of a reading, with the noise of the whole."""
    noise = replace(reading.noise, images=reading.noise.images[start:stop])
    return replace(reading, steps=reading.steps[start:stop], curve=reading.curve[start:stop], noise=noise)


def _stage_in(reading: _Reading, alpha: float, min_depth: float, rng: np.random.Generator) -> Stage | None:
    """The strongest stage of a part of a curve, where there is one."""
    if len(reading.curve) < MIN_POINTS or stage_p_value(reading.curve, reading.noise, rng) > alpha:
        return None
    found = read_stage(reading.curve)
    return found if found.depth >= min_depth else None


def _all_labels(reading: _Reading, stage: Stage, alpha: float, min_depth: float, rng: np.random.Generator) -> tuple[list[str], str]:
    """Labels of a curve with this stage, and what else to say of it: a return in between, further stages, a fall that has not come back.

    What lies before the peak, inside the stage (upside down) and behind the recovery is tested again, each at ``alpha``: a curve
    that has one stage may have others.
    """
    at, count = reading.steps, len(reading.steps)
    labels, more = _labels(stage, count), ""
    inside = _part(reading, stage.onset, stage.recovery)
    hump = _stage_in(replace(inside, curve=-inside.curve), alpha, min_depth, rng)
    top = stage.onset + hump.trough if hump else 0
    if hump and 4 <= top < count - 4:
        first, second = read_stage(reading.curve[: top + 1]), read_stage(reading.curve[top:])
        labels = [*_labels(first, top + 1)[:top], *_labels(second, count - top)]
        more = f" In between it comes back, at step {at[top]}, and falls again."
    for start, stop in ((0, stage.peak + 1), (stage.recovery, count)):
        part = _part(reading, start, stop)
        if other := _stage_in(part, alpha, min_depth, rng):
            labels[start:stop] = _labels(other, stop - start)
            more += f" So it does once more, around step {part.steps[other.trough]}."
    behind = _part(reading, stage.trough, count)
    last = max(stage.recovery, stage.trough + int(behind.curve.argmax()))
    if "corrupted" not in labels[last:] and _has_fallen(behind, alpha, min_depth, rng):
        labels[last + 1 :] = ["corrupted"] * (count - last - 1)
        more += f" It falls again after step {at[last]} and is not back at the last checkpoint."
    return labels, more


def _has_fallen(reading: _Reading, alpha: float, min_depth: float, rng: np.random.Generator) -> bool:
    """Whether the last checkpoints, two or more, lie below the highest one by more than noise."""
    curve = reading.curve
    peak = int(curve.argmax())
    deep_enough = len(curve) > 3 and peak < len(curve) - 2 and curve[peak] - curve[-2:].max() >= min_depth
    return bool(deep_enough and _p_value(fall_strength, monotone_fit, curve, reading.noise, rng, RESAMPLES) <= alpha)


def _corrupted(reading: _Reading, stage: Stage, p: float, alpha: float, min_depth: float, rng: np.random.Generator) -> CorruptionVerdict:
    at, curve = reading.steps, reading.curve
    draws = draws_beside(stage, curve, reading.noise, rng)
    spread = spread_of(stage, at, np.median(np.abs(draws), 0) / 0.6745, draws)  # the size of most draws: some are wild
    interval = spread.depth_interval
    labels, more = _all_labels(reading, stage, alpha, min_depth, rng)
    best, equals = _best(reading, labels, rng)
    where = "before the stage" if best <= stage.peak else "after the recovery"
    sentence = (
        f"Corrupted: fidelity peaks at step {at[stage.peak]} ({curve[stage.peak]:.3f}), falls from step {at[stage.onset]} to "
        f"{curve[stage.trough]:.3f} at step {at[stage.trough]} (depth {spread.depth:.3f}, 95% interval {interval[0]:.3f} to "
        f"{interval[1]:.3f}, p = {p:.4f}) and recovers by step {at[stage.recovery]}.{more} Keep step {at[best]}."
    )
    verdict = CorruptionVerdict(
        True, "corruption", p, spread.depth, interval, int(at[stage.peak]), int(at[stage.onset]), int(at[stage.trough]),
        int(at[stage.recovery]), int(at[best]), f"highest fidelity outside the corrupted range ({where})", tuple(labels),
        reading.noise.between(), sentence, spread.area, best_steps=equals,
        peak_interval=spread.span(at, "peak"), onset_interval=spread.span(at, "onset"),
        trough_interval=spread.span(at, "trough"), recovery_interval=spread.span(at, "recovery"),
    )  # fmt: skip
    return _with_noise(verdict, reading, stage)


def _with_noise(verdict: CorruptionVerdict, reading: _Reading, stage: Stage) -> CorruptionVerdict:
    return replace(
        verdict, blips=_blips(reading, stage if verdict.flagged else None), image_noise=float(reading.noise.images.mean()),
        noise_source=reading.source,
    )  # fmt: skip


def _blips(reading: _Reading, stage: Stage | None) -> tuple[int, ...]:
    """Checkpoints that lie three standard deviations below both neighbours, outside the stage."""
    curve, size = reading.curve, reading.noise.size()
    inner = np.arange(1, len(curve) - 1)
    gap = np.minimum(curve[inner - 1], curve[inner + 1]) - curve[inner]
    found = inner[gap > 3 * np.sqrt(1.5) * size[inner]]
    return tuple(int(reading.steps[i]) for i in found if stage is None or not stage.peak < i < stage.recovery)


def outside_stage(labels: Sequence[str]) -> NDArray[np.bool_]:
    """(T,) which checkpoints lie outside the corrupted range."""
    return np.array([label not in IN_STAGE for label in labels])


def _best(reading: _Reading, labels: list[str], rng: np.random.Generator) -> tuple[int, tuple[int, ...]]:
    """The highest checkpoint outside the stage, and the steps that may be the best one."""
    allowed = outside_stage(labels)
    best = int(np.where(allowed, reading.curve, -np.inf).argmax())
    near = possible_best(reading.curve, reading.noise.draw(rng, RESAMPLES), allowed)
    return best, tuple(int(s) for s in reading.steps[near])


def _not_flagged(reading: _Reading, stage: Stage, p: float, alpha: float, min_depth: float, rng: np.random.Generator) -> CorruptionVerdict:
    """No stage; a fall at the end that is larger than noise is ``in_progress``, a rise there ``undertrained``."""
    at, curve = reading.steps, reading.curve
    interval = spread_of(stage, at, reading.noise.size(), reading.noise.draw(rng, REFITS)).depth_interval
    depth = max(stage.depth, 0.0)
    kind, labels, peak = "none", _up_to_peak(curve), int(curve.argmax())
    fallen = float(curve[peak] - curve[-2:].max())
    if _has_fallen(reading, alpha, min_depth, rng):
        kind = "in_progress"
        labels = ["corrupted" if i > peak else label for i, label in enumerate(labels)]
        sentence = f"In progress: fidelity fell by {fallen:.3f} after step {at[peak]} and is not back at the last checkpoint."
    elif depth >= min_depth and _is_of_the_weights(reading, alpha, rng):
        kind, labels = "unstable", _labels(stage, len(at))  # images say that these checkpoints have fallen, whatever made them
        sentence = (
            f"Unstable: fidelity falls to {curve[stage.trough]:.3f} at step {at[stage.trough]} and comes back, which images do not "
            f"explain; but this run swings by {reading.noise.between():.3f} between checkpoints, and a stage is not told apart from "
            f"that (p = {p:.3f}). More seeds or checkpoints would tell."
        )
    elif _still_rising(reading, rng):
        kind = "undertrained"
        sentence = f"No corruption stage: fidelity still rises over the last checkpoints (p = {p:.3f}); train on to know."
    else:
        scatter = float(reading.noise.size().mean())
        sentence = f"No corruption stage: the deepest dip is {depth:.3f}, where checkpoints scatter by {scatter:.3f} (p = {p:.3f})."
        if depth >= max(min_depth, CLEAR_STEP * scatter):
            sentence += " A dip this deep may be one: more checkpoints or seeds would tell."
    trough = int(at[stage.trough]) if kind == "unstable" else None
    best, equals = _best(reading, labels, rng)
    reason = "highest fidelity; later checkpoints are lower" if kind == "in_progress" else "highest fidelity; no stage found"
    verdict = CorruptionVerdict(
        False, kind, p, depth, interval, int(at[peak]), None, trough, None, int(at[best]), reason, tuple(labels),
        reading.noise.between(), f"{sentence} Keep step {at[best]}.", best_steps=equals,
    )  # fmt: skip
    return _with_noise(verdict, reading, stage)


def _is_of_the_weights(reading: _Reading, alpha: float, rng: np.random.Generator) -> bool:
    """Whether the dip is more than another set of images would show: the test without noise between checkpoints."""
    if reading.noise.freedom == 0 or reading.source == OF_RUNS or reading.noise.between() < reading.noise.images.mean():
        return False
    return stage_p_value(reading.curve, replace(reading.noise, checkpoint=0.0), rng) <= alpha


def _up_to_peak(curve: Array) -> list[str]:
    peak = int(curve.argmax())
    return ["rising" if i < peak else "peak" for i in range(len(curve))]


def _still_rising(reading: _Reading, rng: np.random.Generator) -> bool:
    """Whether the last quarter of the checkpoints (two or more) lies above the quarter before by more than noise, and nothing above it."""
    width = max(2, len(reading.curve) // 4)

    def rise(curves: Array) -> Array:
        return np.asarray(curves[..., -width:].mean(-1) - curves[..., -2 * width : -width].mean(-1))

    limit = float(np.quantile(rise(reading.noise.draw(rng, RESAMPLES)), 0.975))
    return bool(rise(reading.curve) > limit and reading.curve.argmax() >= len(reading.curve) - width)


def _plain(at: NDArray[np.int64], values: Array, kind: str, sentence: str) -> CorruptionVerdict:
    """A verdict without a test: the best finite checkpoint and why there is no more to say."""
    finite = np.asarray(np.isfinite(values).all(axis=1))
    curve = np.where(finite, np.where(np.isfinite(values), values, 0.0).mean(1), -np.inf)
    best = int(curve.argmax())
    labels = tuple("rising" if ok else "corrupted" for ok in finite.tolist())
    return CorruptionVerdict(
        False, kind, 1.0, 0.0, (0.0, 0.0), None, None, None, None, int(at[best]), "highest finite score", labels, 0.0, sentence
    )
