"""Running studies: each run once whoever works on it, failures noted, plans printed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Timer
from typing import Any

import pytest
from filelock import FileLock
from rich.console import Console

from bayesdiff.recording.record import RunRecord
from bayesdiff.studies import engine, state
from bayesdiff.studies import plan as planning
from bayesdiff.studies.engine import run_study, worker_environment
from bayesdiff.studies.show import estimate_minutes, print_plan
from bayesdiff.studies.state import failure_file, plan
from bayesdiff.study import main
from tests import stub_study

pytestmark = pytest.mark.usefixtures("restored_studies")


def started(folder: Path) -> list[str]:
    return (folder / "started").read_text().split()


def test_every_run_is_done_once_and_not_again(tmp_path: Path) -> None:
    study = stub_study.prepare(tmp_path)
    assert run_study(study, tmp_path / "runs", 3) == {"done": 12}
    assert len(started(tmp_path)) == len(set(started(tmp_path))) == 12
    assert run_study(study, tmp_path / "runs", 3) == {"done": 12}
    assert len(started(tmp_path)) == 12


def test_workers_in_several_processes_share_a_study(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.stub_study", str(tmp_path), "2"]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for worker in workers:
        assert worker.wait(timeout=120) == 0
        assert worker.stdout is not None
        worker.stdout.close()
    assert sorted(started(tmp_path)) == sorted({*started(tmp_path)})
    assert len(started(tmp_path)) == 12


def test_a_run_that_failed_meanwhile_is_left_to_the_next_command(tmp_path: Path) -> None:
    study, runs = stub_study.prepare(tmp_path, failing="3"), tmp_path / "runs"
    failing = next(run for run in plan(study, runs) if run.cell.labels["seed"] == "3")
    assert [engine.run_one(failing, runs, (), {}) for _ in range(2)] == ["failed", "failed"]  # two workers that began before either failed
    assert len(started(tmp_path)) == 1
    assert run_study(study, runs, 2) == {"done": 10, "failed": 2}  # begins with the note there
    assert len(started(tmp_path)) == 13


def test_a_failing_run_is_noted_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    study = stub_study.prepare(tmp_path, failing="3")
    assert run_study(study, tmp_path / "runs", 2) == {"done": 10, "failed": 2}
    failed = [run for run in plan(study, tmp_path / "runs") if run.state == "failed"]
    assert [run.cell.labels["seed"] for run in failed] == ["3", "3"]
    said = json.loads(failure_file(tmp_path / "runs", failed[0].folder).read_text())
    assert (said["exit_code"], said["error"], said["log"]) == (7, "bayesdiff: this one fails", ["some words", "bayesdiff: this one fails"])


def test_a_failed_run_is_tried_again_and_forgotten_when_it_succeeds(tmp_path: Path) -> None:
    run_study(stub_study.prepare(tmp_path, failing="3"), tmp_path / "runs", 2)
    study = stub_study.prepare(tmp_path)
    assert run_study(study, tmp_path / "runs", 2) == {"done": 12}
    assert not any((tmp_path / "runs" / "failures").iterdir())


def test_the_exit_code_says_how_many_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub_study.prepare(tmp_path, failing="3")
    assert main(["stub", "--runs", str(tmp_path / "runs")]) == 1
    out = capsys.readouterr().out
    assert "10 done, 2 failed" in out
    logs = sorted(str(path) for path in (tmp_path / "runs" / "logs").iterdir() if "-seed3-" in path.name)
    said = [line for line in out.splitlines() if line.startswith("failed ")]
    assert sorted(line.rpartition(", ")[2].rstrip(")") for line in said) == logs
    assert all(": bayesdiff: this one fails (exit code 7, " in line for line in said)
    stub_study.prepare(tmp_path)
    assert main(["stub", "--runs", str(tmp_path / "runs")]) == 0
    assert main(["nothing"]) == 2
    assert main(["stub", "--workers", "0"]) == 2
    (tmp_path / "file").write_text("")
    capsys.readouterr()
    assert main(["stub", "--runs", str(tmp_path / "file" / "runs")]) == 2
    assert capsys.readouterr().err.startswith(f"bayesdiff: --runs={tmp_path}/file/runs: {tmp_path}/file is not a folder")


def test_a_run_that_was_stopped_is_not_called_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody stops a run of the study, and not the study: it goes on, and does not end as if every run were there."""
    stub_study.prepare(tmp_path)
    codes = iter([-signal.SIGTERM, 0])
    monkeypatch.setattr(engine, "_call", lambda *_: next(codes))
    assert main(["stub", "--runs", str(tmp_path / "runs"), "--only", "seed=0"]) == 143
    assert "1 stopped, 1 done" in capsys.readouterr().out


def test_a_run_that_failed_and_was_then_stopped_does_not_stand_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, runs = stub_study.prepare(tmp_path, failing="0"), tmp_path / "runs"
    (only,) = planning.narrowed(study, ["seed=0", "bnn=on"]).cells
    assert run_study(replace(study, cells=(only,)), runs, 1) == {"failed": 1}
    monkeypatch.setattr(engine, "_call", lambda *_: -signal.SIGTERM)
    assert run_study(replace(study, cells=(only,)), runs, 1) == {"stopped": 1}
    assert not any((runs / "failures").iterdir())


