"""Tables of text cells as readings: wide, long, bare, or a chart that Weights & Biases exported.

What was guessed, sorted or left out stands in a reading's notes; what cannot be decided is an error that names the option.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from bayesdiff.core.errors import UserError
from bayesdiff.corruption.detector import MIN_POINTS
from bayesdiff.corruption.diagnosis import ALIGNMENT
from bayesdiff.corruption.levels import MIN_IMAGES
from bayesdiff.corruption.shape import Array
from bayesdiff.readings.columns import counts_up, image_labels, is_image, is_step, plain, stem, step_column, step_columns, step_numbers
from bayesdiff.readings.directions import choose, higher_is_better, is_bookkeeping, is_similarity
from bayesdiff.readings.doubled import averaged_note, resumed_note, superseded, telling
from bayesdiff.readings.numerals import Numerals, is_numeric, numbers, numerals_of
from bayesdiff.readings.reading import Naming, Reading, shown
from bayesdiff.scoring.metrics import COLUMNS, METRICS

OWN_WIDE = {"step", "prompt", "image", "dino"}
"""Columns of a committed run's ``images.csv``; ``scores.csv`` has ``metrics.COLUMNS``."""
OWN_CHOICE = ("dino", "clip_i")
"""Fidelities of this package's own tables, the one that is judged first."""
LONG = (("metric", "value"), ("tag", "value"))
VALUES = ("value", "values")
_AT, _LABEL = "\0step", "\0label "
"""Columns of rows that are put together here; no column of a table is called so."""
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
    naming, guessed = _with_step(table, naming)
    values, metric, notes = _value_columns(table, naming)
    step = step_column(table.cells, values, naming.step, table.name)
    images = [c for c in table.cells.columns if is_image(c) and c not in (*values, step)]
    table = replace(table, notes=(*table.notes, *guessed, *notes))
    bare = not images or len(values) > 1
    beside = {} if naming.values else _known_beside(table, values)
    parts = {metric: (table, values), **{name: (table, [column]) for name, column in beside.items() if name != metric}}
    reading = _read_parts(table, step, [] if bare else images, metric, parts)
    if bare:
        directions = {higher_is_better(value) for value in values}
        return replace(reading, higher_is_better=directions.pop() if len(directions) == 1 else None)
    return replace(reading, own=columns >= OWN_WIDE)


def _with_step(table: _Table, naming: Naming) -> tuple[Naming, list[str]]:
    """The naming with the one column that counts up, where none is called as steps are, and a note of it."""
    columns = list(table.cells.columns)
    if naming.step is not None or step_columns(columns):
        return naming, []
    others = [c for c in columns if c and c not in (*naming.values, naming.metric) and not c.startswith("Unnamed:")]
    others = [c for c in others if not is_image(c) and not is_bookkeeping(c) and higher_is_better(c) is None and is_similarity(c) is None]
    found = [c for c in others if counts_up(table.cells[c], table.numerals)]
    if len(found) != 1:
        return naming, []
    return replace(naming, step=found[0]), [f"column {found[0]} taken as the steps: it alone counts up in whole numbers"]


def _known_beside(table: _Table, values: Sequence[str]) -> dict[str, str]:
    """Column by metric that this package knows, of those beside the scores: ``val/clip_t`` beside ``val/dino``."""
    path = values[0].rpartition("/")[0]
    found: dict[str, str] = {}
    for column in table.numeric([c for c in table.cells.columns if c not in values and c.rpartition("/")[0] == path]):
        found.setdefault(plain(column), column)
    return {name: found[name] for name in METRICS if name in found}


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
    parts = {one: replace(table, cells=cells[cells[key] == one]) for one in present if own or images or one in (metric, *METRICS)}
    reading = _read_parts(table, step, images, metric, {one: (part, [value]) for one, part in parts.items()}, said=not own)
    return replace(reading, own=own)


_Parts = dict[str, tuple[_Table, list[str]]]
"""Rows and their columns of scores, by metric."""


def _read_parts(table: _Table, step: str, images: list[str], metric: str, parts: _Parts, said: bool = True) -> Reading:
    """The reading of one metric, with the others that fit it; ``said`` names those in a note."""
    main, values = parts[metric]
    scored = (main.cells[values] != "").any(axis=1).reindex(table.cells.index, fill_value=False)
    steps, notes = step_numbers(table.cells[step], table.numerals, table.name, scored)
    matrix, more = _matrix(main, steps, images, values)
    reading, kept = _of_matrix(table, metric, matrix, [*notes, *more])
    others: dict[str, pd.DataFrame] = {}
    for name in [name for name in parts if name != metric]:
        with suppress(UserError):  # cells that are no numbers cost their own column alone
            others[name] = _matrix(parts[name][0], steps, images, parts[name][1])[0]
    found = _fitting(kept, others)
    beside = _beside_notes(metric, list(found), [name for name in parts if name != metric], said)
    return replace(reading, columns={**reading.columns, **found}, notes=(*reading.notes, *beside))


def _beside_notes(metric: str, found: list[str], there: list[str], said: bool) -> list[str]:
    """What is said of the metrics beside the one that is judged."""
    if ALIGNMENT in there and ALIGNMENT not in found:
        more = [f"{ALIGNMENT} was not weighed: it lacks a finite score of some of these checkpoints, or has other images"]
    else:
        more = []
    if not found or not said:
        return more
    weighed = f"; {ALIGNMENT} weighs in which checkpoint to keep" if ALIGNMENT in found and is_similarity(metric) else ""
    return [f"metrics read beside it: {', '.join(found)}{weighed}", *more]


