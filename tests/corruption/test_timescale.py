"""How long swings last, and whether a curve can say so."""

from __future__ import annotations

import numpy as np
import pytest

from bayesdiff.corruption.covariance import ImageError, correlation
from bayesdiff.corruption.noise import measure_noise
from bayesdiff.corruption.simulation_levels import PAIRED_STEPS
from bayesdiff.corruption.timescale import SHORT, Timescale, extra_steps, measure_timescale, noises_at

DENSE = np.arange(40) * 10


def bare(count: int) -> ImageError:
    return ImageError(np.zeros((count, count)), 0.0, 0.0)


def swinging(steps: np.ndarray, time: float, seed: int, size: float = 0.1) -> np.ndarray:
    root = np.linalg.cholesky(correlation(steps, time) + 1e-9 * np.eye(len(steps)))
    return 0.7 + size * root @ np.random.default_rng(seed).standard_normal(len(steps))


def measured(steps: np.ndarray, time: float, seed: int) -> Timescale:
    return measure_timescale(steps, swinging(steps, time, seed), bare(len(steps)))


@pytest.mark.parametrize("time", [0.0, 5.0])
def test_dense_checkpoints_show_short_swings(time: float) -> None:
    found = [measured(DENSE, time, seed) for seed in range(30)]
    assert np.median([scale.span[1] for scale in found]) <= 20
    assert np.mean([scale.slow for scale in found]) <= 0.15


@pytest.mark.parametrize("time", [95.0, 195.0])
def test_swings_that_outlast_the_spacing_are_mostly_seen(time: float) -> None:
    """Correlations of .9 and .95 between neighbours; where it is not seen, the long times are plausible in most cases."""
    found = [measured(DENSE, time, seed) for seed in range(40)]
    assert np.mean([scale.slow for scale in found]) >= 0.5
    assert np.mean([scale.slow or scale.span[1] >= 0.4 * time for scale in found]) >= 0.75


def test_a_slow_curve_makes_every_time_count() -> None:
    scale = next(scale for seed in range(20) if (scale := measured(DENSE, 195.0, seed)).slow)
    assert scale.plausible.all()


def test_clusters_say_more_than_the_same_number_of_checkpoints_far_apart() -> None:
    """Swings of 20 steps: which of the correlation times stay plausible."""
    even = np.linspace(0, int(PAIRED_STEPS[-1]), 15).astype(np.int64)
    clusters, few = (np.median([measured(steps, 20.0, seed).span[1] for seed in range(30)]) for steps in (PAIRED_STEPS, even))
    assert clusters <= 150
    assert few >= 2 * clusters


def test_the_size_is_the_size() -> None:
    sizes = [scale.sizes @ scale.weights[0] for seed in range(30) if (scale := measured(DENSE, 0.0, seed))]
    assert np.median(sizes) == pytest.approx(0.1, rel=0.15)


def test_noise_of_images_is_not_taken_for_swings() -> None:
    rng, error = np.random.default_rng(0), ImageError(0.1**2 * np.eye(40), 40.0, 0.0)
    shares = []
    for _ in range(20):
        scale = measure_timescale(DENSE, 0.7 + 0.1 * rng.standard_normal(40), error)
        shares.append(float(scale.sizes @ scale.weights[0]))
    assert np.median(shares) < 0.06


def test_what_was_measured_elsewhere_is_taken() -> None:
    curve = swinging(DENSE, 0.0, 1)
    assert measure_timescale(DENSE, curve, bare(40), time=7.0).times.tolist() == [7.0]
    scale = measure_timescale(DENSE, curve, bare(40), size=0.02)
    assert scale.sizes.tolist() == [0.02]
    (noise,) = noises_at(measure_noise(curve[:, None], checkpoint=0.02), DENSE, scale, 0)
    assert noise.between() == 0.02


def test_draws_have_the_correlation_of_their_time() -> None:
    curve = swinging(DENSE, 20.0, 3)
    scale = measure_timescale(DENSE, curve, bare(40), time=20.0)
    for noise in noises_at(measure_noise(curve[:, None]), DENSE, scale, 0):
        drawn = noise.draw(np.random.default_rng(0), 4000)
        drawn /= np.sqrt((drawn**2).mean(1, keepdims=True))
        assert (drawn[:, 1:] * drawn[:, :-1]).mean() == pytest.approx(np.exp(-0.5), abs=0.08)


def test_short_curves_have_one_way_to_read_the_size_and_longer_ones_two() -> None:
    for count, ways in ((SHORT, 1), (SHORT + 1, 2)):
        steps = np.arange(count) * 10
        curve = swinging(steps, 0.0, 0)
        scale = measure_timescale(steps, curve, bare(count))
        assert len(noises_at(measure_noise(curve[:, None]), steps, scale, 0)) == ways


def test_a_curve_without_noise_is_measured_without_complaint() -> None:
    for curve in (np.zeros(40), np.full(40, 0.3), np.linspace(0, 1, 40)):
        assert np.isfinite(measure_timescale(DENSE, curve, bare(40)).evidence).all()


def test_extra_checkpoints_lie_beside_those_of_the_dip_and_between_two() -> None:
    steps = np.arange(15) * 100
    scale = measure_timescale(steps, swinging(steps, 0.0, 0), bare(15))
    found = extra_steps(steps, 5, 8, scale)
    assert len(found) == 7
    for step in found:
        assert 300 < step < 1000 and step not in steps
