"""Run what a study is missing: ``python -m bayesdiff.study NAME [--dry-run] [--workers N]``.

Any number of these may work on one study at once, on one machine or on several that share a folder: a
run is claimed before it starts, by a lock that dies with its process, and done once. A run that fails
is noted with its error and does not stop the rest; give the same command again to try it once more.

Exit code: how many runs failed (at most 100), 120 for bad input, 130 when stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table

from bayesdiff.errors import UserError
from bayesdiff.files import LOCK_SECONDS, check_writable, write_text
from bayesdiff.machine import cores, seat
from bayesdiff.recording.tracker import without_echo
from bayesdiff.studies.collect import collect
from bayesdiff.studies.plan import (
    ENDS,
    Planned,
    Study,
    claim_file,
    end_of,
    failure_file,
    is_held,
    load_study,
    narrowed,
    plan,
    runs_of,
    study_names,
)

FINISHED = (0, 3)
"""Exit codes of a run that has an end: done, or diverged."""
STOPPED, BAD_INPUT, MOST_FAILURES = 130, 120, 100


def estimate_minutes(study: Study, planned: list[Planned]) -> float:
    """Minutes of one run: the median of the study's own finished runs, else what the study says."""
    spent = [sum(run.ended.seconds.values()) / 60 for run in planned if run.ended is not None and run.ended.seconds]
    return statistics.median(spent) if spent else study.minutes


def print_plan(study: Study, planned: list[Planned], workers: int, console: Console) -> None:
    """What a study consists of, what is done, and what the rest will take."""
    fed = f", for {', '.join(study.feeds)}" if study.feeds else ""
    table = Table("run", "state", "folder", title=f"{study.name}: {study.title}{fed}")
    for run in planned:
        table.add_row(run.cell.name, run.state, run.folder.name)
    console.print(table)
    left = [run for run in planned if run.ended is None]
    minutes = estimate_minutes(study, planned)
    console.print(
        f"{len(planned)} runs, {len(planned) - len(left)} done, {len(left)} left; about {minutes:.0f} minutes a run, "
        f"{len(left) * minutes / workers / 60:.1f} hours with {workers} worker(s)", highlight=False,
    )  # fmt: skip


def devices() -> list[str]:
    """CUDA devices that runs are spread over; empty on a machine without one."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def worker_environment(workers: int, gpu: str | None) -> dict[str, str]:
    """The environment of a run: its GPU, if there are any, and an equal share of the cores."""
    threads = max(cores() // workers, 1)
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
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
    claim = claim_file(root, run.folder)
    claim.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(claim, timeout=LOCK_SECONDS):
            if (end := end_of(run.folder, results)) is not None:
                return ENDS[end.status]
            if _noted(failure_file(root, run.folder)) not in (None, noted):
                return "failed"
            return "running" if is_held(run.folder / ".lock") else _execute(run, root, extra, environment)
    except Timeout:
        return "running"


def run_command(run: Planned, root: Path, extra: tuple[str, ...]) -> list[str]:
    """The command of record for one run of a study."""
    return [sys.executable, "-m", "bayesdiff.run", *run.cell.overrides, *extra, f"paths.runs={root}"]


def _execute(run: Planned, root: Path, extra: tuple[str, ...], environment: dict[str, str]) -> str:
    """The command of record, its words in ``logs/``, its failure (if it is one) in ``failures/``."""
    command = run_command(run, root, extra)
    log = root / "logs" / f"{run.folder.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as words:
        code = subprocess.run(command, stdout=words, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    failure = failure_file(root, run.folder)
    if code in FINISHED:
        failure.unlink(missing_ok=True)
        return "done" if code == 0 else "diverged"
    if code in (STOPPED, -2):
        return "stopped"
    failure.parent.mkdir(parents=True, exist_ok=True)
    tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-20:]
    said = {"run": run.cell.name, "command": shlex.join(command), "exit_code": code, "error": tail[-1] if tail else "", "log": tail}
    write_text(failure, json.dumps({**said, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}, indent=1) + "\n")
    return "failed"


def run_study(study: Study, root: Path, workers: int, extra: tuple[str, ...] = (), results: Path | None = None) -> dict[str, int]:
    """Do every run that is not done and that no one else does; counts by state afterwards.

    ``results`` gets the small files of every run as it finishes (``collect``); a run it has already is not done again.
    """
    planned = plan(study, root, extra, results)
    noted = {run.folder: _noted(failure_file(root, run.folder)) for run in planned}
    gpus, stopped, console = devices(), Event(), Console()

    def work(run: Planned) -> str:
        if stopped.is_set() or run.ended is not None:
            state = run.state
        else:
            with seat(gpus) as gpu:
                state = run_one(run, root, extra, worker_environment(workers, gpu), results, noted[run.folder])
            console.print(f"{state:9} {run.cell.name}", highlight=False, soft_wrap=True)
        if results is not None and end_of(run.folder) is not None:
            collect(run.folder, results)
        return state

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(work, run) for run in planned]
        try:
            states = [future.result() for future in futures]
        except KeyboardInterrupt:
            stopped.set()
            raise
    return {state: states.count(state) for state in dict.fromkeys(states)}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m bayesdiff.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"studies: {', '.join(study_names())}",
    )  # fmt: skip
    parser.add_argument("name", help="a file of experiments/, without its ending")
    parser.add_argument("overrides", nargs="*", help="added to every run, such as schedule.keep=best")
    parser.add_argument("--model", default="toybox", help="toybox (default), sd15, …: what the study has")
    parser.add_argument("--runs", type=Path, help="folder of run folders (default: runs/MODEL)")
    parser.add_argument("--results", type=Path, help="collect each run's small files here (results/toybox); runs it has are done")
    parser.add_argument("--workers", type=int, default=1, help="runs at once; with several GPUs each takes one")
    parser.add_argument("--only", nargs="+", default=[], metavar="AXIS=LABEL", help="only the runs with these labels")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    arguments = parser.parse_intermixed_args(argv)
    root = arguments.runs or runs_of(arguments.model)
    extra = tuple(arguments.overrides)
    try:
        if arguments.workers < 1:
            raise UserError(f"--workers {arguments.workers}: give 1 or more")
        study = narrowed(load_study(arguments.name, arguments.model), without_echo(arguments.only))
        if arguments.dry_run:
            planned = plan(study, root, extra, arguments.results)
            print_plan(study, planned, arguments.workers, Console(width=None if Console().is_terminal else 140))
            return 0
        check_writable(root / "logs", "--runs")
        found = run_study(study, root, arguments.workers, extra, arguments.results)
    except UserError as error:
        print(f"bayesdiff: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("\nStopped. Give the same command again to go on.", file=sys.stderr)
        return STOPPED
    print(", ".join(f"{number} {state}" for state, number in found.items()))
    return min(found.get("failed", 0), MOST_FAILURES)


if __name__ == "__main__":
    sys.exit(main())