def _fitting(kept: pd.DataFrame, beside: dict[str, pd.DataFrame]) -> dict[str, Array]:
    """The other metrics that have a score for each checkpoint, and for each of its images or one for all of them."""
    found = {}
    for name, matrix in beside.items():
        matrix = matrix[matrix.index.notna()]
        if not matrix.index.is_unique or not set(kept.index) <= set(matrix.index):
            continue
        same = set(kept.columns) <= set(matrix.columns)
        scores = matrix.loc[kept.index, kept.columns if same else matrix.columns].to_numpy(dtype=np.float64)
        if scores.shape[1] in (1, kept.shape[1]) and bool(np.isfinite(scores).all()):
            found[name] = scores
    return found


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


def _matrix(table: _Table, steps: pd.Series, images: list[str], values: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Scores with one row a step and one column an image, and notes; rows of one image (several references) are averaged."""
    scores, notes = pd.DataFrame({value: table.numbers(value) for value in values}), []
    if any(table.cells[value].str.contains("%", regex=False).any() for value in values):
        notes.append("percent signs: 57 % is read as 0.57")
    steps = steps.loc[steps.index.intersection(scores.index)]
    labels = [image_labels(table.cells.loc[steps.index, c], steps).rename(f"{_LABEL}{i}") for i, c in enumerate(images)]
    rows = pd.concat([steps.rename(_AT), *labels, scores.loc[steps.index]], axis=1)
    keys = [_AT, *(str(label.name) for label in labels)]
    rows, doubled = _once(table, rows, keys, [str(steps.name), *images, *values])
    if not images:
        return rows.set_index(_AT)[values], [*notes, *doubled]
    long = rows.dropna(subset=[_AT])
    return long.groupby(keys, sort=True)[values[0]].mean().unstack(keys[1:]), [*notes, *doubled]


def _once(table: _Table, rows: pd.DataFrame, keys: list[str], known: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Rows without those that were logged again after a training was resumed, and what is said of rows that stand twice."""
    scores = rows.drop(columns=keys)
    at = rows.loc[rows[_AT].notna() & scores.notna().any(axis=1), keys]
    if not at.duplicated().any():
        return rows, []
    apart = telling(table.cells.loc[at.index].drop(columns=known), at, table.numerals)
    old = superseded(at) if apart is None else pd.Series(data=False, index=at.index)
    notes = [resumed_note(at.loc[old, _AT])] if old.any() else []
    at = at[~old]
    if len(keys) > 1 and at.duplicated().any():
        notes += averaged_note(at, apart)
    return rows.drop(index=old.index[old]), notes


def _of_matrix(table: _Table, metric: str, matrix: pd.DataFrame, notes: list[str]) -> tuple[Reading, pd.DataFrame]:
    """Sort, leave out what is missing (nan), and check units; ``matrix`` has steps as index, images as columns. Also what is kept."""
    matrix, notes = _tidy(matrix, table.name, [*table.notes, *notes])
    values = matrix.to_numpy(dtype=np.float64)
    if is_similarity(metric) is not False:  # a loss may well fall from 60 to 0.5, and a reward rise from 0.1 to 2
        _check_units(values, matrix.index.to_numpy(), table.name)
    return Reading(table.name, tuple(int(s) for s in matrix.index), {metric: values}, metric, notes=tuple(notes)), matrix


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
    return _without_lacking(_without_gaps(matrix.sort_index(), notes), name, notes), notes


def _without_lacking(matrix: pd.DataFrame, name: str, notes: list[str]) -> pd.DataFrame:
    """The images that have a score at every checkpoint, or the checkpoints that have all images; raises ``UserError``.

    Checkpoints go where images would leave too few to name checkpoints to avoid, and where that keeps no fewer scores.
    """
    missing = matrix.isna()
    partly, rows = missing.any(axis=0).to_numpy(), missing.any(axis=1).to_numpy()
    kept = int((~partly).sum())
    if not partly.any():
        return matrix
    few = len(partly) >= MIN_IMAGES > kept
    then = f"fewer than {MIN_IMAGES} images name no checkpoints to avoid"
    if few and int((~rows).sum()) >= max(MIN_POINTS, kept * len(matrix) / len(partly)):
        steps = shown([str(int(step)) for step in matrix.index[rows]], 5)
        which = _named(matrix.columns[partly])
        notes.append(f"left out, because images lack scores there ({which}): step {steps}; all {len(partly)} images stay, as {then}")
        return matrix[~rows]
    if not kept:
        raise UserError(
            f"{name}: no image has a score at every checkpoint; leave out the checkpoints that lack images, or give images the same "
            "names at all of them"
        )
    which = f": {_named(matrix.columns[partly])}" if int(partly.sum()) <= MIN_IMAGES else ""
    notes.append(f"{int(partly.sum())} of {len(partly)} images lack some checkpoints and are left out{which}{f'; {then}' if few else ''}")
    return matrix.loc[:, ~partly]


def _named(columns: pd.Index) -> str:
    """Images by their labels."""
    return shown([" ".join(map(str, c)) if isinstance(c, tuple) else str(c) for c in columns], 5)


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
