"""The cache of a result set: what was computed from its files, as one Parquet file.

A row is one quantity of one set of scores, found by the hash of the files it came from. Reading is forgiving: whatever
is wrong with the file, the quantities are computed again. ``FORMAT`` is part of the hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bayesdiff.core.errors import UserError
from bayesdiff.core.files import atomic_write
from bayesdiff.core.layout import CACHE
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.recording.columns import Array

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
FILE = "scores.parquet"
PARTS = ("curve", "last", "over_steps")


@dataclass(frozen=True)
class Scores:
    """What tables, figures and claims read off one evaluation of a run."""

    curve: dict[str, Array]
    """Columns of ``curve.csv``, (T,) each: ``step``, ``images``, every metric and its ``_se``."""
    last: dict[str, Array]
    """Metric -> (images,) at the last checkpoint."""
    over_steps: dict[str, Array]
    """Metric -> (images,) mean over training time; only of the first similarity, and of curves with two checkpoints or more."""
    dip: float
    """Deepest fall and return as fitted, in the metric's units; NaN where the verdict says nothing about one."""
    verdict: CorruptionVerdict | None
    """Of this detector; None where a run that diverged has no scores."""


def load(results: Path) -> dict[str, Scores]:
    """Key -> scores; empty where there is no cache, or none that can be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return _scores(pq.read_table(results / CACHE / FILE, use_threads=False, memory_map=False))
    except (OSError, pa.ArrowException, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return {}


def save(results: Path, scores: Mapping[str, Scores]) -> None:
    """Write the cache, whole or not at all; a set that cannot be written to has none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [(key, *row) for key, one in scores.items() for row in _rows(one)]
    keys, names, values, texts = zip(*rows, strict=True) if rows else ((), (), (), ())
    offsets = np.concatenate([[0], np.cumsum([len(value) for value in values], dtype=np.int64)]).astype(np.int64)
    flat = np.concatenate(values) if values else np.empty(0)
    table = pa.table({
        "key": pa.array(keys, pa.string()).dictionary_encode(), "name": pa.array(names, pa.string()).dictionary_encode(),
        "values": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat, pa.float64())), "text": pa.array(texts, pa.string()),
    })  # fmt: skip
    try:
        (results / CACHE).mkdir(exist_ok=True)
        (results / CACHE / ".gitignore").write_text("*\n", encoding="utf-8")
        with atomic_write(results / CACHE / FILE) as part:
            pq.write_table(table, part, compression="zstd")
    except (OSError, UserError):
        return


def _rows(scores: Scores) -> Iterator[tuple[str, Array, str | None]]:
    """Name, numbers and text of every quantity."""
    for part in PARTS:
        for name, values in getattr(scores, part).items():
            yield f"{part}/{name}", values, None
    verdict = None if scores.verdict is None else json.dumps(scores.verdict.to_dict())
    yield "verdict", np.array([scores.dip]), verdict


def _scores(table: pa.Table) -> dict[str, Scores]:
    """Every set of scores, its arrays views of one buffer."""
    table = table.combine_chunks()
    keys, names = (column.to_pylist() for column in (table["key"], table["name"]))
    column = table["values"].combine_chunks()
    offsets, flat = column.offsets.to_numpy(), column.values.to_numpy()
    texts = table["text"].to_pylist()
    found: dict[str, Scores] = {}
    parts: dict[str, dict[str, Array]] = {part: {} for part in PARTS}
    for i, (key, name) in enumerate(zip(keys, names, strict=True)):
        values = flat[offsets[i] : offsets[i + 1]]
        part, _, of = name.partition("/")
        if of:
            parts[part][of] = values
            continue
        verdict = None if texts[i] is None else CorruptionVerdict.from_dict(json.loads(texts[i]))
        found[key] = Scores(parts["curve"], parts["last"], parts["over_steps"], float(values[0]), verdict)
        parts = {part: {} for part in PARTS}
    return found
