"""The simulations say what they simulate, and the bars that the levels have to meet are met."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bayesdiff.corruption.detector import detect_corruption, is_stage
from bayesdiff.corruption.simulation_levels import (
    FIGURE_1,
    FIGURE_1_STEPS,
    NULLS,
    PAIRED_STEPS,
    QUICK,
    Sizes,
    designs,
    null_cells,
    null_row,
    power_row,
    scores_of,
    time_of,
)  # fmt: skip

SMALL = replace(QUICK, repeats=2, most_repeats=2, checkpoints=(8,), first_images=(4,), third_images=(1,), correlations=(0.0, 0.9))


def test_neighbours_correlate_as_asked_for() -> None:
    steps = np.arange(2000) * 50
    drawn = scores_of(np.zeros(200), steps[:200], 1, np.random.default_rng(0), swings=1.0, time=time_of(0.9, 50))[:, 0]
    several = [
        scores_of(np.zeros(200), steps[:200], 1, np.random.default_rng(s), swings=1.0, time=time_of(0.9, 50))[:, 0] for s in range(40)
    ]
    assert np.mean([(d[1:] * d[:-1]).mean() for d in several]) == pytest.approx(0.9, abs=0.1)
    assert len(drawn) == 200


def test_rows_name_their_cells_and_are_a_function_of_the_sizes() -> None:
    rows = [null_row(SMALL, cell) for cell in null_cells(SMALL)]
    assert {row["level"] for row in rows} == {"L1", "L3"}
    for row, cell in zip(rows, null_cells(SMALL), strict=True):
        assert repr(null_row(SMALL, cell)) == repr(row)
    assert all(0 <= row["rate"] <= row["upper_95"] <= 1 for row in rows)


def test_power_has_a_row_a_design() -> None:
    rows = [power_row(replace(SMALL, power_repeats=1), design) for design in designs()]
    assert [row["design"] for row in rows] == [design.name for design in designs()]
    assert all(row["repeats"] == 1 for row in rows)


def test_figure_1_as_a_bare_curve_is_a_stage_with_its_recovery() -> None:
    verdict = detect_corruption(FIGURE_1_STEPS, FIGURE_1)
    assert (verdict.kind, verdict.level_3) == ("corruption", "stage")
    assert 2000 <= (verdict.recovery_step or 0) <= 2600


@pytest.mark.parametrize("images", [5, 16])
def test_figure_1_as_one_run_on_clusters_is_seen_by_both_levels(images: int) -> None:
    """Weight noise .10; the swings are measured by the clusters."""
    mean, found = np.interp(PAIRED_STEPS, FIGURE_1_STEPS, FIGURE_1), []
    for seed in range(20):
        found.append(is_stage(PAIRED_STEPS, scores_of(mean, PAIRED_STEPS, images, np.random.default_rng(seed), swings=0.1), seed=seed))
    stage, avoid = np.mean(found, axis=0)
    assert avoid >= 0.95
    assert stage >= 0.8


@pytest.mark.parametrize("rho", [0.6, 0.9, 0.95])
def test_dense_checkpoints_that_share_swings_are_no_stage(rho: float) -> None:
    """40 checkpoints at 50 steps, sd .1: 9 to 21 % of these were flagged with a fixed correlation of 0.6."""
    steps, mean = np.arange(40) * 50, NULLS["flat"](40)
    flags = [
        is_stage(steps, scores_of(mean, steps, 1, np.random.default_rng((1, s)), swings=0.1, time=time_of(rho)), min_depth=0.0)[0]
        for s in range(40)
    ]
    assert sum(flags) <= 5  # 2 expected at most; 6 or more has a chance of 1 %


def test_the_long_version_is_larger_than_the_quick_one() -> None:
    assert Sizes().repeats >= 10 * QUICK.repeats
