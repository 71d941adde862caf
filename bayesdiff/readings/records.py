"""JSON, JSON lines and Parquet as a frame of text cells.

JSON may be a list of rows, an object of columns, an object with steps as keys, or a report that holds one of
these somewhere inside: the Hugging Face trainer's ``log_history``, peft's benchmark, exports of dashboards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

import pandas as pd

from bayesdiff.core.errors import UserError, first_line
from bayesdiff.core.files import from_json
from bayesdiff.readings.columns import is_step
from bayesdiff.readings.reading import shown

Row = Mapping[str, Any]
NEEDED = 'a list of rows such as {"step": 100, "dino": 0.5} is needed'


def json_table(text: str, name: str) -> tuple[pd.DataFrame, list[str]]:
    """The table in JSON or JSON lines, and where it was found; raises ``UserError`` where there is none, or several."""
    content = _content(text, name)
    if rows := _rows_of(content):
        return text_frame(rows), []
    found = list(_inside(content, ""))
    if not found and isinstance(content, Mapping) and any(is_step(key) for key in content):
        return text_frame([_flat(content)]), []  # the only line of a log that has just begun
    if not found:
        raise UserError(f"{name}: JSON without a table of steps; {NEEDED}")
    if len(found) > 1:
        raise UserError(f"{name}: several tables of steps ({shown([path for path, _ in found])}); save the one to be judged alone")
    path, rows = found[0]
    return text_frame(rows), [f"table read from {path}"]


def _content(text: str, name: str) -> Any:
    try:
        return from_json(text)
    except RecursionError as error:
        raise UserError(f"{name}: JSON nested too deeply for a table; {NEEDED}") from error
    except ValueError as error:
        whole = error
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            rows += [from_json(line)] if line.strip() else []
        except ValueError as error:
            problem = whole if number == 1 else error
            raise UserError(f"{name}: line {number} is no JSON ({first_line(problem)}); {NEEDED}, whole or one a line") from error
    return rows


def _rows_of(content: Any) -> list[Row]:
    """Rows, where this very value is a table of steps."""
    if isinstance(content, list):
        rows: list[Row] = [_flat(row) for row in content if isinstance(row, Mapping)]
        return rows if rows and len(rows) == len(content) and any(is_step(key) for key in rows[0]) else []
    if not isinstance(content, Mapping) or not content:
        return []
    values = list(content.values())
    steps = [key for key in content if is_step(key)]
    if steps and all(isinstance(v, list) and len(v) == len(values[0]) for v in values):
        return [dict(zip(content, row, strict=True)) for row in zip(*values, strict=True)]
    if all(str(key).isdecimal() for key in content):
        return [{"step": key, **(_flat(v) if isinstance(v, Mapping) else {"value": v})} for key, v in content.items()]
    return []


def _inside(content: Any, path: str) -> Iterator[tuple[str, list[Row]]]:
    """Tables of several steps below an object, with their paths."""
    for key, value in content.items() if isinstance(content, Mapping) else ():
        below = f"{path}.{key}" if path else str(key)
        rows = _rows_of(value) if isinstance(value, (list, Mapping)) else []
        if len(rows) > 1:
            yield below, rows
        elif not rows:
            yield from _inside(value, below)


def _flat(row: Row, path: str = "") -> dict[str, Any]:
    """A row with objects inside it as one object, keys joined by slashes."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        below = f"{path}/{key}" if path else str(key)
        found |= _flat(value, below) if isinstance(value, Mapping) else {below: value}
    return found


def parquet_table(data: bytes, name: str) -> pd.DataFrame:
    """The table of a Parquet file; raises ``UserError`` where it is broken."""
    import pyarrow
    from pyarrow import parquet

    try:
        return text_frame(parquet.read_table(BytesIO(data)).to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{name}: no whole Parquet file ({first_line(error)}); write it again") from error


def text_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows as a frame of text cells: nothing for None and for keys that a row lacks, lists of numbers as numbered columns."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    columns: dict[str, list[str]] = {}
    for name in names:
        cells = [row.get(name) for row in rows]
        width = _width(cells)
        for i in range(width):
            columns[f"{name}_{i}"] = [_text(cell[i]) if isinstance(cell, list) else "" for cell in cells]
        if not width:
            columns[name] = [_text(cell) for cell in cells]
    return pd.DataFrame(columns, dtype=str)


def _width(cells: Sequence[Any]) -> int:
    """Length of the lists of a column that has lists of one length and nothing else; 0 for any other."""
    lengths = {len(cell) if isinstance(cell, list) else 0 for cell in cells if cell is not None}
    return lengths.pop() if len(lengths) == 1 else 0


def _text(value: Any) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)
