"""Run folders of this package and collected records of them as readings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bayesdiff.core.errors import UserError, first_line
from bayesdiff.core.layout import PER_IMAGE, RECORD, SCORES
from bayesdiff.readings.reading import Naming, Reading, shown
from bayesdiff.recording.archive import photo_energy
from bayesdiff.recording.collect import per_image_of
from bayesdiff.recording.record import RunRecord, lacking, load_record, missing_scores, setting
from bayesdiff.scoring.curve import image_columns, read_scores, score_columns
from bayesdiff.scoring.metrics import known


def is_run(folder: Path) -> bool:
    return (folder / SCORES).exists() or (folder / PER_IMAGE).exists()


def _columns(folder: Path) -> tuple[list[int], dict[str, NDArray[np.float64]], list[tuple[int, int]]]:
    if (folder / SCORES).exists():
        return score_columns(read_scores(folder))
    return image_columns(per_image_of(folder))


def _notes(record: RunRecord, steps: Sequence[int], images: int) -> tuple[str, ...]:
    """What is to be said of a finished run whose table has not the checkpoints that the run had: it was cut, or edited."""
    wanted = setting(record.config, "schedule.checkpoints", [])
    if record.status != "completed" or not isinstance(wanted, list) or "detector.stop_after" in record.message:
        return ()
    strange, parts = sorted(set(steps) - set(wanted)), missing_scores(record, steps, images)
    parts += [f"scores of step {shown(list(map(str, strange)), 5)}, which the run did not have"] if strange else []
    return (f"the run is completed, and its table has {' and '.join(parts)}: copy it again, or repeat the run",) if parts else ()


def read_run(folder: Path, naming: Naming) -> Reading:
    """The curve of a run folder or a collected record; raises ``UserError`` where it lacks the metric that was asked for."""
    try:
        steps, columns, images = _columns(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: its scores cannot be read ({first_line(error)}); copy them again, or repeat the run") from error
    record = load_record(folder)
    if record is not None and (key := lacking(record.config, ("detector.metric", "model.resolution", "data.subject"))):
        raise UserError(f"{folder / RECORD}: config has no {key}; repeat the run with this version, or remove the file")
    metric = naming.metric or (str(record.config["detector"]["metric"]) if record is not None else "dino")
    if metric not in columns:
        raise UserError(f"{folder}: no metric {metric}; choose --metric from {', '.join(columns)}")
    said = known(metric, record.custom_metrics) if record is not None else None
    higher = said.higher_is_better if said is not None else None
    ceiling = record.real_to_real.get(metric) if record is not None else None
    energy = photo_energy(record) if record is not None else None
    notes = _notes(record, steps, len(images)) if record is not None else ()
    return Reading(
        str(folder), tuple(steps), columns, metric, ceiling, energy, images=tuple(images), own=True, higher_is_better=higher,
        notes=notes,
    )  # fmt: skip
