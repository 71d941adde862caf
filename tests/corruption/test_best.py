"""Which checkpoint to keep: what is weighed, and how sure it is."""

from __future__ import annotations

import numpy as np
import pytest

from bayesdiff.corruption.best import possible_best, trade_off
from bayesdiff.corruption.detector import detect_corruption
from tests.corruption.test_detector import CLEAR, TWELVE


def test_the_trade_off_is_a_harmonic_mean_of_shares() -> None:
    fidelity, alignment = np.array([0.2, 0.4, 0.9]), np.array([0.3, 0.3, 0.15])
    assert trade_off(fidelity, alignment, 0.8) == pytest.approx([2 * 0.25 / 1.25, 2 * 0.5 / 1.5, 2 * 0.5 / 1.5])


def test_a_checkpoint_s_rank_among_earlier_ones_does_not_depend_on_later_ones() -> None:
    rng = np.random.default_rng(0)
    fidelity, alignment = rng.random(12), 0.2 + 0.2 * rng.random(12)
    whole = trade_off(fidelity, alignment, 0.7)
    for count in range(2, 12):
        assert trade_off(fidelity[:count], alignment[:count], 0.7) == pytest.approx(whole[:count])


def test_the_best_of_equal_checkpoints_stays_in_the_set_in_95_percent_of_cases() -> None:
    """Whichever of them happened to be highest: a choice among twelve is not one comparison."""
    rng = np.random.default_rng(0)
    sizes, draws = np.linspace(0.01, 0.05, 12), 1000
    kept = [
        possible_best(sizes * rng.standard_normal(12), sizes * rng.standard_normal((draws, 12)), np.ones(12, dtype=bool))
        for _ in range(1000)
    ]
    assert np.abs(np.mean(kept, axis=0) - 0.95).max() < 0.03  # every one of them, noisy or not


def test_a_checkpoint_that_is_clearly_behind_or_not_allowed_is_not_among_the_best() -> None:
    scores, allowed = np.array([0.5, 0.8, 0.79, 0.9]), np.array([True, True, True, False])
    noise = 0.02 * np.random.default_rng(0).standard_normal((1000, 4))
    assert possible_best(scores, noise, allowed).tolist() == [False, True, True, False]


def test_steps_that_cannot_be_told_from_the_best_are_named() -> None:
    verdict = detect_corruption(TWELVE, CLEAR)
    assert verdict.best_step in verdict.best_steps
    for step in verdict.best_steps:
        assert verdict.labels[TWELVE.index(step)] not in ("corrupted", "recovering")
    assert 0 not in verdict.best_steps


@pytest.mark.parametrize("images", [1, 4])
def test_the_highest_of_equal_checkpoints_is_seldom_better_than_the_base(images: int) -> None:
    """A choice among ten: each taken alone, the highest exceeds step 0 in a third of such runs."""
    rng = np.random.default_rng(4)
    verdicts = [detect_corruption(TWELVE, 0.5 + 0.05 * rng.standard_normal((12, images)), seed=seed) for seed in range(60)]
    assert sum(verdict.better_than_base for verdict in verdicts) <= 7  # 3 expected
    assert {verdict.sentence.partition(":")[0] for verdict in verdicts if not verdict.better_than_base} == {"Keep nothing yet"}


def test_what_is_better_than_the_base_is_found() -> None:
    rng, gain = np.random.default_rng(5), np.array([0.0, *[0.08] * 11])
    verdicts = [detect_corruption(TWELVE, gain[:, None] + 0.05 * rng.standard_normal((12, 8)), seed=seed) for seed in range(20)]
    assert sum(verdict.better_than_base for verdict in verdicts) >= 18
