"""Where the runs of a study stand: done, running, stopped, failed, damaged or missing, from records, locks and notes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from bayesdiff.config.identity import run_name
from bayesdiff.config.schema import Config
from bayesdiff.config.work import Work, work_of
from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import CLAIM_LOCKS, FAILURES, LOCK, LOGS, MAIN, RECORD, RECORDS, RESUME
from bayesdiff.recording.archive import read_record, whats_wrong, whole_record
from bayesdiff.recording.columns import Damaged
from bayesdiff.recording.record import RunRecord
from bayesdiff.studies.plan import Cell, Study, compose_cell

ENDS = {"completed": "done", "diverged": "diverged"}
"""Status in the record of a run that has come to its end, and the state it is in then."""
DAMAGED = "damaged"
"""The run's folder has a record that cannot be read, is another run's, or lacks an evaluation of its study; nothing is started over it."""
RUNNING = "running"
"""A living process has the run."""
STATES = (*ENDS.values(), RUNNING, "stopped", "failed", DAMAGED, "missing")


@dataclass(frozen=True)
class Planned:
    """One run of a study and where it stands."""

    cell: Cell
    folder: Path
    state: str
    """One of ``STATES``: running is held by a process now, stopped was left unfinished and resumes."""
    ended: RunRecord | None = field(default=None, repr=False)
    """Its record, once it has come to its end."""
    note: str = ""
    """What is wrong with its folder, or with its record among the results, and the remedy."""
    work: Work | None = field(default=None, repr=False)
    """How much it is to do."""


def is_held(lock: Path) -> bool:
    """Whether a living process holds a lock file; the lock of a dead one is free.

    One that cannot be opened (a read-only folder) is not known to be held: who starts the run finds out.
    """
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def claim_file(root: Path, folder: Path) -> Path:
    return root / CLAIM_LOCKS / f"{folder.name}.lock"


def failure_file(root: Path, folder: Path) -> Path:
    return root / FAILURES / f"{folder.name}.json"


def failure_said(root: Path, folder: Path) -> str:
    """What a run that failed said last, its exit code, and the file with all of its words."""
    note, log = failure_file(root, folder), root / LOGS / f"{folder.name}.log"
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        return f"{said['error']} (exit code {said['exit_code']}, {log})"
    except (OSError, ValueError, KeyError, TypeError):
        return f"its note {note} cannot be read; {log} has its words"


def record_of(folder: Path) -> RunRecord | None:
    """The record in a run's folder, or None where there is none; raises ``Damaged``."""
    return read_record(folder)[0] if (folder / RECORD).exists() else None


def end_of(folder: Path, results: Path | None = None) -> RunRecord | None:
    """The record of a run that has come to its end, from its folder or, collected, from ``results``; else None.

    Raises:
        Damaged: the folder's record cannot be read or is another run's, and ``results`` has none.
    """
    collected = None if results is None else whole_record(results / RECORDS / folder.name)
    try:
        record = record_of(folder)
    except Damaged:
        if collected is not None:
            return collected
        raise
    return record if record is not None and is_closed(folder, record) else collected


def is_closed(folder: Path, record: RunRecord) -> bool:
    """Whether a run has come to its end; one that was killed at its end still has its resume states to remove."""
    return record.status in ENDS and not (folder / RESUME).exists()


def state_of(root: Path, folder: Path) -> str:
    """Where a run that has not come to its end stands, from its locks and its failure note."""
    if is_held(folder / LOCK) or is_held(claim_file(root, folder)):
        return RUNNING
    if failure_file(root, folder).exists():
        return "failed"
    return "stopped" if (folder / RECORD).exists() else "missing"


def _planned(cell: Cell, root: Path, folder: Path, results: Path | None, evaluations: Sequence[str]) -> Planned:
    try:
        record = end_of(folder, results)
    except Damaged as damaged:
        return Planned(cell, folder, DAMAGED, note=str(damaged))
    if record is not None and record.status == "completed" and (gone := [name for name in evaluations if name not in record.evaluations]):
        return Planned(cell, folder, DAMAGED, note=_too_late(gone, folder, results))
    note = "" if record or results is None else whats_wrong(results / RECORDS / folder.name)
    return Planned(cell, folder, ENDS[record.status] if record else state_of(root, folder), record, note)


def _too_late(gone: Sequence[str], folder: Path, results: Path | None) -> str:
    """What is said of a finished run without evaluations that its study reads, and the remedy."""
    there = [str(place) for place in (folder, *([] if results is None else [results / RECORDS / folder.name])) if place.exists()]
    why = "a finished run keeps too few checkpoints for a new one"
    return f"{there[0]}: has no evaluation {', '.join(gone)}, and {why}; remove {' and '.join(there)} and give the same command again"


def _composed(study: Study, cell: Cell, extra: tuple[str, ...]) -> Config:
    """As ``compose_cell``, with the study in the message: what only a whole configuration shows has no line of its file."""
    try:
        cfg = compose_cell(cell, extra)
    except UserError as error:
        raise UserError(f"study {study.name}: {error}") from error
    if unknown := sorted(set(study.evaluations) - {MAIN, *cfg.evaluations}):
        there = ", ".join((MAIN, *cfg.evaluations))
        raise UserError(f"study {study.name}: evaluations: its runs have no {unknown[0]}; choose from {there}, or add it to overrides")
    return cfg


def plan(study: Study, root: Path, extra: tuple[str, ...] = (), results: Path | None = None) -> list[Planned]:
    """Every run of a study below ``root``; one whose record is among ``results`` is done, wherever it was done.

    Raises:
        UserError: a run does not compose, or two are the same.
    """
    planned: dict[Path, Planned] = {}
    further = [name for name in study.evaluations if name != MAIN]
    for cell in study.cells:
        cfg = _composed(study, cell, extra)
        folder = root / run_name(cfg)
        if folder in planned:
            raise UserError(f"study {study.name}: {cell.name} is the same run as {planned[folder].cell.name}; leave one out")
        planned[folder] = replace(_planned(cell, root, folder, results, further), work=work_of(cfg))
    return list(planned.values())


def summary(planned: Sequence[Planned]) -> dict[str, int]:
    """How many runs are in each state."""
    states = [run.state for run in planned]
    return {state: states.count(state) for state in STATES}
