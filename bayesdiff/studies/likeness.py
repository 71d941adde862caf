"""Is less grain only less likeness? What an arm changes against plain checkpoints that are as like the photograph (exploratory).

An arm that learns the subject less may carry less grain for that alone. So each of its checkpoints in the middle of training meets
the plain checkpoint of the same subject whose DINO is nearest, at whatever step after 0. Plain runs, each checkpoint against the nearest
other one of its run, show what the matching alone does: that one is mostly earlier, before grain has risen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayesdiff.core.layout import MAIN
from bayesdiff.recording.columns import Array
from bayesdiff.studies.contrasts import GRAIN, Curve, Estimate, curves_together, estimate, in_window, inside, read_row
from bayesdiff.studies.primary import Primary
from bayesdiff.studies.rows import Found

LIKENESS = "dino"
FEWEST = 3
"""Subjects that a line through their differences takes."""


@dataclass(frozen=True)
class SameLikeness:
    """An arm less plain, in a window of training."""

    same_steps: Estimate
    """Grain at the same steps."""
    matched: Estimate
    """Grain against plain checkpoints of the nearest DINO."""
    left: Estimate
    """The difference of DINO that the matching leaves."""
    without_loss: tuple[float, float, float] | None
    """Grain at the same steps where DINO does not change, by a line over subjects: value, and its 95 % interval."""


def at_the_same_likeness(primary: Primary, arm: str, window: Sequence[int], reference: str = "off") -> SameLikeness | None:
    """What an arm changes at the paper's sampling; None while runs are missing, or without DINO. Plain runs meet themselves."""
    if not primary.complete:
        return None
    plain = {found.place: found for found in primary.row(reference).found}
    pairs = {found.place: (found, plain[found.place]) for found in primary.row(arm).found if found.place in plain}
    met = {place: one for place, pair in pairs.items() if (one := _matched(*pair, window)) is not None}
    grain, likeness = ({place: np.array([one[i]]) for place, one in met.items()} for i in (0, 1))
    same, change = (_in_the_window(primary, arm, reference, measure, window) for measure in (GRAIN, LIKENESS))
    matched, left = estimate(grain), estimate(likeness)
    if same is None or change is None or matched is None or left is None:
        return None
    return SameLikeness(same, matched, left, _without_loss(same, change))


def _in_the_window(primary: Primary, arm: str, reference: str, measure: str, window: Sequence[int]) -> Estimate | None:
    read = in_window(measure, window)
    return estimate(read_row(primary.row(arm, MAIN), read), read_row(primary.row(reference, MAIN), read))


def _matched(found: Found, plain: Found, window: Sequence[int]) -> tuple[float, float] | None:
    """Mean difference of grain, and of DINO, from the plain checkpoint of the nearest DINO; None where a run lacks either."""
    ours, theirs = _both(found), _both(plain)
    if ours is None or theirs is None:
        return None
    (at, mine), (steps, trained) = inside(ours, window), (part[theirs[0] > 0] for part in theirs)
    far = np.abs(mine[:, None, 1] - trained[None, :, 1])
    if found is plain:
        far[at[:, None] == steps] = np.inf
    grain, likeness = (mine - trained[far.argmin(1)]).mean(0)
    return float(grain), float(likeness)


def _both(found: Found) -> Curve | None:
    """Grain and DINO (T, 2) of a run."""
    if (both := curves_together([(found, GRAIN), (found, LIKENESS)])) is None:
        return None
    steps, values = both
    return steps, values.T


def _without_loss(grain: Estimate, likeness: Estimate) -> tuple[float, float, float] | None:
    """The line's value where likeness does not change; None for few subjects, or other ones."""
    from scipy.stats import linregress, t

    x: Array = likeness.values
    if len(x) < FEWEST or likeness.subjects != grain.subjects or np.ptp(x) == 0:
        return None
    line = linregress(x, grain.values)
    half = float(t.ppf(0.975, len(x) - 2) * line.intercept_stderr)
    return float(line.intercept), float(line.intercept) - half, float(line.intercept) + half
