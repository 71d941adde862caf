"""Scalars of TensorBoard event files as frames of text cells, read by TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from bayesdiff.errors import UserError, first_line

MARK = "tfevents"
"""Stands in the name of every event file."""


def is_event_file(path: Path) -> bool:
    return MARK in path.name and path.is_file()


def event_folders(folder: Path) -> list[Path]:
    """Folders at and below one that hold event files: one a run, as TensorBoard has it."""
    return sorted({path.parent for path in folder.rglob(f"*{MARK}*") if path.is_file()})


def event_table(path: Path, name: str) -> pd.DataFrame:
    """Steps and a column a scalar tag, of an event file or of all those in one folder.

    Where a run was resumed and wrote a step again, the last value counts.

    Raises:
        UserError: TensorBoard is not installed, or there are no scalars.
    """
    series = {tag: _last_of_each_step(found) for tag, found in _scalars(path, name).items()}
    if not series:
        raise UserError(f"{name}: the event file has no scalars; log the metric with add_scalar, or give a CSV file")
    table = pd.DataFrame(series).sort_index()
    cells = {tag: ["" if pd.isna(step) else repr(step) for step in table[tag].astype(object)] for tag in table}
    words = pd.DataFrame({"step": [str(step) for step in table.index], **cells}, dtype=str)
    for tag, found in series.items():  # a NaN that was logged is a score; a step that a tag lacks is none
        words.loc[table.index.isin(found.index[found.isna()]), tag] = "nan"
    return words


def _last_of_each_step(found: list[tuple[int, float]]) -> pd.Series:
    series = pd.Series([value for _, value in found], index=[step for step, _ in found], dtype="float64")
    return series[~series.index.duplicated(keep="last")]


def _scalars(path: Path, name: str) -> dict[str, list[tuple[int, float]]]:
    """(step, value) pairs by tag, of old and of TensorFlow 2's kind of summaries."""
    try:
        from tensorboard.backend.event_processing import event_accumulator as events
        from tensorboard.util import tensor_util
    except ImportError as error:
        raise UserError(f"{name}: TensorBoard files need its reader; pip install 'bayesdiff[tensorboard]', or export a CSV file") from error
    accumulator: Any = events.EventAccumulator(str(path), size_guidance={events.SCALARS: 0, events.TENSORS: 0})
    try:
        accumulator.Reload()
    except Exception as error:  # a broken record raises whatever the parser behind it raises
        raise UserError(f"{name}: no whole event file ({first_line(error)}); export the chart as CSV from TensorBoard") from error
    found = {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}
    for tag in accumulator.Tags()["tensors"]:
        if accumulator.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            found[tag] = [(event.step, float(tensor_util.make_ndarray(event.tensor_proto))) for event in accumulator.Tensors(tag)]
    return found
