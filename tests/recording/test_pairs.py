"""Two runs side by side: paired differences, table and picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bayesdiff.compare import main
from bayesdiff.core.errors import UserError
from bayesdiff.recording.pairs import differences, metric_label, print_comparison, read_run
from bayesdiff.recording.record import RunRecord, load_record
from bayesdiff.scoring.curve import per_image, read_scores
from bayesdiff.scoring.metrics import COLUMNS, METRICS, Metric, as_plain

REFERENCE = {0: [0.20, 0.30, 0.40], 50: [0.40, 0.50, 0.60], 100: [0.55, 0.65, 0.75]}
OTHER = {0: [0.20, 0.30, 0.40], 50: [0.50, 0.70, 0.90], 200: [0.90, 0.90, 0.90]}


def scores(curves: dict[int, list[float]]) -> pd.DataFrame:
    """Two references an image, half a tenth below and above the given DINO value; zeros for the other metrics."""
    rows: list[tuple[int, int, int, str, str, float]] = []
    for step, values in curves.items():
        for image, value in enumerate(values):
            rows += [(step, 0, image, "dino", name, value + offset) for name, offset in (("a.png", -0.05), ("b.png", 0.05))]
            rows += [(step, 0, image, metric, "", 0.0) for metric in METRICS if metric != "dino"]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_run(
    folder: Path, curves: dict[int, list[float]], bnn: bool, prompts: tuple[str, ...] = ("a photo of {class_noun}",), noun: str = "dog"
) -> Path:
    config = {
        "bnn": {"kind": "gaussian" if bnn else "off", "sigma": "per_weight"},
        "data": {"subject": "toy_dog", "identifier": "qwe", "class_noun": None},
        "model": {"name": "sd15", "path": "sd/one", "revision": "a", "resolution": 512},
        "method": {"name": "dreambooth", "learning_rate": 5e-6},
        "seed": 3,
        "sampler": {"prompts": list(prompts), "seed": 1000, "scheduler": "ddim", "steps": 50, "guidance_scale": 7.5},
    }
    folder.mkdir()
    verdict = {"sentence": f"Verdict of {folder.name}."}
    RunRecord("0" * 12, "completed", config, subject={"class_noun": noun}, verdict=verdict).save(folder)
    scores(curves).to_csv(folder / "scores.csv", index=False)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [write_run(tmp_path / "plain-aaaaaa", REFERENCE, False), write_run(tmp_path / "bnn-bbbbbb", OTHER, True)]


def test_differences_are_paired_by_image_and_step() -> None:
    table = differences(scores(REFERENCE), scores(OTHER), "dino")
    assert table["step"].tolist() == [0, 50]
    assert table["images"].tolist() == [3, 3]
    assert table["difference"].tolist() == pytest.approx([0.0, 0.2])
    assert table["half"].tolist() == pytest.approx([0.0, 4.303 * 0.1 / np.sqrt(3)], rel=0.03)  # t with two degrees of freedom


def test_images_of_one_prompt_are_not_taken_for_independent_ones() -> None:
    """Two prompts that differ say little, however many images each has; one image says nothing of its spread."""
    gap = np.repeat([0.1, 0.3], 8)
    table = pd.DataFrame(
        [(0, image // 8, image % 8, "dino", "a.png", arm * gap[image]) for arm in (0, 1) for image in range(16)], columns=list(COLUMNS)
    )
    (row,) = differences(table[:16], table[16:], "dino").to_dict("records")
    assert row["difference"] == pytest.approx(0.2)
    assert row["half"] == pytest.approx(12.706 * 0.1, rel=0.03)  # t with one degree of freedom, error 0.2 / sqrt(2) / sqrt(2)
    (alone,) = differences(table[:1], table[16:17], "dino").to_dict("records")
    assert np.isnan(alone["half"])


def test_a_difference_common_to_all_images_has_no_width() -> None:
    shifted = {step: [value + 0.1 for value in values] for step, values in REFERENCE.items()}
    table = differences(scores(REFERENCE), scores(shifted), "dino")
    assert table["difference"].tolist() == pytest.approx([0.1] * 3)
    assert table["half"].tolist() == pytest.approx([0] * 3, abs=1e-12)


def test_only_images_that_both_runs_have_count() -> None:
    fewer = {step: values[:2] for step, values in OTHER.items()}
    table = differences(scores(REFERENCE), scores(fewer), "dino")
    assert table["images"].tolist() == [2, 2]
    assert table["difference"].tolist() == pytest.approx([0.0, 0.15])


def test_an_image_without_a_number_costs_itself_alone() -> None:
    gaps = scores(OTHER).assign(value=lambda table: table["value"].where(~((table["step"] == 50) & (table["image"] == 0))))
    table = differences(scores(REFERENCE), gaps, "dino")
    assert table["images"].tolist() == [3, 2]
    assert table["difference"].tolist() == pytest.approx([0.0, 0.25])


def test_turning_the_runs_around_turns_the_sign() -> None:
    there, back = (differences(a, b, "dino") for a, b in ((scores(REFERENCE), scores(OTHER)), (scores(OTHER), scores(REFERENCE))))
    assert there["difference"].tolist() == pytest.approx((-back["difference"]).tolist())
    assert there["half"].tolist() == pytest.approx(back["half"].tolist())


def test_runs_without_a_common_checkpoint_are_refused() -> None:
    with pytest.raises(UserError, match="share no checkpoint"):
        differences(scores({0: [0.1]}), scores({50: [0.1]}), "dino")


def test_a_run_is_read_as_it_was_written(runs: list[Path]) -> None:
    record, table = read_run(runs[0])
    assert record.config["data"]["subject"] == "toy_dog"
    pd.testing.assert_frame_equal(table, scores(REFERENCE), check_exact=True)


def test_collected_records_compare_as_their_runs_do(runs: list[Path], tmp_path: Path) -> None:
    """A stranger has the records of results/ and no run folders. A record averages over references and has five digits."""
    for run in runs:
        (record := tmp_path / "records" / run.name).mkdir(parents=True)
        (record / "record.json").write_bytes((run / "record.json").read_bytes())
        per_image(read_scores(run)).reset_index().to_csv(record / "images.csv", index=False, float_format="%.5f")
    kept = [differences(read_run(folder / runs[0].name)[1], read_run(folder / runs[1].name)[1], "dino") for folder in (
        tmp_path, tmp_path / "records",
    )]  # fmt: skip
    pd.testing.assert_frame_equal(*kept, atol=1e-5)


@pytest.mark.parametrize("missing", ["record.json", "scores.csv"])
def test_a_folder_that_is_no_run_is_refused(runs: list[Path], missing: str) -> None:
    (runs[0] / missing).unlink()
    with pytest.raises(UserError, match="plain-aaaaaa: no run with scores"):
        read_run(runs[0])


def test_the_table_shows_both_curves_and_the_difference(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(runs, "dino")
    text = capsys.readouterr().out
    assert "toy_dog dreambooth plain seed 3 (aaaaaa): Verdict of plain-aaaaaa." in text
    assert "bnn seed 3 (bbbbbb): Verdict of bnn-bbbbbb." in text
    cells = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in text.splitlines() if "│" in line]
    assert ["50", "0.500", "0.700", "+0.200", "-0.048 to +0.448"] in cells


def test_means_beside_a_difference_are_of_the_images_that_it_is_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The reference has a third image, far better than the two that both have, and a checkpoint more."""
    first = write_run(tmp_path / "plain-aaaaaa", {0: [0.2, 0.4, 0.9], 50: [0.2, 0.4, 0.9]}, False)
    other = write_run(tmp_path / "bnn-bbbbbb", {0: [0.3, 0.5]}, True)
    (row,) = differences(read_run(first)[1], read_run(other)[1], "dino").to_dict("records")
    assert (row["first"], row["this"], row["difference"]) == pytest.approx((0.3, 0.4, 0.1))
    print_comparison([first, other], "dino")
    out = capsys.readouterr().out
    assert ["0", "0.300", "0.400", "+0.100"] in [[cell.strip() for cell in line.strip("│ ").split("│")][:4] for line in out.splitlines()]
    assert "the 1 checkpoints and 2 images that both runs have; they have 2 checkpoints of 3 images and 1 checkpoints of 2 images." in out
    print_comparison([first, first], "dino")
    assert "Note" not in capsys.readouterr().out


