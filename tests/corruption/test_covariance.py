"""The covariance of checkpoints' means over images: what it is for noise that is known."""

from __future__ import annotations

import numpy as np
import pytest

from bayesdiff.corruption.covariance import candidate_times, correlation, image_error

STEPS = np.array([0, 50, 100, 150, 250, 350, 450, 600, 750, 900, 1050, 1200])


def scores(seed: int, time: float, images: int, own: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(correlation(STEPS, time))
    return 0.7 + 0.3 * rng.standard_normal(images) + own * root @ rng.standard_normal((len(STEPS), images))


def test_correlation_falls_off_over_steps_and_none_is_white() -> None:
    assert correlation(STEPS, 100.0)[0, 2] == pytest.approx(np.exp(-1))
    assert np.array_equal(correlation(STEPS, 0.0), np.eye(12))


@pytest.mark.parametrize("images", [4, 16, 100])
@pytest.mark.parametrize("time", [0.0, 100.0])
def test_differences_of_checkpoints_have_the_variance_they_have(time: float, images: int) -> None:
    """Neighbours and far-apart ones, whatever the images' own levels."""
    far, near = np.eye(12)[1] - np.eye(12)[10], np.eye(12)[4] - np.eye(12)[5]
    for contrast in (far, near):
        seen = [contrast @ image_error(STEPS, scores(seed, time, images)).covariance @ contrast for seed in range(60)]
        true = contrast @ correlation(STEPS, time) @ contrast * 0.1**2 / images
        assert np.mean(seen) == pytest.approx(true, rel=0.25)


def test_deviations_that_last_are_seen_to_last() -> None:
    assert np.median([image_error(STEPS, scores(seed, 150.0, 16)).time for seed in range(20)]) == pytest.approx(150, rel=0.7)
    assert np.median([image_error(STEPS, scores(seed, 0.0, 16)).time for seed in range(20)]) < 30


def test_one_image_says_nothing() -> None:
    error = image_error(STEPS, scores(0, 0.0, 1))
    assert not error.covariance.any() and error.freedom == 0


def test_times_to_try_begin_with_none_and_follow_the_steps() -> None:
    times = candidate_times(STEPS)
    assert times[0] == 0 and times == sorted(times)
    assert times[1] < 50 and times[-1] == pytest.approx(600)
    assert candidate_times(10 * STEPS) == pytest.approx([10 * time for time in times])
