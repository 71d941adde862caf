"""Does a measure carry what an intervention does to an outcome? Paired curves of runs in, effects with p-values out.

Three paths, each tested over runs: *a*, what the intervention does to the mediator; *b*, the slope of the outcome on the
mediator within the runs without the intervention; and the total effect. An indirect effect is claimed only where *a* and *b* both
differ from 0: its p-value is the larger of theirs (joint significance; Cohen and Cohen 1983). Slopes are of curves less the run's
mean and the mean over runs at every checkpoint, so that what all runs do with time is no evidence. A slope is one number a run;
correlation between neighbouring checkpoints therefore costs no validity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayesdiff.stats.paired import Array, Difference, mean_over_runs


@dataclass(frozen=True)
class Mediation:
    """Effects of an intervention, over runs."""

    mediator: Difference
    """Path a: with less without."""
    slope: Difference
    """Path b: outcome on mediator, within the runs without the intervention."""
    slope_with: Difference
    """The same within the runs with the intervention."""
    total: Difference
    """What the intervention does to the outcome."""
    indirect: float
    """Path a times path b, in units of the outcome."""
    p_value: float
    """Of the indirect effect: the larger of the two paths'."""


def mediation(mediator: Array, outcome: Array, mediator_with: Array, outcome_with: Array) -> Mediation:
    """Test whether ``mediator`` carries an intervention's effect on ``outcome``.

    Args:
        mediator, outcome: (runs, checkpoints) without the intervention, in a window of training.
        mediator_with, outcome_with: the same with it, paired run by run.

    Raises:
        ValueError: other shapes, fewer than 3 runs or checkpoints, or values that are not finite.
    """
    curves = [np.asarray(curve, dtype=np.float64) for curve in (mediator, outcome, mediator_with, outcome_with)]
    if len({curve.shape for curve in curves}) != 1 or curves[0].ndim != 2 or min(curves[0].shape) < 3:
        raise ValueError(f"curves of shapes {[curve.shape for curve in curves]}: give four of (runs, checkpoints), 3 of each or more")
    x, y, x_with, y_with = curves
    path_a, path_b = _over_runs(x_with.mean(1) - x.mean(1)), _over_runs(slopes(x, y))
    indirect = float(path_a.mean[0] * path_b.mean[0])
    p = float(np.max([path_a.p_value[0], path_b.p_value[0]]))
    return Mediation(path_a, path_b, _over_runs(slopes(x_with, y_with)), _over_runs(y_with.mean(1) - y.mean(1)), indirect, p)


def slopes(mediator: Array, outcome: Array) -> Array:
    """(runs,) slope of outcome on mediator within each run, of curves (runs, checkpoints) less both means; 0 where nothing varies."""
    x, y = _within(mediator), _within(outcome)
    spread = (x**2).sum(1)
    return np.where(spread > 0, (x * y).sum(1) / np.where(spread > 0, spread, 1.0), 0.0)


def _within(curves: Array) -> Array:
    within: Array = curves - curves.mean(1, keepdims=True) - curves.mean(0, keepdims=True) + curves.mean()
    return within


def _over_runs(values: Array) -> Difference:
    return mean_over_runs(values[:, None])
