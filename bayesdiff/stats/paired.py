"""Paired differences between arms, with intervals that account for subjects, seeds, prompts and images.

Arrays have the shape ``(runs, subjects, steps, images)``. Runs are seeds, and images are ordered by prompt. Two arrays are
paired entry by entry: the same seed, subject, checkpoint, prompt and sampling seed. What pairs share cancels first.

The bootstrap is hierarchical (Field and Welsh 2007). It draws subjects, and then seeds within each drawn subject. Prompts and
images within them are the same in every cell, so that it draws them once for all cells. The mean over prompts and images comes
from the normal distribution with exactly the variance of nested resampling. That makes ten thousand resamples a matter of a second.

Two corrections keep intervals of few members wide enough:

* A level with n members has its deviations widened by sqrt(n / (n - 1)).
* Percentiles are expanded from the normal to the t distribution (Hesterberg 2015). Its degrees of freedom are those of the level
  that the variance comes from (Satterthwaite 1946), and at most those of the outermost level of runs. Otherwise two seeds that
  agree by chance would let prompts and images speak for other seeds.

Limits of a result:

* A level with one member cannot be resampled, and ``Difference.levels`` names the levels that were.
* Without subjects and seeds among them, a result is about these very runs.
* The bootstrap draws other seeds for every subject. It does not cover what one seed does to all subjects alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesdiff.core.seeds import derive

Array = NDArray[np.float64]
ROUNDING = 1e9
"""A difference of this many standard errors is the same everywhere, except in the last digits."""
LEVELS = ("subjects", "seeds", "prompts", "images")


@dataclass(frozen=True)
class Difference:
    """Mean paired difference at every step, with its interval; all arrays are (steps,)."""

    mean: Array
    low: Array
    high: Array
    p_value: Array
    """Two-sided, of no difference: a t-test on the bootstrap's standard error; nan where nothing varied."""
    std_error: Array
    """Standard deviation of the resampled means, before the expansion to t."""
    freedom: Array
    """Degrees of freedom of that error; nan where nothing could vary."""
    levels: tuple[str, ...]
    """What varied over resamples."""
    resamples: int

    @property
    def of_runs(self) -> bool:
        """Whether seeds or subjects varied, so that the result also speaks for other runs."""
        return "subjects" in self.levels or "seeds" in self.levels


def aggregate_as_paper(scores: ArrayLike) -> tuple[Array, Array]:
    """As the paper prints: the mean over subjects and images for every seed, then mean and standard deviation over seeds.

    Args:
        scores: (runs, subjects, steps, images).

    Returns:
        Mean and standard deviation over seeds (ddof 1; nan for one seed), (steps,) each. The deviation says how much
        another seed would change the mean of these subjects and prompts. It says nothing about others.
    """
    of_seeds = _four(scores).mean(3).mean(1)
    spread = of_seeds.std(0, ddof=1) if len(of_seeds) > 1 else np.full(of_seeds.shape[1], np.nan)
    return of_seeds.mean(0), spread


