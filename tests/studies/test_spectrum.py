"""Speckle raises fine contrast alone; more contrast at all scales raises both, and leaves their ratio."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesdiff.config.identity import run_name
from bayesdiff.recording.archive import open_archive
from bayesdiff.studies.plan import compose_cell, load_study
from bayesdiff.studies.primary import Primary, open_primary
from bayesdiff.studies.primary_page import page
from bayesdiff.studies.spectrum import as_factor, spectrum
from tests.made_records import made_curves

FILE = Path(__file__).resolve().parents[2] / "results" / "primary.yaml"
PHOTO = {"hf_energy": 0.3, "band_fine": 0.1, "band_middle": 0.2}
LINES = ("periods of 2 to 4 pixels", "periods of 4 to 16 pixels", "fine over middle")
FINE = {"off": 1.5, "on": 1.2, "prompt_dropout": 1.0}
COARSE = {"off": 1.0, "on": 1.2, "prompt_dropout": 1.0}
"""Factors in the middle of training: of speckle alone, of all contrast, of nothing."""


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Primary:
    folder, study = tmp_path_factory.mktemp("spectrum"), load_study("primary")
    made_curves(study, folder, lambda cell, steps, rng: np.ones(len(steps)))
    for i, cell in enumerate(study.cells):
        record = folder / "records" / run_name(compose_cell(cell))
        table, arm = pd.read_csv(record / "images.csv"), cell.labels["bnn"]
        middle, own = (table["step"] > 200) & (table["step"] < 1000), np.exp(0.02 * np.random.default_rng(i).standard_normal())
        table["band_fine"] = PHOTO["band_fine"] * own * np.where(middle, FINE[arm], 1.0)
        table["band_middle"] = PHOTO["band_middle"] * own * np.where(middle, COARSE[arm], 1.0)
        table.to_csv(record / "images.csv", index=False)
        content = json.loads((record / "record.json").read_text("utf-8"))
        (record / "record.json").write_text(json.dumps(content | {"photographs": PHOTO}), "utf-8")
    return open_primary(FILE, open_archive(folder))


def test_contrast_is_told_from_fine_structure(primary: Primary) -> None:
    for arm in FINE:
        lines = spectrum(primary, arm)
        seen = [float(np.exp(lines[name]["middle over before"].difference.mean[0])) for name in LINES]
        assert seen == pytest.approx([FINE[arm], COARSE[arm], FINE[arm] / COARSE[arm]])
        assert float(np.exp(lines[LINES[0]]["before"].difference.mean[0])) == pytest.approx(1, abs=0.02)


def test_the_page_gives_factors_of_the_photographs(primary: Primary) -> None:
    assert as_factor(spectrum(primary, "off")[LINES[2]]["middle over after"]) == "1.50 [1.50, 1.50]"
    text = page(primary).partition("fine structure, or contrast at all scales?")[2].partition("\n## ")[0]
    assert text.count("| main ") == 9 and "middle over before" in text


def test_runs_without_the_measure_say_so(tmp_path: Path) -> None:
    study = load_study("primary")
    made_curves(study, tmp_path, lambda cell, steps, rng: np.ones(len(steps)))
    text = page(open_primary(FILE, open_archive(tmp_path)))
    assert "The runs have no contrast by spatial frequency." in text
