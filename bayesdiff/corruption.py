"""The verdict: does a fidelity curve rise, fall, and come back by more than noise?

The null hypothesis is "rises or stays, or declines to a new level without coming back": a curve
that is unimodal in expectation. The statistic is the deepest dip that is two checkpoints wide,

    D = max over t of  min(best before t, best after t+1) - max(m[t], m[t+1]),

a maximum over all (peak, trough, recovery) triples, so that one test covers them all. Its null
distribution is a parametric bootstrap around the closest unimodal curve (isotonic regression up to
the best mode, antitonic after it: Barlow et al. 1972; the bootstrap of a fitted shape constraint as
in Silverman's 1981 test of modality). Two sources of noise are added to that curve: resampled images,
the same images at every checkpoint (paired), and independent noise between checkpoints, because one
weight update moves all images together; its size comes from the curve's own roughness.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesdiff.seeds import derive

Array = NDArray[np.float64]
RESAMPLES = 2_000
MIN_POINTS = 5
"""Rise, two checkpoints of fall, recovery, and one to spare."""


@dataclass(frozen=True)
class CorruptionVerdict:
    """What the curve shows. Steps are training steps; depth is in the metric's units."""

    flagged: bool
    kind: str
    """corruption, in_progress (fallen, not back at the end), none, too_few_points or diverged."""
    p_value: float
    depth: float
    depth_interval: tuple[float, float]
    peak_step: int | None
    onset_step: int | None
    trough_step: int | None
    recovery_step: int | None
    best_step: int
    best_reason: str
    labels: tuple[str, ...]
    """For every checkpoint: rising, peak (also a plateau after it), corrupted, recovering or recovered."""
    checkpoint_noise: float
    """Standard deviation of the noise between checkpoints, estimated from roughness."""
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``from_dict`` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> CorruptionVerdict:
        pairs = {"depth_interval": tuple(values["depth_interval"]), "labels": tuple(values["labels"])}
        return CorruptionVerdict(**{**values, **pairs})


def wide_dip(curves: Array) -> tuple[Array, NDArray[np.intp]]:
    """The deepest dip two checkpoints wide of each curve (…, T): its depth and the index t of its floor.

    Depth is negative where every pair of neighbours lies above one of its sides.
    """
    before = np.maximum.accumulate(curves, axis=-1)[..., :-3]
    after = np.maximum.accumulate(curves[..., ::-1], axis=-1)[..., ::-1][..., 3:]
    floor = np.maximum(curves[..., 1:-2], curves[..., 2:-1])
    depth = np.minimum(before, after) - floor
    where = depth.argmax(axis=-1)
    return np.take_along_axis(depth, where[..., None], axis=-1)[..., 0], where + 1


def unimodal_fit(curve: Array) -> Array:
    """The closest curve (least squares) that rises to one mode and falls after it."""
    from scipy.optimize import isotonic_regression

    best, best_error = curve, np.inf
    for mode in range(1, len(curve) + 1):
        up = isotonic_regression(curve[:mode]).x
        down = isotonic_regression(curve[mode:], increasing=False).x if mode < len(curve) else curve[:0]
        fit = np.concatenate([up, down])
        error = float(((fit - curve) ** 2).sum())
        if error < best_error - 1e-15 and (mode == len(curve) or up[-1] >= down[0] - 1e-12):
            best, best_error = fit, error
    return best


def roughness(curve: Array) -> float:
    """Standard deviation of independent noise between checkpoints, from second differences.

    The median keeps a few real corners (rise, onset, recovery) from counting as noise.
    """
    bend = np.abs(np.diff(curve, 2))
    return float(np.median(bend) / (0.6745 * np.sqrt(6.0)))


def _checkpoint_noise(curve: Array, images: Array) -> float:
    """Roughness that resampled images (RESAMPLES, T) do not explain.

    What an image keeps over all checkpoints (its level) bends no curve, so both sides are compared in
    second differences.
    """
    explained = float(np.median(np.diff(images, 2, axis=1).var(0))) / 6.0
    return float(np.sqrt(max(roughness(curve) ** 2 - explained, 0.0)))


