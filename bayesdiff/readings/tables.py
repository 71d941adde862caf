"""Tables of text cells as readings: wide, long, bare, or a chart that Weights & Biases exported.

What was guessed, sorted or left out stands in a reading's notes; what cannot be decided is an error that names the option.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from bayesdiff.core.errors import UserError
from bayesdiff.corruption.shape import Array
from bayesdiff.readings.columns import image_labels, is_image, is_step, plain, stem, step_column, step_numbers
from bayesdiff.readings.directions import choose, higher_is_better, is_bookkeeping, is_similarity
from bayesdiff.readings.numerals import Numerals, is_numeric, numbers, numerals_of
from bayesdiff.readings.reading import Naming, Reading, shown
from bayesdiff.scoring.metrics import COLUMNS, METRICS

OWN_WIDE = {"step", "prompt", "image", "dino"}
"""Columns of a committed run's ``images.csv``; ``scores.csv`` has ``metrics.COLUMNS``."""
OWN_CHOICE = ("dino", "clip_i")
"""Fidelities of this package's own tables, the one that is judged first."""
LONG = (("metric", "value"), ("tag", "value"))
VALUES = ("value", "values")
MOST_STEPS = 2**53
"""Beyond this a number of a table is no whole number any more."""


@dataclass(frozen=True)
class _Table:
    """Cells of text, where they came from, and how they write numbers."""

    cells: pd.DataFrame
    name: str
    numerals: Numerals
    notes: tuple[str, ...] = ()

    def numbers(self, column: str) -> pd.Series:
        return numbers(self.cells[column], self.numerals, self.name)

    def numeric(self, columns: Sequence[str]) -> list[str]:
        return [c for c in columns if is_numeric(self.cells[c], self.numerals)]


def read_table(cells: pd.DataFrame, name: str, naming: Naming, notes: Sequence[str] = (), separator: str = ",") -> list[Reading]:
    """The curves of a table of text cells, one, or one a run.

    Raises:
        UserError: columns that cannot be told apart, or cells that cannot be read.
    """
    cells = cells.rename(columns=lambda c: unicodedata.normalize("NFC", str(c).strip()))  # as ``sources`` has the names that were asked for
    cells = cells.loc[:, [not (c.startswith("Unnamed:") and bool((cells[c] == "").all())) for c in cells.columns]]
    if cells.empty or len(cells.columns) < 2:
        raise UserError(f"{name}: a table with a column of steps and one of scores is needed; it has {len(cells)} rows")
    numerals = numerals_of(cells, name, separator)
    table = _Table(cells, name, numerals, tuple(n for n in (*notes, numerals.note) if n))
    if naming.run is not None:
        return [_curve(part, naming) for part in _by_run(table, naming.run)]
    if exported := _exported(table, naming):
        return exported
    return [_hinted(_curve(table, naming))]


def _hinted(reading: Reading) -> Reading:
    """A column that is only called Value, as TensorBoard exports it, means what the tag in the file's name says."""
    if plain(reading.metric) not in VALUES:
        return reading
    tag = re.split(r"[_-]tag-", Path(reading.name).stem)[-1]
    said = higher_is_better(tag)
    if said is None:
        return reading
    return replace(reading, higher_is_better=said, notes=(*reading.notes, f"the file's name says what {reading.metric} is: {tag}"))


def _by_run(table: _Table, run: str) -> list[_Table]:
    if run not in table.cells:
        raise UserError(f"{table.name}: no column {run}; --run is one of {shown(list(table.cells.columns))}")
    groups = table.cells.groupby(run, sort=True)
    return [replace(table, cells=part.drop(columns=run), name=f"{table.name} [{key}]") for key, part in groups]


def _exported(table: _Table, naming: Naming) -> list[Reading]:
    """Curves of a chart that Weights & Biases exported: ``<run> - <metric>`` beside its __MIN and __MAX."""
    columns = list(table.cells.columns)
    found = [c for c in columns if " - " in c and f"{c}__MIN" in columns and not c.endswith(("_step", "__MIN", "__MAX"))]
    if naming.values or not found:
        return []
    metrics = list(dict.fromkeys(c.rpartition(" - ")[2] for c in found))
    metric = _asked(naming.metric, metrics, table.name) or (metrics[0] if len(metrics) == 1 else choose(metrics, table.name))
    readings = []
    for column in (c for c in found if c.rpartition(" - ")[2] == metric):
        step = step_column(table.cells, [column], naming.step, table.name)
        part = replace(table, cells=table.cells[[step, column]], name=f"{table.name} [{column.rpartition(' - ')[0]}]")
        readings.append(_curve(part, replace(naming, values=(column,), metric=metric)))
    return readings


def _asked(metric: str | None, present: Sequence[str], name: str) -> str | None:
    """The metric that a person named, where it is there."""
    if metric is not None and metric not in present:
        raise UserError(f"{name}: no metric {metric}; choose --metric from {shown(present)}")
    return metric


