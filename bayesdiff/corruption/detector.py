"""The verdict: which checkpoints are bad, and does the curve rise, fall, and come back by more than its own swings?

The first level (``levels``) tells checkpoints apart by the images at hand. The third asks for a stage. Its null hypothesis is
"rises or stays, or declines to a new level without coming back": a curve with one mode in expectation. The statistic
(``shape.stage_strength``) is a maximum over all stages and their two sides, so that one test covers every (peak, trough,
recovery) triple. Its null distribution is a parametric bootstrap around the flattest curve with one mode that the data do not
rule out (``shape.flattened``; the bootstrap of a fitted shape as in Silverman's 1981 test of modality, with inequalities
believed only where they are clear: Andrews and Soares 2010), with noise from both of its sources (``noise``). How long the
noise between checkpoints lasts is measured in steps (``timescale``), and the largest p-value under every plausible duration
counts. ``make calibration`` measures error rates and power by simulation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesdiff.core.seeds import derive
from bayesdiff.corruption.best import better_than_base, has_base, keepable, possible_best
from bayesdiff.corruption.collapse import collapsed, lost_from
from bayesdiff.corruption.covariance import ImageError, image_error
from bayesdiff.corruption.labels import by_level, labels_of, up_to_peak
from bayesdiff.corruption.levels import Told, told_apart
from bayesdiff.corruption.noise import Noise, measure_noise
from bayesdiff.corruption.outcome import IN_STAGE, KINDS, NO_DIP, NOT_MEASURED, SLOW, STAGE, SWING, CorruptionVerdict, outside_stage
from bayesdiff.corruption.shape import CLEAR_STEP, Array, fall_strength, flattened, monotone_fit, stage_strength, unimodal_fit
from bayesdiff.corruption.stage import REFITS, Stage, draws_beside, read_stage, spread_of
from bayesdiff.corruption.timescale import SHORT, Timescale, extra_steps, measure_timescale, noises_at
from bayesdiff.corruption.words import sentence_of

__all__ = [
    "IN_STAGE", "KINDS", "CorruptionVerdict", "Decision", "decide", "detect_corruption", "is_stage", "outside_stage", "stage_depth",
    "stage_p_value",
]  # fmt: skip

RESAMPLES = 1_000
SCREENED = 300
"""Resamples under each plausible noise, to find the one that explains a curve best."""
MIN_POINTS = 6
"""Rise, two checkpoints of fall, two of recovery, and one to spare."""
LARGEST = 1e9
"""A score of this size is no similarity in any unit: it counts as not finite."""
LARGEST_STEP = 2**53
SLOW_SHARE = 0.1
"""Of alpha, that a stage has to reach where swings outlast the checkpoints' distance: then nearly any dip may be a swing."""
HOPELESS = 0.2
"""Screened p-value from which on no stage is found by more resamples; simulations stop there."""
OF_RUNS = "the scatter of runs"
FALLING = 3
"""Falls in a row that are said at a curve's end."""


@dataclass(frozen=True)
class _Reading:
    """A curve that can be judged, its noise, and what its images tell."""

    steps: NDArray[np.int64]
    curve: Array
    noise: Noise
    """With the likeliest correlation time."""
    ways: tuple[tuple[Noise, ...], ...]
    """With every plausible one, for each way of reading its size (``timescale.noises_at``)."""
    source: str
    error: ImageError
    scale: Timescale | None = None
    told: Told | None = None


@dataclass(frozen=True)
class _Options:
    alpha: float
    min_depth: float