def test_a_run_that_begins_behind_a_stop_is_stopped_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes while a worker is about to start one: it is not among the runs at work yet."""
    study, call = stub_study.prepare(tmp_path), engine._call

    def call_behind_a_stop(*words: Any) -> int:
        engine.STOPPED.set()
        return call(*words)

    monkeypatch.setattr(engine, "_call", call_behind_a_stop)
    first = planning.narrowed(study, ["seed=0", "bnn=on"])
    assert run_study(first, tmp_path / "runs", 1) == {"stopped": 1}
    monkeypatch.setattr(engine, "_call", call)
    assert run_study(first, tmp_path / "runs", 1) == {"done": 1}


def test_a_dry_run_prints_the_plan_and_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub_study.prepare(tmp_path)
    assert main(["stub", "--runs", str(tmp_path / "runs"), "--dry-run", "--workers", "2"]) == 0
    out = capsys.readouterr().out
    assert "12 runs, 0 done, 12 left; about 1 minutes a run, 0.1 hours with 2 worker(s)" in out
    assert "seed=5 bnn=on" in out
    assert not (tmp_path / "runs").exists()


def test_the_time_is_estimated_from_what_runs_took(tmp_path: Path) -> None:
    study = stub_study.prepare(tmp_path, failing="3")
    run_study(study, tmp_path / "runs", 2)
    planned = plan(study, tmp_path / "runs")
    assert estimate_minutes(study, planned) == 2.0
    console = Console(record=True, width=160)
    print_plan(study, planned, 1, console)
    assert "12 runs, 10 done, 2 left; about 2 minutes a run" in console.export_text()


def test_overrides_of_the_command_line_make_other_runs(tmp_path: Path) -> None:
    study = stub_study.prepare(tmp_path)
    here, there = plan(study, tmp_path), plan(study, tmp_path, ("training.batch_size=2",))
    assert not {run.folder for run in here} & {run.folder for run in there}


def test_a_run_has_its_share_of_the_cores_and_the_gpu_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,5")
    monkeypatch.setattr(engine, "cores", lambda: 8)
    assert worker_environment(4, None)["OMP_NUM_THREADS"] == "2"
    assert worker_environment(9, None)["OMP_NUM_THREADS"] == "1"
    assert worker_environment(4, "5")["CUDA_VISIBLE_DEVICES"] == "5"
    assert worker_environment(4, None)["CUDA_VISIBLE_DEVICES"] == "0,5"


def test_several_runs_do_not_share_the_name_that_weights_and_biases_gave_to_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep's agent whose file lacks an axis starts several runs; its id is of one."""
    study, seen = stub_study.prepare(tmp_path), []

    def call(command: list[str], words: Any, environment: dict[str, str]) -> int:
        seen.append(environment.get("WANDB_RUN_ID"))
        return 0

    monkeypatch.setenv("WANDB_RUN_ID", "the agent's")
    monkeypatch.setattr(engine, "_call", call)
    run_study(planning.narrowed(study, ["seed=0", "bnn=on"]), tmp_path / "runs", 1)
    run_study(planning.narrowed(study, ["seed=0"]), tmp_path / "runs", 1)
    assert seen == ["the agent's", None, None]


