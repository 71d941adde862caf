"""Steps that stand twice in a table: of a training that was resumed the last rows count, of several runs none is chosen.

A training that goes on from a checkpoint logs the steps after it again, so that steps go back in the order of the file. Where a
column tells such rows apart, they are of several runs or references. Where every step stands equally often, they are too.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bayesdiff.readings.columns import EPOCHS, is_image, is_step, plain
from bayesdiff.readings.directions import is_bookkeeping
from bayesdiff.readings.numerals import Numerals, is_numeric
from bayesdiff.readings.reading import shown

REFERENCES = ("reference", "ref", "photo", "photograph", "target")
RUNS = ("run", "runs", "run_id", "arm", "trial", "fold", "experiment", *REFERENCES, *EPOCHS)
"""Columns of numbers that tell rows apart; those of words do by themselves."""
DATES = ("date", "datetime", "day", "created", "created_at", "logged_at")


def telling(cells: pd.DataFrame, keys: pd.DataFrame, numerals: Numerals) -> str | None:
    """The column that tells rows with equal keys apart, a time left out; None where there is none.

    Args:
        cells: the columns that are neither keys nor scores, as text.
        keys: step, and labels of an image, of the same rows.
    """
    for column in cells.columns:
        name = plain(column)
        if name in DATES or is_image(column) or (is_step(column) and name not in EPOCHS) or (is_bookkeeping(column) and name not in RUNS):
            continue
        if is_numeric(cells[column], numerals) and name not in RUNS:
            continue
        if int(cells[column].groupby([keys[key] for key in keys]).nunique().max()) > 1:
            return str(column)
    return None


def superseded(keys: pd.DataFrame) -> pd.Series:
    """(rows,) rows whose step, of the same image, stands again behind a place where steps go back.

    Args:
        keys: in the order of the file; the step first, then what tells images apart, if anything.
    """
    at, labels = keys.iloc[:, 0], [keys[name] for name in keys.columns[1:]]
    back = (at.groupby(labels, sort=False).diff() if labels else at.diff()) < 0
    counts = keys.groupby(list(keys.columns)).size()
    if not back.any() or (counts.nunique() == 1 and counts.iloc[0] > 1):
        return pd.Series(data=False, index=keys.index)
    passes = back.groupby(labels, sort=False).cumsum() if labels else back.cumsum()
    return passes < passes.groupby([keys[name] for name in keys]).transform("max")


def resumed_note(steps: pd.Series) -> str:
    """What is said of steps whose first rows do not count."""
    names = [str(int(step)) for step in sorted(set(steps))]
    stand = f"step{'s' if len(names) > 1 else ''} {shown(names)} stand{'' if len(names) > 1 else 's'} again"
    return f"{stand} where steps go back, as in a training that was resumed: the last rows count"


def averaged_note(keys: pd.DataFrame, column: str | None) -> Sequence[str]:
    """What is said of rows of one step and image that are averaged; nothing of several references of an image."""
    if column is not None and plain(column) in REFERENCES:
        return ()
    apart = f"; --run {column} tells them apart" if column is not None else ""
    return (f"{int(keys.duplicated(keep=False).sum()):,} rows share their step and image with others and are averaged{apart}",)