def detect_corruption(
    steps: ArrayLike, scores: ArrayLike, *, alpha: float = 0.05, min_depth: float = 0.03, seed: int = 0,
    groups: ArrayLike | None = None, checkpoint_noise: float | None = None, correlation_time: float | None = None,
) -> CorruptionVerdict:  # fmt: skip
    """Test a fidelity curve for checkpoints to avoid and for a corruption stage.

    Args:
        steps: (T,) increasing training steps.
        scores: (T, images), columns paired over checkpoints (same prompt and seed); (T,) for a bare
            curve, whose noise is estimated from its roughness alone; (runs, T, images) for several
            runs, whose scatter has all the noise. Higher is better.
        alpha: false-flag rate of each level over the whole curve, not per triple; 1 / 1001 or more, the smallest that the
            test's resamples show.
        min_depth: smallest depth of the fitted curve that counts as a stage, in the metric's units.
        seed: of the resampling; the result is a function of (data, seed).
        groups: (images,) label of each column's prompt, when prompts are a sample too: images are
            then averaged within a prompt and prompts are what varies.
        checkpoint_noise: standard deviation of the noise between checkpoints where it was measured
            elsewhere (other runs); None reads it off the curve. For a bare curve it has to be
            all the noise of a checkpoint's mean, that of its images too: nothing else shows it there.
        correlation_time: steps over which the correlation of that noise falls to 1/e, where it was measured elsewhere;
            None weighs it by what the curve shows at several lags.

    Raises:
        ValueError: shapes that do not match, steps that do not increase, or options out of range.
    """
    _check_options(alpha, min_depth, checkpoint_noise, correlation_time)
    at, values, runs = _clean(steps, scores, groups)
    finite = np.asarray(np.isfinite(values).all(axis=1))
    if not finite.all():
        return _plain(at, values, "diverged", _not_finite(at, finite))
    if len(at) < MIN_POINTS:
        count = "1 checkpoint is" if len(at) == 1 else f"{len(at)} checkpoints are"
        return _plain(at, values, "too_few_points", f"{count} too few for a verdict; give {MIN_POINTS} or more.")
    options, rng = _Options(alpha, min_depth), np.random.default_rng(derive(seed, "verdict"))
    reading = _read(at, values, runs, checkpoint_noise, correlation_time)
    if not runs:
        told = told_apart(at, values, alpha, min_depth, np.random.default_rng(derive(seed, "images")))
        reading = replace(reading, told=told)
    return _judged(reading, options, rng)


def _read(at: NDArray[np.int64], values: Array, runs: bool, size: float | None, time: float | None) -> _Reading:
    """The mean curve with its noise, under every plausible correlation time of its swings."""
    curve, error = values.mean(1), image_error(at, values)
    noise = measure_noise(values, runs=runs, checkpoint=size)
    if error.freedom:
        noise = replace(noise, freedom=max(int(error.freedom), 1), image_root=_root(error.covariance))
    source = _source(values.shape[1], runs, size)
    if noise.checkpoint == 0:
        return _Reading(at, curve, noise, ((noise,),), source, error)
    none = ImageError(np.zeros_like(error.covariance), 0.0, 0.0)
    scale = measure_timescale(at, curve, none if values.shape[1] == 1 else error, size=size, time=time)
    noises = [noises_at(noise, at, scale, int(k)) for k in np.flatnonzero(scale.plausible)]
    return _Reading(at, curve, noises_at(noise, at, scale, scale.best)[0], tuple(zip(*noises, strict=True)), source, error, scale)


def _root(covariance: Array) -> Array:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def _judged(reading: _Reading, options: _Options, rng: np.random.Generator) -> CorruptionVerdict:
    """The verdict of all levels, with its sentence."""
    stage = read_stage(reading.curve)
    p, least = _over_noises(reading, rng)
    deep = stage.depth >= options.min_depth
    told = reading.told
    if _is_stage(reading, p, deep, options):
        verdict = _corrupted(reading, stage, p, options, rng)
    else:
        verdict = _not_flagged(reading, stage, p, options, rng)
    level = _level_3(reading, verdict.flagged, deep, least <= options.alpha)
    runs = told.runs if told else ()
    verdict = replace(
        verdict, level_3=level, alpha=options.alpha, images_judged=told is not None,
        avoid=tuple((int(reading.steps[run.start]), int(reading.steps[run.stop - 1])) for run in runs),
        avoid_depths=tuple(run.depth for run in runs), correlation_times=reading.scale.span if reading.scale else None,
        extra_steps=_extra(reading, stage) if level == NOT_MEASURED else (), blips=_blips(reading, stage if verdict.flagged else None),
        image_noise=float(reading.noise.images.mean()), noise_source=reading.source,
    )  # fmt: skip
    return replace(verdict, sentence=sentence_of(verdict))


