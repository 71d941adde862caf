"""What one prompt alone shows is told from what all show, and the interval for other prompts knows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesdiff.config.identity import run_name
from bayesdiff.recording.archive import open_archive
from bayesdiff.studies.by_prompt import OTHER_PROMPTS, by_prompt
from bayesdiff.studies.plan import compose_cell, load_study
from bayesdiff.studies.primary import Primary, open_primary, parse_part
from bayesdiff.studies.primary_page import page
from tests.made_records import made_curves

FILE = Path(__file__).resolve().parents[2] / "results" / "primary.yaml"
PROMPTS = ["a photo of {identifier} {class_noun}", "a {identifier} {class_noun} in the jungle"]
RISE, MIDDLE = "off: middle - before > 0", "prompt_dropout - on: middle < 0"


def made(folder: Path, rises: tuple[float, float]) -> Primary:
    """The registered study, two prompts an image each: grain rises by so much in the middle, and not with the empty prompt."""
    study = load_study("primary")
    made_curves(study, folder, lambda cell, steps, rng: np.ones(len(steps)))
    for i, cell in enumerate(study.cells):
        run = folder / "records" / run_name(compose_cell(cell))
        table = pd.read_csv(run / "images.csv")
        table["prompt"], table["image"] = table["image"], 0
        own = 0.02 * np.random.default_rng(i).standard_normal()
        middle = table["step"].between(200, 1000) * (cell.labels["bnn"] != "prompt_dropout")
        table["hf_relative"] = 0.9 + middle * (np.array(rises)[table["prompt"]] + own)
        table.to_csv(run / "images.csv", index=False)
        record = json.loads((run / "record.json").read_text("utf-8"))
        record["config"]["sampler"] |= {"prompts": PROMPTS, "images_per_prompt": 1}
        (run / "record.json").write_text(json.dumps(record), "utf-8")
    return open_primary(FILE, open_archive(folder))


def widths(primary: Primary, text: str) -> tuple[dict[str, float], dict[str, float]]:
    """Prompt -> difference, and the width of its interval."""
    found = by_prompt(primary, parse_part(text, primary.registered), "main")
    return (
        {name: float(one.difference.mean[0]) for name, one in found.items()},
        {name: float(one.difference.high[0] - one.difference.low[0]) for name, one in found.items()},
    )


def test_a_rise_of_one_prompt_is_told_from_one_of_all(tmp_path: Path) -> None:
    primary = made(tmp_path, (0.4, 0.0))
    means, width = widths(primary, RISE)
    assert means == pytest.approx({"a photo of …": 0.4, "a … in the jungle": 0.0, OTHER_PROMPTS: 0.2}, abs=0.02)
    assert width[OTHER_PROMPTS] > 5 * width["a photo of …"]
    means, _ = widths(primary, MIDDLE)
    assert means == pytest.approx({"a photo of …": -0.4, "a … in the jungle": 0.0, OTHER_PROMPTS: -0.2}, abs=0.02)
    section = page(primary).partition("prompt by prompt")[2].partition("\n## ")[0]
    assert section.count("| main ") == 4 and "| guidance_1 " not in section and "| a … in the jungle" in section


def test_prompts_that_agree_leave_the_interval_as_it_is(tmp_path: Path) -> None:
    means, width = widths(made(tmp_path, (0.2, 0.2)), RISE)
    assert means[OTHER_PROMPTS] == pytest.approx(0.2, abs=0.02)
    assert width[OTHER_PROMPTS] == pytest.approx(width["a photo of …"], rel=0.01)


def test_nothing_is_said_while_runs_are_missing(tmp_path: Path) -> None:
    study = load_study("primary")
    made_curves(study, tmp_path, lambda cell, steps, rng: np.ones(len(steps)), study.cells[:3])
    primary = open_primary(FILE, open_archive(tmp_path))
    assert by_prompt(primary, parse_part(RISE, primary.registered), "main") == {}
