"""One denoising step of every kept checkpoint of a run, into its folder and beside its record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import Make

from bayesdiff.core.errors import ExitCode
from bayesdiff.runs.experiment import run_experiment
from bayesdiff.runs.one_step import main

STEPS = ["schedule.steps=2", "schedule.checkpoints=[0,1,2]"]


@pytest.mark.parametrize("method", ["dreambooth", "lora"])
def test_every_kept_checkpoint_has_a_row_that_changes_with_training(
    make_config: Make, tiny_smoke: list[str], tmp_path: Path, method: str
) -> None:
    words = [f"method={method}", "method.learning_rate=0.05", "schedule.keep=all"]
    run, _ = run_experiment(make_config(*tiny_smoke, *STEPS, *words))
    assert main([str(run), "--results", str(tmp_path / "results")]) == ExitCode.DONE
    table = pd.read_csv(run / "one_step.csv")
    assert table["step"].tolist() == [0, 1, 2]
    assert np.isfinite(table.drop(columns="sigma_1")).all(axis=None)
    assert (table["error_0"].diff()[1:] != 0).all()
    kept = tmp_path / "results" / "records" / run.name
    assert (kept / "one_step.csv").read_bytes() == (run / "one_step.csv").read_bytes()
    assert (kept / "record.json").exists()


def test_a_run_that_kept_nothing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == ExitCode.BAD_INPUT
    assert f"{tmp_path}: has no checkpoints; make the run with schedule.keep=all" in capsys.readouterr().err
