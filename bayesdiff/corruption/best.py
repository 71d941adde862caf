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
