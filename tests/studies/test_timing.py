"""A time that the photograph sets is found, one that the order sets is not, and a plateau has a centre."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bayesdiff.core.errors import UserError
from bayesdiff.recording.archive import Archive, open_archive
from bayesdiff.studies.mechanism import load_plan, rows_by_study
from bayesdiff.studies.mechanism_page import timing_sentence, write_mechanism
from bayesdiff.studies.plan import Cell, load_study
from bayesdiff.studies.rows import Row
from bayesdiff.studies.timing import Timing, agreement, centre, shared_by_subjects
from tests.made_records import made_curves

FILE = Path(__file__).resolve().parents[2] / "results" / "mechanism.yaml"
PLAN = load_plan(FILE)
TIMING = PLAN.timings[0]


def hump(steps: NDArray[np.int64], at: float) -> NDArray[np.float64]:
    """Grain that rises by .3 around a step."""
    return np.asarray(0.8 + 0.3 * np.exp(-0.5 * ((steps - at) / 150) ** 2))


def by_photograph(cell: Cell, steps: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
    return hump(steps, 300 + 50 * len(cell.labels["data.subject"]) + 5 * rng.standard_normal())


def by_order(cell: Cell, steps: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
    return hump(steps, 550 + 150 * rng.standard_normal())


def made(tmp_path: Path, curve: object, seeds: tuple[str, ...] = ("1", "2")) -> tuple[Archive, list[Row]]:
    study = load_study("mechanism_photos")
    kept = tuple(cell for cell in study.cells if cell.labels["photographs"] == "1" and cell.labels["seed"] in seeds)
    archive = open_archive(made_curves(study, tmp_path / "set", curve, kept))  # type: ignore[arg-type]
    return archive, rows_by_study(PLAN, archive)[TIMING.study]


def test_a_time_of_the_photograph_is_found_and_said(tmp_path: Path) -> None:
    archive, rows = made(tmp_path, by_photograph)
    found = agreement(TIMING, rows)
    assert found is not None and len(found.subjects) == 8
    assert found.correlation > 0.9 and found.p_value < 0.01
    said = timing_sentence(TIMING, found)
    assert "It supports H1, contradicts H2." in said and "the photograph sets the time" in said
    page = write_mechanism(PLAN, rows_by_study(PLAN, archive), tmp_path)
    assert said in page.read_text() and (page.parent / f"{len(PLAN.contrasts) + 1:02d}.png").is_file()


def test_a_time_of_the_order_decides_nothing(tmp_path: Path) -> None:
    found = agreement(TIMING, made(tmp_path, by_order)[1])
    assert found is not None and found.p_value > 0.05
    assert "It does not decide." in timing_sentence(TIMING, found)


def test_another_evaluation_of_the_same_runs_is_asked_by_name(tmp_path: Path) -> None:
    """The registered question reads the run's own evaluation; a run without the other one is left out."""
    study, averaged = load_study("mechanism_photos"), PLAN.timings[1]
    kept = tuple(cell for cell in study.cells if cell.labels["photographs"] == "1")
    assert (averaged.row, averaged.window, averaged.evaluation, averaged.predicts) == (TIMING.row, TIMING.window, "ema", {})
    results = made_curves(study, tmp_path / "set", by_order, kept)
    assert agreement(averaged, rows_by_study(PLAN, open_archive(results))[TIMING.study]) is None
    made_curves(study, tmp_path / "both", by_photograph, kept, ("ema",))
    found = agreement(averaged, rows_by_study(PLAN, open_archive(tmp_path / "both"))[TIMING.study])
    assert found is not None and found.correlation > 0.9
    assert timing_sentence(averaged, found).startswith("**Exploratory.** ")


def test_it_waits_for_all_runs(tmp_path: Path) -> None:
    archive, rows = made(tmp_path, by_photograph, seeds=("1",))
    assert agreement(TIMING, rows) is None
    page = write_mechanism(PLAN, rows_by_study(PLAN, archive), tmp_path).read_text()
    assert f"## G: {TIMING.name}\n\nNot measured yet (`python -m bayesdiff.study mechanism_photos" in page


def test_a_row_of_one_order_is_refused(tmp_path: Path) -> None:
    plain = Timing("one order", "G", "mechanism_arms", {"arm": "plain"}, "grain", [150, 1000])
    rows = rows_by_study(PLAN, Archive(Path("nowhere"), {}, {}))["mechanism_arms"]
    with pytest.raises(UserError, match="one order: 1 seeds in its row; name a row of two"):
        agreement(plain, rows)


def test_a_plan_that_predicts_neither_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(FILE.read_text().replace("H2: order", "H2: seed"))
    with pytest.raises(UserError, match="choose photograph or order"):
        load_plan(tmp_path / "plan.yaml")


def test_the_centre_of_a_plateau_is_its_middle_and_a_flat_curve_has_none() -> None:
    steps = np.arange(0, 1001, 100)
    plateau = np.where((steps >= 300) & (steps <= 700), 1.0, 0.0)
    assert centre((steps, plateau), (0, 1000)) == 500
    assert centre((steps, plateau), (0, 500)) == 400
    assert np.isnan(centre((steps, np.ones(11)), (0, 1000))) and np.isnan(centre((steps, plateau), (2000, 3000)))


def test_a_shape_of_the_order_is_found_and_one_of_each_run_is_not(tmp_path: Path) -> None:
    """All subjects swing alike in one order: the least p-value of 128 swaps. Own swings of every run: p-values of chance."""

    def swinging(cell: Cell, steps: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
        return 0.8 + 0.1 * np.sin(steps / 100 + int(cell.labels["seed"])) + 0.01 * rng.standard_normal(len(steps))

    found = agreement(TIMING, made(tmp_path, swinging)[1])
    assert found is not None and found.order_p == 2**-7
    assert (
        "Subjects share part of what the two orders differ in (p = 0.008, swaps of the two orders), so that the order sets"
        in timing_sentence(TIMING, found)
    )
    rng = np.random.default_rng(0)
    by_chance = np.array([shared_by_subjects(rng.standard_normal((8, 14))) for _ in range(2000)])
    assert (by_chance <= 0.05).mean() == pytest.approx(0.05, abs=0.015)
    assert by_chance.mean() == pytest.approx(0.5, abs=0.03)


def test_a_level_is_no_shape_and_many_subjects_draw_their_swaps() -> None:
    rng = np.random.default_rng(0)
    own = rng.standard_normal((20, 14))
    alone = shared_by_subjects(own)
    assert alone == shared_by_subjects(own + 5.0) > 0.05
    assert shared_by_subjects(own + np.linspace(-2, 2, 14)) == pytest.approx(1e-5)
