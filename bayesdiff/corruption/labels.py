"""What every checkpoint is called: by the stage that was found, and by what images tell."""

from __future__ import annotations

from bayesdiff.corruption.levels import Told
from bayesdiff.corruption.shape import Array
from bayesdiff.corruption.stage import Stage


def labels_of(stage: Stage, count: int) -> list[str]:
    """Of ``count`` checkpoints with one stage; a plateau before the onset belongs to the peak."""
    labels = ["rising"] * stage.peak + ["peak"] * (stage.onset - stage.peak) + ["corrupted"] * (stage.trough - stage.onset + 1)
    return labels + ["recovering"] * (stage.recovery - stage.trough - 1) + ["recovered"] * (count - stage.recovery)


def up_to_peak(curve: Array) -> list[str]:
    """Labels of a curve (T,) without a stage: rising up to its highest checkpoint."""
    peak = int(curve.argmax())
    return ["rising" if i < peak else "peak" for i in range(len(curve))]


def by_level(labels: list[str], curve: Array, told: Told | None) -> list[str]:
    """Labels of a curve (T,) that do not contradict the images: the first level has the last word.

    A checkpoint of a run to avoid is corrupted. Behind one, what is told from the best is recovering and nothing else, what
    is not told from it has recovered. A checkpoint that a fit calls fallen, and that is not told from the best, is not fallen.
    """
    if told is None:
        return labels
    found, best = list(labels), int(curve.argmax())
    for run in told.runs:
        found[run.start : run.stop] = ["corrupted"] * (run.stop - run.start)
    in_run = {i for run in told.runs for i in range(run.start, run.stop)}
    for i, label in enumerate(labels):
        if i in in_run:
            continue
        behind, lower = "corrupted" in found[:i], bool(told.worse[i, best])
        if label == "corrupted" and not lower:
            found[i] = "recovered" if behind else "peak"
        elif label == "recovering" and not lower and behind:
            found[i] = "recovered"
        elif behind and label in ("recovered", "peak", "rising"):
            found[i] = "recovering" if lower else "recovered"
    return found
