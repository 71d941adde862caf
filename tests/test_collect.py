"""Committed results: small, complete, without places and machines in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bayesdiff import plan as planning
from bayesdiff.collect import collect, image_scores, load_records
from bayesdiff.curve import read_scores, score_matrix
from bayesdiff.errors import UserError
from tests import made_records


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(planning, "EXPERIMENTS", planning.EXPERIMENTS)
    yield


def test_a_run_is_kept_small_and_its_scores_are_the_same(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    run = made_records.make_run(study.cells[0], tmp_path / "runs")
    Image.new("RGB", (40, 20), "red").save(run / "grid.png")
    target = collect(run, tmp_path / "results")
    assert {path.name for path in target.iterdir()} == {"record.json", "curve.csv", "images.csv", "grid.png"}
    steps, kept = image_scores(target, "dino")
    expected = score_matrix(read_scores(run), "dino")
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
