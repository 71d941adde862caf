"""The verdict while a run is still training: what the curve so far shows, and whether to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesdiff.corruption.detector import IN_STAGE, CorruptionVerdict, detect_corruption
from bayesdiff.corruption.shape import Array

Judge = Callable[[Sequence[int], ArrayLike], CorruptionVerdict]
DIVERGED_AFTER = 3
"""Checkpoints in a row, the newest among them, that are not finite before training is said to have diverged: one may be a hiccup."""
IN_A_FALL = 3
"""How many times ``patience`` holds in an open fall. Of 80 made runs with a stage of 6 to 14 validations, and ``patience`` 4, three
times ended none in its stage, twice 17, once 72. All of 60 falls for good ended (docs/callback.md)."""


def may_stop(verdict: CorruptionVerdict) -> bool:
    """Whether ``detector.stop_after=recovered`` is met: a stage was found, and the newest checkpoint lies behind it."""
    return verdict.flagged and verdict.labels[-1] not in IN_STAGE


def not_finite_at_end(verdict: CorruptionVerdict) -> int:
    """How many checkpoints at the end are not finite, of a verdict of the kind diverged; 0 for any other."""
    finite = [label != "corrupted" for label in reversed(verdict.labels)]
    return (finite.index(True) if any(finite) else len(finite)) if verdict.kind == "diverged" else 0


def reason_to_stop(
    verdict: CorruptionVerdict, steps: Sequence[int], curve: ArrayLike, patience: int | None = None, min_depth: float = 0.03
) -> str:
    """Why training may end at the newest of ``steps``; empty where it should go on.

    Training has diverged after ``DIVERGED_AFTER`` checkpoints in a row that are not finite.

    Args:
        steps: (T,) the steps that the verdict is about.
        curve: (T,) mean fidelity, higher is better.
        patience: how many checkpoints may follow the last one that may be the best; None waits for ever. While the newest lies
            more than ``min_depth`` below the best, ``IN_A_FALL`` times as many may follow. In a climb back ``patience`` checkpoints
            may follow its highest too.
        min_depth: in the units of ``curve``.
    """
    if verdict.kind == "broken_sampling" or not_finite_at_end(verdict) >= DIVERGED_AFTER:
        return verdict.sentence
    if may_stop(verdict):
        return f"a corruption stage has been passed; keep step {verdict.best_step}"
    if patience is None or verdict.kind in ("too_few_points", "diverged"):
        return ""
    at, means, newest = np.asarray(steps), np.asarray(curve, dtype=np.float64), max({verdict.best_step, *verdict.best_steps})
    behind, best = means[at > newest], float(means[at == verdict.best_step][0])
    if not _given_up(behind, best, patience, min_depth):
        return ""
    return f"{len(behind)} checkpoints after step {newest}, and none of them may be better"


def _given_up(behind: Array, best: float, patience: int, min_depth: float) -> bool:
    """Whether patience with the checkpoints behind the best one ends: in a stage it outlasts the fall, and the climb back."""
    if not behind.size or behind[-1] >= best - min_depth:
        return len(behind) >= patience
    low = int(behind.argmin())
    high = low + int(behind[low:].argmax())
    climbs = behind[high] > behind[low] + min_depth and len(behind) - 1 - high < patience
    return len(behind) >= IN_A_FALL * patience and not climbs


def warning(verdict: CorruptionVerdict) -> str:
    """What the progress display says about the newest checkpoint; empty where there is nothing to warn of."""
    if 0 < not_finite_at_end(verdict) < DIVERGED_AFTER:
        return "scores are not finite at the last checkpoint; training has diverged if the next ones are so too"
    if verdict.kind in ("broken_sampling", "diverged"):
        return verdict.sentence
    if verdict.labels[-1] == "corrupted":
        since = "again" if verdict.flagged else f"since step {verdict.peak_step}"
        return f"fidelity has fallen {since}; do not keep this checkpoint"
    if verdict.labels[-1] == "overfit":
        return "at the photographs' own similarity, and prompts or diversity are being lost"
    return ""


def measured(scores: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Checkpoints (T,) and images (images,) of scores (T, images) that are not missing: as ``bayesdiff verdict`` reads a table.

    A score that is not finite is missing where a later checkpoint has a finite one of the same image. Weights that are NaN stay
    so: scores that are not finite up to the end are divergence, and stay. An image that lacks scores goes, or where each does, the
    checkpoints that lack them.
    """
    finite = np.isfinite(scores)
    missing = ~finite & np.logical_or.accumulate(finite[::-1], axis=0)[::-1]
    rows = np.asarray(~missing.all(axis=1))
    columns = np.asarray(~missing[rows].any(axis=0))
    return (rows, columns) if columns.any() else (np.asarray(~missing.any(axis=1)), np.ones_like(columns))


class CorruptionMonitor:
    """Collects scores checkpoint by checkpoint and gives the running verdict.

    The verdict is a function of the curve so far, not of when it was asked: a monitor that is fed a
    resumed run's checkpoints again says what it said before. Looking after every checkpoint tests more
    than once: the error rate holds for each look, not for all looks of a run together. Scores that are
    not finite, with finite ones after them, are left out (``measured``).
    """

    def __init__(self, judge: Judge = detect_corruption):
        """``judge`` takes (steps, scores); by default the test of fidelity alone at its default level."""
        self.judge = judge
        self.steps: list[int] = []
        self.scores: list[np.ndarray] = []
        self.judged: list[int] = []
        """The steps that the verdict is about: those that are not left out."""
        self.verdict: CorruptionVerdict | None = None

    def update(self, step: int, scores: ArrayLike, *, replace: bool = False) -> CorruptionVerdict:
        """Add one checkpoint's scores (images,) or a single value; returns the verdict so far. An error changes nothing.

        Args:
            replace: whether a step that is not after the last one replaces what was added at that step and after it.

        Raises:
            ValueError: a step that is not after the last one, or another number of images than before.
        """
        row = np.atleast_1d(np.asarray(scores, dtype=np.float64))
        if self.steps and step <= self.steps[-1] and not replace:
            raise ValueError(f"step {step} does not come after step {self.steps[-1]}")
        self.check(step, row.size)
        before = int(np.searchsorted(self.steps, step))
        steps, rows = [*self.steps[:before], int(step)], [*self.scores[:before], row]
        values = np.stack(rows)
        at, images = measured(values)
        judged = [one for one, kept in zip(steps, at.tolist(), strict=True) if kept]
        self.verdict = self.judge(judged, np.ascontiguousarray(values[np.ix_(at, images)]))
        self.steps, self.scores, self.judged = steps, rows, judged
        return self.verdict

    def check(self, step: int, count: int) -> None:
        """Raises ``ValueError`` for another number of scores than the checkpoints before ``step`` have."""
        if self.steps and self.steps[0] < step and count != self.scores[0].size:
            raise ValueError(f"step {step} has {count} scores, and the checkpoints before it {self.scores[0].size}")
