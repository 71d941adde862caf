"""The contrasts that take the stage apart: read from ``results/mechanism.yaml``, judged by records alone.

An explanation supports itself or fails by what it predicted of a contrast: *lower*, *same* or *higher*. Intervals are simultaneous
over all contrasts of the file (Bonferroni), so that one error rate holds for the page. Exploratory ones are outside that family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bayesdiff.config.structured import read_as
from bayesdiff.core.errors import UserError
from bayesdiff.recording.archive import Archive
from bayesdiff.recording.columns import Array
from bayesdiff.stats.mediation import Mediation, mediation
from bayesdiff.studies.contrasts import Curve, Estimate, curve_of, estimate, inside, read_row, row_named, window_mean
from bayesdiff.studies.plan import load_study, models_of
from bayesdiff.studies.rows import Found, Row, rows_of
from bayesdiff.studies.timing import Timing

LEVEL = 0.05
EXPLANATIONS = ("H1", "H2", "H4")
LOWER, SAME, HIGHER, OPEN = "lower", "same", "higher", "open"
PHOTOGRAPH, ORDER = "photograph", "order"
"""What may set when something happens in training."""
SUPPORTS, CONTRADICTS, DOES_NOT_DECIDE = "supports", "contradicts", "does not decide"
FEWEST = 3
"""Pairs that a mediation takes."""


@dataclass
class Contrast:
    """One comparison of two rows of a study over a window of training."""

    name: str
    arm: str
    """Its letter in the plan of experiments."""
    study: str
    row: dict[str, str]
    against: dict[str, str]
    measure: str
    window: list[int]
    smallest: float
    """A difference of less is none of interest, in the measure's units."""
    predicts: dict[str, str] = field(default_factory=dict)
    """Explanation -> lower, same or higher."""
    percent: bool = False
    """Whether the window is in percent of training and not in steps: for rows whose runs differ in length."""

    @property
    def span(self) -> str:
        """The window in words."""
        first, last = self.window
        return f"{first} % to {last} % of training" if self.percent else f"steps {first} to {last}"


@dataclass
class Question:
    """A mediation: does the mediator carry what the row does to the outcome?"""

    name: str
    study: str
    row: dict[str, str]
    against: dict[str, str]
    mediator: str
    outcome: str
    window: list[int]


@dataclass
class Plan:
    """``results/mechanism.yaml``."""

    contrasts: list[Contrast]
    mediations: list[Question] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    exploratory: list[Contrast] = field(default_factory=list)
    """Contrasts that nothing was predicted of: outside the family, each with an interval of its own."""

    @property
    def all(self) -> list[Contrast | Question | Timing]:
        """Whatever a study answers."""
        return [*self.contrasts, *self.mediations, *self.timings, *self.exploratory]


@dataclass(frozen=True)
class Pair:
    """The two rows of a contrast."""

    row: Row
    against: Row

    @property
    def complete(self) -> bool:
        return not self.row.missing and not self.against.missing

    @property
    def count(self) -> str:
        """Runs of runs."""
        return f"{len(self.row.found) + len(self.against.found)} of {len(self.row.cells) + len(self.against.cells)}"


def load_plan(path: Path) -> Plan:
    """Read the file; raises ``UserError`` for an unknown key, prediction or window."""
    loaded = read_as(path, Plan, "give contrasts as results/mechanism.yaml has them")
    for one in loaded.all:
        if len(one.window) != 2 or one.window[0] > one.window[1]:
            raise UserError(f"{path}: window {one.window} of {one.name!r}: give its first and its last step")
    for contrast in [*loaded.contrasts, *loaded.exploratory]:
        if wrong := set(contrast.predicts.values()) - {LOWER, SAME, HIGHER}:
            raise UserError(f"{path}: {contrast.name!r} predicts {', '.join(sorted(wrong))}; choose lower, same or higher")
        if not contrast.smallest > 0:
            raise UserError(f"{path}: smallest of {contrast.name!r} is {contrast.smallest}; give the smallest difference of interest")
    if registered := next((one for one in loaded.exploratory if one.predicts), None):
        raise UserError(f"{path}: {registered.name!r} is exploratory and predicts something; move it to contrasts, before its runs")
    if unknown := set().union(*(one.predicts for one in loaded.contrasts), *(one.predicts for one in loaded.timings)) - set(EXPLANATIONS):
        raise UserError(f"{path}: no explanation {', '.join(sorted(unknown))}; choose one of {', '.join(EXPLANATIONS)}")
    for timing in loaded.timings:
        if wrong := set(timing.predicts.values()) - {PHOTOGRAPH, ORDER}:
            raise UserError(f"{path}: {timing.name!r} predicts {', '.join(sorted(wrong))}; choose photograph or order")
    return loaded


