"""A result set is read once; what is damaged is named; what was computed is kept and never stale."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.recording import archive as archiving
from bayesdiff.recording.archive import Run, detector_version, judge, open_archive, scores_folder, whole_record
from bayesdiff.recording.collect import collect, per_image_of
from bayesdiff.recording.record import load_record
from bayesdiff.scoring.curve import image_columns
from tests import made_records
from tests.corruption.test_detector import CLEAR, TWELVE

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "results" / "toybox"

pytestmark = pytest.mark.usefixtures("restored_studies")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    study = made_records.prepare(tmp_path / "studies")
    return made_records.fill(study, tmp_path, study.cells[:3])


def scores_of(run: Run) -> str:
    """Everything that was read off a run, as text; arrays of the cache are equal to computed ones bit for bit."""
    return repr({name: replace(one) for name, one in run.scores.items()})


def clear_run(folder: Path) -> None:
    """Give a record the scores of a curve with a stage."""
    content = json.loads((folder / "record.json").read_text())
    content["config"]["schedule"]["checkpoints"] = list(TWELVE)
    (folder / "record.json").write_text(json.dumps(content))
    curve = pd.DataFrame(CLEAR).set_axis(TWELVE).rename_axis("step").reset_index()
    table = curve.melt(id_vars="step", var_name="column", value_name="dino")
    table["prompt"], table["image"] = table["column"].astype(int) // 4, table["column"].astype(int) % 4
    table = table.assign(clip_t=0.3).drop(columns="column")
    table.to_csv(folder / "images.csv", index=False)
    table.groupby("step")[["dino", "clip_t"]].mean().reset_index().to_csv(folder / "curve.csv", index=False)


def test_columns_are_those_of_the_data_frame() -> None:
    """Of a committed record, whatever the order of its rows."""
    folder = sorted((COMMITTED / "records").iterdir())[0]
    images = archiving.parse_images((folder / "images.csv").read_bytes(), folder / "images.csv")
    steps, columns, places = image_columns(per_image_of(folder))
    assert (images.steps.tolist(), list(images.places)) == (steps, places)
    for name, expected in columns.items():
        assert np.array_equal(images.columns[name], expected, equal_nan=True)
    head, *lines = (folder / "images.csv").read_text().splitlines()
    mixed = archiving.parse_images("\n".join([head, *lines[::-1]]).encode(), folder)
    assert all(np.array_equal(mixed.columns[name], images.columns[name], equal_nan=True) for name in images.columns)


def test_an_empty_cell_is_no_number_and_stays_in_its_place(tmp_path: Path) -> None:
    images = archiving.parse_images(b"step,prompt,image,dino,own\n0,0,0,0.5,\n0,0,1,0.6,2\n5,0,0,0.7,3\n5,0,1,0.8,4\n", tmp_path)
    assert images.columns["own"][0, 1] == 2 and np.isnan(images.columns["own"][0, 0])


def test_every_file_is_read_once_and_every_verdict_computed_once(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or original(path))
    judged: list[str] = []
    monkeypatch.setattr(archiving, "judge", lambda record, images: judged.append(record.run_key) or judge(record, images))
    first = open_archive(results)
    assert (len(read), len(set(read)), len(judged)) == (9, 9, 3)
    again = open_archive(results)
    assert (len(read), len(judged)) == (18, 3), "verdicts are kept, and files hashed again"
    assert [scores_of(run) for run in first.runs.values()] == [scores_of(run) for run in again.runs.values()]


def test_the_cache_is_not_for_git(results: Path) -> None:
    subprocess.run(["git", "init", "-q", str(results)], check=True)
    open_archive(results)
    said = subprocess.run(["git", "-C", str(results), "status", "--porcelain", "-uall"], check=True, capture_output=True, text=True)
    assert (results / ".cache" / "scores.parquet").exists()
    assert ".cache" not in said.stdout and "records" in said.stdout


@pytest.mark.parametrize("damage", [b"", b"PAR1 nothing", None])
def test_a_damaged_or_missing_cache_costs_time_alone(results: Path, damage: bytes | None) -> None:
    expected = [scores_of(run) for run in open_archive(results).runs.values()]
    cache = results / ".cache" / "scores.parquet"
    whole = cache.read_bytes()
    cache.unlink() if damage is None else cache.write_bytes(damage)
    assert [scores_of(run) for run in open_archive(results).runs.values()] == expected
    cache.write_bytes(whole[: len(whole) // 2])
    assert [scores_of(run) for run in open_archive(results).runs.values()] == expected


@pytest.mark.skipif(os.getuid() == 0, reason="root writes everywhere")
def test_a_set_that_cannot_be_written_to_is_read(results: Path) -> None:
    results.chmod(0o555)
    assert len(open_archive(results).runs) == 3


def test_a_set_without_room_for_a_cache_is_read(results: Path) -> None:
    (results / ".cache").write_text("a file in the way")
    assert len(open_archive(results).runs) == 3


def test_changed_scores_and_another_detector_are_judged_again(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_archive(results)
    judged: list[str] = []
    monkeypatch.setattr(archiving, "judge", lambda record, images: judged.append(record.run_key) or judge(record, images))
    first = next(iter(open_archive(results).runs.values()))
    assert not judged
    clear_run(first.folder)
    verdict = open_archive(results).runs[first.folder.name].scores["main"].verdict
    assert judged == [first.record.run_key] and verdict is not None and verdict.flagged
    monkeypatch.setattr(archiving, "DETECTOR_VERSION", detector_version() + 1)
    open_archive(results)
    assert len(judged) == 4


def test_a_verdict_of_this_detector_in_the_record_is_taken(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = next(iter(open_archive(results).runs.values()))
    content = json.loads((run.folder / "record.json").read_text())
    content["verdict"] |= {"detector_version": detector_version(), "sentence": "as the run said"}
    (run.folder / "record.json").write_text(json.dumps(content))
    monkeypatch.setattr(archiving, "judge", lambda record, images: pytest.fail("judged again"))
    verdict = open_archive(results).runs[run.folder.name].scores["main"].verdict
    assert verdict is not None and verdict.sentence == "as the run said"


def test_many_verdicts_are_shared_by_processes(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [scores_of(run) for run in open_archive(results).runs.values()]
    shutil.rmtree(results / ".cache")
    monkeypatch.setattr(archiving, "MANY", 3)
    assert [scores_of(run) for run in open_archive(results, workers=2).runs.values()] == alone


def test_a_collected_run_is_judged_by_its_own_settings(results: Path) -> None:
    """The stage is found, unless the run asked for a deeper one; the ceiling counts."""
    run = next(iter(open_archive(results).runs.values()))
    clear_run(run.folder)
    (*_, changed) = [one for one in open_archive(results).runs.values() if one.folder == run.folder]
    verdict = changed.scores["main"].verdict
    assert verdict is not None
    assert (verdict.flagged, verdict.peak_step, verdict.trough_step) == (True, 100, 400)
    record, images = changed.record, changed.images()
    assert judge(record, images) == verdict
    deeper = {**record.config, "detector": {**record.config["detector"], "min_depth": 0.9}}
    assert not judge(replace(record, config=deeper), images).flagged
    assert judge(replace(record, real_to_real={"dino": 0.5}), images).best_step < verdict.best_step


def test_an_evaluation_is_judged_and_kept_beside_the_run_s_own(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    run = made_records.make_run(study.cells[0], tmp_path / "runs")
    made_records.evaluate(run, "guided", by=0.2)
    collect(run, tmp_path / "results")
    for _ in range(2):  # computed, and from the cache
        (found,) = open_archive(tmp_path / "results").runs.values()
        assert list(found.scores) == ["main", "guided"]
        assert found.scores["guided"].last["dino"] - found.scores["main"].last["dino"] == pytest.approx(0.2, abs=2e-5)
    (scores_folder(found.folder, "guided") / "images.csv").unlink()
    left = open_archive(tmp_path / "results")
    assert "guided/images.csv: missing" in left.damaged[f"{found.folder.name}/guided"]
    assert list(left.runs[found.folder.name].scores) == ["main"], "a damaged evaluation costs itself"
    (scores_folder(found.folder, "guided") / "images.csv").write_text("step,prompt\n")
    left = open_archive(tmp_path / "results")
    assert list(left.damaged) == [f"{found.folder.name}/guided"]
    assert list(left.runs[found.folder.name].scores) == ["main"]


def edit(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / "record.json").read_text())
        (folder / "record.json").write_text(json.dumps(content | changes))

    return damage


def written(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(text.encode("latin-1")) and None


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut": (written("record.json", '{"run_key": "a'), "record.json: damaged (Unterminated string"),
    "a list": (written("record.json", "[]"), "record.json: damaged"),
    "not UTF-8": (written("record.json", "\xff\xfe"), "record.json: damaged"),
    "a number as key": (edit(run_key=3), "record.json: damaged"),
    "an unknown field": (edit(more=1), "record.json: damaged"),
    "of another run": (edit(run_key="0123456789ab"), "of another run"),
    "still running": (edit(status="running"), "its run has not ended"),
    "an unknown status": (edit(status=None), "damaged"),
    "no settings": (edit(config={}), "config has no model.name"),
    "settings of another kind": (edit(config={"model": []}), "damaged"),
    "text for seconds": (edit(seconds={"train": "long"}), "seconds is no mapping; a value in it is of another kind"),
    "no memory": (edit(peak_memory_mb=None), "damaged"),
    "no images": (lambda folder: (folder / "images.csv").unlink(), "images.csv: missing"),
    "empty images": (written("images.csv", ""), "images.csv: not a table of numbers"),
    "a head alone": (written("images.csv", "step,prompt,image,dino\n"), "images.csv: not a table of numbers"),
    "a ragged line": (written("images.csv", "step,prompt,image,dino\n0,0,0\n"), "images.csv: not a table of numbers"),
    "a word": (written("images.csv", "step,prompt,image,dino\n0,0,0,high\n"), "images.csv: not a table of numbers"),
    "an image twice": (written("images.csv", "step,prompt,image,dino\n0,0,0,1\n0,0,0,1\n"), "has an image twice"),
    "half a step": (written("images.csv", "step,prompt,image,dino\n0.5,0,0,1\n"), "is no whole number from 0 on"),
    "a step below 0": (written("images.csv", "step,prompt,image,dino\n-1,0,0,1\n"), "is no whole number from 0 on"),
    "a picture below 0": (written("images.csv", "step,prompt,image,dino\n0,0,-1,1\n"), "is no whole number from 0 on"),
    "a step that is huge": (written("images.csv", "step,prompt,image,dino\n1e30,0,0,1\n"), "is no whole number from 0 on"),
    "no step": (written("images.csv", "step,prompt,image,dino\n,0,0,1\n"), "is no whole number from 0 on"),
    "a curve below 0": (written("curve.csv", "step,dino\n-10,0.5\n20,0.6\n"), "not increasing whole numbers"),
    "a curve that goes back": (written("curve.csv", "step,dino\n20,0.5\n0,0.6\n"), "not increasing whole numbers"),
    "a curve with a step twice": (written("curve.csv", "step,dino\n0,0.5\n0,0.6\n"), "not increasing whole numbers"),
    "a column twice": (written("curve.csv", "step,dino,dino\n0,0.5,0.6\n"), "not a table of numbers"),
    "no fidelity": (written("images.csv", "step,prompt,image,clip_t\n0,0,0,1\n"), "has no columns step, prompt, image and dino"),
    "a row that is gone": (written("images.csv", "step,prompt,image,dino\n0,0,0,0.1\n0,0,1,0.1\n5,0,0,0.1\n"), "lacks 1 images"),
    "an infinite score": (written("images.csv", "step,prompt,image,dino\n0,0,0,inf\n"), "line 2: dino is inf, which no image can have"),
    "a score that is no number": (written("images.csv", "step,prompt,image,dino\n0,0,0,nan\n"), "line 2: dino is no number"),
    "an empty score": (written("images.csv", "step,prompt,image,dino\n0,0,0,0.5\n0,0,1,\n"), "line 3: dino is no number"),
    "a score beyond a cosine": (written("images.csv", "step,prompt,image,dino\n0,0,0,2\n"), "line 2: dino is 2, which"),
    "a huge score": (written("images.csv", "step,prompt,image,dino,hf_energy\n0,0,0,0.1,1e308\n"), "hf_energy is 1e+308, which"),
    "a curve that is infinite": (written("curve.csv", "step,dino\n0,0.5\n20,-inf\n"), "line 3: dino is -inf"),
    "a curve of something else": (written("curve.csv", "a,b\n1,2\n"), "curve.csv: has no columns step and dino"),
    "a detector of another kind": (edit(real_to_real={"dino": None}), "real_to_real is no mapping; a value in it"),
}


def test_a_curve_of_another_run_is_no_mean_of_the_scores(results: Path) -> None:
    (first, _), (second, _) = ((run.folder, run) for run in list(open_archive(results).runs.values())[:2])
    shutil.copyfile(first / "curve.csv", second / "curve.csv")
    (said,) = open_archive(results).damaged.values()
    assert "curve.csv: dino is not the mean of the scores of images beside it; collect its run again" in said
    (second / "curve.csv").write_text("\n".join((first / "curve.csv").read_text().splitlines()[:-1]) + "\n")
    (said,) = open_archive(results).damaged.values()
    assert "curve.csv: has other checkpoints than the scores of images beside it" in said


@pytest.mark.parametrize("field", ["best_step", "avoid", "labels", "kind", "trough_step"])
def test_a_verdict_that_is_none_of_its_curve_is_made_again(results: Path, field: str) -> None:
    """Its best step would be shown as a checkpoint."""
    run = next(iter(open_archive(results).runs.values()))
    expected = run.scores["main"].verdict
    content = json.loads((run.folder / "record.json").read_text())
    strange = {"best_step": 55, "avoid": [[3, 9]], "labels": ["peak", "lovely", "peak"], "kind": "lovely", "trough_step": 7}
    content["verdict"] |= {"detector_version": detector_version(), field: strange[field]}
    (run.folder / "record.json").write_text(json.dumps(content))
    assert open_archive(results).runs[run.folder.name].scores["main"].verdict == expected
    assert expected is not None and expected.best_step in (0, 10, 20)


@pytest.mark.parametrize("name", DAMAGE)
def test_one_damaged_record_costs_itself_and_is_named_with_the_remedy(results: Path, name: str) -> None:
    damage, message = DAMAGE[name]
    folder = sorted((results / "records").iterdir())[1]
    damage(folder)
    found = open_archive(results)
    assert len(found.runs) == 2
    (said,) = found.damaged.values()
    assert message in said and str(folder) in said
    assert ";" in said, "the remedy"
    if "missing" in said or (
        folder / "record.json" == Path(said.partition(":")[0]) and "config" not in said and "a value in it" not in said
    ):
        assert whole_record(folder) is None


def test_a_run_that_diverged_before_its_first_checkpoint_has_no_scores(results: Path) -> None:
    folder = sorted((results / "records").iterdir())[0]
    edit(status="diverged", verdict=None)(folder)
    for name in ("curve.csv", "images.csv"):
        (folder / name).unlink()
    assert open_archive(results).runs[folder.name].scores == {}


def test_results_without_records_say_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--results"):
        open_archive(tmp_path)


@pytest.mark.parametrize(("column", "value", "words"), [("step", 20, "no scores of step 20"), ("prompt", 1, "2 of 4 images")])
def test_a_completed_run_whose_scores_lack_a_checkpoint_or_images_is_named(results: Path, column: str, value: int, words: str) -> None:
    """Both files agree, and the last checkpoint would be another one."""
    run = next(iter(open_archive(results).runs.values()))
    content = json.loads((run.folder / "record.json").read_text())
    content["config"]["sampler"]["prompts"] = ["a {class_noun}", "the {class_noun}"]
    (run.folder / "record.json").write_text(json.dumps(content))
    assert not open_archive(results).damaged
    table = pd.read_csv(run.folder / "images.csv")
    table[table[column] != value].to_csv(run.folder / "images.csv", index=False)
    curve = table[table[column] != value].groupby("step").mean().drop(columns=["prompt", "image"]).reset_index()
    curve.to_csv(run.folder / "curve.csv", index=False)
    (said,) = open_archive(results).damaged.values()
    assert f"images.csv: has {words}; copy it again, or collect its run again" in said


def test_what_a_record_did_not_note_of_its_photograph_is_measured_on_it_again() -> None:
    """Committed records note the photograph's energy and no contrast; a noted value is taken as it is."""
    (folder,) = (COMMITTED / "records").glob("toybox-dreambooth-plain-toy_dog-1shot-seed0-870a986b7f41")
    record = load_record(folder)
    assert record is not None and list(record.photographs) == ["hf_energy"]
    noted, measured = archiving.photo_value(record, "hf_energy"), archiving.photo_value(replace(record, photographs={}), "hf_energy")
    assert noted == record.photographs["hf_energy"] == pytest.approx(measured, rel=1e-3)
    fine, middle = (archiving.photo_value(record, name) for name in ("band_fine", "band_middle"))
    assert fine is not None and middle is not None and 0 < fine < middle < 1
    assert archiving.photo_value(replace(record, photographs={"band_fine": 0.5}), "band_fine") == 0.5
    assert archiving.photo_value(replace(record, subject={}), "band_fine") is None
