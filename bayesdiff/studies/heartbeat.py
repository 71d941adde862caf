"""How far a study is, once a minute: the runs at work, their steps, and the time that is left."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

from rich.console import Console

from bayesdiff.config.work import Work, spoken
from bayesdiff.core import escape
from bayesdiff.core.layout import LOCK, TRAIN_LOG
from bayesdiff.studies.state import DAMAGED, Planned, is_held

EVERY = 60.0
"""Seconds between two lines."""
TAIL = 4096
"""Bytes at the end of a log that hold its last row."""


@dataclass(frozen=True)
class Way:
    """A run that the study still had to do, and the work that it is."""

    name: str
    folder: Path
    work: Work

    def step(self) -> int:
        """The last step in its training log; 0 where it has none yet."""
        with suppress(OSError, ValueError, LookupError), (self.folder / TRAIN_LOG).open("rb") as log:
            log.seek(max(log.seek(0, 2) - TAIL, 0))
            whole = log.read().rpartition(b"\n")[0]  # the row behind it is being written
            return int(json.loads(whole.splitlines()[-1])["step"])
        return 0

    def done(self) -> float:
        """The work behind it."""
        return self.done_at(self.step())

    def done_at(self, step: int) -> float:
        """The work behind a step; none before the first logged one."""
        return self.work.until(step) if step else 0.0


def ways_of(planned: Sequence[Planned]) -> list[Way]:
    """The runs that the study has to do still; their names leave out what all of its runs have in common."""
    axes = [axis for axis in planned[0].cell.labels if len({run.cell.labels[axis] for run in planned}) > 1]
    names = [" ".join(f"{axis}={run.cell.labels[axis]}" for axis in axes) or run.cell.name for run in planned]
    left = [(name, run) for name, run in zip(names, planned, strict=True) if run.ended is None and run.state != DAMAGED]
    return [Way(name, run.folder, run.work) for name, run in left if run.work is not None]


def line_of(ways: Sequence[Way], begun: Sequence[float], seconds: float) -> str:
    """What a person wants to know after so many seconds; ``begun`` is the work that was done at the start."""
    steps = [way.step() for way in ways]
    done = sum(way.done_at(now) for way, now in zip(ways, steps, strict=True))
    every = sum(way.done_at(way.work.steps) for way in ways)
    at_work = [
        f"{way.name} at step {now} of {way.work.steps}"
        for way, now in zip(ways, steps, strict=True)
        if now < way.work.steps and is_held(way.folder / LOCK)
    ]
    made, left = done - sum(begun), every - done
    time_left = f"about {spoken(seconds * left / made)} left" if made > 0 else "no steps yet"
    trained = sum(now >= way.work.steps for way, now in zip(ways, steps, strict=True))
    return "; ".join([f"{trained} of {len(ways)} runs trained", *at_work, time_left])


@contextmanager
def heartbeat(planned: Sequence[Planned], console: Console) -> Iterator[None]:
    """Within the block a line is printed every ``EVERY`` seconds; nothing is where all runs have their end."""
    ways, stop = ways_of(planned), Event()
    begun, since = [way.done() for way in ways], time.monotonic()

    def beat() -> None:
        while not stop.wait(EVERY):
            console.print(escape.plain(line_of(ways, begun, time.monotonic() - since)), markup=False, highlight=False, soft_wrap=True)

    thread = Thread(target=beat, name="heartbeat", daemon=True)
    if ways:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if ways:
            thread.join()
