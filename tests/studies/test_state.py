"""Where runs stand, by their records, locks and notes."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from bayesdiff.core.layout import RECORDS
from bayesdiff.recording.columns import Damaged
from bayesdiff.recording.record import RunRecord, load_record
from bayesdiff.studies.state import DAMAGED, ENDS, STATES, claim_file, end_of, failure_file, is_held, plan, state_of, summary
from tests import made_records


def test_where_a_run_stands(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert state_of(tmp_path, folder) == "missing"
    failure_file(tmp_path, folder).parent.mkdir()
    failure_file(tmp_path, folder).write_text(json.dumps({"error": "x"}))
    assert state_of(tmp_path, folder) == "failed"
    failure_file(tmp_path, folder).unlink()
    folder.mkdir()
    record = RunRecord("run", "running", {})
    record.save(folder)
    assert state_of(tmp_path, folder) == "stopped"
    assert end_of(folder) is None
    for status in ENDS:
        record.status = status
        record.save(folder)
        assert end_of(folder) == record
    assert {"missing", "failed", "stopped", "done", "diverged", "running", "damaged"} == set(STATES)


def test_a_collected_record_ends_a_run_and_one_still_running_does_not(tmp_path: Path) -> None:
    folder, results = tmp_path / "runs" / "run", tmp_path / "results"
    record = RunRecord("run", "running", {})
    (results / RECORDS / "run").mkdir(parents=True)
    record.save(results / RECORDS / "run")
    assert end_of(folder, results) is None
    record.status = "completed"
    record.save(results / RECORDS / "run")
    (results / RECORDS / "run" / "curve.csv").write_text("")
    assert end_of(folder, results) is None, "its images are still on their way, or lost: tables say missing"
    (results / RECORDS / "run" / "images.csv").write_text("")
    assert end_of(folder, results) == record
    assert end_of(folder) is None


@pytest.mark.parametrize("which", ["run", "claim"])
def test_a_run_is_running_while_its_process_lives(tmp_path: Path, which: str) -> None:
    folder = tmp_path / "run"
    lock = folder / ".lock" if which == "run" else claim_file(tmp_path, folder)
    lock.parent.mkdir(parents=True)
    RunRecord("run", "running", {}).save(folder) if which == "run" else None
    code = (
        f"import time; from filelock import FileLock; lock = FileLock({str(lock)!r}); lock.acquire(); "
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert state_of(tmp_path, folder) == "running"
        holder.kill()
        holder.wait()
    assert state_of(tmp_path, folder) == ("stopped" if which == "run" else "missing")


def test_looking_does_not_hold(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with FileLock(folder / ".lock"):
        pass
    state_of(tmp_path, folder)
    with FileLock(folder / ".lock", timeout=0):
        pass


@pytest.mark.usefixtures("restored_studies")
def test_a_damaged_run_folder_costs_itself_and_is_named(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    first, second, *_ = plan(study, tmp_path / "runs")
    first.folder.mkdir(parents=True)
    (first.folder / "record.json").write_text('{"run_key": "ab')
    made_records.make_run(study.cells[2], tmp_path / "runs").rename(second.folder)
    planned = plan(study, tmp_path / "runs")
    assert summary(planned)[DAMAGED] == 2
    assert "damaged" in planned[0].note and str(first.folder) in planned[0].note
    assert "of another run" in planned[1].note


def test_a_damaged_run_that_was_collected_is_done(tmp_path: Path) -> None:
    folder, kept = tmp_path / "runs" / "run", tmp_path / "results" / RECORDS / "run"
    for place in (folder, kept):
        place.mkdir(parents=True)
    (folder / "record.json").write_text("[]")
    with pytest.raises(Damaged):
        end_of(folder)
    RunRecord("run", "diverged", {}).save(kept)
    found = end_of(folder, tmp_path / "results")
    assert found is not None and found.status == "diverged"


def test_a_record_under_another_run_s_name_is_not_whole(tmp_path: Path) -> None:
    kept = tmp_path / "results" / RECORDS / "run-b"
    kept.mkdir(parents=True)
    RunRecord("a", "diverged", {}).save(kept)
    assert end_of(tmp_path / "runs" / "run-b", tmp_path / "results") is None


def test_a_lock_that_cannot_be_opened_is_not_known_to_be_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that became read-only is looked at without a traceback."""
    (tmp_path / "lock").write_text("")

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("filelock.FileLock.acquire", read_only)
    assert not is_held(tmp_path / "lock")


def test_a_completed_run_with_resume_states_is_not_at_its_end(tmp_path: Path) -> None:
    """It was killed while it ended: the same command draws its pictures."""
    folder = tmp_path / "run-abc"
    RunRecord("abc", "completed", {}).save(folder)
    assert end_of(folder) is not None
    (folder / "resume").mkdir()
    assert end_of(folder) is None
    assert state_of(tmp_path, folder) == "stopped"


@pytest.mark.usefixtures("restored_studies")
def test_a_finished_run_without_an_evaluation_of_its_study_is_named_and_not_called_done(tmp_path: Path) -> None:
    """The study got the evaluation later: its table would ask for ever for a command that finds nothing to do."""
    study = made_records.prepare(tmp_path / "studies")
    made_records.fill(study, tmp_path, study.cells[:2])
    words = ("+evaluations={low:{guidance_scale:3}}",)
    grown = replace(
        study, evaluations=("main", "low"), cells=tuple(replace(cell, overrides=cell.overrides + words) for cell in study.cells)
    )
    assert summary(plan(study, tmp_path / "runs", results=tmp_path / "results"))["done"] == 2
    first, second, third, *_ = plan(grown, tmp_path / "runs", results=tmp_path / "results")
    assert [first.state, second.state, third.state] == [DAMAGED, DAMAGED, "missing"]
    kept = tmp_path / "results" / RECORDS / first.folder.name
    assert "has no evaluation low" in first.note and first.note.endswith(
        f"remove {first.folder} and {kept} and give the same command again"
    )
    shutil.rmtree(first.folder)
    shutil.rmtree(kept)
    path = kept.with_name(second.folder.name) / "record.json"
    for place in (second.folder, path.parent):
        record = load_record(place)
        assert record is not None
        record.evaluations = {"low": {}}
        record.save(place)
    assert [run.state for run in plan(grown, tmp_path / "runs", results=tmp_path / "results")][:2] == ["missing", "done"]
