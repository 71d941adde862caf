"""The page of public curves: the naive rule, what a curve could show, and that the page says what the table has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.studies.public_curves import detectable_ratio, judged, naive_fall, row_of, summary, table_text, with_table

FOLDER = Path(__file__).resolve().parents[2] / "results/curves"


def test_the_naive_rule_asks_for_a_return() -> None:
    assert naive_fall(np.array([0.1, 0.8, 0.5, 0.7])) == pytest.approx(0.2)
    assert naive_fall(np.array([0.1, 0.8, 0.5, 0.4])) == 0
    assert naive_fall(np.array([0.1, 0.2])) == 0


def test_few_points_show_no_stage_by_themselves_and_one_with_known_noise() -> None:
    assert np.isinf(detectable_ratio((100, 200, 300), False))
    assert 2 < detectable_ratio(tuple(range(100, 701, 100)), True) < 10


def test_the_page_is_made_of_the_table() -> None:
    rows, page = pd.read_csv(FOLDER / "verdicts.csv"), (FOLDER / "README.md").read_text()
    assert len(rows) == 33
    assert with_table(page, f"{summary(rows)}\n\n{table_text(rows)}") == page


def test_the_table_is_what_the_detector_says_today() -> None:
    kept = pd.read_csv(FOLDER / "verdicts.csv").set_index("curve")
    for verdict, reading in judged(FOLDER):
        name = reading.name.partition(" [")[2].rstrip("]").replace("/flux2-klein", "") or Path(reading.name).stem
        assert (kept["verdict"][name], kept["keep"][name]) == (verdict.kind, verdict.best_step)


def test_figure_1_is_found_and_its_bayesian_curve_is_not() -> None:
    kept = pd.read_csv(FOLDER / "verdicts.csv").set_index("curve")["verdict"]
    assert (kept["paper_figure_1_dreambooth"], kept["paper_figure_1_bnn"]) == ("corruption", "none")


def test_a_curve_without_noise_says_nothing_of_depths() -> None:
    one = next(one for one in judged(FOLDER) if one[0].kind == "too_few_points")
    assert np.isnan(row_of(one)["seen_alone"])


def test_a_page_without_its_marks_is_bad_input() -> None:
    with pytest.raises(UserError, match="make curves"):
        with_table("# Curves\n", "table")
