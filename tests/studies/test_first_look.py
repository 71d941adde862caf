"""The words of the demo say what the numbers are, whichever way they fall."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from made_records import made_curves
from rich.console import Console

from bayesdiff.studies.first_look import Look, looks_of, sentences_of, table_of
from bayesdiff.studies.plan import compose_cell, load_study


def look(arm: str, evaluation: str, grain: float, dino: float = 0.8, at_end: float = 1.0) -> Look:
    return Look(arm, evaluation, grain, at_end, dino, dino, "")


def test_a_run_is_read_in_the_middle_and_at_its_end(tmp_path: Path) -> None:
    study = load_study("demo", "toybox")
    made_curves(study, tmp_path, lambda _, steps, __: np.where((steps > 252) & (steps < 735), 1.3, 0.9), study.cells[:1], ("guidance_1",))
    (folder,) = (tmp_path / "records").iterdir()
    main, low = looks_of(folder)
    assert (main.arm, main.evaluation, low.evaluation) == ("plain", "main", "guidance_1")
    assert main.grain == pytest.approx(1.3)
    assert main.grain_at_end == pytest.approx(0.9)
    steps = np.array([step for step in compose_cell(study.cells[0]).schedule.checkpoints if 252 < step < 735])
    assert main.dino == pytest.approx((0.8 - 0.7 * np.exp(-steps / 100)).mean())


def test_a_stage_that_guidance_makes_is_said_with_its_remedy_and_price() -> None:
    said = " ".join(sentences_of([look("plain", "main", 1.3), look("plain", "guidance_1", 0.8, 0.6), look("bnn", "main", 1.25, 0.75)]))
    assert "1.30 times the photograph's grain in the middle of training, and 1.00 times at the end: a stage of grain" in said
    assert "guidance 1 have 0.80: the grain comes with guidance. Their DINO is 0.60, not 0.80" in said
    assert "Bayesian weights: grain 1.25 (-0.05), DINO 0.75 (-0.05)" in said
    assert "sample the same checkpoint at a lower guidance scale first" in said


def test_a_run_without_grain_is_given_no_remedy() -> None:
    said = " ".join(sentences_of([look("plain", "main", 0.95), look("plain", "guidance_1", 0.9)]))
    assert "no clear stage of grain" in said
    assert "guidance does not explain" in said
    assert "lower guidance" not in said
    assert "bayesdiff judge" in said


def test_how_sure_it_is_goes_by_what_the_verdict_told() -> None:
    plain = look("plain", "main", 0.95)
    assert "the images tell no steps from those before and after, at an error rate of 5 %" in " ".join(sentences_of([plain]))
    told = " ".join(sentences_of([replace(plain, avoid="360 to 600 (noise pattern)")]))
    assert "the images tell steps 360 to 600 (noise pattern) from those before and after, at an error rate of 5 %" in told


def test_grain_that_does_not_come_back_is_no_stage() -> None:
    assert "no clear stage of grain" in sentences_of([look("plain", "main", 1.3, at_end=1.28)])[0]


def test_nothing_is_said_without_the_plain_run() -> None:
    assert sentences_of([look("bnn", "main", 1.3)]) == []


def test_the_table_names_arms_and_looks_in_words() -> None:
    console = Console(width=160, record=True, file=StringIO())
    console.print(table_of([look("prompt_dropout", "ema", 0.9), look("mine", "other", 0.7)], 2100))
    text = console.export_text()
    for words in ("empty prompt in 30 %", "averaged weights, guidance 7.5", "mine", "steps 252 to 735", "none"):
        assert words in text
