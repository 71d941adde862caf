"""Contrasts find what was made, say same where nothing was, and decide nothing on runs that are not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bayesdiff.core.errors import UserError
from bayesdiff.recording.archive import Archive, open_archive
from bayesdiff.studies.contrasts import window_mean
from bayesdiff.studies.mechanism import (
    CONTRADICTS,
    DOES_NOT_DECIDE,
    SUPPORTS,
    Plan,
    judge,
    load_plan,
    outcome,
    pair_of,
    rows_by_study,
    said,
)
from bayesdiff.studies.mechanism_page import beside, sentence, write_mechanism
from bayesdiff.studies.plan import Cell, load_study
from tests.made_records import made_curves

FILE = Path(__file__).resolve().parents[2] / "results" / "mechanism.yaml"


def made(cell: Cell, steps: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Grain of 1 in the middle, less with the empty prompt, the same with another beta2."""
    height = 0.05 if cell.labels["arm"].startswith("empty") else 0.3
    own = float(height + 0.01 * rng.standard_normal())
    return np.where((steps > 200) & (steps < 950), 0.9 + own, 0.9)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """One study of the plan has its runs; the others have none."""
    study = load_study("mechanism_arms")
    kept = tuple(cell for cell in study.cells if cell.labels["arm"] in ("plain", "empty prompt 10 %", "beta2 .95"))
    return open_archive(made_curves(study, tmp_path_factory.mktemp("set"), made, kept))


def of(plan: Plan, archive: Archive, name: str) -> tuple[str, str]:
    """Outcome and sentence of a contrast."""
    contrast = next(one for one in plan.contrasts if one.name == name)
    pair = pair_of(contrast, rows_by_study(plan, archive))
    found = judge(contrast, pair, len(plan.contrasts))
    return "" if found is None else outcome(found, contrast.smallest), sentence(contrast, pair, found, len(plan.contrasts))


def test_what_was_made_is_found_and_what_was_not_is_the_same(archive: Archive) -> None:
    plan = load_plan(FILE)
    seen, text = of(plan, archive, "empty prompt in 10 % of the steps")
    assert seen == "lower" and "It contradicts H2, supports H4." in text and "8 subjects" in text
    assert of(plan, archive, "beta2 of .95")[0] == "same"


def test_runs_that_are_missing_are_said(archive: Archive) -> None:
    plan = load_plan(FILE)
    assert of(plan, archive, "guidance 1") == (
        "", "Not measured yet: 0 of 16 runs (`python -m bayesdiff.study mechanism_looks --results results/toybox`).",
    )  # fmt: skip


def test_the_page_has_every_contrast_and_a_figure_where_there_are_pairs(archive: Archive, tmp_path: Path) -> None:
    plan = load_plan(FILE)
    page = write_mechanism(plan, rows_by_study(plan, archive), tmp_path)
    text = page.read_text()
    assert text.count("\n## ") == 1 + len(plan.contrasts) + len(plan.timings) + 1 + len(plan.exploratory) + 1
    board = text.partition("## All contrasts at once")[2].partition("\n## ")[0]
    assert "H2 predicted 15: 0 supported, 1 contradicted; H4 predicted 11: 1 supported, 0 contradicted." in board
    assert "they differ so: H1 and H2 on 8 of 8, H1 and H4 on 0 of 5, H2 and H4 on 11 of 11." in board
    (dropped,) = (line.split("|") for line in board.splitlines() if "empty prompt in 10 %" in line)
    assert [word.strip() for word in dropped[-5:-1]] == ["lower", "", "same: contradicts", "lower: supports"]
    assert board.count("not measured yet") == len(plan.contrasts) - 2
    assert len(list(page.parent.glob("*.png"))) == 2 == text.count("![")


