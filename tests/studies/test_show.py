"""What a person sees of studies: short, the total first, and whatever names contain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bayesdiff.studies import plan as planning
from bayesdiff.studies.show import print_plan, print_states, trouble
from bayesdiff.studies.state import Planned, failure_file, plan
from bayesdiff.study import main
from tests import stub_study

pytestmark = pytest.mark.usefixtures("restored_studies")


def test_a_large_plan_says_its_total_first_and_few_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["table_1", "--model", "sd15", "--runs", str(tmp_path / "runs"), "--dry-run"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("900 runs, 0 done, 900 left; about 25 minutes a run, 375.0 hours")
    assert len(lines) <= 40
    assert lines[-2] == "… and 870 more: --all lists every run"
    assert lines[-1].startswith("With 7 checkpoints x 100 images, one run")
    assert main([*words, "--only", "data.subject=dog", "--all"]) == 0
    assert sum("missing" in line for line in capsys.readouterr().out.splitlines()) == 30


def test_what_is_left_is_listed_before_what_is_done(tmp_path: Path) -> None:
    study = stub_study.prepare(tmp_path)
    planned = plan(study, tmp_path / "runs")
    console = Console(record=True, width=160)
    print_plan(study, planned, 1, console)
    assert console.export_text().splitlines()[0].startswith("12 runs, 0 done")


def test_records_that_lie_in_results_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever plans a study in a checkout learns that its records are there, and what counts them as done."""
    monkeypatch.chdir(tmp_path)
    study = stub_study.prepare(tmp_path / "studies")
    name = plan(study, tmp_path / "runs")[0].folder.name
    (record := tmp_path / "results" / "toybox" / "records" / name / "record.json").parent.mkdir(parents=True)
    record.write_text("{}")
    words = [study.name, "--runs", str(tmp_path / "runs"), "--dry-run"]
    assert main(words) == 0
    assert "1 of the runs left have records in results/toybox: they are done with --results results/toybox\n" in capsys.readouterr().out
    record.unlink()
    assert main(words) == 0
    assert "--results" not in capsys.readouterr().out


def test_brackets_in_names_are_text(tmp_path: Path) -> None:
    study = replace(stub_study.prepare(tmp_path), title="[red]a[/x]", name="[b]")
    cell = planning.Cell({"a": "[/nothing]"}, ())
    run = Planned(cell, tmp_path / "[/x]", "damaged", note="[/y] damaged")
    console = Console(record=True, width=160)
    print_plan(study, [run], 1, console)
    print_states({"[b]": [run]}, tmp_path, console)
    assert "[/nothing]" in console.export_text()


def test_a_note_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    run = Planned(planning.Cell({"a": "b"}, ()), tmp_path / "run", "failed")
    failure_file(tmp_path, run.folder).parent.mkdir()
    failure_file(tmp_path, run.folder).write_text("{")
    said = trouble(run, tmp_path)
    assert said is not None and "cannot be read" in said


@pytest.mark.parametrize("option", ["--results", "--runs"])
def test_folders_are_looked_at_before_the_first_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    stub_study.prepare(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["stub", "--runs", str(tmp_path / "runs"), option, str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.startswith(f"bayesdiff: {option}={tmp_path / 'file'}: ")
    assert not (tmp_path / "started").exists()
