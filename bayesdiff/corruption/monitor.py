"""The verdict while a run is still training: what the curve so far shows, and whether to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from bayesdiff.corruption.detector import IN_STAGE, CorruptionVerdict, detect_corruption

Judge = Callable[[Sequence[int], ArrayLike], CorruptionVerdict]


def may_stop(verdict: CorruptionVerdict) -> bool:
    """Whether ``detector.stop_after=recovered`` is met: a stage was found, and the newest checkpoint lies behind it."""
    return verdict.flagged and verdict.labels[-1] not in IN_STAGE


def reason_to_stop(verdict: CorruptionVerdict, steps: Sequence[int], patience: int | None = None) -> str:
    """Why training may end at the newest of ``steps``; empty where it should go on.

    Args:
        patience: how many checkpoints may follow the last one that may be the best; None waits for ever.
    """
    if verdict.kind in ("broken_sampling", "diverged"):
        return verdict.sentence
    if may_stop(verdict):
        return f"a corruption stage has been passed; keep step {verdict.best_step}"
    if patience is None or verdict.kind == "too_few_points":
        return ""
    newest = max({verdict.best_step, *verdict.best_steps})
    behind = sum(step > newest for step in steps)
    return f"{behind} checkpoints after step {newest}, and none of them may be better" if behind >= patience else ""


def warning(verdict: CorruptionVerdict) -> str:
    """What the progress display says about the newest checkpoint; empty where there is nothing to warn of."""
    if verdict.kind in ("broken_sampling", "diverged"):
        return verdict.sentence
    if verdict.labels[-1] == "corrupted":
        since = "again" if verdict.flagged else f"since step {verdict.peak_step}"
        return f"fidelity has fallen {since}; do not keep this checkpoint"
    if verdict.labels[-1] == "overfit":
        return "at the photographs' own similarity, and prompts or diversity are being lost"
    return ""


class CorruptionMonitor:
    """Collects scores checkpoint by checkpoint and gives the running verdict.

    The verdict is a function of the curve so far, not of when it was asked: a monitor that is fed a
    resumed run's checkpoints again says what it said before. Looking after every checkpoint tests more
    than once: the error rate holds for each look, not for all looks of a run together.
    """

    def __init__(self, judge: Judge = detect_corruption):
        """``judge`` takes (steps, scores); by default the test of fidelity alone at its default level."""
        self.judge = judge
        self.steps: list[int] = []
        self.scores: list[np.ndarray] = []
        self.verdict: CorruptionVerdict | None = None

    def update(self, step: int, scores: ArrayLike) -> CorruptionVerdict:
        """Add one checkpoint's scores (images,) or a single value; returns the verdict so far.

        Raises:
            ValueError: a step that is not after the last one, or another number of images than before.
        """
        row = np.atleast_1d(np.asarray(scores, dtype=np.float64))
        if self.steps and step <= self.steps[-1]:
            raise ValueError(f"step {step} does not come after step {self.steps[-1]}")
        if self.scores and row.shape != self.scores[-1].shape:
            raise ValueError(f"step {step} has {row.size} scores, and the checkpoints before it {self.scores[-1].size}")
        self.steps.append(int(step))
        self.scores.append(row)
        self.verdict = self.judge(self.steps, np.stack(self.scores))
        return self.verdict
