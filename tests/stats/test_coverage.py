"""The intervals hold the difference as often as they say, at the designs that our studies have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesdiff.stats.coverage import DESIGNS, SCATTERS, coverage, coverage_rows, drawn

TABLE = Path(__file__).resolve().parents[2] / "results" / "detector" / "difference_coverage.csv"


@pytest.mark.parametrize(("subjects", "seeds"), [(16, 1), (4, 5), (3, 3)])
@pytest.mark.parametrize("scatter", ["images alone", "subjects", "runs", "subjects and runs"])
def test_an_interval_holds_the_difference_in_94_to_97_of_100(subjects: int, seeds: int, scatter: str) -> None:
    assert 0.94 <= coverage(subjects, seeds, SCATTERS[scatter], False, tries=8000) <= 0.97


def test_prompts_that_are_a_sample_have_to_be_said_to_be_one() -> None:
    assert coverage(16, 1, SCATTERS["prompts"], True, tries=4000) > 0.93
    assert coverage(16, 1, SCATTERS["prompts"], False, tries=4000) < 0.5


def test_what_is_drawn_has_the_shape_and_the_scatter_that_it_says() -> None:
    found = drawn(4, 2, {"subject": 3.0}, 50, np.random.default_rng(0))
    assert found.shape == (2, 4, 50, 8)
    assert found.mean((0, 3)).std() == pytest.approx(3.0, rel=0.2)
    assert found.std(3).mean() == pytest.approx(0.05, rel=0.15)


def test_the_committed_table_has_every_design() -> None:
    table = pd.read_csv(TABLE)
    assert set(map(tuple, table[["subjects", "seeds"]].to_numpy().tolist())) == set(DESIGNS)
    assert table["these prompts"].dropna().between(0.94, 0.97).all()
    assert table["sampled prompts"].between(0.935, 1.0).all()


@pytest.mark.slow
def test_the_committed_table_is_what_the_simulation_gives() -> None:
    table, again = pd.read_csv(TABLE), pd.DataFrame(coverage_rows(20_000, seed=2405))
    assert again["these prompts"].dropna().between(0.94, 0.97).all()
    pd.testing.assert_frame_equal(table, again.round(4), check_exact=False, atol=1e-4)