def _curve(table: _Table, naming: Naming) -> Reading:
    """Long, wide or bare: whichever the columns say."""
    columns = set(table.cells.columns)
    for key, value in LONG:
        if {key, value} <= columns and not naming.values:
            return _by_metric(table, key, value, naming)
    values, metric, notes = _value_columns(table, naming)
    step = step_column(table.cells, values, naming.step, table.name)
    images = [c for c in table.cells.columns if is_image(c) and c not in (*values, step)]
    table = replace(table, notes=(*table.notes, *notes))
    if not images or len(values) > 1:
        directions = {higher_is_better(value) for value in values}
        said = directions.pop() if len(directions) == 1 else None
        return replace(_of_matrix(table, metric, *_matrix(table, step, [], values)), higher_is_better=said)
    reading = _of_matrix(table, metric, *_matrix(table, step, images, values))
    others = [c for c in METRICS if c in columns and c not in values and not naming.values]
    beside = {c: _matrix(replace(table, notes=()), step, images, [c])[0] for c in others}
    more = (f"columns {', '.join(others)} read beside it",) if others else ()
    return replace(_with(reading, beside), own=columns >= OWN_WIDE, notes=(*reading.notes, *more))


def _by_metric(table: _Table, key: str, value: str, naming: Naming) -> Reading:
    """Rows of (step, image, metric, value), as ``scores.csv``; several references of an image are averaged."""
    cells, own = table.cells, set(COLUMNS) <= set(table.cells.columns)
    present = list(dict.fromkeys(cells[key]))
    metric = _asked(naming.metric, present, table.name) or (present[0] if len(present) == 1 else None)
    if metric is None and own:
        metric = next((m for m in OWN_CHOICE if m in present), None)
    metric = metric or choose(present, table.name)
    step = step_column(cells, [value], naming.step, table.name)
    images = [c for c in cells.columns if is_image(c) and c != step]
    parts = {one: replace(table, cells=cells[cells[key] == one]) for one in ([*present] if own or images else [metric])}
    reading = _of_matrix(table, metric, *_matrix(parts[metric], step, images, [value]))
    beside = {one: _matrix(part, step, images, [value])[0] for one, part in parts.items() if one != metric}
    return replace(_with(reading, beside), own=own)


def _with(reading: Reading, beside: dict[str, pd.DataFrame]) -> Reading:
    """A reading with the other metrics that have a score for each of its checkpoints and images."""
    count = reading.columns[reading.metric].shape[1]
    found = {}
    for name, matrix in beside.items():
        if set(reading.steps) <= set(matrix.index):
            scores = matrix.loc[list(reading.steps)].to_numpy(dtype=np.float64)
            if scores.shape[1] == count and bool(np.isfinite(scores).all()):
                found[name] = scores
    return replace(reading, columns={**reading.columns, **found})


def _value_columns(table: _Table, naming: Naming) -> tuple[list[str], str, list[str]]:
    """The columns of scores, the metric's name, and what was guessed."""
    columns = list(table.cells.columns)
    if naming.values:
        if missing := [column for column in naming.values if column not in columns]:
            raise UserError(
                f"{table.name}: no column {shown(missing)}; --value is one of {shown([c for c in columns if c != naming.step])}"
            )
        return list(naming.values), naming.metric or _common(naming.values), []
    others = [c for c in columns if c != naming.step and not is_step(c) and not is_image(c)]
    if _asked(naming.metric, others, table.name):
        return [str(naming.metric)], str(naming.metric), []
    numeric = table.numeric(others)
    numeric = [c for c in numeric if not is_bookkeeping(c)] or numeric
    numbered = [c for c in numeric if stem(c)]
    if len(numbered) > 1 and len(numbered) == len(numeric) and len({stem(c) for c in numbered}) == 1:
        return numeric, _common(numeric), [f"{len(numeric)} numbered columns taken as images"]
    numeric = [c for c in numeric if int((table.cells[c] != "").sum()) > 1] or numeric  # one score, as of a last test, is no curve
    chosen = next((c for c in OWN_CHOICE if c in others), None) or choose(numeric, table.name)
    certain = len(numeric) == 1 and chosen in METRICS
    return [chosen], chosen, [] if certain else [f"column {chosen} taken as the fidelity"]


def _common(columns: Sequence[str]) -> str:
    """A name for what several columns hold: their own name before the number, or the direction's word that all share."""
    if len(columns) == 1:
        return columns[0]
    stems = {stem(c) for c in columns}
    return stems.pop().strip(" _-./[") if len(stems) == 1 and "" not in stems else shown(columns, 3)


