"""Paired differences between arms, with intervals that hold the difference as often as they say.

Arrays have the shape ``(runs, subjects, steps, images)``. Runs are seeds, and images are ordered by prompt. Two arrays are
paired entry by entry: the same seed, subject, checkpoint, prompt and sampling seed. What pairs share cancels first.

The interval is a t interval over the outermost level that has two members or more:

* With several subjects, it is the paired t interval over the subjects' means. Seeds, prompts and images scatter those means
  already, so that nothing of them is added a second time. With normal scatter the interval is exact for any number of seeds.
* With one subject and several seeds, it is the paired t interval over seeds. It speaks for that subject alone.
* With one run on each side, it is an interval over prompts and images. It speaks for these two runs alone.

Prompts and initial noise are the same in every run. Intervals over runs therefore speak for these prompts, as a benchmark's
fixed list has them. ``sampled_prompts=True`` takes the prompts as a sample of all prompts instead. Then what a prompt does to all
runs alike enters too: a mean square of prompts less that of their interaction with runs (Satterthwaite 1946).

An interval does not cover what one seed does to all subjects alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    """Two-sided, of no difference: a t-test; nan where nothing varied."""
    std_error: Array
    """Of the mean."""
    freedom: Array
    """Degrees of freedom of that error; nan where nothing could vary."""
    levels: tuple[str, ...]
    """What the interval is over."""

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
    scores: ArrayLike, *, prompts: ArrayLike | None = None, sampled_prompts: bool = False, level: float = 0.95
) -> Difference:
    """Mean of one arm, (runs, subjects, steps, images), with the interval that ``paired_difference`` would give it.

    ``p_value`` is against zero.
    """
    values = _four(scores)
    return paired_difference(values, np.zeros_like(values), prompts=prompts, sampled_prompts=sampled_prompts, level=level)


def paired_difference(
    on: ArrayLike, off: ArrayLike, *, prompts: ArrayLike | None = None, sampled_prompts: bool = False, level: float = 0.95
) -> Difference:
    """Mean of ``on - off`` with its t interval; the order of seeds, subjects and images does not matter.

    Args:
        on, off: (runs, subjects, steps, images), paired entry by entry.
        prompts: (images,) prompt of each image; None takes every image as a prompt of its own.
        sampled_prompts: whether the prompts are a sample of all prompts. False speaks for these prompts.
        level: of the interval.

    Raises:
        ValueError: shapes that differ, are not four-dimensional or empty, or values that are not finite.
    """
    from scipy.stats import t

    difference = _four(on) - _four(off, like=np.shape(on))
    labels = _labels(prompts, difference.shape[3])
    error, freedom = _error(difference, labels, sampled_prompts)
    centre = difference.mean((0, 1, 3))
    half = np.nan_to_num(t.ppf((1 + level) / 2, freedom)) * error
    levels = _levels(difference, labels, sampled_prompts)
    return Difference(centre, centre - half, centre + half, _p_value(centre, error, freedom), error, freedom, levels)


def mean_over_runs(values: Array) -> Difference:
    """Mean of values (runs, V) over runs, each of the V with its t interval and the p-value of a mean of 0."""
    runs = values[None, :, :, None]
    return paired_difference(runs, np.zeros_like(runs))


def _labels(prompts: ArrayLike | None, images: int) -> NDArray[np.generic]:
    labels = np.arange(images) if prompts is None else np.asarray(prompts)
    if labels.shape != (images,):
        raise ValueError(f"prompts of shape {labels.shape} do not match {images} images: give one prompt an image")
    return labels


def _levels(difference: Array, labels: NDArray[np.generic], sampled_prompts: bool) -> tuple[str, ...]:
    """The levels with two members or more that an interval is over."""
    runs, subjects, _, images = difference.shape
    each = len(np.unique(labels))
    inner = sampled_prompts or runs * subjects == 1
    counts = (subjects, runs, each * inner, images // each * inner)
    return tuple(name for name, count in zip(LEVELS, counts, strict=True) if count > 1)


def _error(difference: Array, labels: NDArray[np.generic], sampled_prompts: bool) -> tuple[Array, Array]:
    """Standard error of the mean and its degrees of freedom, (steps,) each."""
    runs, subjects, steps, images = difference.shape
    if runs * subjects == 1:
        members = len(np.unique(labels)) if len(np.unique(labels)) > 1 else images
        return _inner_error(difference[0, 0], labels), np.full(steps, members - 1.0 if members > 1 else np.nan)
    outer = difference.mean(0) if subjects > 1 else difference[:, 0]
    own = _variance(outer.mean(2).T) / len(outer)
    if not sampled_prompts or images == 1:
        return np.sqrt(own), np.full(steps, len(outer) - 1.0)
    return _with_prompts(outer, labels, own)


def _with_prompts(outer: Array, labels: NDArray[np.generic], own: Array) -> tuple[Array, Array]:
    """Error and freedom where prompts vary too.

    Args:
        outer: (members, steps, images) of the outermost level.
        own: (steps,) variance of the mean over those members.
    """
    table = _prompt_means(outer, labels if len(np.unique(labels)) > 1 else np.arange(len(labels)))
    members, _, prompts = table.shape
    mean = table.mean((0, 2), keepdims=True)
    of_prompts, rest = table.mean(0, keepdims=True) - mean, table - table.mean(0, keepdims=True) - table.mean(2, keepdims=True) + mean
    between = (of_prompts**2).sum((0, 2)) / (prompts - 1) / prompts
    within = (rest**2).sum((0, 2)) / ((members - 1) * (prompts - 1)) / (members * prompts)
    added = np.maximum(between - within, 0.0)
    spent = own**2 / (members - 1) + (added > 0) * (between**2 / (prompts - 1) + within**2 / ((members - 1) * (prompts - 1)))
    freedom = (own + added) ** 2 / np.maximum(spent, 1e-300)
    return np.sqrt(own + added), np.clip(freedom, 1.0, members - 1.0)


def _prompt_means(outer: Array, labels: NDArray[np.generic]) -> Array:
    """(members, steps, images) to the mean of every prompt, (members, steps, prompts)."""
    return np.stack([outer[..., labels == label].mean(-1) for label in np.unique(labels)], -1)


def _p_value(centre: Array, error: Array, freedom: Array) -> Array:
    """Two-sided t-test; nan where nothing could vary, and for a difference that is the same everywhere."""
    from scipy.stats import t

    ratio = np.abs(centre) / np.maximum(error, 1e-300)
    return np.where(ratio > ROUNDING, np.nan, 2 * t.sf(ratio, freedom))


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
    """Standard error of the mean of (steps, images) when prompts, and images within them, are a sample; (steps,).

    The prompts' means scatter by what images do within them. One image a prompt, or several, their variance holds both.
    """
    names = np.unique(labels)
    weights = np.array([(labels == name).mean() for name in names]) * len(names)
    units = _prompt_means(difference, labels) * weights if len(names) > 1 else difference
    error: Array = np.sqrt(_variance(units) / units.shape[-1])
    return error


def _variance(values: Array) -> Array:
    """Unbiased variance over the last axis; 0 for a single value."""
    return values.var(-1, ddof=1) if values.shape[-1] > 1 else np.zeros(values.shape[:-1])


def holm(p_values: ArrayLike) -> Array:
    """Holm's step-down correction of a table's p-values, (tests,) to (tests,); nan stays nan and does not count."""
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(p.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p.flat[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected.flat[order] = np.minimum(np.maximum.accumulate(factors * p.flat[order]), 1.0)
    return corrected
