"""Rows of a study's table: runs that differ in subject and seed alone, and what is read off each.

A row of records becomes an array (seeds, subjects, 1, values). Runs that diverged have no result and leave gaps; the
array is then of a grid of subjects and seeds without a gap (``common_grid``), so that pairs stay pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from bayesdiff.config.identity import run_name
from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import MAIN
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.recording.archive import Archive, Run
from bayesdiff.recording.cache import Scores
from bayesdiff.recording.columns import Array, Images
from bayesdiff.recording.record import RunRecord, arithmetic
from bayesdiff.studies.measures import MEASURES, Measure
from bayesdiff.studies.plan import EVALUATION, Cell, Study, compose_cell, evaluations_of

SAMPLED_AXES = ("seed", "data.subject")
"""Axes that a row averages over."""

Cells = dict[tuple[str, str], Array]
"""(seed, subject) -> values of one run."""


@dataclass(frozen=True)
class Found:
    """One run of a study that has a record, read by one evaluation."""

    cell: Cell
    run: Run
    evaluation: str = MAIN

    @property
    def place(self) -> tuple[str, str]:
        """Seed and subject."""
        return self.cell.labels.get("seed", "0"), self.cell.labels.get("data.subject", "")

    @property
    def folder(self) -> Path:
        return self.run.folder

    @property
    def record(self) -> RunRecord:
        return self.run.record

    @property
    def scores(self) -> Scores:
        return self.run.scores[self.evaluation]

    @property
    def images(self) -> Images:
        """All scores, checkpoint by checkpoint."""
        return self.run.images(self.evaluation)

    @property
    def verdict(self) -> CorruptionVerdict | None:
        """Of this version's detector."""
        return self.scores.verdict


@dataclass(frozen=True)
class Row:
    """All runs of one row of a table: the cells that differ in subject and seed alone."""

    labels: dict[str, str]
    cells: tuple[Cell, ...]
    found: tuple[Found, ...]
    diverged: tuple[Cell, ...] = ()
    """Runs that ended without a result, and will not have one."""

    @property
    def name(self) -> str:
        return ", ".join(f"{axis} {label}" if axis != "method" else label for axis, label in self.labels.items()) or "all"

    @property
    def missing(self) -> int:
        """Runs that are still to be made."""
        return len(self.cells) - len(self.found) - len(self.diverged)

    @property
    def complete(self) -> bool:
        return len(self.found) == len(self.cells)

    @property
    def count(self) -> str:
        """How many runs of how many, as a table says it."""
        return f"{len(self.found)}/{len(self.cells)}" + (f", {len(self.diverged)} diverged" if self.diverged else "")


def run_counts(rows: Sequence[Row]) -> tuple[int, int, int]:
    """Runs of a study that have a result, that diverged, and that are still to be made.

    A run that several evaluations read counts once, and has a result when each of them has.
    """
    fewest: dict[tuple[tuple[str, str], ...], Row] = {}
    for row in rows:
        cells = tuple((axis, label) for axis, label in row.labels.items() if axis != EVALUATION)
        fewest[cells] = min(row, fewest.get(cells, row), key=lambda one: len(one.found))
    counted = list(fewest.values())
    return sum(len(row.found) for row in counted), sum(len(row.diverged) for row in counted), sum(row.missing for row in counted)


def rows_of(study: Study, archive: Archive) -> list[Row]:
    """The rows of a study's table, in the order of its grid, with the records there are; a row an evaluation."""
    grouped: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in study.cells:
        key = tuple((axis, label) for axis, label in cell.labels.items() if axis not in SAMPLED_AXES)
        grouped.setdefault(key, []).append(cell)
    rows = []
    for key, cells in grouped.items():
        for evaluation in evaluations_of(study):
            labels = dict(key) | ({EVALUATION: evaluation} if study.evaluations else {})
            rows.append(_row(labels, cells, archive, evaluation))
    _check_arithmetic(rows)
    return rows


def _check_arithmetic(rows: list[Row]) -> None:
    """Raises ``UserError`` where runs of one subject and seed were sampled or scored in different precisions: their difference is no arm's.

    Another subject's may have others: arms are compared subject by subject.
    """
    first: dict[tuple[str, str], Found] = {}
    for one in (one for row in rows for one in row.found):
        other = first.setdefault(one.place, one)
        own = arithmetic(one.record)
        for key, was in arithmetic(other.record).items():
            if own[key] != was:
                raise UserError(
                    f"{one.folder}: {key} is {own[key]}, and of {other.folder.name} it is {was}; "
                    f"repeat one of them where it is that of the other, or both with {key.replace('_', '.')}=fp32"
                )