@pytest.mark.parametrize("starters", [1, 3], ids=["one study with three workers", "three studies with one worker each"])
def test_runs_are_spread_over_the_gpus_whoever_starts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starters: int) -> None:
    """Three runs at once on two GPUs: one GPU has two of them, the other one."""
    study, together, seen = stub_study.prepare(tmp_path), Barrier(3), []

    def run_one(
        run: state.Planned, root: Path, extra: tuple[str, ...], environment: dict[str, str], results: Path | None, noted: int | None
    ) -> str:
        seen.append(environment["CUDA_VISIBLE_DEVICES"])
        together.wait(timeout=60)
        return "done"

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(engine, "devices", lambda: ["0", "5"])
    monkeypatch.setattr(engine, "run_one", run_one)
    plan(study, tmp_path)  # threads of one process must not compose at once
    with ThreadPoolExecutor(starters) as pool:
        roots = [tmp_path / str(number) for number in range(starters)]
        assert list(pool.map(lambda root: run_study(study, root, 3 // starters), roots)) == [{"done": 12}] * starters
    assert sorted(seen[:3]) == ["0", "0", "5"]
    assert set(seen) == {"0", "5"}


def test_visible_devices_are_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert engine.devices() == ["2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert engine.devices() == []


def test_a_study_of_real_runs_from_plan_to_record(tmp_path: Path, tiny_smoke: list[str]) -> None:
    """One real training through the engine, with its words in a log and its small files collected."""
    words = [word for word in tiny_smoke if word.startswith(("model.", "metrics."))]
    (tmp_path / "real.yaml").write_text(
        "title: t\nexperiment: smoke\ngrid:\n  seed: [0]\nmodels:\n  toybox: {minutes: 1, overrides: "
        f"{json.dumps([*words, 'schedule.steps=2', 'schedule.checkpoints=[0,2]'])}}}\n"
    )
    planning.EXPERIMENTS = tmp_path
    study = planning.load_study("real")
    assert run_study(study, tmp_path / "runs", 1, results=tmp_path / "results") == {"done": 1}
    (run,) = plan(study, tmp_path / "runs")
    assert run.state == "done"
    assert "Look at" in (tmp_path / "runs" / "logs" / f"{run.folder.name}.log").read_text()
    kept = tmp_path / "results" / "records" / run.folder.name
    assert {path.name for path in kept.iterdir()} == {"record.json", "curve.csv", "images.csv", "probes.csv", "grid.png"}


def test_runs_whose_records_were_collected_are_not_done_again(tmp_path: Path) -> None:
    """A fresh clone has the committed records and no run folders."""
    study, results = stub_study.prepare(tmp_path), tmp_path / "results"
    first, second, *_ = plan(study, tmp_path / "elsewhere")
    for run, status in ((first, "completed"), (second, "diverged")):
        kept = results / "records" / run.folder.name
        kept.mkdir(parents=True)
        RunRecord(run.folder.name, status, {}, seconds={"train": 600.0}).save(kept)
        for name in ("curve.csv", "images.csv"):
            (kept / name).write_text("")
    planned = plan(study, tmp_path / "runs", results=results)
    assert [run.state for run in planned] == ["done", "diverged", *["missing"] * 10]
    assert estimate_minutes(study, planned) == 10
    assert run_study(study, tmp_path / "runs", 2, results=results) == {"done": 11, "diverged": 1}
    assert len(started(tmp_path)) == 10
    assert not {first.folder.name, second.folder.name} & set(started(tmp_path))
    assert (results / "records" / second.folder.name / "record.json").exists()


def test_a_look_at_a_claim_makes_no_worker_pass_the_run_over(tmp_path: Path) -> None:
    study = stub_study.prepare(tmp_path)
    (run, *_) = plan(study, tmp_path / "runs")
    claim = state.claim_file(tmp_path / "runs", run.folder)
    claim.parent.mkdir(parents=True)
    look = FileLock(claim, thread_local=False)  # released by another thread
    look.acquire()
    Timer(0.2, look.release, kwargs={"force": True}).start()
    assert engine.run_one(run, tmp_path / "runs", (), {}) == "done"


def test_a_damaged_run_folder_does_not_stop_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub_study.prepare(tmp_path)
    runs, words = tmp_path / "runs", ["stub", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    first, second, *_ = plan(planning.load_study("stub"), runs)
    for run in (first, second):
        run.folder.mkdir(parents=True)
    (first.folder / "record.json").write_text("{")
    RunRecord(second.folder.name, "completed", {}).save(second.folder)
    (second.folder / "scores.csv").write_text("step,what\n")
    assert main(words) == 1
    out = capsys.readouterr().out
    assert "2 damaged, 10 done" in out
    assert f"{first.folder}" in out and f"{second.folder}" in out
    assert len(started(tmp_path)) == 10


def test_a_run_whose_worker_was_killed_is_done_by_those_still_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker has the first run as this one comes by, and is gone before this one is through the others."""
    study, runs = stub_study.prepare(tmp_path), tmp_path / "runs"
    first = plan(study, runs)[0]
    place = state.claim_file(runs, first.folder)
    place.parent.mkdir(parents=True)
    claim = FileLock(place, thread_local=False)
    claim.acquire()
    call = engine._call

    def call_after_the_kill(*words: Any) -> int:
        claim.release(force=True)
        return call(*words)

    monkeypatch.setattr(engine, "_call", call_after_the_kill)
    assert run_study(study, runs, 1) == {"done": 12}
    assert started(tmp_path)[-1] == first.folder.name


def test_a_run_that_another_process_has_is_left_to_it_and_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, runs = stub_study.prepare(tmp_path), tmp_path / "runs"
    first = plan(study, runs)[0]
    claim = state.claim_file(runs, first.folder)
    claim.parent.mkdir(parents=True)
    with FileLock(claim):
        assert run_study(study, runs, 2) == {"running": 1, "done": 11}
    assert capsys.readouterr().out.count("running ") == 1


def test_a_run_that_ended_elsewhere_is_done_though_it_was_stopped_here(tmp_path: Path) -> None:
    """Its record is among the results: what was left in the folder of runs is not this study's to end."""
    study, runs, results = stub_study.prepare(tmp_path), tmp_path / "runs", tmp_path / "results"
    assert run_study(study, runs, 2, results=results) == {"done": 12}
    stopped = plan(study, runs)[0].folder
    RunRecord(stopped.name, "running", {}).save(stopped)
    kept = (results / "records" / stopped.name / "record.json").read_bytes()
    assert run_study(study, runs, 2, results=results) == {"done": 12}
    assert (results / "records" / stopped.name / "record.json").read_bytes() == kept
