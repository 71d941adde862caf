"""Seats at GPUs: spread over processes that know nothing of each other, free again when a process ends in any way."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from bayesdiff.core import machine
from bayesdiff.core.errors import UserError
from bayesdiff.core.machine import claim_gpu, cores, free_memory, gpu_locks

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


SECOND, FIRST = ("memory.max", "memory.current", "inactive_file"), ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
NO_LIMIT = {SECOND: "max", FIRST: "9223372036854771712"}
Names = tuple[str, str, str]


def group(folder: Path, names: Names, limit: int | None, use: int = 0, cached: int = 0) -> None:
    """The files of a control group, in bytes, as Linux writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{NO_LIMIT[names] if limit is None else limit}\n")
    (folder / names[1]).write_text(f"{use}\n")
    (folder / "memory.stat").write_text(f"cache 5\n{names[2]} {cached}\nactive_anon 7\n")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 1,000 bytes to spare, and no control group yet."""
    monkeypatch.setattr(machine, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1_000))
    return tmp_path / "groups"


@pytest.mark.parametrize(("names", "line", "place"), [(SECOND, "0::/{}", ""), (FIRST, "4:cpu,memory:/{}", "memory")])
def test_a_job_may_take_what_its_limits_leave(groups: Path, tmp_path: Path, names: Names, line: str, place: str) -> None:
    own = "slurm/job_7/step_0"
    (tmp_path / "membership").write_text("9:name=systemd:/\n5:devices:/other\n" + line.format(own) + "\n")
    assert free_memory() == 1_000, "no such folder"
    group(groups / place / own, names, None, 300)
    assert free_memory() == 1_000, "no limit"
    group(groups / place / "slurm/job_7", names, 500, use=300, cached=100)
    assert free_memory() == 300, "of the group around it; what is cached gives way"
    group(groups / place / own, names, 350, use=300)
    assert free_memory() == 50
    group(groups / place / own, names, 5_000, use=300)
    group(groups / place / "slurm/job_7", names, 5_000, use=300)
    assert free_memory() == 1_000, "the machine has less than the job"


def test_a_container_sees_its_own_group_at_the_root(groups: Path, tmp_path: Path) -> None:
    (tmp_path / "membership").write_text("4:memory:/docker/0123\n0::/\n")
    group(groups / "memory", FIRST, 400, use=100)
    assert free_memory() == 300
    group(groups, SECOND, 250, use=100)
    assert free_memory() == 150


def test_a_system_without_control_groups_has_the_machine_s_memory(groups: Path, tmp_path: Path) -> None:
    assert free_memory() == 1_000
    (tmp_path / "membership").write_text("0::/\n")
    group(groups, SECOND, None)
    (groups / "memory.stat").write_text("a line of three words\n")
    assert free_memory() == 1_000