def rows_by_study(plan: Plan, archive: Archive, model: str = "toybox") -> dict[str, list[Row]]:
    """The rows of every study that the plan names and that has the model."""
    names = dict.fromkeys(one.study for one in plan.all)
    return {name: rows_of(load_study(name, model), archive) for name in names if model in models_of(name)}


def pair_of(one: Contrast | Question, rows: Mapping[str, Sequence[Row]]) -> Pair:
    """The rows of a contrast; raises ``UserError`` for labels that the study does not have."""
    of_study = rows[one.study]
    return Pair(row_named(of_study, one.row, one.name), row_named(of_study, one.against, one.name))


def judge(contrast: Contrast, pair: Pair, contrasts: int) -> Estimate | None:
    """The paired difference over subjects, with an interval that is simultaneous over ``contrasts``; None while runs are missing."""
    if not pair.complete:
        return None

    def read(found: Found) -> float | None:
        return None if (curve := curve_in(contrast, found)) is None else window_mean(curve, contrast.window)

    return estimate(read_row(pair.row, read), read_row(pair.against, read), level=1 - LEVEL / contrasts)


def curve_in(contrast: Contrast, found: Found) -> Curve | None:
    """A run's curve of the measure, over steps or whole percents of training; None where the run did not measure it."""
    curve = curve_of(found, contrast.measure)
    if curve is None or not contrast.percent:
        return curve
    steps, values = curve
    return np.rint(100 * steps / found.record.config["schedule"]["steps"]).astype(np.int64), values


def outcome(found: Estimate, smallest: float) -> str:
    """lower, same, higher, or open where the interval decides none of them."""
    low, high = float(found.difference.low[0]), float(found.difference.high[0])
    if not found.difference.of_runs:
        return OPEN
    if -smallest < low and high < smallest:
        return SAME
    return LOWER if high < 0 else HIGHER if low > 0 else OPEN


def said(predicted: str, seen: str) -> str:
    """What a contrast says of an explanation that predicted something of it."""
    return DOES_NOT_DECIDE if seen == OPEN else SUPPORTS if seen == predicted else CONTRADICTS


def mediated(question: Question, pair: Pair) -> Mediation | None:
    """The mediation over runs that both rows have; None while runs are missing, or fewer than three have both curves."""
    if not pair.complete:
        return None
    names = (question.mediator, question.outcome)
    ours, theirs = (_curves(row, names, question.window) for row in (pair.row, pair.against))
    shared = [place for place in ours if place in theirs]
    if len(shared) < FEWEST:
        return None
    without, with_it = ([np.stack([table[place][i] for place in shared]) for i in (0, 1)] for table in (theirs, ours))
    return mediation(without[0], without[1], with_it[0], with_it[1]) if without[0].shape[1] >= FEWEST else None


def _curves(row: Row, names: Sequence[str], window: Sequence[int]) -> dict[tuple[str, str], list[Array]]:
    """(seed, subject) -> each measure at the checkpoints of a window; runs that lack one are left out."""
    found = {}
    for run in row.found:
        curves = [curve_of(run, name) for name in names]
        held = [inside(curve, window)[1] for curve in curves if curve is not None]
        if len(held) == len(names):
            found[run.place] = held
    return found