@dataclass(frozen=True)
class Decision:
    """What ``detect_corruption`` decides about one run, and nothing beside."""

    stage: bool
    avoid: bool
    """Whether there are checkpoints to avoid."""
    slow: bool
    """Whether the swings outlast the distance of the checkpoints."""


def decide(
    steps: ArrayLike, scores: ArrayLike, *, alpha: float = 0.05, min_depth: float = 0.03, seed: int = 0,
    checkpoint_noise: float | None = None, correlation_time: float | None = None, resamples: int = RESAMPLES,
) -> Decision:  # fmt: skip
    """The decisions of ``detect_corruption``, for simulations of many curves: five times as fast where there is no stage.

    Arguments and errors are as there. Scores, (T,) or (T, images), have to be finite, for 6 checkpoints or more. With fewer
    ``resamples`` than ``detect_corruption`` takes, decisions near ``alpha`` may differ from its own.
    """
    at, values, runs = _clean(steps, scores, None)
    options, rng = _Options(alpha, min_depth), np.random.default_rng(derive(seed, "verdict"))
    told = None if runs else told_apart(at, values, alpha, min_depth, np.random.default_rng(derive(seed, "images")))
    reading = replace(_read(at, values, runs, checkpoint_noise, correlation_time), told=told)
    possible = stage_depth(reading.curve) >= min_depth and (told is None or bool(told.runs))
    stage = possible and any(_holds(reading, noises, _needed(reading, options), rng, resamples) for noises in reading.ways)
    return Decision(stage, bool(told and told.runs), reading.scale is not None and reading.scale.slow)


def _holds(reading: _Reading, noises: tuple[Noise, ...], needed: float, rng: np.random.Generator, resamples: int) -> bool:
    """Whether a stage is told from the noise that explains it best; the longest correlation time, mostly that one, is asked first."""
    found = []
    for noise in reversed(noises):
        found.append(stage_p_value(reading.curve, noise, rng, min(SCREENED, resamples)))
        if found[-1] > HOPELESS:
            return False
    if resamples <= SCREENED:
        return max(found) <= needed
    return stage_p_value(reading.curve, noises[len(noises) - 1 - int(np.argmax(found))], rng, resamples) <= needed


def is_stage(
    steps: ArrayLike, scores: ArrayLike, *, alpha: float = 0.05, min_depth: float = 0.03, seed: int = 0,
    checkpoint_noise: float | None = None, correlation_time: float | None = None,
) -> tuple[bool, bool]:  # fmt: skip
    """Whether one run, (T,) or (T, images), has a stage, and whether it has checkpoints to avoid; see ``decide``."""
    decision = decide(
        steps, scores, alpha=alpha, min_depth=min_depth, seed=seed, checkpoint_noise=checkpoint_noise, correlation_time=correlation_time
    )
    return decision.stage, decision.avoid


def _is_stage(reading: _Reading, p: float, deep: bool, options: _Options) -> bool:
    seen = reading.told is None or bool(reading.told.runs)  # a stage that these images do not show is none
    return deep and seen and p <= _needed(reading, options)


def _needed(reading: _Reading, options: _Options) -> float:
    """The largest p-value that makes a stage, never below what the resamples show.

    Alpha holds where swings are surely over by the next checkpoint. On longer curves it shrinks with the chance of that, down to
    ``SLOW_SHARE`` of it where they are told to last longer.
    """
    if reading.scale is None:
        return options.alpha
    share = reading.scale.surely_short if reading.scale.slow or len(reading.steps) > SHORT else 1.0
    return max(max(share, SLOW_SHARE) * options.alpha, 1 / (RESAMPLES + 1))


