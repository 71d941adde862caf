"""Which checkpoint to keep: what is weighed, and which of them may be the best.

The best checkpoint has the highest trade-off outside the corrupted range,

    trade-off = 2 F A / (F + A),   F = min(fidelity / ceiling, 1),   A = alignment / alignment at the first checkpoint,

the harmonic mean of how much of the reachable fidelity it has (above the ceiling, the mean similarity of
different photographs of the subject, a sample is a copy and earns no more) and how much is left of the
prompt following that training began with. Both refer to what does not change while a run goes on, so that
a checkpoint's rank among earlier ones stays, unless a stage is found around it later. Without a ceiling F is the
fidelity (as a share of what equal images have); without an alignment column fidelity alone decides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bayesdiff.corruption.outcome import outside_stage
from bayesdiff.corruption.shape import Array


def trade_off(fidelity: Array, alignment: Array, ceiling: float) -> Array:
    """The module's trade-off of mean curves (…, T) that begin at the first checkpoint, in [0, 1] where alignment does not grow."""
    reached = np.clip(fidelity / ceiling, 0.0, 1.0)
    kept = np.clip(alignment / np.maximum(alignment[..., :1], 1e-12), 0.0, None)
    return np.asarray(2 * reached * kept / np.maximum(reached + kept, 1e-12))


def possible_best(scores: Array, deviations: Array, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(T,) which checkpoints may be the best of those allowed: a set that has the best one in 95 % of cases.

    Multiple comparisons with the best (Hsu 1984): a checkpoint stays while the highest score is not further above
    it than the highest of as many equal checkpoints would be, so that a choice among many is reckoned with.

    Args:
        scores: (T,) what is compared, higher is better.
        deviations: (draws, T) noise of the scores.
    """
    kept = deviations[:, allowed]
    limit = np.quantile(kept.max(1)[:, None] - deviations, 0.95, axis=0)
    near: NDArray[np.bool_] = allowed & (scores[allowed].max() - scores <= limit)
    return near


def has_base(steps: NDArray[np.int64]) -> bool:
    """Whether the curve of these steps (T,) begins with the model as it was before training, which is never the checkpoint to keep."""
    return bool(steps[0] == 0 and len(steps) > 1)


def better_than_base(steps: NDArray[np.int64], curve: Array, deviations: Array) -> bool:
    """Whether some checkpoint exceeds step 0 by more than the highest of as many equal ones would, at 5 %; true where there is no step 0.

    Many treatments against one control (Dunnett 1955): of twenty checkpoints that are no better than the base, the highest mostly
    exceeds it.

    Args:
        steps, curve: (T,) of the checkpoints.
        deviations: (draws, T) noise of the curve.
    """
    if not has_base(steps):
        return True
    chance = deviations[:, 1:] - deviations[:, :1]
    error = np.maximum(np.median(np.abs(chance), 0) / 0.6745, 1e-12)  # of most draws: with few images some are wild
    limit = float(np.quantile((chance / error).max(1), 0.95))
    return bool(((curve[1:] - curve[0]) / error).max() > limit)


def keepable(steps: NDArray[np.int64], labels: list[str] | tuple[str, ...]) -> NDArray[np.bool_]:
    """(T,) checkpoints that may be kept: outside the corrupted range, and never step 0; all but step 0 where that leaves none."""
    trained = np.ones(len(steps), dtype=bool)
    trained[0] = not has_base(steps)
    allowed = outside_stage(labels) & trained
    return allowed if allowed.any() else trained
