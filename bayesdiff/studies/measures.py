"""Every measure of a run that tables, figures and claims have: one line each, in the order of a table.

Metrics at the last checkpoint take label, unit, direction and source from ``scoring.metrics``; what is said of whole
curves and of cost is added here. A new column of the tables is one line of ``MEASURES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bayesdiff.recording.archive import UNJUDGED, Run
from bayesdiff.recording.cache import Scores
from bayesdiff.recording.columns import Array
from bayesdiff.scoring.metrics import METRIC_TABLE

COSINES = 2.0
"""Farther apart than this no two values of a measure are that is made of cosines (or of shares)."""
NO_FALL = 0.03
"""Less than this is no fall, in the metric's units (the detector's smallest depth)."""
LAST, CURVE, COST, CLAIM = "last", "curve", "cost", "claim"
"""What a measure is of: the last checkpoint, the whole curve, what a run cost (``cost: true``), or what claims alone ask for."""

Reader = Callable[[Run, Scores], Array | None]
"""Values (images,) or (1,) of one evaluation of a run; None where it was not measured or judged."""


def p_text(p: float, places: int = 4, equal: str = "") -> str:
    """A p-value in [0, 1] for a page: so many places, or that it is smaller; ``equal`` stands before a number."""
    least = 10.0**-places
    return f"< {least:.{places}f}" if p < least else f"{equal}{p:.{places}f}"


@dataclass(frozen=True)
class Measure:
    """What is known of one measure."""

    name: str
    label: str
    unit: str
    direction: str
    """higher, lower, or neither: which is better."""
    source: str
    of: str
    """``LAST``, ``CURVE``, ``COST`` or ``CLAIM``."""
    read: Reader
    paper: int | None = None
    """Its place among the columns of the paper's tables: of scores, or of cost."""
    largest: float = COSINES
    """How far apart two runs can be."""
    tested: bool = True
    """Whether a difference is a result: what a configuration sets is none."""


def _finite(values: Array | None) -> Array | None:
    return values if values is not None and np.isfinite(values).all() else None


def _last(metric: str) -> Reader:
    return lambda run, scores: _finite(scores.last.get(metric))


def _over_steps(metric: str) -> Reader:
    return lambda run, scores: _finite(scores.over_steps.get(metric))


def _judged(scores: Scores) -> bool:
    return scores.verdict is not None and scores.verdict.kind not in UNJUDGED


def _dip(run: Run, scores: Scores) -> Array | None:
    return np.array([scores.dip]) if _judged(scores) else None


def _flagged(run: Run, scores: Scores) -> Array | None:
    return np.array([float(scores.verdict.flagged)]) if scores.verdict is not None and _judged(scores) else None


def _seconds(phase: str, log: bool = False) -> Reader:
    def read(run: Run, scores: Scores) -> Array | None:
        seconds = run.record.seconds.get(phase)
        return None if seconds is None else np.log([seconds]) if log else np.array([seconds])

    return read


def _gigabytes(run: Run, phase: str) -> float | None:
    """10^9 bytes."""
    megabytes = run.record.peak_memory_mb.get(phase)
    return None if megabytes is None else megabytes * 2**20 / 1e9


def _gpu_memory(run: Run, scores: Scores) -> Array | None:
    return None if (used := _gigabytes(run, "train_gpu")) is None else np.array([used])


def _process_memory(run: Run, scores: Scores) -> Array | None:
    """Where there was no GPU: beside one it says little."""
    used = _gigabytes(run, "train")
    return None if used is None or _gigabytes(run, "train_gpu") is not None else np.array([used])


def _bayesian_share(run: Run, scores: Scores) -> Array | None:
    return np.array([float(run.record.bayesian.get("share", 0.0))])


def _fall_at(run: Run, scores: Scores) -> Array | None:
    """Step at which the mean curve is farthest below what it had reached; the last one where it never falls."""
    shape = curve_shape(scores.curve)
    return np.array([shape["at_step"] if shape["fall"] >= NO_FALL else float(scores.curve["step"][-1])])