def _over_noises(reading: _Reading, rng: np.random.Generator) -> tuple[float, float]:
    """p-value of a stage under the plausible noise that explains it best, and under that which does least.

    The smaller of the ways to read the noise's size counts: each is conservative where the other is sharp, and simulation
    has their joint error rate.
    """
    best, least = 1.0, 1.0
    for noises in reading.ways:
        found = [stage_p_value(reading.curve, noise, rng, SCREENED) for noise in noises]
        worst = noises[int(np.argmax(found))]
        best, least = min(best, stage_p_value(reading.curve, worst, rng)), min(least, *found)
    return best, min(best, least)


def _level_3(reading: _Reading, flagged: bool, deep: bool, some: bool) -> str:
    """What is known of the deepest dip: ``some`` plausible noise does not explain it."""
    if flagged:
        return STAGE
    if not deep:
        return NO_DIP
    slow = reading.scale is not None and reading.scale.slow
    if some:
        return SLOW if slow else NOT_MEASURED
    if reading.told is None or not reading.told.runs:
        return NO_DIP
    return SLOW if slow else SWING


def _extra(reading: _Reading, stage: Stage) -> tuple[int, ...]:
    if reading.scale is None:
        return ()
    return extra_steps(reading.steps, stage.onset, max(stage.recovery, stage.onset + 1), reading.scale)


def _check_options(alpha: float, min_depth: float, checkpoint_noise: float | None, correlation_time: float | None) -> None:
    least = 1 / (RESAMPLES + 1)
    if not least <= alpha < 1:
        raise ValueError(f"alpha={alpha} must lie below 1, and at {least:.4f} or above: {RESAMPLES} resamples show no smaller p-value")
    given = {"min_depth": min_depth, "checkpoint_noise": checkpoint_noise or 0.0, "correlation_time": correlation_time or 0.0}
    for name, value in given.items():
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
    between = "the curve by lag" if given is None else "a given noise between checkpoints"
    return f"images and {between}" if columns > 1 else between


def _p_value(
    strength: Callable[[Array], Array], fit: Callable[[Array], Array], curve: Array, noise: Noise, rng: np.random.Generator, resamples: int
) -> float:
    """Chance of a statistic this large under the flattest curve of the null's shape, with this noise."""
    drawn = strength(flattened(fit(curve), noise.size(), CLEAR_STEP) + noise.draw(rng, resamples))
    rounding = 1e-12 * np.abs(curve).max()
    return float((1 + (drawn >= strength(curve) - rounding).sum()) / (1 + resamples))


def _part(reading: _Reading, start: int, stop: int) -> _Reading:
    """Some checkpoints of a reading, with the noise of the whole."""
    return replace(reading, steps=reading.steps[start:stop], curve=reading.curve[start:stop], noise=reading.noise.part(start, stop))


def _stage_in(reading: _Reading, options: _Options, rng: np.random.Generator) -> Stage | None:
    """The strongest stage of a part of a curve, where there is one."""
    if len(reading.curve) < MIN_POINTS or stage_p_value(reading.curve, reading.noise, rng) > options.alpha:
        return None
    found = read_stage(reading.curve)
    return found if found.depth >= options.min_depth else None


