"""Less grain that comes with less likeness alone is none at the same likeness; less grain beside the same likeness is all of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from bayesdiff.config.identity import run_name
from bayesdiff.recording.archive import open_archive
from bayesdiff.studies.likeness import at_the_same_likeness
from bayesdiff.studies.plan import compose_cell, load_study
from bayesdiff.studies.primary import Primary, open_primary
from bayesdiff.studies.primary_page import page
from tests.made_records import made_curves

FILE = Path(__file__).resolve().parents[2] / "results" / "primary.yaml"
MIDDLE = (250, 900)
Floats = NDArray[np.float64]


def made(folder: Path, dino: Callable[[str, Floats], Floats], grain: Callable[[str, Floats], Floats]) -> Primary:
    """The registered study with DINO a function of arm and step, and grain one of arm and DINO; a little of each subject's own."""
    study = load_study("primary")
    made_curves(study, folder, lambda cell, steps, rng: np.ones(len(steps)))
    for i, cell in enumerate(study.cells):
        path, arm = folder / "records" / run_name(compose_cell(cell)) / "images.csv", cell.labels["bnn"]
        table = pd.read_csv(path)
        own = 0.01 * np.random.default_rng(i).standard_normal()
        table["dino"] = dino(arm, table["step"].to_numpy(np.float64)) + (own if arm == "prompt_dropout" else 0.0)
        table["hf_relative"] = grain(arm, table["dino"].to_numpy())
        table.to_csv(path, index=False)
        table.groupby("step").mean().drop(columns=["prompt", "image"]).reset_index().to_csv(path.with_name("curve.csv"), index=False)
    return open_primary(FILE, open_archive(folder))


def rising(arm: str, steps: Floats) -> Floats:
    """DINO; the empty prompt learns a third as fast."""
    return 0.8 - 0.6 * np.exp(-steps / (1500 if arm == "prompt_dropout" else 500))


def test_an_arm_that_only_learns_less_has_no_less_grain_at_the_same_likeness(tmp_path: Path) -> None:
    primary = made(tmp_path, rising, lambda arm, dino: 0.5 + dino)
    found = at_the_same_likeness(primary, "prompt_dropout", MIDDLE)
    assert found is not None and found.without_loss is not None
    assert found.same_steps.difference.mean[0] < -0.15
    assert found.matched.difference.mean[0] == pytest.approx(found.left.difference.mean[0]) == pytest.approx(0, abs=0.02)
    assert found.without_loss[0] == pytest.approx(0, abs=0.01)


def test_less_grain_beside_the_same_likeness_is_found_whole(tmp_path: Path) -> None:
    primary = made(tmp_path, lambda arm, steps: rising("off", steps), lambda arm, dino: 0.9 + 0 * dino - 0.2 * (arm == "prompt_dropout"))
    found = at_the_same_likeness(primary, "prompt_dropout", MIDDLE)
    assert found is not None and found.matched.difference.mean[0] == pytest.approx(-0.2)
    assert found.same_steps.difference.mean[0] == pytest.approx(-0.2) and found.left.difference.mean[0] == pytest.approx(0, abs=0.02)
    same = at_the_same_likeness(primary, "on", MIDDLE)
    assert same is not None and same.matched.difference.mean[0] == 0 and same.without_loss is None  # DINO differs on no subject
    text = page(primary).partition("only less likeness?")[2]
    assert "| prompt_dropout | -0.200 [" in text and "| on             | +0.000 [" in text and "not computed" in text


def test_nothing_is_said_while_runs_are_missing(tmp_path: Path) -> None:
    study = load_study("primary")
    made_curves(study, tmp_path, lambda cell, steps, rng: np.ones(len(steps)), study.cells[:3])
    assert at_the_same_likeness(open_primary(FILE, open_archive(tmp_path)), "on", MIDDLE) is None


def test_plain_runs_against_themselves_show_what_the_matching_alone_does(tmp_path: Path) -> None:
    """The nearest DINO is at another step: of the last checkpoint in the middle it is the next one, which has no grain any more."""
    flat = at_the_same_likeness(made(tmp_path / "flat", rising, lambda arm, dino: 0.9 + 0 * dino), "off", MIDDLE)
    assert flat is not None and flat.matched.difference.mean[0] == 0.0
    end = rising("off", np.array([950.0]))[0]
    hump = at_the_same_likeness(made(tmp_path / "hump", rising, lambda arm, dino: 0.9 + 0.3 * (dino < end)), "off", MIDDLE)
    inside = sum(MIDDLE[0] <= step <= MIDDLE[1] for step in compose_cell(load_study("primary").cells[0]).schedule.checkpoints)
    assert hump is not None and hump.matched.difference.mean[0] == pytest.approx(0.3 / inside)
