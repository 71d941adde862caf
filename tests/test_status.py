"""Where studies stand, and what failed runs said."""

from __future__ import annotations

from pathlib import Path

import pytest

from bayesdiff.status import main
from bayesdiff.studies import engine
from tests import stub_study

pytestmark = pytest.mark.usefixtures("restored_studies")


def test_the_table_counts_states_and_failures_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = stub_study.prepare(tmp_path, failing="3")
    engine.run_study(study, tmp_path / "runs", 2)
    capsys.readouterr()
    assert main(["stub", "--runs", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    (row,) = [line for line in out.splitlines() if "stub" in line and "│" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["stub", "12", "10", "0", "0", "0", "2", "0", "0"]
    assert out.count("failed  seed=3") == 2
    assert "bayesdiff: this one fails (exit code 7" in out


def test_collected_records_count_where_they_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = stub_study.prepare(tmp_path)
    engine.run_study(study, tmp_path / "runs", 2, results=tmp_path / "results")
    for words, done in (([], "0"), (["--results", str(tmp_path / "results")], "12")):
        capsys.readouterr()
        assert main(["stub", "--runs", str(tmp_path / "fresh"), *words]) == 0
        assert f"│ 12   │ {done} " in capsys.readouterr().out


def test_without_a_name_every_study_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub_study.prepare(tmp_path)
    (tmp_path / "other.yaml").write_text(stub_study.TEXT)
    assert main(["--runs", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert "other" in out
    assert "stub" in out


def test_without_a_name_the_studies_that_have_the_model_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub_study.prepare(tmp_path)
    (tmp_path / "large.yaml").write_text(stub_study.TEXT + "  sd15: {minutes: 9}\n")
    assert main(["--model", "sd15", "--runs", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert "large" in out
    assert "stub" not in out


def test_an_unknown_model_is_refused_with_the_models_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub_study.prepare(tmp_path)
    (tmp_path / "large.yaml").write_text(stub_study.TEXT + "  sd15: {minutes: 9}\n")
    assert main(["--model", "sd9"]) == 2
    assert capsys.readouterr().err == "bayesdiff: model sd9: no study has it; choose one of sd15, toybox\n"
    assert main(["stub", "--model", "sd15"]) == 2
    assert capsys.readouterr().err == "bayesdiff: study stub: has no model sd15; choose one of toybox\n"


def test_an_unknown_study_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nothing"]) == 2
    assert "choose one of" in capsys.readouterr().err


def test_a_damaged_record_among_the_results_is_named_and_its_run_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = stub_study.prepare(tmp_path)
    engine.run_study(study, tmp_path / "runs", 2, results=tmp_path / "results")
    first = sorted((tmp_path / "results" / "records").iterdir())[0]
    (first / "record.json").write_text("{")
    capsys.readouterr()
    assert main(["stub", "--runs", str(tmp_path / "fresh"), "--results", str(tmp_path / "results")]) == 0
    out = capsys.readouterr().out
    assert "│ 12   │ 11 " in out
    assert "damaged  seed=" in out and "copy it again" in out.replace("\n", " ")