def test_what_else_a_contrast_changed_stands_beside_it_once_and_at_the_end_too(archive: Archive) -> None:
    """Less grain in the middle is none at the end, and DINO is the same. Contrasts without runs have no line; the same rows have one."""
    plan = load_plan(FILE)
    rows = rows_by_study(plan, archive)
    read = [(one, pair_of(one, rows)) for one in plan.contrasts]
    section = beside([*read, (replace(read[8][0], measure="dino"), read[8][1])])
    header, _, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    (dropped, beta) = (dict(zip(header, line, strict=True)) for line in lines)
    assert (dropped["contrast"], dropped["against"]) == ("K: arm empty prompt 10 %", "arm plain")
    assert beta["contrast"] == "F: arm beta2 .95"
    assert float(dropped["grain"].split()[0]) == pytest.approx(-0.25, abs=0.02)
    assert [dropped[name].split()[0] for name in ("grain, end", "DINO", "DINO, end")] == ["+0.000"] * 3
    assert dropped["CLIP-I"] == "-"  # not measured
    assert "No contrast has its runs." in beside([one for one in read if not one[1].complete])


def test_every_contrast_names_rows_that_its_study_has() -> None:
    plan = load_plan(FILE)
    rows = rows_by_study(plan, Archive(Path("nowhere"), {}, {}))
    for contrast in [*plan.contrasts, *plan.exploratory]:
        assert not pair_of(contrast, rows).complete
    for question in plan.mediations:
        assert not pair_of(question, rows).complete


def test_runs_of_other_lengths_meet_at_the_same_share_of_training(tmp_path: Path) -> None:
    """Three rates with as much rate times steps: their grain is the same function of the share, and so no difference is found."""
    study, plan = load_study("mechanism_rates"), load_plan(FILE)

    def grain(cell: Cell, steps: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
        return 0.8 + 0.5 * np.sin(np.pi * steps / steps[-1]) + 0.01 * rng.standard_normal()

    archive = open_archive(made_curves(study, tmp_path, grain))
    seen, text = of(plan, archive, "a quarter of the rate, as much rate x steps")
    assert seen == "same" and "8 subjects, 25 % to 90 % of training" in text and "supports H1, contradicts H2" in text


def test_what_nobody_predicted_says_so_and_widens_no_other_interval(tmp_path: Path) -> None:
    """The interval of an exploratory contrast is its own, of 95 %; a registered one's is that of the family, with or without it."""
    plan, study = load_plan(FILE), load_study("mechanism_arms")
    kept = tuple(cell for cell in study.cells if cell.labels["arm"] in ("plain", "beta2 .95", "beta2 .99"))
    page = write_mechanism(plan, rows_by_study(plan, open_archive(made_curves(study, tmp_path, made, kept))), tmp_path)
    registered, exploratory = (page.read_text().split(f"## F: beta2 of {name}")[1].split("\n## ")[0] for name in (".95", ".99"))
    assert "**It supports H1.**" in registered and f"({1 - 0.05 / len(plan.contrasts):.2%} interval, 8 subjects" in registered
    assert "**Exploratory.**" in exploratory and "(95.00% interval, 8 subjects" in exploratory


@pytest.mark.parametrize(
    ("predicted", "seen", "expected"),
    [("lower", "lower", SUPPORTS), ("same", "lower", CONTRADICTS), ("lower", "open", DOES_NOT_DECIDE), ("higher", "same", CONTRADICTS)],
)
def test_what_a_contrast_says_of_an_explanation(predicted: str, seen: str, expected: str) -> None:
    assert said(predicted, seen) == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("H2: lower", "H2: less", "choose lower"),
        ("H2: lower", "H5: lower", "no explanation H5"),
        ("window: [200, 800]", "window: [800, 200]", "first and its last"),
        ("smallest: 0.08", "smallest: 0", "smallest"),
        ("exploratory:", "explored:", "explored"),
        ("    row: {arm: beta2 .99}", "    predicts: {H1: same}\n    row: {arm: beta2 .99}", "is exploratory and predicts something"),
    ],
)
def test_a_plan_that_says_something_wrong_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "plan.yaml").write_text(FILE.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        load_plan(tmp_path / "plan.yaml")


def test_a_window_is_the_plain_mean_of_its_checkpoints() -> None:
    curve = (np.array([0, 50, 100, 300]), np.array([1.0, 2.0, 4.0, 9.0]))
    assert window_mean(curve, (50, 100)) == 3.0
    assert np.isnan(window_mean(curve, (400, 500)))
