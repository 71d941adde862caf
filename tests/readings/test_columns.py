"""Steps by many names, epochs and checkpoints as steps, images that are told apart by file names."""

from __future__ import annotations

import pandas as pd
import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.readings.columns import image_labels, step_column, step_numbers
from bayesdiff.readings.numerals import Numerals


def column(name: str, *cells: str) -> pd.Series:
    return pd.Series(list(cells), name=name, dtype=str)


@pytest.mark.parametrize("name", ["step", "STEP", "Global Step", "trainer/global_step", "eval/step", "iteration", "checkpoint", "_step"])
def test_names_of_steps(name: str) -> None:
    assert step_column(pd.DataFrame({"dino": ["0.1"], name: ["0"]}, dtype=str), ["dino"], None, "x") == name


def test_the_step_that_is_filled_where_the_scores_are() -> None:
    """A log of Weights & Biases counts its own calls, and a trainer's step stands in other rows."""
    cells = {
        "_step": ["0", "1", "2", "3"],
        "train/step": ["10", "", "20", ""],
        "eval/step": ["", "10", "", "20"],
        "epoch": ["1", "1", "2", "2"],
        "dino": ["", "0.1", "", "0.2"],
    }
    table = pd.DataFrame(cells, dtype=str)
    assert step_column(table, ["dino"], None, "x") == "eval/step"
    assert step_column(table, ["dino"], "epoch", "x") == "epoch"
    assert step_column(table.drop(columns=["train/step", "eval/step"]), ["dino"], None, "x") == "_step"
    assert step_column(table[["epoch", "dino"]], ["dino"], None, "x") == "epoch"
    with pytest.raises(UserError, match="give --step one of when, dino"):
        step_column(pd.DataFrame({"when": ["0"], "dino": ["1"]}, dtype=str), ["dino"], None, "x")


@pytest.mark.parametrize(
    ("cells", "steps"),
    [
        (("checkpoint-0", "checkpoint-100"), [0, 100]),
        (("sd15-step00000050.safetensors", "sd15-step00000400.safetensors"), [50, 400]),
        (("Step 5", "Step 10"), [5, 10]),
    ],
)
def test_a_number_among_the_same_words_is_a_step(cells: tuple[str, ...], steps: list[int]) -> None:
    found, (note,) = step_numbers(column("checkpoint", *cells), Numerals(), "x")
    assert found.tolist() == steps
    assert note == f"column checkpoint: {cells[0]!r} is read as step {steps[0]}"


@pytest.mark.parametrize("cells", [("run1-100", "run2-200"), ("first", "second"), ("100", "last")])
def test_other_words_are_no_steps(cells: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"choose another column with --step|correct it"):
        step_numbers(column("checkpoint", *cells), Numerals(), "x")


@pytest.mark.parametrize(
    ("cells", "steps", "unit"),
    [
        (("1", "2"), [1, 2], "epochs stand for them"),
        (("0.0", "0.25", "0.5"), [0, 25, 50], "100 steps an epoch"),
        (("0.5", "1.0"), [5, 10], "10 steps an epoch"),
        (("0.3333333", "0.6666667"), [333, 667], "1,000 steps an epoch"),
    ],
)
def test_epochs_stand_for_steps(cells: tuple[str, ...], steps: list[int], unit: str) -> None:
    found, (note,) = step_numbers(column("train/epoch", *cells), Numerals(), "x")
    assert found.tolist() == steps
    assert note.endswith(unit)


@pytest.mark.parametrize(
    "template", ["img_{image:02d}.png", "step-{step}/{image}.png", "cat_{step:06d}_{image:02d}_3.png", "{image}_step_{step}.png"]
)
def test_file_names_pair_images_over_checkpoints(template: str) -> None:
    steps = pd.Series([0, 0, 25, 25, 100, 100], dtype=float)
    names = [template.format(step=int(s), image=i % 2) for i, s in enumerate(steps)]
    labels = image_labels(column("filename", *names), steps)
    assert labels.nunique() == 2
    assert labels.tolist() == labels.tolist()[:2] * 3


def test_other_labels_stay_as_they_are() -> None:
    steps = pd.Series([0, 10], dtype=float)
    assert image_labels(column("prompt", "0", "10"), steps).tolist() == ["0", "10"]