def _all_labels(reading: _Reading, stage: Stage, options: _Options, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Labels of a curve with this stage, and what else to say of it: a return in between, further stages, a fall that has not come back.

    What lies before the peak, inside the stage (upside down) and behind the recovery is tested again, each at ``alpha``: a curve
    that has one stage may have others.
    """
    at, count = reading.steps, len(reading.steps)
    labels, more = labels_of(stage, count), []
    inside = _part(reading, stage.onset, stage.recovery)
    hump = _stage_in(replace(inside, curve=-inside.curve), options, rng)
    top = stage.onset + hump.trough if hump else 0
    if hump and 4 <= top < count - 4:
        first, second = read_stage(reading.curve[: top + 1]), read_stage(reading.curve[top:])
        labels = [*labels_of(first, top + 1)[:top], *labels_of(second, count - top)]
        more.append(f"In between it comes back, at step {at[top]}, and falls again.")
    for start, stop in ((0, stage.peak + 1), (stage.recovery, count)):
        part = _part(reading, start, stop)
        if other := _stage_in(part, options, rng):
            labels[start:stop] = labels_of(other, stop - start)
            more.append(f"So it does once more, around step {part.steps[other.trough]}.")
    behind = _part(reading, stage.trough, count)
    last = max(stage.recovery, stage.trough + int(behind.curve.argmax()))
    if "corrupted" not in labels[last:] and _has_fallen(behind, options, rng):
        labels[last + 1 :] = ["corrupted"] * (count - last - 1)
        more.append(f"It falls again after step {at[last]} and is not back at the last checkpoint.")
    return labels, more


def _has_fallen(reading: _Reading, options: _Options, rng: np.random.Generator) -> bool:
    """Whether the last checkpoints, two or more, lie below the highest one by more than noise."""
    deep = _ends_low(reading.curve, options)
    return deep and _p_value(fall_strength, monotone_fit, reading.curve, reading.noise, rng, RESAMPLES) <= options.alpha


def _ends_low(curve: Array, options: _Options) -> bool:
    peak = int(curve.argmax())
    return bool(len(curve) > 3 and peak < len(curve) - 2 and curve[peak] - curve[-2:].max() >= options.min_depth)


def _corrupted(reading: _Reading, stage: Stage, p: float, options: _Options, rng: np.random.Generator) -> CorruptionVerdict:
    at, curve = reading.steps, reading.curve
    draws = draws_beside(stage, curve, reading.noise, rng)
    spread = spread_of(stage, at, np.median(np.abs(draws), 0) / 0.6745, draws)  # the size of most draws: some are wild
    labels, more = _all_labels(reading, stage, options, rng)
    labels = by_level(labels, curve, reading.told)
    best, equals = _best(reading, labels, rng)
    better, where = _better(reading, rng), "before the stage" if best <= stage.peak else "after the recovery"
    return CorruptionVerdict(
        True, "corruption", p, spread.depth, spread.depth_interval, int(at[stage.peak]), int(at[stage.onset]), int(at[stage.trough]),
        int(at[stage.recovery]), int(at[best]), _reason(better, f"highest fidelity outside the corrupted range ({where})"),
        tuple(labels), reading.noise.between(), "", spread.area, best_steps=equals, remarks=tuple(more),
        better_than_base=better, peak_interval=spread.span(at, "peak"), onset_interval=spread.span(at, "onset"),
        trough_interval=spread.span(at, "trough"), recovery_interval=spread.span(at, "recovery"),
    )  # fmt: skip


def _blips(reading: _Reading, stage: Stage | None) -> tuple[int, ...]:
    """Checkpoints that lie three standard deviations below both neighbours, or that images tell from both, outside the stage and runs."""
    curve, size, told = reading.curve, reading.noise.size(), reading.told
    inner = np.arange(1, len(curve) - 1)
    gap = np.minimum(curve[inner - 1], curve[inner + 1]) - curve[inner]
    low = gap > 3 * np.sqrt(1.5) * size[inner]
    if told is not None:
        low |= told.worse[inner, inner - 1] & told.worse[inner, inner + 1]
    runs = {i for run in told.runs for i in range(run.start, run.stop)} if told else set()
    return tuple(int(reading.steps[i]) for i in inner[low] if i not in runs and (stage is None or not stage.peak < i < stage.recovery))


def _better(reading: _Reading, rng: np.random.Generator) -> bool:
    return better_than_base(reading.steps, reading.curve, reading.noise.draw_measured(rng, RESAMPLES))


def _reason(better: bool, reason: str) -> str:
    return reason if better else "nothing is better than the base model (step 0); the highest of the others"


def _best(reading: _Reading, labels: list[str], rng: np.random.Generator) -> tuple[int, tuple[int, ...]]:
    """The highest checkpoint outside the stage, and the steps that may be the best one."""
    allowed = keepable(reading.steps, labels)
    best = int(np.where(allowed, reading.curve, -np.inf).argmax())
    near = possible_best(reading.curve, reading.noise.draw_measured(rng, RESAMPLES), allowed)
    return best, tuple(int(s) for s in reading.steps[near])


def _not_flagged(reading: _Reading, stage: Stage, p: float, options: _Options, rng: np.random.Generator) -> CorruptionVerdict:
    """No stage; a fall at the end that is larger than noise is ``in_progress``, a rise there ``undertrained``."""
    at, curve, peak = reading.steps, reading.curve, int(reading.curve.argmax())
    interval = spread_of(stage, at, reading.noise.size(), reading.noise.draw(rng, REFITS)).depth_interval
    kind, labels = _kind(reading, options, rng), up_to_peak(curve)
    if kind == "in_progress":
        labels = ["corrupted" if i > peak else label for i, label in enumerate(labels)]
    labels = by_level(labels, curve, reading.told)
    best, equals = _best(reading, labels, rng)
    better, learnt = _better(reading, rng), kind == "in_progress" and not (has_base(at) and peak == 0)
    in_runs = [i for run in reading.told.runs for i in range(run.start, run.stop)] if kind == "unstable" and reading.told else []
    low = np.array(in_runs, dtype=np.intp)
    lost = lost_from(curve, reading.told, best) if kind != "in_progress" else None
    if lost is not None:
        labels = [*labels[:lost], *["corrupted"] * (len(at) - lost)]
    remarks = _falling(reading, best, lost, options) if better and kind != "in_progress" else ()
    reason = "highest fidelity; later checkpoints are lower" if kind == "in_progress" else "highest fidelity; no stage found"
    return CorruptionVerdict(
        False, kind if better or learnt else "nothing_better_than_base", p, max(stage.depth, 0.0), interval,
        int(at[peak]), None, int(at[low[int(curve[low].argmin())]]) if in_runs else None, None, int(at[best]), _reason(better, reason),
        tuple(labels), reading.noise.between(), "", best_steps=equals, better_than_base=better, remarks=remarks,
    )  # fmt: skip


def _falling(reading: _Reading, best: int, lost: int | None, options: _Options) -> tuple[str, ...]:
    """What a curve does at its end without being told from noise: a run of ``FALLING`` falls below the checkpoint to keep."""
    curve = reading.curve
    if lost is not None:
        worse = f"From step {reading.steps[lost]} on these images are worse than all before: keep none."
        return (f"{worse} More checkpoints would tell a fall from a swing.",)
    lasts = bool((np.diff(curve[-1 - FALLING :]) < 0).all()) and best < len(curve) - FALLING
    if not lasts or curve[best] - curve[-1] < options.min_depth:
        return ()
    gap = f"{curve[best] - curve[-1]:.3f} below step {reading.steps[best]}"
    return (f"The last {FALLING + 1} checkpoints fall, to {gap}, which is not told from noise: later ones would tell.",)


def _kind(reading: _Reading, options: _Options, rng: np.random.Generator) -> str:
    """Of a curve without a stage."""
    if _has_fallen(reading, options, rng) or (_ends_low(reading.curve, options) and collapsed(reading.curve, options.alpha)):
        return "in_progress"
    if reading.told is not None and reading.told.runs:
        return "unstable"  # images say that these checkpoints have fallen, whatever made them
    return "undertrained" if _still_rising(reading, rng) else "none"


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
    trained = finite & keepable(at, ["rising"] * len(at))
    best = int(np.where(trained if trained.any() else finite, curve, -np.inf).argmax())
    labels = tuple("rising" if ok else "corrupted" for ok in finite.tolist())
    better = not has_base(at) or bool(trained.any() and curve[best] > curve[0])
    return CorruptionVerdict(
        False, kind, 1.0, 0.0, (0.0, 0.0), None, None, None, None, int(at[best]), "highest finite score", labels, 0.0, sentence,
        better_than_base=better,
    )  # fmt: skip
