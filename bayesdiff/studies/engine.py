"""The engine of a study: claim a run that no one does, start its command of record, note how it ended.

Any number of engines may work on one study at once, on one machine or on several that share a folder: a
run is claimed before it starts, by a lock that dies with its process, and done once. A run that fails is noted with its error
and does not stop the rest.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any, TextIO

from filelock import FileLock, Timeout
from rich.console import Console

from bayesdiff.config.words import override
from bayesdiff.core import escape
from bayesdiff.core.errors import ExitCode, UserError, first_line
from bayesdiff.core.files import LOCK_SECONDS, faults_named, remove_partial, remove_partial_of, write_text
from bayesdiff.core.layout import FAILURES, LOCK, LOGS, RECORDS
from bayesdiff.core.machine import claim_gpu, cores
from bayesdiff.core.privacy import has_secret, public, redacted
from bayesdiff.recording.archive import whole_record
from bayesdiff.recording.collect import collect
from bayesdiff.recording.columns import Damaged
from bayesdiff.studies.heartbeat import heartbeat
from bayesdiff.studies.plan import Study
from bayesdiff.studies.state import (
    DAMAGED,
    ENDS,
    RUNNING,
    Planned,
    claim_file,
    end_of,
    failure_file,
    failure_said,
    is_closed,
    is_held,
    plan,
    record_of,
)

FINISHED = (ExitCode.DONE, ExitCode.DIVERGED)
"""Exit codes of a run that has an end."""
PAUSED = (ExitCode.STOPPED, ExitCode.TERMINATED, -signal.SIGINT, -signal.SIGTERM)
"""Of a run that was asked to stop: it failed in nothing."""
AT_WORK: set[subprocess.Popen[bytes]] = set()
"""Runs that this process has started and waits for."""
STOPPED = Event()
"""Whether this process was asked to stop, and with it every run that is ``AT_WORK``."""


def devices() -> list[str]:
    """CUDA devices that runs are spread over; empty on a machine without one."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def worker_environment(workers: int, gpu: str | None, alone: bool = True) -> dict[str, str]:
    """The environment of a run: its GPU, if there are any, and an equal share of the cores.

    ``alone`` says that it is the only one of its study: a sweep's agent, or a batch script, names one run of Weights & Biases, and
    several that took this name would be written over each other there.
    """
    inherited = {name: value for name, value in os.environ.items() if alone or name != "WANDB_RUN_ID"}
    environment = {"OMP_NUM_THREADS": str(max(cores() // workers, 1)), **inherited}
    return environment if gpu is None else {**environment, "CUDA_VISIBLE_DEVICES": gpu}


def _noted(failure: Path) -> int | None:
    """When a failure was noted, in the file system's own time; None where there is none."""
    try:
        return failure.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def run_one(
    run: Planned, root: Path, extra: tuple[str, ...], environment: dict[str, str], results: Path | None = None, noted: int | None = None
) -> str:
    """Claim a run and do it; returns its state afterwards, ``running`` where another process has it.

    ``noted`` is when its failure had been noted as this work began: a later note is another worker's try, and enough.
    """
    try:
        with _claimed(root, run.folder):
            if (end := end_of(run.folder, results)) is not None:
                return ENDS[end.status]
            if _noted(failure_file(root, run.folder)) not in (None, noted):
                return "failed"
            return RUNNING if is_held(run.folder / LOCK) else _execute(run, root, extra, environment)
    except Timeout:
        return RUNNING


@contextmanager
def _claimed(root: Path, folder: Path) -> Iterator[None]:
    """Hold the claim of a run; raises ``Timeout`` where another process has it for longer than a look takes."""
    claim = claim_file(root, folder)
    claim.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(claim, timeout=LOCK_SECONDS):
        yield


def run_command(run: Planned, root: Path, extra: tuple[str, ...]) -> list[str]:
    """The command of record for one run of a study."""
    return [sys.executable, "-m", "bayesdiff.run", *run.cell.overrides, *extra, override("paths.runs", str(root))]


def _call(command: list[str], words: TextIO, environment: dict[str, str]) -> int:
    """Its exit code; while it works it is ``AT_WORK``."""
    process = subprocess.Popen(command, stdout=words, stderr=subprocess.STDOUT, env=environment)
    AT_WORK.add(process)
    if STOPPED.is_set():  # the runs of that moment were told, and this one began just behind it
        process.terminate()
    try:
        return process.wait()
    finally:
        AT_WORK.discard(process)


def _execute(run: Planned, root: Path, extra: tuple[str, ...], environment: dict[str, str]) -> str:
    """The command of record, its words in ``logs/``, its failure (if it is one) in ``failures/``."""
    command = run_command(run, root, extra)
    log = root / LOGS / f"{run.folder.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as words:
        code = _call(command, words, environment)
    text = log.read_text(encoding="utf-8", errors="replace")
    if has_secret(text):  # of a library, which prints what it likes
        write_text(log, redacted(text))
    failure = failure_file(root, run.folder)
    remove_partial_of(failure)
    if code in FINISHED or code in PAUSED:  # it failed in nothing this time
        failure.unlink(missing_ok=True)
        return "stopped" if code in PAUSED else "done" if code == 0 else "diverged"
    failure.parent.mkdir(parents=True, exist_ok=True)
    tail = text.strip().splitlines()[-20:]
    said = {"run": run.cell.name, "command": shlex.join(command), "exit_code": code, "error": tail[-1] if tail else "", "log": tail}
    write_text(failure, json.dumps({**public(said), "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}, indent=1) + "\n")
    return "failed"


def _not_collected(run: Planned, root: Path, results: Path) -> str:
    """Copy the small files of a run that has ended here; what is wrong where that cannot be done, else nothing.

    A run that ended elsewhere has its record among the results already, whatever is left of it here; one that another worker has is
    that worker's to copy.
    """
    try:
        if (record := record_of(run.folder)) is not None and is_closed(run.folder, record):
            with _claimed(root, run.folder), faults_named(results):
                remove_partial(results / RECORDS / run.folder.name)
                collect(run.folder, results)
    except Timeout:
        return ""
    except Damaged as damaged:
        return "" if whole_record(results / RECORDS / run.folder.name) is not None else str(damaged)
    except UserError as error:
        return str(error)
    except (ValueError, KeyError) as error:
        return f"{run.folder}: cannot be collected ({first_line(error)}); remove the folder and give the same command again"
    return ""


def _forget_failures(planned: list[Planned], root: Path) -> None:
    """Remove notes of runs that have come to their end since: a worker that is killed leaves them."""
    notes = [path.name for path in (root / FAILURES).iterdir()] if (root / FAILURES).is_dir() else []
    for run in planned:
        failure = failure_file(root, run.folder)
        if run.ended is not None and any(note.startswith(failure.name) for note in notes):
            with suppress(Timeout), _claimed(root, run.folder):
                failure.unlink(missing_ok=True)
                remove_partial_of(failure)


def _tried(run: Planned, root: Path, *rest: Any) -> tuple[str, str]:
    """``run_one``, and of a run that failed what it said; where the study's own files cannot be written it has failed by that."""
    try:
        with faults_named(root):
            state = run_one(run, root, *rest)
            return state, f": {failure_said(root, run.folder)}" if state == "failed" else ""
    except UserError as error:
        return "failed", f": {error}"


def run_study(study: Study, root: Path, workers: int, extra: tuple[str, ...] = (), results: Path | None = None) -> dict[str, int]:
    """Do every run that is not done and that no one else does; counts by state afterwards.

    ``results`` gets the small files of every run as it finishes (``collect``); a run it has already is not done again.
    """
    planned = plan(study, root, extra, results)
    noted = {run.folder: _noted(failure_file(root, run.folder)) for run in planned}
    gpus, console = devices(), Console(emoji=False)
    STOPPED.clear()
    with faults_named(root):
        _forget_failures(planned, root)

    for run in planned:
        if run.note:
            console.print(escape.plain(f"{DAMAGED:9} {run.cell.name}: {run.note}"), markup=False, highlight=False, soft_wrap=True)

    def work(run: Planned, again: bool = False) -> str:
        if STOPPED.is_set() or run.ended is not None or run.state == DAMAGED:
            state = run.state
        else:
            with claim_gpu(gpus) as gpu:
                state, said = _tried(run, root, extra, worker_environment(workers, gpu, len(planned) == 1), results, noted[run.folder])
            if state != RUNNING or not again:
                console.print(escape.plain(f"{state:9} {run.cell.name}{said}"), markup=False, highlight=False, soft_wrap=True)
        if results is not None and state in ENDS.values() and (wrong := _not_collected(run, root, results)):
            console.print(escape.plain(f"{DAMAGED:9} {run.cell.name}: {wrong}"), markup=False, highlight=False, soft_wrap=True)
            return DAMAGED
        return state

    with heartbeat(planned, console), ThreadPoolExecutor(workers) as pool:
        try:
            states = [future.result() for future in [pool.submit(work, run) for run in planned]]
            while changed := _looked_again(planned, states, lambda runs: [pool.submit(work, run, True) for run in runs]):
                states = changed
        except BaseException:  # Ctrl-C, SIGTERM, a scheduler that requeues its job
            STOPPED.set()
            for process in list(AT_WORK):
                process.terminate()  # it ends its step and saves it
            raise
    return {state: states.count(state) for state in dict.fromkeys(states)}


def _looked_again(planned: list[Planned], states: list[str], submit: Callable[[list[Planned]], list[Future[str]]]) -> list[str]:
    """The states once runs that other processes had are tried again, since one of these may have been killed; empty if all are as before.

    While this process was at work others may have come and gone. Nothing is waited for: a run that is held is left to who holds it.
    """
    held = [i for i, state in enumerate(states) if state == RUNNING]
    found = dict(zip(held, [future.result() for future in submit([planned[i] for i in held])], strict=True))
    return [found.get(i, state) for i, state in enumerate(states)] if set(found.values()) - {RUNNING} else []
