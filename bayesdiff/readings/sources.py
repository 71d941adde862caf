"""From a source to readings: what is it, and who reads it?"""

from __future__ import annotations

import gzip
import io
import sys
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import IO

from bayesdiff.core.errors import UserError, first_line, shortened
from bayesdiff.core.files import SAMPLES, no_path, read_file
from bayesdiff.readings.reading import Naming, Reading
from bayesdiff.readings.records import json_table, parquet_table
from bayesdiff.readings.runs import is_run, read_run
from bayesdiff.readings.tables import read_table
from bayesdiff.readings.tensorboard_events import event_folders, event_table, is_event_file
from bayesdiff.readings.text import csv_table, decoded
from bayesdiff.readings.thinning import thinned
from bayesdiff.readings.wandb_runs import CLOUD, SUFFIX, cloud_table, offline_files, offline_table, resumed

STDIN = "-"
PACKED = b"\x1f\x8b"
MOST_UNPACKED = 2**29
"""Bytes of a table that is packed, or comes through a pipe: there a few bytes can stand for any number."""
KINDS = f"a run folder, a table (CSV, JSON, JSON lines, Parquet), TensorBoard or offline W&B files, {CLOUD}ENTITY/PROJECT/RUN, or {STDIN}"


def read(source: str, naming: Naming) -> list[Reading]:
    """The curves of a source: one, or one a run.

    Args:
        source: a run folder or a collected record; a CSV, JSON, JSON-lines or Parquet file; a TensorBoard event file, or a folder of
            them; the ``.wandb`` file of an offline run, or a folder of them; ``wandb:ENTITY/PROJECT/RUN``; ``-`` for stdin.

    Returns:
        Readings of at most ``thinning.WHOLE`` checkpoints each.

    Raises:
        UserError: nothing there, no table, or columns that cannot be told apart.
    """
    return [thinned(reading) for reading in _read(source, _composed(naming))]


def _composed(naming: Naming) -> Naming:
    """Names as ``read_table`` has those of a table: an accent is a part of its letter, whichever way it was typed."""
    step, metric, run = (name and unicodedata.normalize("NFC", name) for name in (naming.step, naming.metric, naming.run))
    return replace(naming, step=step, metric=metric, run=run, values=tuple(unicodedata.normalize("NFC", name) for name in naming.values))


def read_all(sources: Sequence[str], naming: Naming) -> Iterator[Reading]:
    """All readings of several sources, in the order given."""
    for source in sources:
        yield from read(source, naming)


def _read(source: str, naming: Naming) -> list[Reading]:
    if source == STDIN:
        return read_bytes(_bounded(sys.stdin.buffer, "stdin"), "stdin", naming)
    if source.startswith(CLOUD):
        return read_table(cloud_table(source, naming), source, naming)
    if why := no_path(source):
        raise UserError(f"{shortened(source)}: {why}; give {KINDS}")
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path, naming)
    if not _is_there(path):
        raise UserError(f"{source}: not there; give {KINDS}")
    if path.suffix == SUFFIX:
        return _offline_runs([path], naming)
    if is_event_file(path):
        return read_table(event_table(path, source), source, naming)
    try:
        data = read_file(path)
    except OSError as error:
        raise UserError(f"{source}: {first_line(error)}; give a file that can be read") from error
    return read_bytes(data, source, naming)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # links in a circle
        return False


def _read_folder(folder: Path, naming: Naming) -> list[Reading]:
    if is_run(folder):
        return [read_run(folder, naming)]
    if files := offline_files(folder):
        return _offline_runs(files, naming)
    if folders := event_folders(folder):
        return [reading for one in folders for reading in read_table(event_table(one, str(one)), str(one), naming)]
    if _has_samples(folder):
        raise UserError(
            f"{folder}: a folder of images, and no scores; score and judge them: bayesdiff judge {quote(str(folder))} --photos PHOTOS"
        )
    raise UserError(f"{folder}: a folder without scores.csv, images.csv, event files or offline W&B runs; give {KINDS}")


def _has_samples(folder: Path) -> bool:
    """Whether pictures lie in a folder or below it."""
    return any(path.suffix.lower() in SAMPLES for path in folder.rglob("*"))


def _offline_runs(files: list[Path], naming: Naming) -> list[Reading]:
    """A reading a run; files of one name are of one run, resumed offline."""
    found = []
    for run in dict.fromkeys(file.name for file in files):
        parts = [(file, *offline_table(file)) for file in files if file.name == run]
        if (whole := resumed([table for _, table, _, _ in parts])) is not None:
            path, _, name, notes = parts[-1]
            said = [f"the run was resumed offline: {len(parts)} files joined by their steps"] if len(parts) > 1 else []
            found += read_table(whole, f"{path} [{name}]", naming, [*said, *notes])
        else:
            found += [reading for path, table, name, notes in parts for reading in read_table(table, f"{path} [{name}]", naming, notes)]
    return found


def read_bytes(data: bytes, name: str, naming: Naming) -> list[Reading]:
    """The curves of a table's bytes, whose kind is seen from its beginning; raises ``UserError``."""
    try:
        return _read_bytes(data, name, naming)
    except (ValueError, OverflowError) as error:  # pandas on cells that no column of numbers has
        raise UserError(f"{name}: no table of numbers ({first_line(error)}); give a column of steps and one of scores") from error


def _read_bytes(data: bytes, name: str, naming: Naming) -> list[Reading]:
    if data.startswith(PACKED):
        return read_bytes(_unzipped(data, name), name, naming)
    if data.startswith(b"PAR1"):
        return read_table(parquet_table(data, name), name, naming)
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise UserError(f"{name}: a spreadsheet or an archive; save its sheet as CSV")
    text, notes = decoded(data, name)
    if text.lstrip()[:1] in ("{", "["):
        table, more = json_table(text, name)
        return read_table(table, name, naming, [*notes, *more])
    table, separator = csv_table(text, name)
    return read_table(table, name, naming, notes, separator)


def _unzipped(data: bytes, name: str) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            found = _bounded(packed, name)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{name}: a gzip file that is not whole; copy it again") from error
    if found.startswith(PACKED):
        raise UserError(f"{name}: packed twice; unpack it once")
    return found


def _bounded(file: IO[bytes] | gzip.GzipFile, name: str) -> bytes:
    if len(found := file.read(MOST_UNPACKED + 1)) > MOST_UNPACKED:
        raise UserError(f"{name}: a table of more than {MOST_UNPACKED / 2**30:.1f} GB; leave rows out, or save it as Parquet")
    return found
