"""Curves from outside: every format, what is guessed and said, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bayesdiff.config.compose import compose
from bayesdiff.config.identity import as_dict
from bayesdiff.core.errors import UserError
from bayesdiff.readings import Naming, Reading, judge, read
from bayesdiff.recording.record import RunRecord
from bayesdiff.scoring.curve import per_image, read_scores
from bayesdiff.scoring.metrics import COLUMNS

FULL = as_dict(compose(("+experiment=smoke",)))
"""The configuration of a record."""

GUESS = Naming()


def one(path: Path, naming: Naming = GUESS) -> Reading:
    (reading,) = read(str(path), naming)
    return reading


def csv(folder: Path, text: str) -> Path:
    path = folder / "curve.csv"
    path.write_text(text)
    return path


def test_a_bare_curve(tmp_path: Path) -> None:
    reading = one(csv(tmp_path, "step,dino\n0,0.1\n100,0.2\n"))
    assert (reading.steps, reading.metric, reading.notes) == ((0, 100), "dino", ())
    assert reading.columns["dino"] == pytest.approx(np.array([[0.1], [0.2]]))


@pytest.mark.parametrize("step", ["Step", "global_step", "_step", "trainer/global_step", "iteration"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_steps_and_separators_are_found(tmp_path: Path, step: str, separator: str) -> None:
    text = f"{step},score\n0,0.1\n100,0.2\n".replace(",", separator)
    assert one(csv(tmp_path, text)).steps == (0, 100)


def test_numbered_columns_are_images(tmp_path: Path) -> None:
    reading = one(csv(tmp_path, "step,img_0,img_1,img_10\n0,0.1,0.2,0.3\n10,0.4,0.5,0.6\n"))
    assert reading.columns["img"] == pytest.approx(np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]))
    assert reading.notes == ("3 numbered columns taken as images",)


def test_named_columns_are_images(tmp_path: Path) -> None:
    path = csv(tmp_path, "step,front,back,loss\n0,0.1,0.2,9\n10,0.3,0.4,8\n")
    reading = one(path, Naming(values=("front", "back")))
    assert reading.columns["front, back"] == pytest.approx(np.array([[0.1, 0.2], [0.3, 0.4]]))
    with pytest.raises(UserError, match=r"give --metric NAME, one of front, back$"):
        one(path)


def test_the_fidelity_is_found_among_others_and_said(tmp_path: Path) -> None:
    reading = one(csv(tmp_path, "step,loss,dino,dino_se\n0,9,0.1,0.01\n10,8,0.3,0.01\n"))
    assert reading.columns["dino"][:, 0] == pytest.approx([0.1, 0.3])
    assert reading.notes == ("column dino taken as the fidelity",)


def test_a_column_with_one_score_is_no_candidate(tmp_path: Path) -> None:
    """peft's benchmark scores its test images once, after the last step."""
    reading = one(csv(tmp_path, "step,valid dino_similarity,test dino_similarity,train loss\n100,0.1,,1\n200,0.2,,1\n250,,0.6,1\n"))
    assert (reading.metric, reading.steps) == ("valid dino_similarity", (100, 200))


def test_a_long_table_has_a_row_an_image(tmp_path: Path) -> None:
    text = "step,prompt,seed,score\n10,a,0,0.5\n0,a,0,0.1\n0,a,1,0.2\n0,b,0,0.3\n10,a,1,0.6\n10,b,0,0.7\n"
    reading = one(csv(tmp_path, text))
    assert reading.columns["score"] == pytest.approx(np.array([[0.1, 0.2, 0.3], [0.5, 0.6, 0.7]]))


