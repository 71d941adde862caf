"""Noise of a curve: what is measured, and what is drawn, as statistics."""

from __future__ import annotations

import numpy as np
import pytest

from bayesdiff.corruption.noise import Noise, correlated, measure_noise, roughness

Curve = np.ndarray


def test_roughness_measures_white_noise_around_any_line() -> None:
    noise = np.random.default_rng(0).standard_normal((400, 60))
    measured = roughness(0.3 + 0.01 * np.arange(60) + 0.05 * noise)
    assert np.mean(measured) == pytest.approx(0.05, rel=0.05)


def test_a_straight_line_has_no_roughness() -> None:
    assert roughness(np.linspace(0.2, 0.9, 12)) == pytest.approx(0, abs=1e-15)


def test_a_corner_or_two_are_no_noise() -> None:
    curve = np.interp(np.arange(20), [0, 6, 19], [0.2, 0.8, 0.8])
    assert roughness(curve) == pytest.approx(0, abs=1e-12)


def test_correlated_noise_has_unit_variance_and_the_correlation_asked_for() -> None:
    white = np.random.default_rng(1).standard_normal((20_000, 8))
    noise = correlated(white, 0.6)
    assert noise.var(0) == pytest.approx(np.ones(8), rel=0.04)
    assert (noise[:, 1:] * noise[:, :-1]).mean(0) == pytest.approx(np.full(7, 0.6), abs=0.03)
    assert (noise[:, 2:] * noise[:, :-2]).mean(0) == pytest.approx(np.full(6, 0.36), abs=0.03)
    assert np.array_equal(correlated(white, 0.0), white)


def scores(seed: int, steps: int = 30, images: int = 16, level: float = 0.2, wobble: float = 0.1, checkpoint: float = 0.0) -> Curve:
    rng = np.random.default_rng(seed)
    return (
        0.5
        + level * rng.standard_normal(images)
        + wobble * rng.standard_normal((steps, images))
        + checkpoint * rng.standard_normal((steps, 1))
    )


def test_the_error_of_images_leaves_their_levels_out() -> None:
    for level in (0.0, 0.5):
        measured = [measure_noise(scores(seed, level=level)).images.mean() for seed in range(20)]
        assert np.mean(measured) == pytest.approx(0.1 / 4, rel=0.05)


def test_checkpoints_that_are_noisier_have_larger_errors() -> None:
    table = scores(0, steps=20, images=64)
    table[10:] += 0.3 * np.random.default_rng(9).standard_normal((10, 64))
    errors = measure_noise(table).images
    assert errors[10:].min() > 1.5 * errors[:10].max()


def test_deviations_that_last_are_seen_as_that() -> None:
    """Images that change slowly: their correlation, and their size in spite of it."""
    for rho in (0.0, 0.4, 0.7):
        found = []
        for seed in range(40):
            rng = np.random.default_rng(seed)
            own = correlated(rng.standard_normal((16, 15)), rho).T
            found.append(measure_noise(0.5 + 0.2 * rng.standard_normal(16) + 0.1 * own))
        assert np.mean([noise.image_rho for noise in found]) == pytest.approx(rho, abs=0.1)
        assert np.mean([noise.images.mean() for noise in found]) == pytest.approx(0.1 / 4, rel=0.12)
        drawn = np.concatenate([noise.draw(np.random.default_rng(0), 200) for noise in found[:10]])
        steps = np.diff(drawn, axis=1).std()
        assert steps >= 0.9 * 0.025 * np.sqrt(2 * (1 - rho))


def test_noise_between_checkpoints_is_what_images_do_not_explain() -> None:
    for checkpoint in (0.0, 0.05):
        measured = [measure_noise(scores(seed, steps=60, checkpoint=checkpoint)).between() for seed in range(30)]
        assert np.median(measured) == pytest.approx(checkpoint, abs=0.012)


def test_a_given_noise_between_checkpoints_is_taken() -> None:
    noise = measure_noise(scores(0), checkpoint=0.07)
    assert noise.between() == 0.07
    assert noise.size() == pytest.approx(np.sqrt(noise.images**2 + 0.07**2))


def test_one_column_has_no_noise_of_images() -> None:
    noise = measure_noise(scores(0, images=1))
    assert not noise.images.any()
    assert noise.between() == noise.rough > 0


def test_the_scatter_of_runs_has_all_the_noise() -> None:
    rng = np.random.default_rng(0)
    runs = 0.5 + 0.05 * rng.standard_normal((40, 6))
    noise = measure_noise(runs, runs=True)
    assert noise.between() == 0
    assert noise.images.mean() == pytest.approx(0.05 / np.sqrt(6), rel=0.15)


def test_draws_have_the_size_and_the_correlation_that_was_measured() -> None:
    noise = Noise(np.full(10, 0.03), 150, 0.0, 0.04, 0.5)
    drawn = noise.draw(np.random.default_rng(0), 20_000)
    assert drawn.std() == pytest.approx(0.05, rel=0.03)
    lag = (drawn[:, 1:] * drawn[:, :-1]).mean()
    assert lag == pytest.approx(0.5 * 0.04**2, rel=0.1)


def test_draws_of_a_bare_curve_carry_the_uncertainty_of_its_roughness() -> None:
    """The pivot: over many white curves, (size drawn for them) has their true size in the middle of its range."""
    inside = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        noise = measure_noise(0.02 * rng.standard_normal((12, 1)))
        unit = rng.standard_normal((400, 12))
        sizes = noise.rough / roughness(unit)
        low, high = np.quantile(sizes, [0.05, 0.95])
        inside += low <= 0.02 <= high
    assert 0.84 <= inside / 200 <= 0.96


def test_draws_are_a_function_of_the_generator_s_seed() -> None:
    noise = measure_noise(scores(0))
    first, again = (noise.draw(np.random.default_rng(7), 50) for _ in range(2))
    assert np.array_equal(first, again)


def test_few_images_are_drawn_with_heavier_tails() -> None:
    few, many = (Noise(np.full(6, 0.1), freedom, 0.0, 0.0, 0.0).draw(np.random.default_rng(0), 50_000) for freedom in (5, 500))
    assert np.quantile(np.abs(few), 0.999) > 1.3 * np.quantile(np.abs(many), 0.999)