@lru_cache(maxsize=65_536)
def _name_of(overrides: tuple[str, ...]) -> str:
    return run_name(compose_cell(Cell({}, overrides)))


def _row(labels: dict[str, str], cells: list[Cell], archive: Archive, evaluation: str) -> Row:
    found, diverged = [], []
    for cell in cells:
        run = archive.runs.get(_name_of(cell.overrides)) if archive.runs else None
        if run is None:
            continue
        if run.record.status == "diverged":
            diverged.append(cell)
        elif evaluation in run.scores:
            found.append(Found(cell, run, evaluation))
    return Row(labels, tuple(cells), tuple(found), tuple(diverged))


def read(found: Found, measure: Measure) -> Array | None:
    """Values (images,) or (1,) of a measure; None where it was not measured or judged."""
    return measure.read(found.run, found.scores)


def scores_of_run(found: Found, name: str) -> Array | None:
    """``read`` of the measure with this name, (steps, images) or (1, 1)."""
    return read(found, MEASURES[name])


def cells_of(row: Row, of_run: Callable[[Found], Array | None]) -> Cells | None:
    """What is read off every run that has a result, place -> (…); None where runs are missing, or one has no such value."""
    read_off = {found.place: of_run(found) for found in row.found} if not row.missing else {}
    if not read_off or any(value is None for value in read_off.values()):
        return None
    return {place: value for place, value in read_off.items() if value is not None}


def common_places(*tables: Cells) -> tuple[list[str], list[str]]:
    """Seeds and subjects of which all tables have every run; both empty where nothing is left.

    A gap costs its subject or its seed: one at a time, that which lacks the largest share of its runs, and of equals the
    one with fewer runs.
    """
    seeds, subjects = (list(dict.fromkeys(place[i] for table in tables for place in table)) for i in (0, 1))
    whole = set.intersection(*(set(table) for table in tables))
    while gaps := [(seed, subject) for seed in seeds for subject in subjects if (seed, subject) not in whole]:
        lines = [(subject, subjects, len(seeds), 1) for subject in subjects] + [(seed, seeds, len(subjects), 0) for seed in seeds]
        line, kind, _, _ = max(lines, key=lambda line: (sum(gap[line[3]] == line[0] for gap in gaps) / line[2], -line[2]))
        kind.remove(line)
    return (seeds, subjects) if seeds and subjects else ([], [])


def common_grid(*tables: Cells) -> list[Array]:
    """Every table as (seeds, subjects, 1, values), over the seeds and subjects of ``common_places``; empty arrays where there are none.

    Where runs have other numbers of images, each counts by its mean.
    """
    if len({len(value) for table in tables for value in table.values()}) > 1:
        tables = tuple({place: value.mean(keepdims=True) for place, value in table.items()} for table in tables)
    seeds, subjects = common_places(*tables)
    if not seeds:
        return [np.empty((0, 0, 1, 0)) for _ in tables]
    return [np.array([[table[seed, subject] for subject in subjects] for seed in seeds], dtype=np.float64)[:, :, None] for table in tables]


def values(row: Row, name: str) -> Array | None:
    """A measure of a row, (seeds, subjects, 1, images); one value a run for what is of the curve or of cost.

    None where it was not measured, or a run of the row is missing.
    """
    cells = cells_of(row, lambda found: scores_of_run(found, name))
    if cells is None:
        return None
    (table,) = common_grid(cells)
    return table if table.size else None


def pair_of(row: Row, reference: Row, of_run: Callable[[Found], Array | None]) -> tuple[Array, Array] | None:
    """What is read off two rows at the seeds and subjects that both have, two arrays (seeds, subjects, 1, values)."""
    mine, other = cells_of(row, of_run), cells_of(reference, of_run)
    if mine is None or other is None:
        return None
    first, second = common_grid(mine, other)
    return (first, second) if first.size else None


def reference_of(study: Study, row: Row, rows: list[Row]) -> Row | None:
    """The row that a row is compared to; None for the reference itself, and in studies without one."""
    if study.compare is None:
        return None
    axis, label = study.compare
    if row.labels.get(axis) == label:
        return None
    wanted = {**row.labels, axis: label}
    return next((other for other in rows if other.labels == wanted), None)


def prompts_of(row: Row, images: int) -> list[int]:
    """(images,) number of each image's prompt; one for a run's single value."""
    return [prompt for prompt, _ in row.found[0].images.places] if images > 1 else [0]