def aggregate_hierarchically(
    scores: ArrayLike, *, prompts: ArrayLike | None = None, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Difference:
    """Mean of one arm, (runs, subjects, steps, images), with the interval that all levels of resampling give.

    ``p_value`` is against zero.
    """
    values = _four(scores)
    return paired_difference(values, np.zeros_like(values), prompts=prompts, resamples=resamples, seed=seed, level=level)


def paired_difference(
    on: ArrayLike, off: ArrayLike, *, prompts: ArrayLike | None = None, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Difference:
    """Paired hierarchical bootstrap of ``on - off``.

    Args:
        on, off: (runs, subjects, steps, images), paired entry by entry.
        prompts: (images,) prompt of each image; None takes every image as a prompt of its own.
        resamples: bootstrap draws; no p-value is smaller than 2 / (resamples + 1).
        seed: of the resampling. The order of seeds, subjects or images does not matter.
        level: of the interval (percentiles of the resampled means).

    Raises:
        ValueError: shapes that differ, are not four-dimensional or empty, or values that are not finite.
    """
    difference = _four(on) - _four(off, like=np.shape(on))
    runs, subjects, _, images = difference.shape
    labels = np.arange(images) if prompts is None else np.asarray(prompts)
    if labels.shape != (images,):
        raise ValueError(f"prompts of shape {labels.shape} do not match {images} images: give one prompt an image")
    rng = np.random.default_rng(derive(seed, "hierarchical bootstrap"))
    cells, inner = _canonical(difference.mean(3)), _inner_error(difference.mean((0, 1)), labels)
    counts = (subjects, runs, len(np.unique(labels)), images // max(len(np.unique(labels)), 1))
    varied = tuple(name for name, count in zip(LEVELS, counts, strict=True) if count > 1)
    centre, freedom = difference.mean((0, 1, 3)), _freedom(cells, inner, counts[2] if counts[2] > 1 else images)
    drawn = _resample(cells, rng, resamples) + inner * rng.standard_normal((resamples, 1))
    std_error, tail = drawn.std(0), (1 - level) / 2
    wide = centre + _expansion(freedom, level) * (drawn - centre)
    low, high = np.quantile(wide, [tail, 1 - tail], axis=0)
    p = np.maximum(_p_value(centre, std_error, freedom), 2 / (resamples + 1))
    return Difference(centre, low, high, p, std_error, freedom, varied, resamples)


def _p_value(centre: Array, error: Array, freedom: Array) -> Array:
    """Two-sided t-test; nan where nothing could vary, and for a difference that is the same everywhere.

    Counting draws beyond 0 would not do: a handful of cells has a handful of different resamples.
    """
    from scipy.stats import t

    ratio = np.abs(centre) / np.maximum(error, 1e-300)
    return np.where(ratio > ROUNDING, np.nan, 2 * t.sf(ratio, freedom))


def _expansion(freedom: Array, level: float) -> Array:
    """Factor from the normal to the t distribution's quantile; 1 where there is nothing to expand."""
    from scipy.stats import norm, t

    tail = (1 + level) / 2
    factor: Array = np.nan_to_num(np.asarray(t.ppf(tail, freedom) / norm.ppf(tail)), nan=1.0)
    return factor


def _freedom(cells: Array, inner: Array, members: int) -> Array:
    """Satterthwaite's degrees of freedom of the mean, (steps,).

    They weigh the degrees of freedom of each level by its share of the variance. The result is at most the degrees of freedom
    of the subjects, or of the seeds of one subject. Where few members agree by chance, their share looks small. Without the
    limit, the formula would rely on the prompts and images of these runs.

    Args:
        cells: (runs, subjects, steps) means.
        inner: (steps,) standard deviation of the mean over prompts and images, of which there are ``members``.
    """
    runs, subjects, _ = cells.shape
    seen, of_seeds = _subject_scatter(cells)
    parts = [
        (np.maximum(seen - of_seeds, 0.0) / subjects, subjects - 1),
        (of_seeds / subjects, subjects * (runs - 1)),
        (inner**2, members - 1),
    ]
    known = [(variance, freedom) for variance, freedom in parts if freedom > 0]
    if not known:
        return np.full(cells.shape[-1], np.nan)
    total = np.sum([variance for variance, _ in known], axis=0)
    spent = np.sum([variance**2 / freedom for variance, freedom in known], axis=0)
    least = float(min(freedom for _, freedom in known))
    most = subjects - 1 or runs - 1 or members - 1
    return np.where(total > 0, np.minimum(total**2 / np.maximum(spent, 1e-300), most), least)


def _four(scores: ArrayLike, like: tuple[int, ...] | None = None) -> Array:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 4 or 0 in values.shape:
        raise ValueError(f"scores of shape {values.shape}: give (runs, subjects, steps, images)")
    if like is not None and values.shape != tuple(like):
        raise ValueError(f"arms of shapes {tuple(like)} and {values.shape} are not paired")
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite: leave runs that diverged out by name, and say so")
    return values


def _inner_error(difference: Array, labels: NDArray[np.generic]) -> Array:
    """Standard deviation of the mean of (steps, images) under resampling of prompts and of images within them, (steps,)."""
    names, where = np.unique(labels, return_inverse=True)
    groups = [difference[..., where == g] for g in range(len(names))]
    weights = np.array([group.shape[-1] for group in groups]) / difference.shape[-1]
    means = np.stack([group.mean(-1) for group in groups], -1)
    within = np.stack([_variance(group) / group.shape[-1] for group in groups], -1)
    between = _variance(means * weights * len(names)) / len(names)
    error: Array = np.sqrt(between + (within * weights**2).sum(-1))
    return error


def _variance(values: Array) -> Array:
    """Unbiased variance over the last axis; 0 for a single value."""
    return values.var(-1, ddof=1) if values.shape[-1] > 1 else np.zeros(values.shape[:-1])


def _canonical(cells: Array) -> Array:
    """Sort seeds and subjects by their values, so that the order of the input does not matter."""
    for subject in range(cells.shape[1]):
        cells[:, subject] = cells[np.lexsort(cells[:, subject].T[::-1]), subject]
    rows = cells.transpose(1, 0, 2).reshape(cells.shape[1], -1)
    return cells[:, np.lexsort(rows.T[::-1])]


def _widened(drawn: Array, centre: Array, count: int) -> Array:
    """Widen the deviations of a level's draws, because a resample of ``count`` members repeats some."""
    return centre + (drawn - centre) * np.sqrt(count / (count - 1)) if count > 1 else drawn


def _subject_scatter(cells: Array) -> tuple[Array, Array]:
    """Variance of the subjects' means (0 for one subject), and its part that seeds explain, (steps,) each."""
    return _variance(cells.mean(0).T), _variance(cells.transpose(1, 2, 0)).mean(0) / len(cells)


def _own_share(cells: Array) -> Array:
    """Factor that shrinks the deviations of subjects, (steps,), to the part that their seeds do not explain.

    Seeds also scatter the means of subjects. Resampling seeds within subjects would add that scatter a second time
    (Carpenter, Goldstein and Rasbash 2003).
    """
    seen, of_seeds = _subject_scatter(cells)
    return np.sqrt(np.maximum(seen - of_seeds, 0.0) / np.where(seen > 0, seen, 1.0))


def _resample(cells: Array, rng: np.random.Generator, resamples: int) -> Array:
    """Means of resampled subjects ⊃ seeds, (resamples, steps)."""
    runs, subjects, steps = cells.shape
    drawn = np.empty((resamples, steps))
    of_subjects, own = cells.mean(0), _own_share(cells)
    block = max(1, 2_000_000 // (runs * subjects * steps))
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        s = rng.integers(subjects, size=(count, subjects))
        r = rng.integers(runs, size=(count, subjects, runs))
        centre = of_subjects[s]
        inner = _widened(cells[r, s[..., None]].mean(2), centre, runs)
        around = of_subjects.mean(0)
        drawn[start : start + count] = around + own * (_widened(centre.mean(1), around, subjects) - around) + (inner - centre).mean(1)
    return drawn


def holm(p_values: ArrayLike) -> Array:
    """Holm's step-down correction of a table's p-values, (tests,) to (tests,); nan stays nan and does not count."""
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(p.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p.flat[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected.flat[order] = np.minimum(np.maximum.accumulate(factors * p.flat[order]), 1.0)
    return corrected
