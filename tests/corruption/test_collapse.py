"""A short curve that drops to another level is told from one that scatters, and bad images at the end are not to be kept."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bayesdiff.corruption import detect_corruption
from bayesdiff.corruption.collapse import LONGEST, collapse_p_value, collapsed
from bayesdiff.corruption.diagnosis import diagnose
from bayesdiff.corruption.monitor import reason_to_stop

GOOD, LOST = 0.75, 0.1


def dropping(count: int, good: int, images: int = 4) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps, and scores (T, images) that are good at first and lost for the rest."""
    rng = np.random.default_rng(count)
    level = np.where(np.arange(count) < good, GOOD, LOST)[:, None]
    own, noise = 0.05 * rng.standard_normal((1, images)), 0.03 * rng.standard_normal((count, images))
    return 100 * np.arange(1, count + 1), np.asarray(level + own + noise)


@pytest.mark.parametrize("count", range(6, 15))
@pytest.mark.parametrize("good", [2, 3, 4])
@pytest.mark.parametrize("images", [4, 16])
def test_a_training_that_lost_its_subject_is_never_called_one_at_its_peak(count: int, good: int, images: int) -> None:
    steps, scores = dropping(count, good, images)
    verdict = detect_corruption(steps, scores)
    assert set(verdict.labels[good:]) == {"corrupted"}
    assert verdict.best_step <= 100 * good and verdict.kind in ("in_progress", "none")
    assert (
        verdict.kind == "in_progress"
        or f"From step {steps[good]} on these images are worse than all before: keep none." in verdict.sentence
    )


@pytest.mark.parametrize(
    "curve", [[0.3, 0.62, 0.71, 0.74, 0.1, 0.1, 0.1, 0.1, 0.1], [0.77, 0.78, 0.77, 0.76, -0.1, -0.1, -0.2, -0.1, -0.1]]
)
@pytest.mark.parametrize("first", [0, 100])
def test_a_bare_curve_that_collapsed_is_not_told_to_train_longer(curve: list[float], first: int) -> None:
    verdict = detect_corruption(first + 100 * np.arange(9), curve)
    assert verdict.kind == "in_progress" and verdict.labels[4:] == ("corrupted",) * 5
    assert "train longer" not in verdict.sentence and "not back at the last checkpoint" in verdict.sentence
    assert ("lower learning rate" in verdict.sentence) == (first == 0)


def test_a_bare_curve_that_scatters_is_not_said_to_be_no_better_than_the_base() -> None:
    verdict = detect_corruption(100 * np.arange(9), [0.3, 0.62, 0.71, 0.74, 0.35, 0.33, 0.68, 0.73, 0.74])
    assert "no checkpoint is told from the base model (step 0), as this curve scatters by 0.1" in verdict.sentence
    assert "bayesdiff judge" in verdict.sentence


@pytest.mark.parametrize("count", [7, 8, LONGEST])
def test_scattering_curves_pass_for_a_collapse_as_often_as_said(count: int) -> None:
    """Half of alpha for independent swings; two deviations of 400 tries beside it. On rising curves never."""
    rng = np.random.default_rng(count)
    flat = 0.7 + 0.1 * rng.standard_normal((400, count))
    assert np.mean([collapsed(curve, 0.05) for curve in flat]) <= 0.025 + 2 * (0.025 * 0.975 / 400) ** 0.5
    assert not any(collapsed(curve + np.linspace(-0.5, 0, count), 0.05) for curve in flat[:100])


def test_the_chance_of_a_perfect_split_is_one_of_its_orders() -> None:
    """Five of nine below four: 126 ways to choose them, of which one is at the end."""
    assert collapse_p_value(np.array([4.0, 4.1, 4.2, 4.3, 0.1, 0.2, 0.3, 0.4, 0.5])) == pytest.approx(1 / 126, abs=0.004)
    assert not collapsed(np.repeat([4.0, 1.0], LONGEST), 0.05)  # longer curves have another test


def black_from(step: int, count: int = 12, images: int = 4) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
    """Fidelity that rises, and images that are all black from a step on."""
    steps = 100 * np.arange(count)
    rng = np.random.default_rng(0)
    dino = (0.8 - 0.6 * np.exp(-steps / 200))[:, None] + 0.03 * rng.standard_normal((count, images))
    black = np.repeat((steps >= step)[:, None], images, axis=1)
    return steps, {"dino": np.where(black, -0.1, dino), "failed": black.astype(np.float64)}


def test_samples_that_turn_black_for_good_are_a_diverged_training() -> None:
    steps, columns = black_from(800)
    verdict = diagnose(steps.tolist(), columns)
    assert verdict.kind == "diverged" and verdict.labels[8:] == ("corrupted",) * 4
    assert "From step 800 on most samples are black or not finite: training diverged" in verdict.sentence
    before = diagnose(steps[:8].tolist(), {name: values[:8] for name, values in columns.items()})
    assert (verdict.best_step, verdict.best_steps, verdict.labels[:8]) == (before.best_step, before.best_steps, before.labels)
    assert reason_to_stop(verdict, steps.tolist(), columns["dino"].mean(1)) == verdict.sentence


def test_one_black_checkpoint_is_no_reason_to_stop_yet_and_black_ones_in_between_are_judged() -> None:
    steps, columns = black_from(1100)
    verdict = diagnose(steps.tolist(), columns)
    assert verdict.kind == "diverged" and reason_to_stop(verdict, steps.tolist(), columns["dino"].mean(1)) == ""
    steps, columns = black_from(800)
    for values in columns.values():
        values[10:] = values[6:8]
    assert diagnose(steps.tolist(), columns).kind != "diverged"