def _image_noise(scores: Array, rng: np.random.Generator) -> Array:
    """Deviations of the mean curve under resampling of images, (RESAMPLES, T); paired over checkpoints."""
    images = scores.shape[1]
    counts = rng.multinomial(images, np.full(images, 1 / images), size=RESAMPLES) / images
    return (counts @ scores.T - scores.mean(1)) * np.sqrt(images / max(images - 1, 1))


def _clean(steps: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], Array]:
    at, values = np.asarray(steps, dtype=np.int64), np.asarray(scores, dtype=np.float64)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or at.ndim != 1 or len(at) != len(values) or values.shape[1] == 0:
        raise ValueError(f"scores of shape {values.shape} do not match {len(at)} steps: give (checkpoints, images) or (checkpoints,)")
    if len(at) == 0 or (np.diff(at) <= 0).any():
        raise ValueError("steps must be increasing and distinct")
    return at, values


def detect_corruption(
    steps: ArrayLike, scores: ArrayLike, *, alpha: float = 0.05, min_depth: float = 0.03, seed: int = 0
) -> CorruptionVerdict:
    """Test a fidelity curve for a corruption stage.

    Args:
        steps: (T,) increasing training steps.
        scores: (T, images), columns paired over checkpoints (same prompt and seed), or (T,) for a
            bare curve, whose noise is estimated from its roughness alone. Higher is better.
        alpha: false-flag rate over the whole curve, not per triple.
        min_depth: smallest depth that counts as a stage, in the metric's units.
        seed: of the resampling; the result is a function of (data, seed).

    Raises:
        ValueError: shapes that do not match, or steps that do not increase.
    """
    at, values = _clean(steps, scores)
    finite = np.isfinite(values).all(1)
    if not finite.all():
        return _plain(at, values, "diverged", f"Scores are not finite from step {at[~finite][0]} on: training diverged.")
    curve = values.mean(1)
    if len(at) < MIN_POINTS:
        return _plain(at, values, "too_few_points", f"{len(at)} checkpoints are too few for a verdict; give {MIN_POINTS} or more.")
    rng = np.random.default_rng(derive(seed, "verdict"))
    images = _image_noise(values, rng) if values.shape[1] > 1 else np.zeros((RESAMPLES, len(at)))
    tau = _checkpoint_noise(curve, images)
    noise = images + tau * rng.standard_normal(images.shape)
    depth, floor = wide_dip(curve)
    null_depth, _ = wide_dip(unimodal_fit(curve) + noise)
    p = float((1 + (null_depth >= depth).sum()) / (1 + RESAMPLES))
    if p <= alpha and depth >= min_depth:
        return _corrupted(at, curve, int(floor), p, tau, noise)
    return _not_flagged(at, curve, float(depth), int(floor), p, tau, noise, min_depth)


def _stage(curve: Array, floor: int) -> tuple[int, int, int, int, int]:
    """Indices of peak, onset, trough, recovery and last corrupted checkpoint around a dip."""
    peak = int(curve[:floor].argmax())
    back = floor + 2 + int(curve[floor + 2 :].argmax())
    trough = peak + 1 + int(curve[peak + 1 : back].argmin())
    depth = min(curve[peak], curve[back]) - curve[trough]
    level = curve[trough] + 0.5 * depth
    onset = peak + 1 + int((curve[peak + 1 : trough + 1] < curve[peak] - 0.25 * (curve[peak] - curve[trough])).argmax())
    recovery = trough + 1 + int((curve[trough + 1 : back + 1] >= level).argmax())
    return peak, onset, trough, recovery, back


