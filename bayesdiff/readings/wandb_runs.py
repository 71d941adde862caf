"""Logged rows of Weights & Biases: runs in the cloud by its API, offline runs from their ``run-ID.wandb`` file.

The client has no reader for that file since it moved to a core of its own. The file is a LevelDB log (blocks of 32 KiB,
https://github.com/google/leveldb/blob/main/doc/log_format.md) of protocol-buffer records, whose schema the client ships.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from bayesdiff.core.errors import UserError, first_line
from bayesdiff.core.files import read_file
from bayesdiff.readings.columns import step_columns
from bayesdiff.readings.numerals import Numerals, parsed
from bayesdiff.readings.reading import Naming
from bayesdiff.readings.records import text_frame

CLOUD = "wandb:"
SUFFIX = ".wandb"
_IDENT = b":W&B"
_HEAD, _BLOCK, _CHUNK_HEAD = 7, 32768, 7
_TYPE = "._type"
"""Ends the key that says what kind of media its neighbours describe."""
_FULL, _FIRST, _LAST = 1, 2, 4


def cloud_table(source: str, naming: Naming) -> pd.DataFrame:
    """All logged rows of a run in the cloud (or on ``WANDB_BASE_URL``); raises ``UserError`` where this user has no such run."""
    import wandb

    try:
        rows = list(wandb.Api().run(source.removeprefix(CLOUD)).scan_history())
    except Exception as error:  # the client raises many kinds; each means that there is no such run for this user
        raise UserError(
            f"{source}: Weights & Biases gives no such run ({first_line(error)}); log in with 'wandb login', or export the chart"
        ) from error
    return _table(rows, source, [naming.step, *naming.values] if naming.step and naming.values else None)


def offline_files(folder: Path) -> list[Path]:
    """The files of offline runs at and below a folder, oldest first."""
    return sorted(folder.rglob(f"run-*{SUFFIX}"))


def offline_table(path: Path) -> tuple[pd.DataFrame, str, list[str]]:
    """Rows of an offline run, its name, and a note where the file lacks the run's end (it may still go on).

    Raises:
        UserError: no such file of Weights & Biases, or no numbers in it.
    """
    from google.protobuf.message import DecodeError

    schema = import_module("wandb.proto.wandb_internal_pb2")
    data = read_file(path)
    if not data.startswith(_IDENT):
        raise UserError(f"{path}: no file of an offline run; give the run-ID.wandb of wandb/offline-run-*, or export the chart")
    rows, name, ended = [], path.stem, False
    with suppress(DecodeError, ValueError):  # the last record of a run that goes on, or was killed, is cut off
        for chunk in _records(data):
            record = schema.Record.FromString(chunk)
            if record.HasField("run"):
                name = record.run.display_name or record.run.run_id or name
            elif record.HasField("history"):
                rows.append({".".join(item.nested_key) or item.key: _value(item) for item in record.history.item})
            ended = ended or record.HasField("exit")
    notes = [] if ended else [f"the file lacks the run's end: the {len(rows):,} rows so far are read"]
    return _table(rows, str(path), None), name, notes


def resumed(parts: list[pd.DataFrame]) -> pd.DataFrame | None:
    """One table of a run that was resumed offline and so wrote several files, in their order; None where they cannot be joined.

    A later file repeats what came after the checkpoint it went on from: its rows count. Its ``_step`` counts from zero again, so
    that only a column of training steps tells where it went on.
    """
    whole = parts[0]
    for part in parts[1:]:
        shared = [c for c in step_columns([c for c in part.columns if c in whole]) if c != "_step"]
        if not shared:
            return None
        start = parsed(part[shared[0]], Numerals()).min()
        whole = pd.concat([whole[~(parsed(whole[shared[0]], Numerals()) >= start)], part], ignore_index=True).fillna("")
    return whole.drop(columns="_step", errors="ignore") if len(parts) > 1 else whole


def _records(data: bytes) -> Iterator[bytes]:
    """Whole records; raises ``ValueError`` at the end where the last one is cut off."""
    at, parts = _HEAD, b""
    while at + _CHUNK_HEAD <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _CHUNK_HEAD:  # the end of a block that no head fits in is padding
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        if kind == 0:
            at += left
            continue
        chunk = data[at + _CHUNK_HEAD : at + _CHUNK_HEAD + size]
        if len(chunk) < size:
            raise ValueError("cut off")
        at += _CHUNK_HEAD + size
        parts = chunk if kind in (_FULL, _FIRST) else parts + chunk
        if kind in (_FULL, _LAST):
            yield parts


def _value(item: Any) -> Any:
    """One logged value: typed fields of newer clients, JSON text of older ones."""
    for field in ("number", "integer"):
        if item.HasField(field):
            return getattr(item, field)
    if not item.value_json:
        return None
    value = json.loads(item.value_json)
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


def _table(rows: list[dict[str, Any]], name: str, wanted: list[str] | None) -> pd.DataFrame:
    """Numbers alone: media with all their fields, texts and switches are left out."""
    media = {key.removesuffix(_TYPE) for row in rows for key in row if key.endswith(_TYPE)}
    numbers = [{k: v for k, v in row.items() if isinstance(v, (int, float)) and not isinstance(v, bool)} for row in rows]
    plain = [{k: v for k, v in row.items() if k.rpartition(".")[0] not in media and (wanted is None or k in wanted)} for row in numbers]
    if not any(plain):
        raise UserError(f"{name}: the run has no numbers logged; log the metric with wandb.log, or give a CSV file")
    return text_frame(plain)
