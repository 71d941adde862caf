"""The verdict with everything a run measured: corruption told apart from overfitting and broken sampling.

The fidelity curve alone decides whether there is a stage (``corruption``). The other columns say what
else happens: CLIP-T and diversity that fall while fidelity reaches the level of the photographs among
themselves are overfitting; images that failed from the first checkpoint on are a broken sampler. And
they decide which checkpoint to keep.

The best checkpoint is the one with the highest trade-off (``best``) outside the corrupted range.

What other columns say of a stage, CLIP-I that falls with the fidelity and high-frequency energy that changes, is added to the
sentence: noisy patterns and a tint look alike to one encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesdiff.corruption.best import keepable, possible_best, trade_off
from bayesdiff.corruption.detector import RESAMPLES, detect_corruption
from bayesdiff.corruption.kinds import NOISE, SPECKLE, grain, is_flat, kind_of
from bayesdiff.corruption.levels import told_apart
from bayesdiff.corruption.outcome import CorruptionVerdict, outside_stage
from bayesdiff.corruption.shape import Array
from bayesdiff.corruption.words import sentence_of

FAILED_SHARE = 0.5
"""A checkpoint is bad when more of its images failed than this."""
ALIGNMENT, DIVERSITY, FAILED = "clip_t", "diversity", "failed"
RELATIVE = "hf_relative"
BESIDE = {"clip_i": "CLIP-I", "dino": "DINO", "hf_energy": "high-frequency energy"}
"""Columns that are looked at for a second opinion on a fall, and what they are called."""


def diagnose(
    steps: Sequence[int], columns: Mapping[str, ArrayLike], fidelity: str = "dino", *, ceiling: float | None = None,
    alpha: float = 0.05, min_depth: float = 0.03, seed: int = 0, groups: ArrayLike | None = None,
    checkpoint_noise: float | None = None, correlation_time: float | None = None, whole: float = 1.0, photo_hf: float | None = None,
) -> CorruptionVerdict:  # fmt: skip
    """Verdict of ``fidelity`` over ``steps``, refined by the other columns there are.

    Args:
        columns: (T, images) scores by metric, images in one order; ``fidelity`` is needed, ``clip_t``,
            ``diversity``, ``failed`` (1 for an image that is not finite, or black), ``clip_i`` and ``hf_energy`` are used where
            they are, and left out where they have values that are not finite.
        ceiling: mean similarity of different photographs of the subject, in the fidelity's units.
        correlation_time: as for ``detect_corruption``.
        whole: fidelity of equal images: 1, or 100 for scores in percent.
        photo_hf: mean high-frequency energy of the training photographs, in the units of ``hf_energy``. Below ``kinds.FLAT`` grain
            is no share of it, and ``hf_relative`` is left out.

    Raises:
        ValueError: as ``detect_corruption``; a column of other checkpoints than the fidelity's, or several runs.
    """
    lost = _lost_at_the_end(columns)
    if lost and lost < len(steps):
        rest = {name: _matrix(values)[: len(steps) - lost] for name, values in columns.items()}
        before = diagnose(
            steps[: len(steps) - lost], rest, fidelity, ceiling=ceiling, alpha=alpha, min_depth=min_depth, seed=seed, groups=groups,
            checkpoint_noise=checkpoint_noise, correlation_time=correlation_time, whole=whole, photo_hf=photo_hf,
        )  # fmt: skip
        return _diverged(before, int(np.asarray(steps)[-lost]), lost)
    columns = _checked(columns, fidelity, (RELATIVE,) if is_flat(photo_hf) else ())
    photo_hf = None if is_flat(photo_hf) else photo_hf  # what the photographs lack is no denominator: the checkpoints beside are
    verdict = detect_corruption(
        steps, columns[fidelity], alpha=alpha, min_depth=min_depth, seed=seed, groups=groups, checkpoint_noise=checkpoint_noise,
        correlation_time=correlation_time,
    )  # fmt: skip
    at, reference = np.asarray(steps), (ceiling or whole) if ALIGNMENT in columns else None
    if verdict.kind == "too_few_points":  # the choice of a checkpoint must not wait: others are being deleted
        return _with_best(verdict, at, columns, fidelity, reference, groups, seed)
    if (broken := _broken(at, columns)) is not None:
        return replace(verdict, flagged=False, kind="broken_sampling", sentence=broken)
    if verdict.kind == "diverged":
        return verdict
    verdict = _with_grain(verdict, at, columns, fidelity, photo_hf, seed)
    over = _overfit(columns, fidelity, ceiling, verdict, alpha)
    verdict = _labelled(_with_others(_with_kinds(verdict, at, columns, fidelity, ceiling, photo_hf), at, columns, fidelity), over)
    verdict = _with_gaps(verdict, at)
    return _with_best(verdict, at, columns, fidelity, reference, groups, seed)


def _checked(columns: Mapping[str, ArrayLike], fidelity: str, left_out: Sequence[str]) -> dict[str, Array]:
    """All columns as (T, images), the fidelity as it stands; others that are not finite are left out."""
    main = _matrix(columns[fidelity])
    if main.ndim != 2:
        raise ValueError(f"scores of shape {main.shape}: give one run (checkpoints, images); several are for detect_corruption")
    found = {fidelity: main}
    for name, scores in columns.items():
        other = _matrix(scores)
        if len(other) != len(main):
            raise ValueError(f"column {name} has {len(other)} checkpoints, and {fidelity} {len(main)}")
        if name != fidelity and name not in left_out and np.isfinite(other).all():
            found[name] = other
    return found


def judge_run(
    steps: Sequence[int], columns: Mapping[str, ArrayLike], prompts: Sequence[int], detector: Mapping[str, Any],
    ceilings: Mapping[str, float], seed: int, *, photo_hf: float | None = None,
) -> CorruptionVerdict:  # fmt: skip
    """The verdict on a run by its own settings: while it trains, at its end, and from its record later.

    Args:
        prompts: (images,) the prompt of each column.
        detector: the ``detector`` group of the run's configuration.
        ceilings: similarity of different photographs of the subject by metric.
        photo_hf: mean high-frequency energy of the training photographs, where it is known.
    """
    metric = str(getattr(detector["metric"], "value", detector["metric"]))
    return diagnose(
        steps, columns, metric, ceiling=ceilings.get(metric), alpha=detector["alpha"], min_depth=detector["min_depth"], seed=seed,
        groups=list(prompts) if detector["sampled_prompts"] else None, checkpoint_noise=detector["checkpoint_noise"],
        correlation_time=detector.get("correlation_time"), photo_hf=photo_hf,
    )  # fmt: skip


def _broken(at: NDArray[np.int64], columns: Mapping[str, ArrayLike]) -> str | None:
    """Images that are not finite at the first checkpoint already, before training could have done it."""
    if FAILED not in columns:
        return None
    share = _matrix(columns[FAILED]).mean(1)
    if share[0] <= FAILED_SHARE:
        return None
    return (
        f"Broken sampling: {share[0]:.0%} of the images are not finite (shown black) at step {at[0]} already, and {share.mean():.0%} over "
        "all checkpoints. Look at precision, VAE and scheduler before judging the training."
    )


def _lost_at_the_end(columns: Mapping[str, ArrayLike]) -> int:
    """How many checkpoints at the end have images that failed, mostly, after one that has not: weights that are not finite stay so."""
    if FAILED not in columns:
        return 0
    bad = _matrix(columns[FAILED]).mean(1) > FAILED_SHARE
    return int(bad[::-1].argmin()) if not bad[0] else 0


def _diverged(before: CorruptionVerdict, step: int, count: int) -> CorruptionVerdict:
    """A verdict on what came before images failed for good, told of a training that diverged there."""
    if before.kind == "diverged":
        said = before.sentence
    else:
        what = f"From step {step} on most samples are black or not finite: training diverged"
        said = f"{what}. Go back before it, with a lower learning rate or full precision. What came before: {before.sentence}"
    labels = (*before.labels, *["corrupted"] * count)
    better = before.better_than_base and before.best_step != 0  # of step 0 alone nothing was trained
    return replace(before, flagged=False, kind="diverged", labels=labels, sentence=said, better_than_base=better)


def _matrix(scores: ArrayLike) -> Array:
    values = np.asarray(scores, dtype=np.float64)
    return values[:, None] if values.ndim == 1 else values


def _falls(scores: ArrayLike, limit: float) -> NDArray[np.bool_]:
    """Checkpoints whose images lie below those of the best checkpoint before, paired, by a one-sided t-test at ``limit``."""
    from scipy.special import stdtr

    values = _matrix(scores)
    count = values.shape[1]
    if count < 2:
        return np.zeros(len(values), dtype=bool)
    found = np.zeros(len(values), dtype=bool)
    for i in range(1, len(values)):
        gap = values[int(values[:i].mean(1).argmax())] - values[i]
        error = gap.std(ddof=1) / np.sqrt(count)
        found[i] = gap.mean() > 0 and stdtr(count - 1, -gap.mean() / max(error, 1e-12)) < limit
    return found


def _overfit(
    columns: Mapping[str, ArrayLike], fidelity: str, ceiling: float | None, verdict: CorruptionVerdict, alpha: float
) -> NDArray[np.bool_]:
    """Checkpoints with fidelity at the ceiling or above, where alignment or diversity has fallen.

    Without a ceiling (one photograph) no fidelity is too much, and nothing is called overfit.
    """
    level = _matrix(columns[fidelity]).mean(1)
    if ceiling is None:
        return np.zeros(len(level), dtype=bool)
    pairs = len(level) * (len(level) - 1) / 2  # any earlier checkpoint may be the best one that was
    limit = alpha / (2 * pairs)
    lost = [_falls(columns[name], limit) for name in (ALIGNMENT, DIVERSITY) if name in columns]
    traded: NDArray[np.bool_] = np.logical_or.reduce([np.zeros(len(level), dtype=bool), *lost])
    chosen: NDArray[np.bool_] = (level >= ceiling) & traded & outside_stage(verdict.labels)
    return chosen


def _labelled(verdict: CorruptionVerdict, over: NDArray[np.bool_]) -> CorruptionVerdict:
    """Checkpoints that are overfit say so; where there is no stage and the last one is, so does the verdict."""
    labels = tuple("overfit" if o else label for o, label in zip(over, verdict.labels, strict=True))
    kind = "overfit" if verdict.kind in ("none", "undertrained", "unstable") and over[-1] else verdict.kind
    return replace(verdict, kind=kind, labels=labels)


def _with_kinds(
    verdict: CorruptionVerdict, at: NDArray[np.int64], columns: Mapping[str, Array], fidelity: str, ceiling: float | None,
    photo_hf: float | None,
) -> CorruptionVerdict:  # fmt: skip
    """The second level: what changed in each run to avoid, against the checkpoints beside it."""
    if not verdict.avoid or len(columns) < 2:
        return verdict
    spans = [(int(np.searchsorted(at, first)), int(np.searchsorted(at, last)) + 1) for first, last in verdict.avoid]
    beside = keepable(at, verdict.labels)
    for start, stop in spans:
        beside[start:stop] = False
    full = {name: values for name, values in columns.items() if np.isfinite(values).all()}
    found = [kind_of(full, *span, beside, fidelity=fidelity, ceiling=ceiling, photo_hf=photo_hf) for span in spans]
    return replace(verdict, avoid_kinds=tuple(bad.kind for bad in found), avoid_evidence=tuple(bad.reason for bad in found))


def _with_grain(
    verdict: CorruptionVerdict, at: NDArray[np.int64], columns: Mapping[str, Array], fidelity: str, photo_hf: float | None, seed: int
) -> CorruptionVerdict:
    """The first level once more, on high-frequency energy: dense speckle that the fidelity does not see is not to be kept either."""
    share = grain(columns, photo_hf)
    if share is None or not np.isfinite(share).all() or verdict.kind == "diverged":
        return verdict
    told = told_apart(at, -share, verdict.alpha, NOISE, np.random.default_rng((seed, 18)))
    labels, found = list(verdict.labels), []
    for run in told.runs if told else ():
        inside = float(share[run.start : run.stop].mean())
        known = any(first <= at[i] <= last for i in range(run.start, run.stop) for first, last in verdict.avoid)
        if inside > SPECKLE and not known:
            labels[run.start : run.stop] = ["corrupted"] * (run.stop - run.start)
            found.append(((int(at[run.start]), int(at[run.stop - 1])), inside))
    if not found:
        return verdict
    curve, allowed = columns[fidelity].mean(1), keepable(at, labels)
    best = int(at[int(np.where(allowed, curve, -np.inf).argmax())])
    near = tuple(step for step in verdict.best_steps if allowed[int(np.searchsorted(at, step))])
    spans, sizes = zip(*found, strict=True)
    return replace(
        verdict, labels=tuple(labels), grainy=spans, grainy_shares=sizes, grainy_beside=fidelity, best_step=best, best_steps=near or (best,)
    )


def _with_others(verdict: CorruptionVerdict, at: NDArray[np.int64], columns: Mapping[str, Array], fidelity: str) -> CorruptionVerdict:
    """What other columns did between the peak and the trough of a stage, where images agree on it (paired, two-sided, 1 %)."""
    from scipy.special import stdtr

    if not verdict.flagged or verdict.peak_step is None or verdict.trough_step is None:
        return verdict
    peak, trough = (int(np.flatnonzero(at == step)[0]) for step in (verdict.peak_step, verdict.trough_step))
    said = []
    for name, called in BESIDE.items():
        if name == fidelity or name not in columns or (count := columns[name].shape[1]) < 2:
            continue
        gap = columns[name][trough] - columns[name][peak]
        error = max(gap.std(ddof=1) / np.sqrt(count), 1e-12)
        if 2 * stdtr(count - 1, -abs(gap.mean()) / error) < 0.01:
            said.append(f"{called} {'falls' if gap.mean() < 0 else 'rises'} by {abs(gap.mean()):.3f}")
    if not said:
        return verdict
    return replace(verdict, remarks=(*verdict.remarks, f"From peak to trough {' and '.join(said)}."))


def _with_gaps(verdict: CorruptionVerdict, at: NDArray[np.int64]) -> CorruptionVerdict:
    """What lies between two runs to avoid and has not recovered is not to be kept either."""
    said, kept = [], outside_stage(verdict.labels)
    for (_, end), (start, _) in pairwise(verdict.avoid):
        between = (at > end) & (at < start)
        if between.any() and not kept[between].any():
            first, last = at[between][0], at[between][-1]
            said.append(f"step {first}" if first == last else f"steps {first} to {last}")
    if not said:
        return verdict
    return replace(verdict, remarks=(*verdict.remarks, f"Nor keep {' or '.join(said)}: not recovered in between."))


def _image_weights(count: int, groups: ArrayLike | None, rng: np.random.Generator) -> Array:
    """What images count for in resampled means, (draws, images): images drawn with replacement, or whole groups of them (prompts).

    Means scatter as Student's t has it; without that, four images would seem to be known by a seventh too well.
    """
    _, group = np.unique(np.arange(count) if groups is None else np.asarray(groups), return_inverse=True)
    members = np.bincount(group)
    drawn = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=RESAMPLES)
    weights = np.asarray(drawn[:, group], dtype=np.float64)
    shares: Array = weights / weights.sum(1, keepdims=True)
    if (free := len(members) - 1) == 0:
        return shares
    wider = np.sqrt(len(members) / free) * np.sqrt(free / rng.chisquare(free, RESAMPLES))[:, None]  # few images are too alike
    return np.asarray(1 / len(group) + wider * (shares - 1 / len(group)))


def _with_best(
    verdict: CorruptionVerdict, at: NDArray[np.int64], columns: Mapping[str, Array], fidelity: str, reference: float | None,
    groups: ArrayLike | None, seed: int,
) -> CorruptionVerdict:  # fmt: skip
    """Choose by the trade-off, with the steps that may have the best one, as far as the images tell.

    ``reference`` is the fidelity that counts as all of it; None where there is no alignment to weigh.
    """
    if reference is None:
        return _worded(verdict)
    f, a = columns[fidelity], columns[ALIGNMENT]
    if a.shape != f.shape:  # means of a checkpoint alone: the same for all images
        a = np.repeat(a.mean(1, keepdims=True), f.shape[1], axis=1)
    allowed, score = keepable(at, verdict.labels), trade_off(f.mean(1), a.mean(1), reference)
    best = int(np.where(allowed, score, -np.inf).argmax())
    rng = np.random.default_rng((seed, 17))
    weights = _image_weights(f.shape[1], groups, rng)
    alone = verdict.checkpoint_noise if f.shape[1] == 1 else 0.0  # a swing of many images is the checkpoint's own, and is kept with it
    drawn = trade_off(weights @ f.T + alone * rng.standard_normal((len(weights), len(f))), weights @ a.T, reference)
    equals = tuple(int(s) for s in at[possible_best(score, drawn - drawn.mean(0), allowed)])
    others = f"; {len(equals) - 1} other checkpoints may be as good" if len(equals) > 1 else ""
    reason = f"best trade-off of fidelity (up to {reference:.3g}) and prompt alignment outside the corrupted range{others}"
    reason = reason if verdict.better_than_base else verdict.best_reason
    return _worded(replace(verdict, best_step=int(at[best]), best_steps=equals, best_reason=reason))


def _worded(verdict: CorruptionVerdict) -> CorruptionVerdict:
    """With the sentence that its fields make; of a curve that was not tested, what it says already."""
    return verdict if verdict.kind == "too_few_points" else replace(verdict, sentence=sentence_of(verdict))