def run_scores(steps: tuple[int, ...] = (0, 50)) -> pd.DataFrame:
    rows = [
        (step, prompt, image, metric, reference, 0.1 * t + 0.01 * prompt + 0.001 * image + (0.5 if metric == "clip_t" else 0.0))
        for t, step in enumerate(steps)
        for prompt in range(2)
        for image in range(2)
        for metric, references in (("clip_t", [""]), ("dino", ["a.png", "b.png"]))
        for reference in references
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


EXPECTED = np.array([[0.0, 0.001, 0.01, 0.011], [0.1, 0.101, 0.11, 0.111]])


def test_scores_of_a_run_as_a_file_average_over_references(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    run_scores().to_csv(path, index=False)
    reading = one(path)
    assert reading.columns["dino"] == pytest.approx(EXPECTED)
    assert reading.columns["clip_t"] == pytest.approx(EXPECTED + 0.5)
    assert one(path, Naming(metric="clip_t")).metric == "clip_t"
    with pytest.raises(UserError, match="choose --metric from clip_t, dino"):
        one(path, Naming(metric="lpips"))


def test_a_run_folder_brings_its_ceiling_and_its_prompts(tmp_path: Path) -> None:
    run_scores().to_csv(tmp_path / "scores.csv", index=False)
    RunRecord("k", "completed", FULL, real_to_real={"dino": 0.8}).save(tmp_path)
    reading = one(tmp_path)
    assert (reading.ceiling, reading.images) == (0.8, ((0, 0), (0, 1), (1, 0), (1, 1)))
    assert reading.columns["dino"] == pytest.approx(EXPECTED)
    assert one(tmp_path, Naming(metric="clip_t")).ceiling is None


def test_a_collected_record_is_read_as_the_run_was(tmp_path: Path) -> None:
    """Committed results have no scores.csv; the checkpoint to keep depends on the other columns and the ceiling."""
    run, kept = tmp_path / "run", tmp_path / "kept"
    run.mkdir()
    kept.mkdir()
    run_scores().to_csv(run / "scores.csv", index=False)
    per_image(read_scores(run)).reset_index().to_csv(kept / "images.csv", index=False)
    for folder in (run, kept):
        RunRecord("k", "completed", FULL, real_to_real={"dino": 0.8}).save(folder)
    first, second = one(run), one(kept)
    assert (first.steps, first.ceiling, first.images) == (second.steps, second.ceiling, second.images)
    assert set(first.columns) == set(second.columns)
    assert all(second.columns[name] == pytest.approx(first.columns[name]) for name in first.columns)
    table = one(kept / "images.csv")
    assert set(table.columns) == set(first.columns)
    assert "clip_t" in " ".join(table.notes)


def test_a_chart_that_was_exported_has_a_curve_a_run(tmp_path: Path) -> None:
    text = (
        '"Step","plain - dino","plain - dino__MIN","plain - dino__MAX","bnn - dino","bnn - dino__MIN","bnn - dino__MAX"\n'
        '"0","0.1","0.1","0.1","","",""\n"50","0.2","0.2","0.2","0.4","0.4","0.4"\n'
    )
    plain, bnn = read(str(csv(tmp_path, text)), GUESS)
    assert plain.name.endswith("[plain]")
    assert plain.columns["dino"][:, 0] == pytest.approx([0.1, 0.2])
    assert (bnn.steps, bnn.notes) == ((50,), ("1 of 2 rows have no score and are left out",))


def test_runs_in_one_table_are_told_apart_by_a_column(tmp_path: Path) -> None:
    path = csv(tmp_path, "step,arm,dino\n0,on,0.1\n0,off,0.2\n10,on,0.3\n10,off,0.4\n")
    off, on = read(str(path), Naming(run="arm"))
    assert (off.name, on.name) == (f"{path} [off]", f"{path} [on]")
    assert on.columns["dino"][:, 0] == pytest.approx([0.1, 0.3])
    with pytest.raises(UserError, match="step 0 stands in 2 rows; name the column"):
        one(path)


def test_a_run_of_weights_and_biases(monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    rows = [
        {"_step": 0, "train/loss": 1.0},
        {"_step": 1, "eval/step": 0, "dino": 0.1},
        {"_step": 2, "eval/step": 50, "dino": 0.2, "n": "x"},
    ]
    asked = []

    def api() -> SimpleNamespace:
        return SimpleNamespace(run=lambda path: asked.append(path) or SimpleNamespace(scan_history=lambda: iter(rows)))

    monkeypatch.setattr(wandb, "Api", api)
    (reading,) = read("wandb:team/project/abc", Naming(step="eval/step"))
    assert asked == ["team/project/abc"]
    assert (reading.steps, reading.columns["dino"][:, 0].tolist()) == ((0, 50), [0.1, 0.2])

    def refuse() -> SimpleNamespace:
        raise RuntimeError("not logged in")

    monkeypatch.setattr(wandb, "Api", refuse)
    with pytest.raises(UserError, match="wandb login"):
        read("wandb:team/project/abc", GUESS)


def test_rows_out_of_order_are_sorted_and_said(tmp_path: Path) -> None:
    reading = one(csv(tmp_path, "step,dino\n100,0.2\n0,0.1\n"))
    assert reading.steps == (0, 100)
    assert reading.columns["dino"][:, 0] == pytest.approx([0.1, 0.2])
    assert "sorted" in reading.notes[0]


def test_images_that_lack_checkpoints_are_left_out_and_said(tmp_path: Path) -> None:
    reading = one(csv(tmp_path, "step,img_0,img_1\n0,0.1,0.2\n10,0.3,\n"))
    assert reading.columns["img"] == pytest.approx(np.array([[0.1], [0.3]]))
    assert "1 of 2 images lack some checkpoints and are left out: img_1" in reading.notes


@pytest.mark.parametrize("word", ["nan", "NaN", "inf", "-inf", "None"])
def test_scores_that_are_not_finite_to_the_end_are_kept_as_that(tmp_path: Path, word: str) -> None:
    reading = one(csv(tmp_path, f"step,dino\n0,0.1\n10,0.2\n20,{word}\n30,{word}\n"))
    assert reading.steps == (0, 10, 20, 30)
    assert np.isfinite(reading.columns["dino"][:, 0]).tolist() == [True, True, False, False]


def test_a_score_that_is_not_finite_with_finite_ones_behind_it_was_not_measured(tmp_path: Path) -> None:
    """Weights that are NaN stay so: a gap is of the measurement."""
    reading = one(csv(tmp_path, "step,dino\n0,0.1\n10,nan\n20,0.3\n"))
    assert reading.steps == (0, 20)
    assert reading.notes == ("scores are not finite at step 10, and finite later: left out as not measured",)
    images = one(csv(tmp_path, "step,img_0,img_1\n0,0.1,0.1\n10,nan,0.2\n20,0.3,0.3\n"))
    assert images.columns["img"] == pytest.approx(np.array([[0.1], [0.2], [0.3]]))
    assert "1 of 2 images lack some checkpoints and are left out: img_0" in images.notes


def four_images(folder: Path, gaps: dict[tuple[int, int], str], count: int = 8) -> Path:
    """A long table of four images, with other cells where ``gaps`` has them by (step, image)."""
    rows = [(10 * t, i, gaps.get((10 * t, i), f"{0.1 * t + 0.01 * i:.2f}")) for t in range(count) for i in range(4)]
    return csv(folder, "step,image,dino\n" + "".join(f"{s},{i},{cell}\n" for s, i, cell in rows))


def test_a_gap_of_one_of_four_images_costs_its_checkpoint(tmp_path: Path) -> None:
    """Three images would name no checkpoints to avoid, and keep 24 of 31 scores; seven checkpoints keep 28."""
    reading = one(four_images(tmp_path, {(30, 2): "nan"}))
    assert reading.columns["dino"].shape == (7, 4)
    assert 30 not in reading.steps
    assert reading.notes == (
        "left out, because images lack scores there (2): step 30; all 4 images stay, as fewer than 4 images name no checkpoints to avoid",
    )


def test_an_image_with_many_gaps_is_left_out_with_what_that_costs(tmp_path: Path) -> None:
    reading = one(four_images(tmp_path, {(10 * t, 2): "" for t in range(1, 6)}))
    assert reading.columns["dino"].shape == (8, 3)
    assert reading.notes == ("1 of 4 images lack some checkpoints and are left out: 2; fewer than 4 images name no checkpoints to avoid",)


def test_means_of_prompt_alignment_beside_a_bare_curve_are_weighed(tmp_path: Path) -> None:
    """DINO that creeps up while CLIP-T halves: the last checkpoint is not the one to keep."""
    steps = range(0, 2_001, 100)
    rows = [f"{s},{0.3 + 0.5 * (1 - np.exp(-s / 500)):.4f},{0.31 - 0.16 * s / 2000:.4f}" for s in steps]
    path = csv(tmp_path, "step,dino,clip_t\n" + "\n".join(rows) + "\n")
    reading = one(path)
    assert set(reading.columns) == {"dino", "clip_t"}
    assert reading.notes[-1] == "metrics read beside it: clip_t; clip_t weighs in which checkpoint to keep"
    alone = one(path, Naming(values=("dino",)))
    assert judge(alone)[0].best_step == 2_000
    assert 500 <= judge(reading)[0].best_step <= 1_200
    prefixed = one(csv(tmp_path, "step,val/dino,val/clip_t\n" + "\n".join(rows) + "\n"))
    assert judge(prefixed)[0].best_step == judge(reading)[0].best_step


def test_means_of_metrics_in_rows_are_weighed(tmp_path: Path) -> None:
    reading = one(csv(tmp_path, "step,metric,value\n0,dino,0.1\n0,clip_t,0.3\n0,loss,0.2\n9,dino,0.4\n9,clip_t,0.2\n9,loss,0.1\n"))
    assert (reading.metric, set(reading.columns)) == ("dino", {"dino", "clip_t"})
    assert reading.notes == ("metrics read beside it: clip_t; clip_t weighs in which checkpoint to keep",)


def test_prompt_alignment_that_cannot_be_weighed_is_named(tmp_path: Path) -> None:
    said = "clip_t was not weighed: it lacks a finite score of some of these checkpoints, or has other images"
    for cells in ("", "nan", "good"):
        reading = one(csv(tmp_path, f"step,dino,clip_t\n0,0.1,0.31\n100,0.2,{cells}\n200,0.3,0.29\n"))
        assert (set(reading.columns), reading.notes[-1]) == ({"dino"}, said)


def test_metrics_beside_pair_with_the_images_that_are_kept(tmp_path: Path) -> None:
    rows = [(s, i, 0.1 + s / 1000 + i / 100, 0.3 + i / 100) for s in (0, 10, 20) for i in range(6)]
    cells = "".join(f"{s},{i},{'' if (s, i) == (10, 1) else d},{c}\n" for s, i, d, c in rows)
    reading = one(csv(tmp_path, f"step,image,dino,clip_t\n{cells}"))
    assert reading.columns["dino"].shape == (3, 5)
    assert reading.columns["clip_t"] == pytest.approx(np.tile(0.3 + np.array([0, 2, 3, 4, 5]) / 100, (3, 1)))


def test_epochs_of_a_metric_beside_are_those_of_the_curve(tmp_path: Path) -> None:
    """Epoch 0 has no DINO, so that epochs stand as they are, for CLIP-T too."""
    reading = one(csv(tmp_path, "epoch,dino,clip_t\n0,,0.5\n1,0.1,0.4\n2,0.2,0.3\n"))
    assert reading.steps == (1, 2)
    assert reading.columns["clip_t"][:, 0] == pytest.approx([0.4, 0.3])


def test_the_only_column_that_counts_up_has_the_steps(tmp_path: Path) -> None:
    reading = one(csv(tmp_path, "Schritt;DINO;Notiz\n0;0,1;a\n100;0,2;b\n200;0,3;c\n"))
    assert (reading.steps, reading.metric) == ((0, 100, 200), "DINO")
    assert "column Schritt taken as the steps: it alone counts up in whole numbers" in reading.notes
    assert one(csv(tmp_path, "Schritt,score\n0,0.1\n100,0.2\n")).metric == "score"
    for header in ("Schritt,Bilder,dino", "seed,count,dino"):
        with pytest.raises(UserError, match="which column has the training steps"):
            one(csv(tmp_path, f"{header}\n0,1,0.1\n100,2,0.2\n"))


def test_the_last_file_of_a_training_costs_its_own_row(tmp_path: Path) -> None:
    rows = "".join(f"lora-{100 * i:06d}.safetensors,0.{i}\n" for i in range(1, 5))
    reading = one(csv(tmp_path, f"checkpoint,dino\n{rows}lora.safetensors,0.5\n"))
    assert reading.steps == (100, 200, 300, 400)
    assert reading.notes[1:] == ("column checkpoint: 'lora.safetensors' has no step in its name and is left out",)


REFUSED = {
    "text": (
        "step,dino\n0,0.1\n10,good\n",
        r"row 2 below the header, column dino: 'good' is no number; correct it",
    ),
    "duplicates": ("step,dino\n0,0.1\n0,0.2\n", r"step 0 stands in 2 rows"),
    "fractions": ("step,dino\n0.5,0.1\n1,0.2\n", r"whole numbers"),
    "no step": ("when,dino\n0,0.1\n", r"which column has the training steps\? give --step one of when, dino"),
    "no score": ("step,note\n0,a\n", r"which column has the scores\? the table has no column of numbers"),
    "a learning rate": ("step,lr\n0,0.1\n", r"none of lr is one by its name; give --metric NAME"),
    "one column": ("step\n0\n", r"a column of steps and one of scores"),
    "no rows": ("step,dino\n", r"0 rows"),
    "empty": ("", r"no CSV table|a column of steps"),
    "nothing": ("step,dino,loss\n0,,1\n10,,2\n", r"no row has a step and a score; check the columns"),
    "no image whole": ("step,img_0,img_1\n0,0.1,\n10,,0.2\n", r"no image has a score at every checkpoint"),
    "units": ("step,dino\n0,0.3\n10,0.5\n20,62\n30,71\n", r"mixed units"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_decided_is_refused(tmp_path: Path, case: str) -> None:
    text, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        one(csv(tmp_path, text))


def test_a_metric_that_grows_past_one_is_not_mixed_units(tmp_path: Path) -> None:
    assert one(csv(tmp_path, "step,score\n0,0.4\n10,0.9\n20,1.6\n30,2.5\n")).steps[-1] == 30


def test_a_reward_that_begins_near_zero_is_not_mixed_units(tmp_path: Path) -> None:
    assert one(csv(tmp_path, "step,ImageReward\n0,0.1\n10,0.09\n20,1.6\n30,1.9\n")).steps[-1] == 30


def test_names_that_are_not_there_are_refused(tmp_path: Path) -> None:
    path = csv(tmp_path, "step,dino\n0,0.1\n10,0.2\n")
    assert one(path, Naming(metric="dino")).metric == "dino"
    for naming, message in (
        (Naming(metric="x"), "--metric"),
        (Naming(step="x"), "--step"),
        (Naming(values=("x",)), "--value"),
        (Naming(run="x"), "--run"),
    ):
        with pytest.raises(UserError, match=message):
            one(path, naming)
    with pytest.raises(UserError, match="not there"):
        one(tmp_path / "nothing.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="without scores"):
        one(tmp_path / "empty")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match="binary"):
        one(tmp_path / "binary.csv")


def test_the_record_of_a_run_in_progress_is_enough(tmp_path: Path) -> None:
    run_scores().to_csv(tmp_path / "scores.csv", index=False)
    (tmp_path / "record.json").write_text(json.dumps({"run_key": "k", "status": "running", "config": FULL}))
    assert one(tmp_path).metric == "dino"
