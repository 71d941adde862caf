"""Seats at GPUs: spread over processes that know nothing of each other, free again when a process ends in any way."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.core.machine import claim_gpu, cores, gpu_locks

ROOT = Path(__file__).resolve().parents[2]
SIT = "import sys; from bayesdiff.core.machine import claim_gpu as c\nwith c(['0', '5']) as gpu: print(gpu, flush=True); sys.stdin.read()"
"""Another process: takes a seat, says where, and holds it until its input ends."""
Sitting = subprocess.Popen[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of this test and its processes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture
def sitting() -> Iterator[list[Sitting]]:
    found: list[Sitting] = []
    yield found
    for process in found:
        process.kill()
        process.communicate()


def sit_down(sitting: list[Sitting]) -> str:
    """The GPU that one more process takes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", SIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    sitting.append(process)
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_seats_are_kept_in_a_temporary_folder_of_the_user(folder: Path) -> None:
    assert gpu_locks().is_relative_to(folder)
    assert str(os.getuid()) in str(gpu_locks())


def test_without_gpus_there_is_nothing_to_take(folder: Path) -> None:
    with claim_gpu([]) as gpu:
        assert gpu is None
    assert list(folder.iterdir()) == []


def test_the_first_free_gpu_is_taken_and_when_all_are_they_are_shared_in_turn() -> None:
    with ExitStack() as held:
        assert [held.enter_context(claim_gpu(["0", "5", "7"])) for _ in range(7)] == ["0", "5", "7", "0", "5", "7", "0"]
    with claim_gpu(["0", "5"]) as first, claim_gpu(["0", "5"]) as second:
        assert (first, second) == ("0", "5")


def test_a_seat_that_is_left_is_the_next_one_taken() -> None:
    with ExitStack() as held:
        held.enter_context(claim_gpu(["0", "5"]))
        with claim_gpu(["0", "5"]) as gpu:
            assert gpu == "5"
        assert held.enter_context(claim_gpu(["0", "5"])) == "5"


def test_a_process_that_sees_one_gpu_takes_it_whoever_else_does() -> None:
    with claim_gpu(["3"]) as first, claim_gpu(["3"]) as second, claim_gpu(["GPU-8f/1"]) as other:
        assert (first, second, other) == ("3", "3", "GPU-8f/1")


def test_processes_that_know_nothing_of_each_other_spread(sitting: list[Sitting]) -> None:
    assert [sit_down(sitting) for _ in range(4)] == ["0", "5", "0", "5"]


def test_a_seat_is_free_when_its_process_is_killed(sitting: list[Sitting]) -> None:
    assert [sit_down(sitting), sit_down(sitting)] == ["0", "5"]
    sitting[0].kill()
    sitting[0].wait()
    assert sit_down(sitting) == "0"


def test_a_folder_that_cannot_be_written_is_said_with_its_remedy(folder: Path) -> None:
    (folder / gpu_locks().relative_to(folder).parts[0]).write_text("in the way")
    with pytest.raises(UserError, match="cannot be written; set TMPDIR"), claim_gpu(["0"]):
        pass


def test_cores_are_those_the_process_may_use() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
