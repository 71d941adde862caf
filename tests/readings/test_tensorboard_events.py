"""TensorBoard event files, written by TensorBoard's own writer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorboard")
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from bayesdiff.core.errors import UserError
from bayesdiff.readings import Naming, read
from bayesdiff.readings.tensorboard_events import event_table

Point = tuple[str, int, float]


def simple(tag: str, value: float) -> Summary:
    return Summary(value=[Summary.Value(tag=tag, simple_value=value)])


def write(folder: Path, points: list[Point], modern: bool = False, suffix: str = "") -> Path:
    writer = EventFileWriter(str(folder), filename_suffix=suffix)
    for tag, step, value in points:
        writer.add_event(Event(step=step, wall_time=1.0, summary=scalar_pb(tag, value) if modern else simple(tag, value)))
    writer.close()
    return folder


POINTS = [("eval/dino", 0, 0.25), ("train/loss", 5, 1.0), ("eval/dino", 10, 0.5), ("eval/dino", 20, float("nan"))]


@pytest.mark.parametrize("modern", [False, True])
def test_scalars_of_both_kinds(tmp_path: Path, modern: bool) -> None:
    assert event_table(write(tmp_path, POINTS, modern), "x").to_dict("list") == {
        "step": ["0", "5", "10", "20"],
        "eval/dino": ["0.25", "", "0.5", "nan"],
        "train/loss": ["", "1.0", "", ""],
    }


def test_a_folder_has_a_curve_a_run_and_a_file_is_read_by_itself(tmp_path: Path) -> None:
    write(tmp_path / "a", POINTS[:3])
    write(tmp_path / "b", [("eval/dino", 0, 0.75), ("eval/dino", 10, 1.0)])
    a, b = read(str(tmp_path), Naming())
    assert (a.name, b.name) == (str(tmp_path / "a"), str(tmp_path / "b"))
    assert (a.steps, a.columns["eval/dino"][:, 0].tolist()) == ((0, 10), [0.25, 0.5])
    (file,) = (tmp_path / "b").iterdir()
    assert read(str(file), Naming())[0].columns["eval/dino"][:, 0].tolist() == [0.75, 1.0]


def test_a_step_that_a_resumed_run_logged_again_has_its_last_value(tmp_path: Path) -> None:
    write(tmp_path, [("dino", 0, 0.25), ("dino", 10, 0.5)], suffix=".1")
    write(tmp_path, [("dino", 10, 0.75), ("dino", 20, 1.0)], suffix=".2")
    assert event_table(tmp_path, "x")["dino"].tolist() == ["0.25", "0.75", "1.0"]


def test_without_scalars_or_without_tensorboard_there_is_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [])
    with pytest.raises(UserError, match="no scalars; log the metric"):
        event_table(tmp_path, "x")
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(UserError, match=r"pip install 'bayesdiff\[tensorboard\]'"):
        event_table(tmp_path, "x")


def test_a_file_that_is_still_written_is_read_up_to_its_end(tmp_path: Path) -> None:
    (file,) = write(tmp_path, POINTS[:3]).iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    assert event_table(file, "x")["step"].tolist() == ["0", "5"]


@pytest.mark.parametrize("content", [b"step,dino\n0,0.5\n" * 9, b"\x00" * 200])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "events.out.tfevents.1"
    file.write_bytes(content)
    with pytest.raises(UserError, match="no whole event file"):
        event_table(file, "x")


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    (file,) = write(tmp_path, POINTS).iterdir()
    content = bytearray(file.read_bytes())
    content[-30] = 0xFF
    content[-25] = 0xFF
    file.write_bytes(bytes(content))
    with pytest.raises(UserError, match="no whole event file"):
        event_table(file, "x")
