"""Rows of a study's table: runs that differ in subject and seed alone, and what is read off each.

A row of records becomes an array (seeds, subjects, 1, values). Runs that diverged have no result and leave gaps; the
array is then of a grid of subjects and seeds without a gap (``common_grid``), so that pairs stay pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from bayesdiff.config.identity import run_name
from bayesdiff.core.layout import PER_IMAGE, RECORDS
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.corruption.detector import stage_depth
from bayesdiff.corruption.shape import Array
from bayesdiff.recording.collect import image_scores, judged
from bayesdiff.recording.record import RunRecord, whole_record
from bayesdiff.studies.plan import Cell, Study, compose_cell

METRICS = ("dino", "clip_i", "clip_t", "lpips", "clip_iqa", "diversity", "hf_energy")
OF_THE_CURVE = ("dino over steps", "dip", "flagged")
"""What is said of whole curves, behind the metrics at the last checkpoint."""
OF_COST = ("train_seconds", "train_memory", "process_memory", "bayesian_share")
"""What a run cost, for studies that ask (``cost: true``)."""
NAMES = {
    "dino": "DINO", "clip_i": "CLIP-I", "clip_t": "CLIP-T", "lpips": "LPIPS", "clip_iqa": "CLIP-IQA", "diversity": "diversity",
    "hf_energy": "HF energy", "dino over steps": "DINO over steps", "dip": "deepest dip", "flagged": "flagged",
    "train_seconds": "training, s", "train_memory": "GPU memory of training, GB",
    "process_memory": "process memory to the end of training, GB", "bayesian_share": "Bayesian share of weights",
}  # fmt: skip
SAMPLED_AXES = ("seed", "data.subject")
"""Axes that a row averages over."""
UNJUDGED = ("too_few_points", "diverged", "broken_sampling")
"""Verdicts that say nothing about a dip."""

Cells = dict[tuple[str, str], Array]
"""(seed, subject) -> values of one run."""


@dataclass(frozen=True)
class Found:
    """One run of a study that has a record."""

    cell: Cell
    folder: Path
    record: RunRecord

    @property
    def place(self) -> tuple[str, str]:
        """Seed and subject."""
        return self.cell.labels.get("seed", "0"), self.cell.labels.get("data.subject", "")

    @cached_property
    def verdict(self) -> CorruptionVerdict:
        """Today's verdict, asked for once."""
        return judged(self.folder, self.record)


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


def rows_of(study: Study, results: Path) -> list[Row]:
    """The rows of a study's table, in the order of its grid, with the records there are."""
    grouped: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in study.cells:
        key = tuple((axis, label) for axis, label in cell.labels.items() if axis not in SAMPLED_AXES)
        grouped.setdefault(key, []).append(cell)
    return [_row(dict(key), cells, results) for key, cells in grouped.items()]


def _row(labels: dict[str, str], cells: list[Cell], results: Path) -> Row:
    found, diverged = [], []
    for cell in cells:
        folder = results / RECORDS / run_name(compose_cell(cell))
        record = whole_record(folder)
        if record is not None and record.status == "completed":
            found.append(Found(cell, folder, record))
        elif record is not None and record.status == "diverged":
            diverged.append(cell)
    return Row(labels, tuple(cells), tuple(found), tuple(diverged))


def cells_of(row: Row, of_run: Callable[[Found], Array | None]) -> Cells | None:
    """What is read off every run that has a result; None where runs are still missing, or one has no such value."""
    read = {found.place: of_run(found) for found in row.found} if not row.missing else {}
    if not read or any(value is None for value in read.values()):
        return None
    return {place: value for place, value in read.items() if value is not None}


def common_grid(*tables: Cells) -> list[Array]:
    """Every table as (seeds, subjects, 1, values), over the same seeds and subjects, where all have all of them.

    A gap costs its subject or its seed: one at a time, that which lacks the largest share of its runs, and of equals the
    one with fewer runs. Empty arrays where nothing is left.
    """
    seeds, subjects = (list(dict.fromkeys(place[i] for table in tables for place in table)) for i in (0, 1))
    whole = set.intersection(*(set(table) for table in tables))
    while gaps := [(seed, subject) for seed in seeds for subject in subjects if (seed, subject) not in whole]:
        lines = [(subject, subjects, len(seeds), 1) for subject in subjects] + [(seed, seeds, len(subjects), 0) for seed in seeds]
        line, kind, _, _ = max(lines, key=lambda line: (sum(gap[line[3]] == line[0] for gap in gaps) / line[2], -line[2]))
        kind.remove(line)
    if not seeds or not subjects:
        return [np.empty((0, 0, 1, 0)) for _ in tables]
    return [np.array([[table[seed, subject] for subject in subjects] for seed in seeds], dtype=np.float64)[:, :, None] for table in tables]


def values(row: Row, metric: str) -> Array | None:
    """Scores (seeds, subjects, 1, images), see ``scores_of_run``; one value a run for what is of the curve or of cost.

    None where the metric was not measured, or a run of the row is missing.
    """
    cells = cells_of(row, lambda found: scores_of_run(found, metric))
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


def scores_of_run(found: Found, metric: str) -> Array | None:
    """A metric's scores (images,) at the last checkpoint, or one value for ``OF_THE_CURVE`` and ``OF_COST``.

    None where it was not measured or judged, or has values that are not finite.
    """
    if metric in OF_COST:
        return _cost(found.record, metric)
    if metric in ("dip", "flagged") and found.verdict.kind in UNJUDGED:
        return None
    if metric == "flagged":
        return np.array([float(found.verdict.flagged)])
    if metric == "dip":  # as fitted, whether flagged or not: a verdict's depth is less what noise adds, where it is flagged
        judged_metric = found.record.config["detector"]["metric"]
        return np.array([max(stage_depth(image_scores(found.folder, judged_metric)[1].mean(1)), 0.0)])
    column = "dino" if metric == "dino over steps" else metric
    if column not in pd.read_csv(found.folder / PER_IMAGE, nrows=0).columns:
        return None
    steps, scores = image_scores(found.folder, column)
    if column == metric:
        of_images = scores[-1]
    elif len(steps) > 1:
        of_images = np.trapezoid(scores, steps, axis=0) / (steps[-1] - steps[0])
    else:
        return None
    return np.asarray(of_images) if np.isfinite(of_images).all() else None


def _cost(record: RunRecord, measure: str) -> Array | None:
    """Seconds of training, GB (10^9 bytes) that it took on a GPU or else in the process, or the Gaussian share of the U-Net's weights."""
    gigabytes = {phase: megabytes * 2**20 / 1e9 for phase, megabytes in record.peak_memory_mb.items()}
    value = {
        "train_seconds": record.seconds.get("train"),
        "train_memory": gigabytes.get("train_gpu"),
        "process_memory": gigabytes.get("train") if "train_gpu" not in gigabytes else None,
        "bayesian_share": float(record.bayesian.get("share", 0.0)),
    }[measure]
    return None if value is None else np.array([value])


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
    each = int(row.found[0].record.config["sampler"]["images_per_prompt"])
    return [i // each for i in range(images)] if images > 1 else [0]
