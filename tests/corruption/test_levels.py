"""The first level: which checkpoints are worse than before and after, for the images at hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from bayesdiff.corruption.levels import MIN_IMAGES, Told, told_apart
from bayesdiff.corruption.simulation_levels import NULLS, scores_of

COUNT = 15
STEPS = np.arange(COUNT) * 50
DIP = np.where((np.arange(COUNT) >= 6) & (np.arange(COUNT) < 9), 0.4, 0.8)


def told(scores: np.ndarray, seed: int = 0, min_depth: float = 0.03) -> Told:
    found = told_apart(np.arange(len(scores)) * 50, scores, 0.05, min_depth, np.random.default_rng(seed))
    assert found is not None
    return found


def dip(seed: int, images: int, swings: float = 0.0) -> np.ndarray:
    return scores_of(DIP, STEPS, images, np.random.default_rng(seed), swings=swings)


@pytest.mark.parametrize("images", [4, 5, 16])
def test_a_run_of_bad_checkpoints_is_named(images: int) -> None:
    found = [told(dip(seed, images)).runs for seed in range(10)]
    hits = [runs for runs in found if len(runs) == 1 and (runs[0].start, runs[0].stop) == (6, 9)]
    assert len(hits) >= (9 if images > 5 else 7)
    for runs in hits:
        assert runs[0].strength > 1
        assert runs[0].depth == pytest.approx(0.4, abs=0.2)


def test_swings_are_as_bad_for_these_images_as_a_stage() -> None:
    """The level is of these weights: what made them bad is not asked."""
    curve = 0.7 + 0.2 * np.sin(np.arange(COUNT))
    runs = told(scores_of(curve, STEPS, 16, np.random.default_rng(0))).runs
    assert len(runs) == 2
    assert all(curve[run.start : run.stop].mean() < 0.65 for run in runs)


def test_a_single_bad_checkpoint_is_told_and_no_run() -> None:
    mean = np.where(np.arange(COUNT) == 7, 0.3, 0.8)
    for seed in range(10):
        found = told(scores_of(mean, STEPS, 16, np.random.default_rng(seed)))
        assert not found.runs
        assert found.worse[7, 6] and found.worse[7, 8]


@pytest.mark.parametrize("shape", ["saturating rise", "step down"])
def test_what_does_not_come_back_is_no_run(shape: str) -> None:
    found = [told(scores_of(NULLS[shape](COUNT), STEPS, 16, np.random.default_rng(seed)), seed, 0.0) for seed in range(60)]
    assert sum(bool(f.runs) for f in found) <= 6
    assert np.mean([f.worse[0, -1] or f.worse[-1, 0] for f in found]) == 1.0  # the change itself is told


@pytest.mark.parametrize("images", [4, 5, 16])
@pytest.mark.parametrize(("kind", "time"), [("normal", 0.0), ("normal", 500.0), ("heavy tails", 0.0), ("uneven", 0.0)])
def test_equal_checkpoints_are_seldom_told_apart(images: int, kind: str, time: float) -> None:
    """Any pair of them, which is more than a run needs."""
    wrong = runs = 0
    for seed in range(100):
        scores = scores_of(NULLS["flat"](COUNT), STEPS, images, np.random.default_rng(seed), image_time=time, kind=kind)
        found = told(scores, seed, 0.0)
        wrong += bool(found.worse.any())
        runs += bool(found.runs)
    assert runs <= 3
    assert binomtest(wrong, 100).proportion_ci(0.98, "exact").low <= 0.05


def test_a_dip_shallower_than_asked_for_is_none() -> None:
    assert told(dip(1, 16), min_depth=0.2).runs
    assert not told(dip(1, 16), min_depth=0.7).runs


def test_levels_of_images_do_not_matter() -> None:
    scores = dip(2, 8)
    here, there = told(scores), told(scores + 5 * np.random.default_rng(0).standard_normal(8))
    assert [(run.start, run.stop) for run in here.runs] == [(run.start, run.stop) for run in there.runs]
    assert np.array_equal(here.worse, there.worse)


def test_fewer_images_than_four_are_not_asked() -> None:
    assert told_apart(STEPS, dip(0, MIN_IMAGES - 1), 0.05, 0.03, np.random.default_rng(0)) is None


def test_equal_scores_are_not_told_apart() -> None:
    found = told(np.full((COUNT, 5), 0.3), min_depth=0.0)
    assert not found.runs and not found.worse.any()


def test_long_curves_are_looked_at_in_larger_units() -> None:
    mean = np.where((np.arange(150) >= 60) & (np.arange(150) < 90), 0.5, 0.8)
    (run,) = told(scores_of(mean, np.arange(150) * 50, 8, np.random.default_rng(0))).runs
    assert abs(run.start - 60) <= 3 and abs(run.stop - 90) <= 3
