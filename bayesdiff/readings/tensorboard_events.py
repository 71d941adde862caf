"""Scalars of TensorBoard event files as frames of text cells, decoded by TensorBoard's own messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from struct import unpack_from
from typing import Any

import pandas as pd

from bayesdiff.core.errors import UserError, first_line

MARK = "tfevents"
"""Stands in the name of every event file."""
HEAD, FRAME = 12, 16
"""Bytes before a record (its length and the length's sum), and around it (the sum of its content after it)."""
VERSION = b"brain.Event:"
Series = dict[str, dict[int, float]]
"""Value by step, by tag."""


def is_event_file(path: Path) -> bool:
    return MARK in path.name and path.is_file()


def event_folders(folder: Path) -> list[Path]:
    """Folders at and below one that hold event files: one a run, as TensorBoard has it."""
    return sorted({path.parent for path in folder.rglob(f"*{MARK}*") if path.is_file()})


def event_table(path: Path, name: str) -> pd.DataFrame:
    """Steps and a column a scalar tag, of an event file or of all those in one folder.

    Where a run was resumed and logged a step again, the last value counts.

    Raises:
        UserError: TensorBoard is not installed, a file is broken, or there are no scalars.
    """
    files = [path] if path.is_file() else sorted(file for file in path.glob(f"*{MARK}*") if file.is_file())
    series: Series = {}
    for file in files:
        _add_scalars(series, file, name)
    if not series:
        raise UserError(f"{name}: the event file has no scalars; log the metric with add_scalar, or give a CSV file")
    steps = sorted(set().union(*series.values()))
    cells = {tag: [repr(found[step]) if step in found else "" for step in steps] for tag, found in series.items()}
    return pd.DataFrame({"step": [str(step) for step in steps], **cells}, dtype=str)


def _add_scalars(series: Series, file: Path, name: str) -> None:
    try:
        from tensorboard.compat.proto.event_pb2 import Event
    except ImportError as error:
        raise UserError(f"{name}: TensorBoard files need its reader; pip install 'bayesdiff[tensorboard]', or export a CSV file") from error
    tensors: set[str] = set()
    try:
        for record in _records(file.read_bytes()):
            event = Event.FromString(record)
            for value in event.summary.value:
                number = _scalar(value, tensors)
                if number is not None:
                    series.setdefault(value.tag, {})[event.step] = number
    except Exception as error:  # a broken record raises whatever the parser behind it raises
        raise UserError(f"{name}: no whole event file ({first_line(error)}); export the chart as CSV from TensorBoard") from error


def _records(content: bytes) -> Iterator[bytes]:
    """The events of a file, up to one that is still being written.

    TensorBoard's own loader checks the sums of every record in Python, which takes most of its time. Here only the first record is
    checked, by the words that every event file begins with.
    """
    if len(content) > FRAME and VERSION not in content[:64]:
        raise ValueError("its first record has no version")
    at = 0
    while at + HEAD <= len(content):
        (length,) = unpack_from("<Q", content, at)
        if at + length + FRAME > len(content):
            return
        yield content[at + HEAD : at + HEAD + length]
        at += length + FRAME


def _scalar(value: Any, tensors: set[str]) -> float | None:
    """The number in a summary of either kind: a simple value, or a tensor of TensorFlow 2, whose first summary names its plugin."""
    if value.HasField("simple_value"):
        return value.simple_value  # type: ignore[no-any-return]
    if value.metadata.plugin_data.plugin_name == "scalars":
        tensors.add(value.tag)
    if value.tag not in tensors or not value.HasField("tensor"):
        return None
    from tensorboard.util.tensor_util import make_ndarray

    return float(make_ndarray(value.tensor))
