"""From run folders to committed results: the small files of a run, without weights and images.

    results/<set>/records/<run>/record.json   what was asked, on what, at what cost, and the verdict
                                curve.csv     a row a checkpoint
                                images.csv    a row a checkpoint and image, a column a metric
                                probes.csv    losses and slopes on fixed noise, a row a checkpoint, kind of weights and timestep
                                one_step.csv  the paper's Figures 3 to 5 (runs.one_step), where they were asked for
                                grid.png      samples over steps, in 128 colours
                                evaluations/<name>/{curve,images}.csv    the same of other evaluations of the run

Records may come from many machines: folders are named by what was run, so that merging is copying.
"""

from __future__ import annotations

import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from bayesdiff.core.errors import UserError
from bayesdiff.core.files import atomic_write, read_file, write_text
from bayesdiff.core.layout import CURVE, EVALUATIONS, GRID, ONE_STEP, PER_IMAGE, PROBES, RECORD, RECORDS, SCORES
from bayesdiff.core.privacy import public
from bayesdiff.recording.archive import evaluations_in, whole_record
from bayesdiff.recording.columns import parse_images
from bayesdiff.recording.record import RunRecord, load_record
from bayesdiff.scoring.curve import curve_table, per_image, read_scores
from bayesdiff.scoring.metrics import COLUMNS


def collect(run: Path, results: Path, grid: bool = True) -> Path:
    """Copy a finished run's small files to ``results/records``; nothing is written where its record is there already.

    The record of another run of the same key, made anew or elsewhere, is replaced, with all that is beside it.

    Raises:
        UserError: the run has no record, or has not come to its end.
    """
    record = load_record(run)
    if record is None or record.status == "running":
        raise UserError(f"{run}: no finished run; give the command in its record.json again to end it")
    target, text = results / RECORDS / run.name, json.dumps(_public(record), indent=1, sort_keys=True) + "\n"
    same = whole_record(target) is not None and (target / RECORD).read_text(encoding="utf-8") == text
    if target.exists() and not same:
        _remove(target)
    for name in evaluations_in(run):
        _write_scores(run / EVALUATIONS / name, target / EVALUATIONS / name)
    for name in (PROBES, ONE_STEP):
        _copy(run / name, target / name)
    if same:
        return target  # another version of a library would write the same picture in other bytes
    target.mkdir(parents=True, exist_ok=True)
    _write_scores(run, target)
    if grid and (run / GRID).exists():
        with Image.open(run / GRID) as image, atomic_write(target / GRID) as part:
            image.convert("RGB").quantize(128).save(part, format="PNG", optimize=True)
    write_text(target / RECORD, text)  # last: a record means the rest is there
    return target


def _remove(target: Path) -> None:
    """Remove an older record, its ``record.json`` first: its evaluations or probes beside a newer run would be taken for that one's."""
    (target / RECORD).unlink(missing_ok=True)
    shutil.rmtree(target)


def _write_scores(source: Path, target: Path) -> None:
    """``curve.csv`` and ``images.csv`` of the scores in a folder, where it has any."""
    if (source / SCORES).exists():
        scores = read_scores(source)
        _write(target / CURVE, curve_table(scores))
        _write(target / PER_IMAGE, per_image(scores).reset_index())


def _copy(source: Path, target: Path) -> None:
    """Tables of probes as they are: they have as many digits as they need."""
    if source.exists() and not (target.exists() and target.read_bytes() == source.read_bytes()):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, source.read_text(encoding="utf-8"))


def _write(target: Path, table: pd.DataFrame) -> None:
    text = table.to_csv(index=False, float_format="%.5f", lineterminator="\n")
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        write_text(target, text)


def _public(record: RunRecord) -> dict[str, Any]:
    content: dict[str, Any] = public(json.loads(json.dumps(record.__dict__)))
    content["config"]["paths"] = {}
    content["environment"] = {k: v for k, v in record.environment.items() if k not in ("platform",)}
    return content


def per_image_of(folder: Path) -> pd.DataFrame:
    """The collected ``images.csv`` as ``curve.per_image`` gave it; raises ``Damaged`` for a table that is none."""
    content = read_file(path := folder / PER_IMAGE)
    parse_images(content, path)
    return pd.read_csv(BytesIO(content)).set_index(["step", "prompt", "image"])


def collected_scores(folder: Path) -> pd.DataFrame:
    """The collected ``images.csv`` as ``read_scores`` would give it, but for its references: their mean. Raises as ``per_image_of``."""
    wide = per_image_of(folder).reset_index()
    return wide.melt(["step", "prompt", "image"], var_name="metric").assign(reference="")[list(COLUMNS)]
