"""Committed results: small, complete, without places and machines in them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from bayesdiff.core.errors import UserError
from bayesdiff.recording.archive import open_archive
from bayesdiff.recording.collect import collect
from bayesdiff.recording.record import load_record
from bayesdiff.scoring.curve import image_matrix, per_image, read_scores
from tests import made_records

pytestmark = pytest.mark.usefixtures("restored_studies")


def test_a_run_is_kept_small_and_its_scores_are_the_same(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    run = made_records.make_run(study.cells[0], tmp_path / "runs")
    Image.new("RGB", (40, 20), "red").save(run / "grid.png")
    target = collect(run, tmp_path / "results")
    assert {path.name for path in target.iterdir()} == {"record.json", "curve.csv", "images.csv", "grid.png"}
    (kept,) = open_archive(tmp_path / "results").runs.values()
    steps, expected = image_matrix(per_image(read_scores(run)), "dino")
    assert kept.images().steps.tolist() == steps
    assert kept.images().columns["dino"] == pytest.approx(expected, abs=1e-5)
    assert kept.folder == target
    assert (kept.record.config["paths"], kept.record.environment) == ({}, {})


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
    assert not open_archive(tmp_path / "results").runs
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


def test_evaluations_are_collected_also_when_they_come_later(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    run = made_records.make_run(study.cells[0], tmp_path / "runs")
    target = collect(run, tmp_path / "results")
    assert not (target / "evaluations").exists()
    made_records.evaluate(run, "guided", by=0.1)
    collect(run, tmp_path / "results")
    folder = target / "evaluations" / "guided"
    assert {path.name for path in folder.iterdir()} == {"curve.csv", "images.csv"}
    own, other = (pd.read_csv(place / "images.csv") for place in (target, folder))
    assert (other["dino"] - own["dino"]).to_numpy() == pytest.approx(0.1, abs=2e-5)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    collect(run, tmp_path / "results")
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_probes_are_collected_also_when_the_record_is_there_already(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    run = made_records.make_run(study.cells[0], tmp_path / "runs")
    target = collect(run, tmp_path / "results")
    assert not (target / "probes.csv").exists()
    (run / "probes.csv").write_text("step,weights,timestep,loss\n0,kept,100.0,0.5\n")
    collect(run, tmp_path / "results")
    assert (target / "probes.csv").read_text() == (run / "probes.csv").read_text()


def test_of_an_older_record_nothing_stays_beside_the_newer(tmp_path: Path) -> None:
    """The run was made anew without an evaluation, probes and a picture that it had: those of before are another run's."""
    study = made_records.prepare(tmp_path / "studies")
    run = made_records.make_run(study.cells[0], tmp_path / "runs")
    made_records.evaluate(run, "guided", by=0.1)
    (run / "probes.csv").write_text("step,weights,timestep,loss\n0,kept,100.0,0.5\n")
    Image.new("RGB", (40, 20), "red").save(run / "grid.png")
    collect(run, tmp_path / "results")
    shutil.rmtree(run)
    run = made_records.make_run(study.cells[0], tmp_path / "runs")
    record = load_record(run)
    assert record is not None
    record.seconds = {"train": 61.0}
    record.save(run)
    target = collect(run, tmp_path / "results")
    assert {path.name for path in target.iterdir()} == {"record.json", "curve.csv", "images.csv"}
    (kept,) = open_archive(tmp_path / "results").runs.values()
    assert (list(kept.scores), kept.record.seconds) == (["main"], {"train": 61.0})
