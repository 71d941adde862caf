"""What runs can show is found by simulating runs like them."""

from __future__ import annotations

import numpy as np
import pytest

from bayesdiff.corruption import power
from bayesdiff.corruption.power import detectable_depth, found_together, stage_curve

ALPHA = 0.05


def runs_with(scatter: float, runs: int = 4, count: int = 12) -> np.ndarray:
    return np.linspace(0.3, 0.8, count) + scatter * np.random.default_rng(3).standard_normal((runs, count))


@pytest.fixture(autouse=True)
def fewer_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "TRIES", 30)
    monkeypatch.setattr(power, "RESAMPLES", 200)
    monkeypatch.setattr(power, "FINEST", 0.05)


def test_without_a_stage_none_is_found_more_often_than_by_chance() -> None:
    assert found_together(runs_with(0.05), 0.0, ALPHA) <= 0.15


def test_a_deeper_stage_is_found_more_often() -> None:
    shares = [found_together(runs_with(0.1), depth, ALPHA) for depth in (0.05, 0.2, 0.5)]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_the_depth_is_where_the_power_is_reached() -> None:
    curves = runs_with(0.1)
    depth = detectable_depth(curves, ALPHA)
    assert found_together(curves, depth, ALPHA) >= 0.8 > found_together(curves, depth - power.FINEST, ALPHA)


def test_more_scatter_hides_deeper_stages_and_much_of_it_all() -> None:
    assert detectable_depth(runs_with(0.02), ALPHA) < detectable_depth(runs_with(0.1), ALPHA)
    assert detectable_depth(runs_with(3.0), ALPHA) == float("inf")


def test_what_runs_have_in_common_does_not_matter() -> None:
    """Only their scatter: the curve is replaced by one with a stage."""
    curves = runs_with(0.1)
    assert found_together(curves, 0.2, ALPHA) == found_together(curves + stage_curve(12, 0.5, 0.3), 0.2, ALPHA)
