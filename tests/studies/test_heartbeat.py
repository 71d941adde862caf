"""The lines of a study at work: steps from the runs' own logs, the time that is left, and nothing once all runs have their end."""

from __future__ import annotations

import json
import time
from io import StringIO
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from bayesdiff.config.work import Work
from bayesdiff.core.layout import LOCK, TRAIN_LOG
from bayesdiff.recording.record import RunRecord
from bayesdiff.studies import heartbeat as module
from bayesdiff.studies.heartbeat import Way, heartbeat, line_of, ways_of
from bayesdiff.studies.plan import Cell, load_study
from bayesdiff.studies.state import Planned, plan


def work(steps: int) -> Work:
    return Work(steps, 1.0, 0.0, (0, steps))


def trained(folder: Path, step: int, end: str = "\n") -> Path:
    folder.mkdir(exist_ok=True)
    rows = [json.dumps({"step": at, "loss": 0.1}) for at in range(10, step + 1, 10)]
    (folder / TRAIN_LOG).write_text("\n".join(rows) + end)
    return folder


def planned(folder: Path, arm: str, **state: object) -> Planned:
    return Planned(Cell({"subject": "toy_dog", "bnn": arm}, ()), folder, "missing", work=work(200), **state)  # type: ignore[arg-type]


def test_steps_are_those_of_the_last_whole_row(tmp_path: Path) -> None:
    assert Way("a", trained(tmp_path / "a", 50), work(200)).step() == 50
    assert Way("b", trained(tmp_path / "b", 900), work(1000)).step() == 900, "a log that is longer than the tail that is read"
    assert Way("c", trained(tmp_path / "c", 50, '\n{"step": 6'), work(200)).step() == 50, "a row that is being written does not count"
    assert Way("d", tmp_path / "none", work(200)).done() == 0


def test_a_line_names_who_is_at_work_and_the_time_left(tmp_path: Path) -> None:
    ways = [Way("bnn=off", trained(tmp_path / "a", 200), work(200)), Way("bnn=on", trained(tmp_path / "b", 100), work(200))]
    with FileLock(tmp_path / "b" / LOCK):
        said = line_of(ways, [0, 0], 600.0)
    assert said == "1 of 2 runs trained; bnn=on at step 100 of 200; about 3 min left", "300 steps in 10 minutes, 100 left"
    assert line_of(ways, [200, 100], 60.0) == "1 of 2 runs trained; no steps yet"


def test_runs_are_named_by_what_differs_and_finished_ones_left_out(tmp_path: Path) -> None:
    ended = planned(tmp_path / "c", "ema", ended=RunRecord("key", "toybox", {}))
    assert [way.name for way in ways_of([planned(tmp_path / "a", "off"), planned(tmp_path / "b", "on"), ended])] == ["bnn=off", "bnn=on"]


def test_checkpoints_count_as_what_they_cost(tmp_path: Path) -> None:
    """Half of the steps, and all but one of the checkpoints: most of the work is over."""
    dense = Work(200, 1.0, 100.0, (0, 20, 40, 60, 200))
    way = Way("a", trained(tmp_path / "a", 100), dense)
    assert (way.done(), dense.until(200)) == (500, 700)
    assert line_of([way], [0.0], 500.0) == "0 of 1 runs trained; about 3 min left", "200 s"


def test_the_plan_knows_the_work_of_a_run(tmp_path: Path) -> None:
    found = plan(load_study("demo", "toybox"), tmp_path, ("schedule.steps=70", "schedule.checkpoints=[0,70]"))
    assert [run.work and run.work.steps for run in found] == [70, 70, 70]


def test_it_beats_while_the_block_lasts_and_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.02)
    words = StringIO()
    with heartbeat([planned(trained(tmp_path / "a", 50), "off")], Console(file=words)):
        time.sleep(0.3)
    said = words.getvalue()
    assert said.startswith("0 of 1 runs trained; no steps yet\n")
    time.sleep(0.1)
    assert words.getvalue() == said