def curve_shape(curve: dict[str, Array], metric: str = "dino") -> dict[str, float]:
    """Rise, deepest fall from an earlier peak, and the share of it that came back, read off the means (T,), without a test."""
    means, steps = curve[metric], curve["step"]
    trough = int((np.maximum.accumulate(means) - means).argmax())
    peak = int(means[: trough + 1].argmax())
    fall = float(means[peak] - means[trough])
    back = float(means[trough:].max() - means[trough]) / fall if fall > 0 else 0.0
    return {
        "first": float(means[0]), "highest_before": float(means[peak]), "at": float(steps[peak]), "lowest_after": float(means[trough]),
        "at_step": float(steps[trough]), "fall": fall, "share_recovered": back, "last": float(means[-1]),
        "clip_t_last": float(curve["clip_t"][-1]) if "clip_t" in curve else float("nan"),
    }  # fmt: skip


_PAPER = ("clip_t", "dino", "clip_i", "lpips", "clip_iqa")
"""The columns of the paper's tables, in their order."""
_TABLE = ("dino", "clip_i", "clip_t", "lpips", "clip_iqa", "diversity", "hf_energy")
"""The metrics of our tables, in their order."""
_DIRECTIONS = {True: "higher", False: "lower", None: "neither"}
_KNOWN = {metric.name: metric for metric in METRIC_TABLE}
AT_STEP = "step of the deepest fall"
_INF = float("inf")
RECORD = "the record"


def _cost(name: str, label: str, unit: str, read: Reader, paper: int | None = None) -> Measure:
    return Measure(name, label, unit, "lower", RECORD, COST, read, paper, _INF)


def _log_seconds(name: str, phase: str) -> Measure:
    """Of a phase's wall time, so that differences are relative."""
    return Measure(name, name, "log of seconds", "lower", RECORD, CLAIM, _seconds(phase, log=True), None, _INF)


MEASURES = {
    measure.name: measure for measure in (
        *(Measure(
            name, _KNOWN[name].label, _KNOWN[name].unit, _DIRECTIONS[_KNOWN[name].higher_is_better], _KNOWN[name].source, LAST, _last(name),
            _PAPER.index(name) if name in _PAPER else None,
        ) for name in _TABLE),
        Measure("dino over steps", "DINO over steps", "cosine, -1 to 1", "higher", "mean over training time", CURVE, _over_steps("dino")),
        Measure("dip", "deepest dip", "of the judged metric, 0 or more", "lower", "the detector's fit", CURVE, _dip),
        Measure("flagged", "flagged", "share of runs, 0 to 1", "lower", "the detector's verdict", CURVE, _flagged),
        _cost("train_seconds", "training, s", "seconds", _seconds("train"), 0),
        _cost("train_memory", "GPU memory of training, GB", "10^9 bytes", _gpu_memory, 1),
        _cost("process_memory", "process memory to the end of training, GB", "10^9 bytes", _process_memory),
        Measure("bayesian_share", "Bayesian share of weights", "share", "neither", RECORD, COST, _bayesian_share, None, _INF, False),
        Measure(AT_STEP, AT_STEP, "training steps", "higher", "the mean curve", CLAIM, _fall_at),
        *(_log_seconds(f"seconds of {word} (log)", phase) for word, phase in (("sampling", "sample"), ("training", "train"))),
    )
}  # fmt: skip
"""Name -> measure, in the order of a table."""


def of(*kinds: str) -> list[Measure]:
    """The measures of these kinds, in the order of a table."""
    return [measure for measure in MEASURES.values() if measure.of in kinds]


def in_the_paper(kind: str) -> list[str]:
    """The names of the measures that the paper's tables have, in the paper's order."""
    return [measure.name for measure in sorted((m for m in of(kind) if m.paper is not None), key=lambda m: m.paper or 0)]


def named(word: str) -> Measure | None:
    """The measure of a table with this name or label."""
    return next((measure for measure in of(LAST, CURVE, COST) if word in (measure.name, measure.label)), None)
