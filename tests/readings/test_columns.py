"""Steps by many names, epochs and checkpoints as steps, images that are told apart by file names."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.readings import Naming, judge, read
from bayesdiff.readings.columns import counts_up, image_labels, step_column, step_numbers
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


def test_epochs_from_0_are_shown_from_1(tmp_path: Path) -> None:
    """Step 0 is the base model, which is never kept; a loop ends its epoch 0 with a trained model."""
    found, (_, note) = step_numbers(column("epoch", "0", "1", "7"), Numerals(), "x")
    assert found.tolist() == [1, 2, 8]
    assert note == (
        "epochs are counted from 0, and epoch 0 is trained: it is shown as step 1, and epoch 7 as step 8; if it is the base model, call "
        "the column step"
    )
    (tmp_path / "falling.csv").write_text("epoch,dino\n" + "".join(f"{e},{0.74 - 0.01 * e:.2f}\n" for e in range(8)))
    (reading,) = read(str(tmp_path / "falling.csv"), Naming())
    verdict, _ = judge(reading)
    assert verdict.better_than_base
    assert verdict.best_step == 1


def test_steps_and_parts_of_an_epoch_stay_at_0() -> None:
    assert step_numbers(column("step", "0", "1"), Numerals(), "x")[0].tolist() == [0, 1]
    assert step_numbers(column("epoch", "0.0", "0.5"), Numerals(), "x")[0].tolist() == [0, 5]


def test_the_first_epoch_is_the_first_with_a_score() -> None:
    cells, scored = column("epoch", "0", "1", "2"), pd.Series([False, True, True])
    assert step_numbers(cells, Numerals(), "x", scored)[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("cells", "left_out"),
    [
        (("lora-000100.safetensors", "lora-000200.safetensors", "lora.safetensors"), "lora.safetensors"),
        (("sd15-step00000050.safetensors", "sd15-step00000400.safetensors", "sd15.safetensors"), "sd15.safetensors"),
        (("last", "checkpoint-100", "checkpoint-200"), "last"),
    ],
)
def test_a_last_file_without_a_step_costs_its_own_row(cells: tuple[str, ...], left_out: str) -> None:
    found, notes = step_numbers(column("checkpoint", *cells), Numerals(), "x")
    assert found.index.tolist() == [i for i, cell in enumerate(cells) if cell != left_out]
    assert found.notna().all()
    assert notes[1] == f"column checkpoint: {left_out!r} has no step in its name and is left out"


@pytest.mark.parametrize("cells", [("a-100", "a-200", "b-300"), ("lora-100", "lora"), ("a-100", "a-200", "b2")])
def test_a_file_of_another_name_is_refused(cells: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=f"column checkpoint has {cells[-1]!r}, which is no step"):
        step_numbers(column("checkpoint", *cells), Numerals(), "x")


@pytest.mark.parametrize(
    ("cells", "counts"),
    [(("0", "100", "250"), True), (("0", "100", "100"), False), (("0", "0.5"), False), (("5",), False), (("1", "", "2"), False)],
)
def test_what_counts_up(cells: tuple[str, ...], counts: bool) -> None:
    assert counts_up(column("Schritt", *cells), Numerals()) is counts


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
