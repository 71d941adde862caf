"""A fall to a new level at the end of a short curve, which the curve's own roughness hides: the fall is most of the roughness.

Of few checkpoints one jump is a large share of what they differ by, so that a noise that is read off the curve explains it. The order
of the checkpoints tells more: scores that only scatter come in every order alike. The test is one of permutation, exact for
checkpoints whose swings do not depend on each other, and asked at half of the verdict's level: swings of 31 steps on a flat curve with
checkpoints 60 steps apart, 30 steps apart, pass for a fall in 4 and 6 % of 300 tries; on rising curves in none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bayesdiff.core.seeds import derive
from bayesdiff.corruption.levels import Told
from bayesdiff.corruption.shape import Array

SHARE = 0.5
"""Of alpha."""
LONGEST = 10
"""Checkpoints up to which this is asked; on longer curves the roughness leaves one jump out (``noise.KEPT``)."""
FEWEST = 2
"""Checkpoints on either side of a fall."""
ORDERS = 5_000


def lost_from(curve: Array, told: Told | None, best: int) -> int | None:
    """Index from which on two checkpoints or more of a curve (T,) lie below all before, and are told from the best by their images.

    None where there are none. Such images are bad ones, whether training lost the subject or swings.
    """
    if told is None:
        return None
    starts = range(best + 1, len(curve) - 1)
    return next((i for i in starts if curve[i:].max() < curve[:i].min() and told.worse[i:, best].all()), None)


def drop(curves: Array) -> Array:
    """Student's t of the last checkpoints below all before them, the largest over where they begin, (…, T) to (…)."""
    count = curves.shape[-1]
    found = []
    for start in range(FEWEST, count - FEWEST + 1):
        before, behind = curves[..., :start], curves[..., start:]
        left = ((before - before.mean(-1, keepdims=True)) ** 2).sum(-1) + ((behind - behind.mean(-1, keepdims=True)) ** 2).sum(-1)
        error = np.sqrt(left / (count - 2) * (1 / start + 1 / (count - start)))
        found.append((before.mean(-1) - behind.mean(-1)) / np.maximum(error, 1e-9))
    strongest: Array = np.max(found, axis=0)
    return strongest


def collapsed(curve: Array, alpha: float) -> bool:
    """Whether the last checkpoints of a short curve (T,), T at least 6, lie on a lower level; a function of its arguments."""
    return len(curve) <= LONGEST and collapse_p_value(curve) <= SHARE * alpha


def collapse_p_value(curve: Array) -> float:
    """Chance that the checkpoints (T,) show so deep a drop in a random order."""
    rng = np.random.default_rng(derive(0, "orders"))
    orders: NDArray[np.float64] = rng.permuted(np.tile(curve, (ORDERS, 1)), axis=1)
    return float((1 + (drop(orders) >= drop(curve) * (1 - 1e-9)).sum()) / (1 + ORDERS))
