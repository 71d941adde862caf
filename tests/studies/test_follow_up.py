"""Each question asked afterwards finds a made effect of its own kind, and no answer is given while runs are missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from bayesdiff.config.identity import run_name
from bayesdiff.recording.archive import open_archive
from bayesdiff.studies.follow_up import Answer, follow_up
from bayesdiff.studies.mechanism import load_plan, rows_by_study
from bayesdiff.studies.plan import Cell, compose_cell, load_study
from bayesdiff.studies.primary import Primary, open_primary
from bayesdiff.studies.primary_page import page
from bayesdiff.studies.timing import row_of
from tests.made_records import made_curves

FILE = Path(__file__).resolve().parents[2] / "results" / "primary.yaml"
PLAN = load_plan(FILE.with_name("mechanism.yaml"))
SHARE = 0.3
"""Rows with the empty prompt, as registered."""
LATER, DEVICE, GAP = "Is the empty prompt's arm only later?", "Is it the device?", "Does the gap carry what guidance adds?"
Steps = NDArray[np.int64]
Floats = NDArray[np.float64]


def hump(steps: Steps | Floats) -> Floats:
    return np.asarray(0.9 + 0.3 * np.exp(-0.5 * ((steps - 600) / 250) ** 2))


def made(folder: Path, grain: Callable[[Cell, Steps, np.random.Generator], Floats], on_gpu: tuple[str, ...] = ()) -> Primary:
    """The registered study with made grain, the same at guidance 1, some subjects on a GPU."""
    study = load_study("primary")
    made_curves(study, folder, grain, evaluations=("guidance_1",))
    for cell in study.cells:
        path = folder / "records" / run_name(compose_cell(cell)) / "record.json"
        record = json.loads(path.read_text("utf-8"))
        record["environment"]["gpu"] = "a GPU" if cell.labels["data.subject"] in on_gpu else ""
        path.write_text(json.dumps(record), "utf-8")
    return open_primary(FILE, open_archive(folder))


def of(primary: Primary, question: str) -> list[Answer]:
    return [one for one in follow_up(primary) if one.question == question]


def first_number(text: str) -> float:
    found = re.search(r"[+-]?\d+\.\d+", text)
    assert found is not None
    return float(found[0])


@pytest.mark.parametrize(("lower", "expected"), [(0.0, 0.0), (0.2, -0.2)])
def test_an_arm_that_is_only_later_changes_nothing_at_as_many_rows_with_the_prompt(tmp_path: Path, lower: float, expected: float) -> None:
    def delayed(cell: Cell, steps: Steps, rng: np.random.Generator) -> Floats:
        arm = cell.labels["bnn"] == "prompt_dropout"
        return hump(steps * (1 - SHARE * arm)) - lower * arm + 0.001 * rng.standard_normal()

    (answer,) = of(made(tmp_path, delayed), LATER)
    assert first_number(answer.found) == pytest.approx(expected, abs=0.01)
    assert answer.subjects == 16


def test_devices_that_differ_are_told_from_devices_that_do_not(tmp_path: Path) -> None:
    names = list(dict.fromkeys(cell.labels["data.subject"] for cell in load_study("primary").cells))
    half = tuple(names[:8])

    def of_the_gpu(cell: Cell, steps: Steps, rng: np.random.Generator) -> Floats:
        lower = 0.1 * (cell.labels["data.subject"] in half and cell.labels["bnn"] == "on")
        return hump(steps) - lower + 0.05 * rng.standard_normal(len(steps))

    answers = of(made(tmp_path / "both", of_the_gpu, half), DEVICE)
    told = {one.compared: float(one.found.rpartition("p ")[2].lstrip("=< ")) for one in answers}
    assert told["`on - off: middle < 0`"] <= 0.001 < 0.05 < told["`off: middle - before > 0`"]
    assert "GPU -0.1" in next(one.found for one in answers if "on - off" in one.compared)
    assert of(made(tmp_path / "one", of_the_gpu), DEVICE) == []


def test_the_gap_that_carries_grain_correlates_over_steps_and_over_subjects(tmp_path: Path) -> None:
    """Guidance adds ten times the gap: r = 1 over steps, and over subjects of other gaps. Swings are the same with and without guidance."""

    def level(cell: Cell, steps: Steps, rng: np.random.Generator) -> Floats:
        return np.asarray(0.8 + 0.1 * ((steps >= 360) & (steps <= 400)))

    primary = made(tmp_path, level)
    for i, one in enumerate(primary.row("off").found):
        gap = (0.01 + 0.002 * i) * hump(one.images.steps)
        probes = pd.DataFrame({"step": one.images.steps, "weights": "kept", "timestep": 100.0, "gap": gap})
        pd.concat([probes, probes.assign(timestep=900.0, gap=0.0)]).to_csv(one.folder / "probes.csv", index=False)
        table = pd.read_csv(one.folder / "images.csv")
        table["hf_relative"] += 10 * table["step"].map(dict(zip(one.images.steps, gap, strict=True)))
        table.to_csv(one.folder / "images.csv", index=False)
    primary = open_primary(FILE, open_archive(tmp_path))
    over_steps, over_subjects = of(primary, GAP)
    assert over_steps.found == "r = 1.00" and over_subjects.found == "r = 1.00 (p < 0.001)"
    at_guidance, without = of(primary, "Do swings need guidance?")
    assert first_number(without.found) == pytest.approx(0.1) and first_number(at_guidance.found) > 0.1


def with_dino(primary: Primary) -> Primary:
    """Bayesian weights add .01 a hundred steps up to 400, and .02 more or less a subject; the empty prompt takes .3."""
    for arm in ("on", "prompt_dropout"):
        for i, one in enumerate(primary.row(arm).found):
            table = pd.read_csv(one.folder / "images.csv")
            table["dino"] += 0.01 * table["step"].clip(upper=400) / 100 + 0.02 * (-1) ** i if arm == "on" else -0.3
            table.to_csv(one.folder / "images.csv", index=False)
            means = table.groupby("step").mean().drop(columns=["prompt", "image"]).reset_index()
            means.to_csv(one.folder / "curve.csv", index=False)
    return open_primary(FILE, open_archive(primary.found_runs[0].folder.parents[1]))


def test_the_page_has_every_answer_and_the_rise_of_other_orders(tmp_path: Path) -> None:
    primary = with_dino(made(tmp_path / "primary", lambda cell, steps, rng: hump(steps) + 0.01 * rng.standard_normal()))
    study = load_study("mechanism_photos")
    kept = tuple(cell for cell in study.cells if cell.labels["photographs"] == "1")

    def of_seed(cell: Cell, steps: Steps, rng: np.random.Generator) -> Floats:
        return np.where((steps > 200) & (steps < 950), 0.9 + 0.2 * int(cell.labels["seed"]), 0.9)

    made_curves(study, tmp_path / "photos", of_seed, kept)
    timing = PLAN.timings[0]
    rows = rows_by_study(PLAN, open_archive(tmp_path / "photos"))[timing.study]
    answers = follow_up(primary, row_of(timing, rows))
    orders = [one for one in answers if "another order" in one.question]
    assert [one.compared.partition("seed ")[2] for one in orders] == [f"{i} to step 1,000 with 2 images a checkpoint" for i in (1, 2)]
    assert [(first_number(one.found), one.subjects) for one in orders] == [(0.2, 8), (0.4, 8)]
    at = [one for one in answers if "Figure 7" in one.question]
    assert [(one.compared.split()[-4], first_number(one.found)) for one in at] == [("100", 0.01), ("200", 0.02), ("400", 0.04)]
    (spread,) = (one for one in answers if one.question == "How much do pairs differ?")
    assert (spread.found, spread.subjects) == ("0.021", 16)  # .02 times the root of 16 / 15
    section = page(primary, orders=row_of(timing, rows)).partition("## Exploratory: asked afterwards")[2].partition("\n## ")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| ")][1:]
    assert lines == [[one.question, one.compared, one.found, str(one.subjects)] for one in answers]


def test_a_diverged_run_leaves_its_half_out(tmp_path: Path) -> None:
    """It counts as ended; a half of few subjects shows no interval."""
    names = list(dict.fromkeys(cell.labels["data.subject"] for cell in load_study("primary").cells))
    primary = made(tmp_path, lambda cell, steps, rng: hump(steps) + 0.05 * rng.standard_normal(len(steps)), tuple(names[:4]))
    for one in primary.row("prompt_dropout").found:
        if one.place[1] in names[1:4]:
            path = one.folder / "record.json"
            path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"status": "diverged"}), "utf-8")
    primary = open_primary(FILE, open_archive(tmp_path))
    assert primary.complete and primary.diverged == 3
    assert {one.compared for one in of(primary, DEVICE)} == {
        "`off: middle - before > 0`",
        "`off: middle - after > 0`",
        "`on - off: middle < 0`",
    }
    assert "asked afterwards" in page(primary)


def test_nothing_is_said_while_runs_are_missing(tmp_path: Path) -> None:
    study = load_study("primary")
    made_curves(study, tmp_path, lambda cell, steps, rng: np.ones(len(steps)), study.cells[:3])
    assert follow_up(open_primary(FILE, open_archive(tmp_path))) == []
