"""Of a training that was resumed the last rows count; several runs are told apart, and never mixed without a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.readings import Naming, Reading, read

RESUMED = (0, 100, 200, 300, 200, 300, 400)
"""Steps in the order of the file: a training that stopped after 300 and went on from 100."""


def table(folder: Path, *lines: str) -> Path:
    path = folder / "curve.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def one(path: Path, naming: Naming | None = None) -> Reading:
    (reading,) = read(str(path), naming or Naming())
    return reading


def test_the_last_rows_of_a_resumed_training_count(tmp_path: Path) -> None:
    reading = one(table(tmp_path, "step,dino", *(f"{step},{0.1 + 0.01 * i:.2f}" for i, step in enumerate(RESUMED))))
    assert reading.steps == (0, 100, 200, 300, 400)
    assert reading.columns["dino"][:, 0] == pytest.approx([0.10, 0.11, 0.14, 0.15, 0.16])
    assert "steps 200, 300 stand again where steps go back, as in a training that was resumed: the last rows count" in reading.notes


@pytest.mark.parametrize("by_image", [False, True])
def test_the_last_rows_of_each_image_count(tmp_path: Path, by_image: bool) -> None:
    """Whether rows stand in the order of steps or of images; the mean of before and after would be a curve that no run had."""
    rows = [(i, step, image) for i, step in enumerate(RESUMED) for image in range(4)]
    rows = sorted(rows, key=lambda row: row[2]) if by_image else rows
    path = table(tmp_path, "step,image,dino", *(f"{step},{image},{0.1 + 0.01 * i + 0.001 * image:.3f}" for i, step, image in rows))
    reading = one(path)
    assert reading.columns["dino"] == pytest.approx(np.array([0.10, 0.11, 0.14, 0.15, 0.16])[:, None] + 0.001 * np.arange(4))
    assert any(note.startswith("steps 200, 300 stand again") for note in reading.notes)


def test_a_time_or_a_loss_does_not_tell_rows_apart(tmp_path: Path) -> None:
    lines = (f"2026-11-0{1 + i // 4},{i},{step},0.{9 - i}1,0.{i}" for i, step in enumerate(RESUMED))
    reading = one(table(tmp_path, "date,timestamp,step,loss,dino", *lines))
    assert reading.columns["dino"][:, 0] == pytest.approx([0.0, 0.1, 0.4, 0.5, 0.6])


REFUSED = {
    "a step twice in a row": ("step,dino", "0,0.1", "100,0.2", "100,0.3", "200,0.4"),
    "runs one below the other": ("step,dino", "0,0.1", "100,0.2", "0,0.3", "100,0.4"),
    "runs that a column names": ("arm,step,dino", "on,0,0.1", "on,100,0.2", "on,200,0.2", "off,0,0.3", "off,100,0.4"),
    "runs that a number names": ("run,step,dino", "1,0,0.1", "1,100,0.2", "1,200,0.2", "2,0,0.3", "2,100,0.4"),
    "steps inside epochs": ("epoch,iter,dino", "1,0,0.1", "1,1,0.2", "2,0,0.3", "2,1,0.4", "3,0,0.4"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_resumed_training_is_refused(tmp_path: Path, case: str) -> None:
    with pytest.raises(UserError, match=r"step \d+ stands in \d rows; name the column that tells them apart"):
        one(table(tmp_path, *REFUSED[case]))


def test_references_are_averaged_and_other_rows_too_with_a_word(tmp_path: Path) -> None:
    rows = [(name, step, image) for name in ("a", "b") for step in (0, 100, 200) for image in range(2) if (name, step) != ("b", 200)]
    lines = [f"{name},{step},{image},{0.1 if name == 'a' else 0.3}" for name, step, image in rows]
    references = one(table(tmp_path, "reference,step,image,dino", *lines))
    assert references.columns["dino"] == pytest.approx(np.array([[0.2, 0.2], [0.2, 0.2], [0.1, 0.1]]))
    assert references.notes == ()
    runs = one(table(tmp_path, "arm,step,image,dino", *lines))
    assert runs.notes == ("8 rows share their step and image with others and are averaged; --run arm tells them apart",)
