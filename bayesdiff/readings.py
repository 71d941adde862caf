"""Curves from outside: run folders, CSV files wide or long, exports and runs of Weights & Biases.

Everything becomes a ``Reading``: steps in order, and (checkpoints, images) scores by metric. What was
guessed, sorted or left out is said in its notes; what cannot be decided is an error that names the option.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import PER_IMAGE, SCORES
from bayesdiff.corruption.shape import Array
from bayesdiff.recording.collect import per_image_of
from bayesdiff.recording.record import load_record
from bayesdiff.scoring.curve import image_columns, read_scores, score_columns
from bayesdiff.scoring.metrics import METRICS

STEP_NAMES = ("step", "steps", "global_step", "_step", "trainer/global_step", "eval/step", "iteration", "iter", "train_step")
IMAGE_NAMES = ("prompt", "image", "index", "sample", "seed", "prompt_id", "image_id")
VALUE_NAMES = ("value", "score", "similarity", "fidelity")
WANDB = "wandb:"
_NUMBERED = re.compile(r"^(.*?)[\s_\-./\[]*\d+\]?$")


@dataclass(frozen=True)
class Reading:
    """One curve that can be judged."""

    name: str
    steps: tuple[int, ...]
    columns: dict[str, Array]
    """(T, images) by metric."""
    metric: str
    ceiling: float | None = None
    notes: tuple[str, ...] = ()
    images: tuple[tuple[int, int], ...] = ()
    """(prompt, number) of the columns, where they are known."""


@dataclass(frozen=True)
class Naming:
    """Which columns of a table mean what; None guesses."""

    step: str | None = None
    values: tuple[str, ...] = ()
    metric: str | None = None
    run: str | None = None


def read(source: str, naming: Naming) -> list[Reading]:
    """The curves in a run folder, a CSV file or ``wandb:ENTITY/PROJECT/RUN``.

    Raises:
        UserError: nothing there, no table, or columns that cannot be told apart.
    """
    if source.startswith(WANDB):
        return _from_frame(_wandb_history(source, naming), source, naming)
    path = Path(source).expanduser()
    if path.is_dir():
        return [_from_run(path, naming)]
    if not path.exists():
        raise UserError(f"{source}: not there; give a run folder, a CSV file, or {WANDB}ENTITY/PROJECT/RUN")
    return _from_frame(_read_csv(path), source, naming)


def _from_run(folder: Path, naming: Naming) -> Reading:
    if (folder / SCORES).exists():
        steps, columns, images = score_columns(read_scores(folder))
    elif (folder / PER_IMAGE).exists():
        steps, columns, images = image_columns(per_image_of(folder))
    else:
        raise UserError(f"{folder}: a folder without {SCORES} or {PER_IMAGE}; give a run folder, a collected record or a CSV file")
    record = load_record(folder)
    asked = str(record.config["detector"]["metric"]) if record is not None else "dino"
    metric = naming.metric or asked
    if metric not in columns:
        raise UserError(f"{folder}: no metric {metric}; choose --metric from {', '.join(columns)}")
    ceiling = record.real_to_real.get(metric) if record is not None else None
    return Reading(str(folder), tuple(steps), columns, metric, ceiling, images=tuple(images))


def _read_csv(path: Path) -> pd.DataFrame:
    """Text as it stands: an empty cell is missing, ``nan`` is a number that is not one."""
    try:
        with path.open(encoding="utf-8") as lines:
            header = lines.readline()
        table = pd.read_csv(path, dtype=str, keep_default_na=False, sep=max(",;\t", key=header.count))
    except (OSError, ValueError, UnicodeDecodeError, pd.errors.ParserError) as error:
        raise UserError(f"{path}: no CSV table ({str(error).splitlines()[0]})") from error
    if table.empty or len(table.columns) < 2:
        raise UserError(f"{path}: a table with a column of steps and one of scores is needed; it has {len(table)} rows")
    return table


def _wandb_history(source: str, naming: Naming) -> pd.DataFrame:
    """All logged rows of a run in the cloud (or on ``WANDB_BASE_URL``) as text."""
    import wandb

    try:
        rows = list(wandb.Api().run(source.removeprefix(WANDB)).scan_history())
    except Exception as error:  # the client raises many kinds; each means that there is no such run for this user
        raise UserError(
            f"{source}: Weights & Biases gives no such run ({error}); log in with 'wandb login', or export the chart"
        ) from error
    wanted = [naming.step, *naming.values] if naming.step and naming.values else None
    plain = [{k: v for k, v in row.items() if isinstance(v, (int, float)) and (wanted is None or k in wanted)} for row in rows]
    if not any(plain):
        raise UserError(f"{source}: the run has no numbers logged")
    return pd.DataFrame([{k: repr(v) for k, v in row.items()} for row in plain]).fillna("")


def _from_frame(table: pd.DataFrame, name: str, naming: Naming) -> list[Reading]:
    table = table.rename(columns=lambda c: str(c).strip())
    step = _step_column(table, name, naming)
    run = naming.run
    if run is not None:
        if run not in table:
            raise UserError(f"{name}: no column {run}; --run is one of {', '.join(table.columns)}")
        return [_of_table(part.drop(columns=run), f"{name} [{key}]", step, naming) for key, part in table.groupby(run, sort=True)]
    if exported := _exported_runs(table, naming):
        return [
            _of_table(table[[step, column]], f"{name} [{label}]", step, replace(naming, values=(column,))) for label, column in exported
        ]
    return [_of_table(table, name, step, naming)]


def _step_column(table: pd.DataFrame, name: str, naming: Naming) -> str:
    if naming.step is not None:
        if naming.step in table:
            return naming.step
        raise UserError(f"{name}: no column {naming.step}; --step is one of {', '.join(table.columns)}")
    by_name = {column.lower(): column for column in table.columns}
    for candidate in STEP_NAMES:
        if candidate in by_name:
            return str(by_name[candidate])
    raise UserError(f"{name}: which column has the training steps? give --step one of {', '.join(table.columns)}")


def _exported_runs(table: pd.DataFrame, naming: Naming) -> list[tuple[str, str]]:
    """Runs and columns of a chart that Weights & Biases exported: ``<run> - <metric>`` beside its __MIN and __MAX."""
    if naming.values:
        return []
    found = [c for c in table.columns if " - " in c and f"{c}__MIN" in table.columns and not c.endswith(("_step", "__MIN", "__MAX"))]
    return [(column.rpartition(" - ")[0], column) for column in found]


def _of_table(table: pd.DataFrame, name: str, step: str, naming: Naming) -> Reading:
    """Long, wide or bare: whichever the columns say."""
    if "metric" in table and "value" in table and not naming.values:
        return _long_by_metric(table, name, step, naming)
    values, notes = _value_columns(table, name, step, naming)
    images = [c for c in table.columns if c.lower() in IMAGE_NAMES and c not in values]
    others = [c for c in METRICS if c in table and c not in values and not naming.values]
    if images and len(values) == 1 and others:
        melted = table.melt([step, *images], [*values, *others], "metric", "value")
        main = _long_by_metric(melted, name, step, replace(naming, metric=values[0]))
        return replace(main, notes=(*notes, *main.notes, f"columns {', '.join(others)} read beside it"))
    if images and len(values) == 1:
        matrix = _pivot(table, name, step, images, values[0])
    else:
        matrix = _numbers(table, [step, *values], name).set_index(step)
    metric = naming.metric or (values[0] if len(values) == 1 else _common(values))
    return _reading(matrix, name, metric, notes)


def _long_by_metric(table: pd.DataFrame, name: str, step: str, naming: Naming) -> Reading:
    """Rows of (step, image, metric, value), as ``scores.csv``; several references of an image are averaged."""
    present = list(dict.fromkeys(table["metric"]))
    metric = naming.metric or next((m for m in ("dino", *METRICS) if m in present), present[0])
    if metric not in present:
        raise UserError(f"{name}: no metric {metric}; choose --metric from {', '.join(present)}")
    images = [c for c in table.columns if c.lower() in IMAGE_NAMES]
    parts = {}
    for one in present:
        part = table[table["metric"] == one]
        parts[one] = _pivot(part, name, step, images, "value") if images else _numbers(part, [step, "value"], name).set_index(step)
    main = _reading(parts[metric], name, metric, [])
    others = {m: p.reindex(main.steps) for m, p in parts.items() if m != metric and set(main.steps) <= set(p.index)}
    count = main.columns[metric].shape[1]
    same = {m: p.to_numpy() for m, p in others.items() if p.shape[1] == count and bool(p.notna().to_numpy().all())}
    return replace(main, columns={**main.columns, **same})


def _value_columns(table: pd.DataFrame, name: str, step: str, naming: Naming) -> tuple[list[str], list[str]]:
    """The columns of scores, and what was guessed."""
    if naming.values:
        missing = [column for column in naming.values if column not in table]
        if missing:
            raise UserError(f"{name}: no column {', '.join(missing)}; --value is one of {', '.join(c for c in table.columns if c != step)}")
        return list(naming.values), []
    numeric = [c for c in table.columns if c != step and c.lower() not in IMAGE_NAMES and _is_numeric(table[c])]
    for wanted in [naming.metric] if naming.metric else ["dino", *VALUE_NAMES, *METRICS]:
        if wanted in table:
            return [wanted], [f"column {wanted} taken as the fidelity"] if len(numeric) > 1 else []
    if len(numeric) == 1:
        return numeric, [f"column {numeric[0]} taken as the fidelity"]
    stems = {match[1] for c in numeric if (match := _NUMBERED.match(c))}
    if numeric and len(stems) == 1 and all(_NUMBERED.match(c) for c in numeric):
        return numeric, [f"{len(numeric)} numbered columns taken as images"]
    raise UserError(
        f"{name}: which columns have the scores? give --value (again for every image) from {', '.join(numeric) or 'a table with numbers'}"
    )


def _is_numeric(column: pd.Series) -> bool:
    filled = column[column.str.strip() != ""]
    return len(filled) > 0 and bool(pd.to_numeric(filled, errors="coerce").notna().mean() >= 0.5)


def _common(columns: Sequence[str]) -> str:
    match = _NUMBERED.match(columns[0])
    return (match[1] if match else "") or "fidelity"


def _numbers(table: pd.DataFrame, columns: list[str], name: str) -> pd.DataFrame:
    """Cells as numbers: an empty cell is missing (nan); ``nan`` and ``inf`` in words are scores that are not finite (inf)."""
    found = pd.DataFrame(index=table.index)
    for column in columns:
        texts = table[column].str.strip()
        numbers = pd.to_numeric(texts.where(texts != "", None), errors="coerce")
        words = numbers.isna() & (texts != "")
        for row, text in texts[words].items():
            if text.lower() not in ("nan", "-nan", "none", "null"):
                raise UserError(f"{name}: row {int(str(row)) + 2} of column {column} is no number: {text!r}")
        found[column] = numbers.astype(np.float64).where(~words, np.inf).replace(-np.inf, np.inf)
    return found


def _pivot(table: pd.DataFrame, name: str, step: str, images: list[str], value: str) -> pd.DataFrame:
    """One row a step, one column an image; rows of one image (several references) are averaged."""
    long = pd.concat([_numbers(table, [step, value], name), table[images]], axis=1).dropna(subset=[step])
    return long.groupby([step, *images], sort=True)[value].mean().unstack(images)


def _reading(matrix: pd.DataFrame, name: str, metric: str, notes: list[str]) -> Reading:
    """Sort, leave out what is missing (nan), and check units; ``matrix`` has steps as index, images as columns."""
    matrix, notes = _tidy(matrix, name, notes)
    values = matrix.to_numpy(dtype=np.float64)
    _check_units(values, matrix.index.to_numpy(), name)
    return Reading(name, tuple(int(s) for s in matrix.index), {metric: values}, metric, notes=tuple(notes))


def _tidy(matrix: pd.DataFrame, name: str, notes: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Rows in the order of steps, and the columns that have a score in each of them; raises ``UserError``."""
    empty = matrix.isna().all(axis=1).to_numpy() | matrix.index.isna()
    if empty.any():
        notes.append(f"{int(empty.sum())} of {len(matrix)} rows have no score and are left out")
        matrix = matrix[~empty]
    if matrix.empty:
        raise UserError(f"{name}: no row has a step and a score")
    steps = pd.Index(matrix.index.astype(np.float64))
    if not np.isfinite(steps).all() or (steps != np.round(steps)).any():
        raise UserError(f"{name}: steps must be whole numbers; choose another column with --step")
    if (twice := steps[steps.duplicated()]).size:
        raise UserError(
            f"{name}: step {int(twice[0])} stands in {int((steps == twice[0]).sum())} rows; name the column that tells them apart "
            "(--run for runs, or call it image)"
        )
    if not steps.is_monotonic_increasing:
        notes.append("rows were not in the order of steps and are sorted")
    matrix = matrix.set_axis(steps).sort_index()
    partly = matrix.isna().any(axis=0).to_numpy()
    if partly.all():
        raise UserError(f"{name}: no image has a score at every checkpoint; leave out the checkpoints that lack images")
    if partly.any():
        notes.append(f"{int(partly.sum())} of {len(partly)} images lack some checkpoints and are left out")
    return matrix.loc[:, ~partly], notes


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


def read_all(sources: Sequence[str], naming: Naming) -> Iterator[Reading]:
    """All readings of several sources, in the order given."""
    for source in sources:
        yield from read(source, naming)