def test_the_command_prints_a_table_and_writes_a_picture(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "pictures" / "both.png"
    assert main([*map(str, runs), "--plot", str(target)]) == 0
    assert f"wrote {target}" in capsys.readouterr().out
    with Image.open(target) as image:
        assert image.format == "PNG"
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 10


def test_the_command_says_in_one_line_what_is_no_run(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(runs[0]), str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("bayesdiff: ")
    assert len(said.err.splitlines()) == 1
    assert "nowhere" in said.err


def test_one_run_alone_gives_its_verdict(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(runs[0])]) == 0
    assert capsys.readouterr().out.strip().endswith("Verdict of plain-aaaaaa.")


def test_a_run_that_is_still_going_has_no_verdict_yet(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((runs[1] / "record.json").read_text())
    (runs[1] / "record.json").write_text(json.dumps({**content, "status": "running", "verdict": None}))
    assert main([*map(str, runs)]) == 0
    assert "no verdict (running)" in capsys.readouterr().out


def test_a_metric_that_is_not_measured_is_refused(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(runs[0]), "--metric", "fid"]) == 2
    assert "no metric fid; choose --metric from dino," in capsys.readouterr().err


def test_a_custom_metric_is_shown_with_the_label_unit_and_direction_of_its_record() -> None:
    """Where the record has none, it is shown by its name."""
    described = as_plain({"haze": Metric("haze", "haze [a]", "share, 0 to 1", False, "mine")})
    assert metric_label(RunRecord("0", "completed", {}, custom_metrics=described), "haze") == "haze [a] (share, 0 to 1; lower is better)"
    assert metric_label(RunRecord("0", "completed", {}), "haze") == "haze"
    assert metric_label(RunRecord("0", "completed", {}), "dino") == "DINO (cosine, -1 to 1; higher is better)"


def test_runs_that_sampled_other_prompts_are_refused(runs: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "beach-cccccc", OTHER, True, prompts=("a {class_noun} on the beach",))
    assert main([str(runs[0]), str(other)]) == 2


@pytest.mark.parametrize("key", ["sampler_precision", "metrics_precision"])
def test_runs_of_other_precisions_are_refused(runs: list[Path], tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A record that says none is of float32."""
    other = write_run(tmp_path / "half-cccccc", OTHER, True)
    assert main([str(runs[0]), str(other)]) == 0
    record = load_record(other)
    assert record is not None
    record.environment[key] = "bf16"
    record.save(other)
    assert main([str(runs[0]), str(other)]) == 2
    assert f"sampled otherwise than {runs[0]} ({key})" in capsys.readouterr().err


def test_runs_of_other_classes_are_refused_because_their_prompts_differ(runs: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "cat-cccccc", OTHER, True, noun="cat")
    assert main([str(runs[0]), str(other)]) == 2


@pytest.mark.parametrize(("key", "value"), [("path", "sd/two"), ("resolution", 1024)])
def test_runs_of_another_model_or_resolution_are_refused(
    runs: list[Path], key: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    """At another resolution the seed gives another noise, and of two models the difference is not the arms'."""
    record = json.loads((runs[1] / "record.json").read_text())
    record["config"]["model"][key] = value
    (runs[1] / "record.json").write_text(json.dumps(record))
    assert main([*map(str, runs)]) == 2
    assert f"sampled otherwise than {runs[0]} (model.{key})" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.revision", "b"), ("method.learning_rate", 1e-4), ("sampler.guidance_scale", 1.0), ("sampler.steps", 5),
        ("sampler.scheduler", "dpm"),
    ],
)  # fmt: skip
def test_other_ways_to_train_and_sample_are_noted(runs: list[Path], key: str, value: object, capsys: pytest.CaptureFixture[str]) -> None:
    record, (group, name) = json.loads((runs[1] / "record.json").read_text()), key.split(".")
    record["config"][group][name] = value
    (runs[1] / "record.json").write_text(json.dumps(record))
    print_comparison(runs, "dino")
    assert f"Note: the runs differ in {key}; a difference mixes that with their arms." in capsys.readouterr().out


