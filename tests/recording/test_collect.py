"""Committed results: small, complete, without places and machines in them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bayesdiff.core.errors import UserError
from bayesdiff.recording.collect import collect, image_scores, judged, load_records
from bayesdiff.scoring.curve import image_matrix, per_image, read_scores
from tests import made_records
from tests.corruption.test_detector import CLEAR, TWELVE

pytestmark = pytest.mark.usefixtures("restored_studies")


def test_a_run_is_kept_small_and_its_scores_are_the_same(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    run = made_records.make_run(study.cells[0], tmp_path / "runs")
    Image.new("RGB", (40, 20), "red").save(run / "grid.png")
    target = collect(run, tmp_path / "results")
    assert {path.name for path in target.iterdir()} == {"record.json", "curve.csv", "images.csv", "grid.png"}
    steps, kept = image_scores(target, "dino")
    expected = image_matrix(per_image(read_scores(run)), "dino")
    assert steps == expected[0]
    assert kept == pytest.approx(expected[1], abs=1e-5)
    ((folder, record),) = load_records(tmp_path / "results")
    assert folder == target
    assert (record.config["paths"], record.environment) == ({}, {})


def test_collecting_again_changes_nothing(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    run = made_records.make_run(study.cells[0], tmp_path / "runs")
    target = collect(run, tmp_path / "results")
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    collect(run, tmp_path / "results")
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_what_a_collected_run_has_lost_is_collected_again(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    run = made_records.make_run(study.cells[0], tmp_path / "runs")
    target = collect(run, tmp_path / "results")
    before = (target / "images.csv").read_bytes()
    (target / "images.csv").unlink()
    assert load_records(tmp_path / "results") == []
    collect(run, tmp_path / "results")
    assert (target / "images.csv").read_bytes() == before


def test_a_picture_that_is_there_is_not_written_in_other_bytes(tmp_path: Path) -> None:
    """Another version of the library packs the same pixels differently."""
    run = made_records.make_run(made_records.prepare(tmp_path / "studies").cells[0], tmp_path / "runs")
    Image.new("RGB", (40, 20), "red").save(run / "grid.png")
    target = collect(run, tmp_path / "results")
    (target / "grid.png").write_bytes(b"the same picture, packed by another version")
    collect(run, tmp_path / "results")
    assert (target / "grid.png").read_bytes().startswith(b"the same picture")
    (target / "record.json").write_text("{}")  # not what the run has: everything is written anew
    collect(run, tmp_path / "results")
    assert Image.open(target / "grid.png").size == (40, 20)


def test_a_run_without_an_end_is_not_collected(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    run = made_records.make_run(study.cells[0], tmp_path / "runs", status="running")
    with pytest.raises(UserError, match="no finished run"):
        collect(run, tmp_path / "results")
    with pytest.raises(UserError, match="no finished run"):
        collect(tmp_path / "nothing", tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_folder_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    results = made_records.fill(study, tmp_path, study.cells[:3])
    (results / "records" / "half").mkdir()
    (results / "records" / "half" / "curve.csv").write_text("step\n")
    assert len(load_records(results)) == 3


def test_results_without_records_say_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--results"):
        load_records(tmp_path)


def test_images_keep_their_place(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    results = made_records.fill(study, tmp_path, study.cells[:2])
    shapes = {image_scores(folder, "dino")[1].shape for folder, _ in load_records(results)}
    assert shapes == {(3, 4)}
    assert all(np.isfinite(image_scores(folder, "clip_t")[1]).all() for folder, _ in load_records(results))


def test_a_collected_run_is_judged_by_its_own_settings(tmp_path: Path) -> None:
    """By today's detector: the stage is found, unless the run asked for a deeper one; the ceiling counts."""
    study = made_records.prepare(tmp_path / "studies")
    folder = made_records.fill(study, tmp_path, study.cells[:1]) / "records"
    ((run, record),) = load_records(folder.parent)
    table = (
        pd.DataFrame(CLEAR).set_axis(TWELVE).rename_axis("step").reset_index().melt(id_vars="step", var_name="column", value_name="dino")
    )
    table["prompt"], table["image"] = table["column"].astype(int) // 4, table["column"].astype(int) % 4
    table.assign(clip_t=0.3).drop(columns="column").to_csv(run / "images.csv", index=False)
    verdict = judged(run, record)
    assert (verdict.flagged, verdict.peak_step, verdict.trough_step) == (True, 100, 400)
    deeper = dataclasses.replace(record, config={**record.config, "detector": {**record.config["detector"], "min_depth": 0.9}})
    assert not judged(run, deeper).flagged
    capped = dataclasses.replace(record, real_to_real={"dino": 0.5})
    assert judged(run, capped).best_step < verdict.best_step
