"""Where a stage lies, how deep it is, and intervals that hold it: against curves whose stage is known."""

from __future__ import annotations

import numpy as np
import pytest

from bayesdiff.corruption.detector import detect_corruption
from bayesdiff.corruption.noise import CHECKPOINT_CORRELATION, Noise, measure_noise
from bayesdiff.corruption.simulation import slow_stage_curve
from bayesdiff.corruption.stage import REFITS, draws_beside, read_stage, read_stages, spread_of

FLAT = np.array([0.3, 0.75, 0.75, 0.75, 0.75, 0.45, 0.45, 0.45, 0.45, 0.45, 0.75, 0.75, 0.75, 0.75, 0.75])
"""A stage with corners and a flat floor, 0.3 deep."""
STEPS = np.arange(len(FLAT)) * 100


def known(count: int, checkpoint: float, images: float = 0.0) -> Noise:
    return Noise(np.full(count, images), 0, 0.0, checkpoint, CHECKPOINT_CORRELATION)


def test_a_stage_is_read_where_it_is() -> None:
    stage = read_stage(FLAT)
    assert (stage.onset, stage.recovery) == (5, 10)
    assert 1 <= stage.peak <= 4 < stage.trough <= 9
    assert stage.depth == pytest.approx(0.3)
    np.testing.assert_allclose(stage.fit, FLAT)


@pytest.mark.parametrize("count", [4, 7, 20, 45])
def test_many_curves_are_read_as_each_is_alone(count: int) -> None:
    """With the same bits; among them one without noise, and one with many equal values."""
    curves = np.random.default_rng(count).standard_normal((30, count))
    curves[0], curves[1] = 0.5, np.round(curves[1])
    assert [repr(stage) for stage in read_stages(curves)] == [repr(read_stage(curve)) for curve in curves]


def test_without_noise_depth_and_area_are_exact() -> None:
    spread = spread_of(read_stage(FLAT), STEPS, np.zeros(len(FLAT)), np.zeros((REFITS, len(FLAT))))
    assert spread.depth == pytest.approx(0.3)
    assert spread.depth_interval == pytest.approx((0.3, 0.3))
    assert spread.span(STEPS, "onset") == (500, 500)
    assert spread.area == pytest.approx(np.trapezoid(0.75 - FLAT[4:11], STEPS[4:11]))


def test_the_depth_of_a_flat_stage_is_not_that_of_its_noise() -> None:
    """Over 60 seeds the fit is too deep by more than 0.03, what is reported by less than half of that."""
    fitted, reported = [], []
    for seed in range(60):
        rng = np.random.default_rng((11, seed))
        noise = known(len(FLAT), 0.04)
        stage = read_stage(FLAT + noise.draw(rng, 1)[0])
        fitted.append(stage.depth - 0.3)
        reported.append(spread_of(stage, STEPS, noise.size(), noise.draw(rng, REFITS)).depth - 0.3)
    assert np.mean(fitted) > 0.03
    assert abs(np.mean(reported)) < 0.5 * np.mean(fitted)


def test_where_noise_tells_no_stage_apart_the_fit_is_drawn_around() -> None:
    stage = read_stage(FLAT)
    spread = spread_of(stage, STEPS, np.full(len(FLAT), 1.0), np.zeros((REFITS, len(FLAT))))
    assert spread.levels is stage.fit and len(spread.refits) == 1
    assert spread.depth == pytest.approx(0.3)


def test_corners_of_a_stage_are_no_noise() -> None:
    """Beside the stage the draws are of the noise that there is; read off the whole curve it is several times that."""
    rng = np.random.default_rng(5)
    curve = FLAT + 0.01 * rng.standard_normal(len(FLAT))
    noise = measure_noise(curve[:, None], rho=CHECKPOINT_CORRELATION)
    beside = draws_beside(read_stage(curve), curve, noise, rng)
    assert noise.between() > 0.03
    assert np.median(np.abs(beside)) < 0.5 * np.median(np.abs(noise.draw(rng, REFITS)))


def test_draws_beside_a_stage_have_at_least_the_noise_of_images() -> None:
    noise = Noise(np.full(len(FLAT), 0.02), 1000, 0.2, None, 0.0)
    draws = draws_beside(read_stage(FLAT), FLAT + 1e-4 * np.sin(np.arange(len(FLAT)) ** 2), noise, np.random.default_rng(0))
    assert np.sqrt((draws**2).mean()) > 0.01


def test_a_noise_that_is_known_is_not_read_off_again() -> None:
    noise = known(len(FLAT), 0.02)
    draws = draws_beside(read_stage(FLAT), FLAT, noise, np.random.default_rng(3))
    np.testing.assert_array_equal(draws, noise.draw(np.random.default_rng(3), REFITS))


@pytest.mark.parametrize("size", [0.002, 0.01])
def test_the_interval_of_a_slow_quiet_stage_holds_its_depth(size: float) -> None:
    """Of 20 bare curves: a fit of slopes follows noise, which must not make it look small."""
    held = 0
    for seed in range(20):
        curve = slow_stage_curve(40, 0.3) + size * np.random.default_rng((7, seed)).standard_normal(40)
        verdict = detect_corruption(np.arange(40), curve, seed=seed)
        assert verdict.flagged
        held += verdict.depth_interval[0] <= 0.3 <= verdict.depth_interval[1]
    assert held >= 17  # 95 % of 20, less what chance may take with probability 0.98


def test_levels_that_arithmetic_alone_parts_are_one_level() -> None:
    stage = read_stage(np.array([-2.4e-38, -9.1e-38, 3.2e-38, -1.1e-38, 6.5e-39, -1.4e-38]))
    assert 0 <= stage.peak < stage.trough < 6
    assert abs(stage.depth) < 1e-30
