"""The demo: three runs, what they showed, and one page; all of it goes on after a stop."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_records import made_curves

from bayesdiff import demo
from bayesdiff.core.errors import ExitCode
from bayesdiff.studies import engine
from bayesdiff.studies.plan import load_study


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A folder with the demo's three runs."""
    made_curves(load_study("demo", "toybox"), tmp_path, lambda _, steps, __: 1.0 + 0.3 * (steps < 900), evaluations=("guidance_1", "ema"))
    return tmp_path / "records"


def test_runs_that_are_done_are_shown_at_once(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--runs", str(done)]) == ExitCode.DONE
    said = capsys.readouterr().out
    assert said.startswith("3 runs, 0 to do")
    for arm in ("plain", "Bayesian weights", "empty prompt in 30 %"):
        assert said.count(arm) >= 3, "a row an evaluation"
    assert "a stage of grain" in said
    assert "bayesdiff judge" in said
    page = done / "report.html"
    assert str(page) in said.replace("\n", "")
    assert page.stat().st_size > 100_000


def test_a_run_that_fails_is_said_and_the_others_are_shown(
    done: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = next(path for path in done.iterdir() if "-bnn-" in path.name)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    monkeypatch.setattr(engine, "run_command", lambda *_: ["false"])
    assert demo.main(["--runs", str(done), "--workers", "1"]) == ExitCode.FAILED
    said = capsys.readouterr().out
    assert "3 runs, 1 to do" in said
    assert "failed" in said
    assert "a stage of grain" in said


def test_no_workers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--runs", str(tmp_path), "--workers", "0"]) == ExitCode.BAD_INPUT
    assert "--workers 0: give 1 or more" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_runs_from_nothing(tmp_path: Path, smoke: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Every step of ``make demo``, with a thin model and few steps."""
    words = [word for word in smoke if word.startswith(("model.path", "metrics."))]
    short = ["schedule.steps=12", "schedule.checkpoints=[0,2,4,6,8,10,12]", "sampler.steps=2"]
    assert demo.main([*words, *short, "--runs", str(tmp_path / "runs")]) == ExitCode.DONE
    assert "guidance 1 have" in capsys.readouterr().out