def _matrix(table: _Table, step: str, images: list[str], values: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Scores with one row a step and one column an image, and notes; rows of one image (several references) are averaged."""
    steps, notes = step_numbers(table.cells[step], table.numerals, table.name)
    scores = pd.DataFrame({value: table.numbers(value) for value in values})
    if any(table.cells[value].str.contains("%", regex=False).any() for value in values):
        notes.append("percent signs: 57 % is read as 0.57")
    if not images:
        return scores.set_index(steps.rename(step)), notes
    labels = [image_labels(table.cells[c], steps).rename(f"label {i}") for i, c in enumerate(images)]
    long = pd.concat([steps.rename("at"), *labels, scores], axis=1).dropna(subset=["at"])
    keys = ["at", *(label.name for label in labels)]
    return long.groupby(keys, sort=True)[values[0]].mean().unstack(keys[1:]), notes


def _of_matrix(table: _Table, metric: str, matrix: pd.DataFrame, notes: list[str]) -> Reading:
    """Sort, leave out what is missing (nan), and check units; ``matrix`` has steps as index, images as columns."""
    matrix, notes = _tidy(matrix, table.name, [*table.notes, *notes])
    values = matrix.to_numpy(dtype=np.float64)
    if is_similarity(metric) is not False:  # a loss may well fall from 60 to 0.5, and a reward rise from 0.1 to 2
        _check_units(values, matrix.index.to_numpy(), table.name)
    return Reading(table.name, tuple(int(s) for s in matrix.index), {metric: values}, metric, notes=tuple(notes))


def _tidy(matrix: pd.DataFrame, name: str, notes: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Rows in the order of steps, and the columns that have a score in each of them; raises ``UserError``."""
    empty = matrix.isna().all(axis=1).to_numpy() | matrix.index.isna()
    if empty.any():
        notes.append(f"{int(empty.sum())} of {len(matrix)} rows have no score and are left out")
        matrix = matrix[~empty]
    if matrix.empty:
        raise UserError(f"{name}: no row has a step and a score; check the columns that --step and --metric name")
    matrix = matrix.set_axis(_whole_steps(matrix.index, name))
    if not matrix.index.is_monotonic_increasing:
        notes.append("rows were not in the order of steps and are sorted")
    matrix = _without_gaps(matrix.sort_index(), notes)
    partly = matrix.isna().any(axis=0).to_numpy()
    if partly.all():
        raise UserError(
            f"{name}: no image has a score at every checkpoint; leave out the checkpoints that lack images, or give images the same "
            "names at all of them"
        )
    if partly.any():
        notes.append(f"{int(partly.sum())} of {len(partly)} images lack some checkpoints and are left out")
    return matrix.loc[:, ~partly], notes


def _whole_steps(index: pd.Index, name: str) -> pd.Index:
    steps = pd.Index(index.astype(np.float64))
    if not np.isfinite(steps).all() or (steps != np.round(steps)).any():
        raise UserError(f"{name}: steps must be whole numbers; choose another column with --step")
    if (beyond := steps[(steps < 0) | (steps > MOST_STEPS)]).size:
        raise UserError(f"{name}: {beyond[0]:g} is no training step; correct it, or choose another column with --step")
    if (twice := steps[steps.duplicated()]).size:
        raise UserError(
            f"{name}: step {int(twice[0])} stands in {int((steps == twice[0]).sum())} rows; name the column that tells them apart "
            "(--run for runs, or call it image)"
        )
    return steps


def _without_gaps(matrix: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Scores that are not finite, with a finite one of the same image at a later step, are missing: weights that are NaN stay so.

    Those up to the last checkpoint stay as they are: that is divergence, and the verdict says it.
    """
    finite = np.isfinite(matrix.to_numpy(dtype=np.float64))
    later = np.logical_or.accumulate(finite[::-1], axis=0)[::-1]
    gap = np.isinf(matrix.to_numpy(dtype=np.float64)) & later
    if not gap.any():
        return matrix
    matrix = matrix.mask(gap)
    empty = matrix.isna().all(axis=1)
    if empty.any():
        steps = [str(int(step)) for step in matrix.index[empty]]
        notes.append(f"scores are not finite at step {shown(steps, 5)}, and finite later: left out as not measured")
    return matrix[~empty]


def _check_units(values: Array, steps: Array, name: str) -> None:
    """A similarity is at most 1, or 100 in percent; both in one curve are a mistake, not a stage."""
    size = np.abs(np.where(np.isfinite(values), values, 0.0)).mean(1)
    small, large = size <= 1.0, (size > 1.5) & (size <= 100.0)
    ordinary = small & (size > 0.05)
    if large.any() and ordinary.any() and size[large].min() > 10 * size[ordinary].max():
        low, high = (
            f"{size[ordinary].max():.2f} at step {int(steps[ordinary][0])}",
            f"{size[large].min():.0f} at step {int(steps[large][0])}",
        )
        raise UserError(f"{name}: scores are near {low} and near {high}: mixed units (shares and percent?); bring them to one")