def _corrupted(at: NDArray[np.int64], curve: Array, floor: int, p: float, tau: float, noise: Array) -> CorruptionVerdict:
    peak, onset, trough, recovery, back = _stage(curve, floor)
    depth = float(min(curve[peak], curve[back]) - curve[trough])
    shaken = curve + noise
    spread = np.minimum(shaken[:, peak], shaken[:, back]) - shaken[:, trough]
    interval = _interval(spread)
    labels = ["rising"] * len(at)
    labels[peak] = "peak"
    labels[peak + 1 : recovery] = ["corrupted"] * (recovery - peak - 1)
    labels[recovery:] = ["recovered"] * (len(at) - recovery)
    labels[trough + 1 : recovery] = ["recovering"] * (recovery - trough - 1)
    best = _best(curve, labels)
    where = "before the stage" if best <= peak else "after the recovery"
    reason = f"highest fidelity outside the corrupted range ({where})"
    sentence = (
        f"Corrupted: fidelity peaks at step {at[peak]} ({curve[peak]:.3f}), falls from step {at[onset]} to {curve[trough]:.3f} at step "
        f"{at[trough]} (depth {depth:.3f}, 95% interval {interval[0]:.3f} to {interval[1]:.3f}, p = {p:.4f}) and recovers by step "
        f"{at[recovery]}. Keep step {at[best]}."
    )
    return CorruptionVerdict(
        True, "corruption", p, depth, interval, int(at[peak]), int(at[onset]), int(at[trough]), int(at[recovery]),
        int(at[best]), reason, tuple(labels), tau, sentence,
    )  # fmt: skip


def _interval(samples: Array) -> tuple[float, float]:
    """Central 95 % of resampled values."""
    return float(np.quantile(samples, 0.025)), float(np.quantile(samples, 0.975))


def _best(curve: Array, labels: list[str]) -> int:
    allowed = np.array([label not in ("corrupted", "recovering") for label in labels])
    return int(np.where(allowed, curve, -np.inf).argmax())


def _not_flagged(
    at: NDArray[np.int64], curve: Array, depth: float, floor: int, p: float, tau: float, noise: Array, min_depth: float
) -> CorruptionVerdict:
    """No stage; a fall at the end that is larger than noise is ``in_progress``."""
    peak = int(curve.argmax())
    fall = float(curve[peak] - curve[-2:].max()) if peak < len(at) - 2 else 0.0
    fallen = fall > max(min_depth, 3 * float((noise[:, peak] - noise[:, -1]).std()))
    shaken = curve + noise
    sides = np.minimum(shaken[:, :floor].max(1), shaken[:, floor + 2 :].max(1))
    spread = np.maximum(sides - shaken[:, floor : floor + 2].max(1), 0.0)
    interval = _interval(spread)
    reason = "highest fidelity; later checkpoints are lower" if fallen else "highest fidelity; no stage found"
    after = "corrupted" if fallen else "peak"
    labels = tuple("rising" if i < peak else "peak" if i == peak else after for i in range(len(at)))
    if fallen:
        sentence = (
            f"In progress: fidelity fell by {fall:.3f} after step {at[peak]} and is not back at the last checkpoint. Keep step {at[peak]}."
        )
    else:
        sentence = f"No corruption stage: the deepest dip is {max(depth, 0.0):.3f} (p = {p:.3f}). Keep step {at[peak]}."
    return CorruptionVerdict(
        False, "in_progress" if fallen else "none", p, max(depth, 0.0), interval, int(at[peak]), None, None, None,
        int(at[peak]), reason, labels, tau, sentence,
    )  # fmt: skip


def _plain(at: NDArray[np.int64], values: Array, kind: str, sentence: str) -> CorruptionVerdict:
    """A verdict without a test: the best finite checkpoint and why there is no more to say."""
    curve = np.where(np.isfinite(values).all(1), values.mean(1), -np.inf)
    best = int(curve.argmax())
    labels = tuple("rising" if np.isfinite(v) else "corrupted" for v in curve)
    return CorruptionVerdict(
        False, kind, 1.0, 0.0, (0.0, 0.0), None, None, None, None, int(at[best]), "highest finite score", labels, 0.0, sentence
    )
