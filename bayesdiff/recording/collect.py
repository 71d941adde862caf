"""From run folders to committed results: the small files of a run, without weights and images.

    results/<set>/records/<run>/record.json   what was asked, on what, at what cost, and the verdict
                                curve.csv     a row a checkpoint
                                images.csv    a row a checkpoint and image, a column a metric
                                grid.png      samples over steps, in 128 colours

Records may come from many machines: folders are named by what was run, so that merging is copying.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from bayesdiff.core.errors import UserError
from bayesdiff.core.files import atomic_write, write_text
from bayesdiff.core.layout import CURVE, GRID, PER_IMAGE, RECORD, RECORDS, SCORES
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.corruption.diagnosis import judge_run
from bayesdiff.recording.record import RunRecord, load_record, whole_record
from bayesdiff.scoring.curve import curve_table, image_columns, image_matrix, per_image, read_scores


def collect(run: Path, results: Path, grid: bool = True) -> Path:
    """Copy a finished run's small files to ``results/records``; nothing is written where its record is there already.

    The record of another run of the same key, made anew or elsewhere, is replaced.

    Raises:
        UserError: the run has no record, or has not come to its end.
    """
    record = load_record(run)
    if record is None or record.status == "running":
        raise UserError(f"{run}: no finished run; give the command in its record.json again to end it")
    target, text = results / RECORDS / run.name, json.dumps(_public(record), indent=1, sort_keys=True) + "\n"
    if whole_record(target) is not None and (target / RECORD).read_text(encoding="utf-8") == text:
        return target  # another version of a library would write the same picture in other bytes
    target.mkdir(parents=True, exist_ok=True)
    if (run / SCORES).exists():
        scores = read_scores(run)
        _write(target / CURVE, curve_table(scores))
        _write(target / PER_IMAGE, per_image(scores).reset_index())
    if grid and (run / GRID).exists():
        with Image.open(run / GRID) as image, atomic_write(target / GRID) as part:
            image.convert("RGB").quantize(128).save(part, format="PNG", optimize=True)
    write_text(target / RECORD, text)  # last: a record means the rest is there
    return target


def _write(target: Path, table: pd.DataFrame) -> None:
    with atomic_write(target) as part:
        table.to_csv(part, index=False, float_format="%.5f", lineterminator="\n")


def _public(record: RunRecord) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(record.__dict__))
    content["config"]["paths"] = {}
    content["environment"] = {k: v for k, v in record.environment.items() if k not in ("platform",)}
    return content


def load_records(results: Path) -> list[tuple[Path, RunRecord]]:
    """Every whole record below ``results``, in the order of folder names.

    Raises:
        UserError: no such folder.
    """
    found = [(folder, whole_record(folder)) for folder in _folders(results)]
    return [(folder, record) for folder, record in found if record is not None]


def incomplete(results: Path) -> list[str]:
    """Folders of records that are not whole, by name."""
    return [folder.name for folder in _folders(results) if whole_record(folder) is None]


def _folders(results: Path) -> list[Path]:
    root = results / RECORDS
    if not root.is_dir():
        raise UserError(f"{root}: no records; run a study with --results {results}")
    return [folder for folder in sorted(root.iterdir()) if folder.is_dir()]


def per_image_of(folder: Path) -> pd.DataFrame:
    """The collected ``images.csv`` as ``curve.per_image`` gave it."""
    return pd.read_csv(folder / PER_IMAGE).set_index(["step", "prompt", "image"])


def judged(folder: Path, record: RunRecord) -> CorruptionVerdict:
    """The verdict of today's detector on a collected run, by the run's own settings: whatever version ran it."""
    steps, columns, images = image_columns(per_image_of(folder))
    prompts = [prompt for prompt, _ in images]
    return judge_run(steps, columns, prompts, record.config["detector"], record.real_to_real, record.config["seed"])


def image_scores(folder: Path, metric: str) -> tuple[list[int], NDArray[np.float64]]:
    """Steps (T,) and scores (T, images) of a collected run, images in the order of (prompt, number)."""
    return image_matrix(per_image_of(folder), metric)