def test_what_runs_differ_in_besides_their_arm_is_noted(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(runs, "dino")
    assert "the runs differ" not in capsys.readouterr().out
    record = json.loads((runs[1] / "record.json").read_text())
    record["config"]["data"]["subject"] = "toy_cat"
    record["config"]["shots"] = {"count": 4}
    (runs[1] / "record.json").write_text(json.dumps(record))
    print_comparison(runs, "dino")
    assert "Note: the runs differ in data.subject, shots.count; a difference mixes that with their arms." in capsys.readouterr().out


def test_a_completed_run_that_lacks_a_checkpoint_is_noted(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((runs[1] / "record.json").read_text())
    record["config"]["schedule"] = {"checkpoints": [0, 50, 100, 200]}
    (runs[1] / "record.json").write_text(json.dumps(record))
    print_comparison(runs, "dino")
    assert f"Note: {runs[1]} is completed, and its table has no scores of step 100: copy it again" in capsys.readouterr().out


def test_a_verdict_of_another_curve_is_not_repeated(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((runs[1] / "record.json").read_text())
    for step, said in ((50, "Verdict of bnn-bbbbbb."), (55, "the verdict in its record is of another curve; bayesdiff verdict")):
        record["verdict"]["best_step"] = step
        (runs[1] / "record.json").write_text(json.dumps(record))
        print_comparison(runs, "dino")
        assert f"(bbbbbb): {said}" in capsys.readouterr().out
