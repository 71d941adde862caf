"""The geometry of curves: stages, their contrasts, and fits with one mode or two, against brute force."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from bayesdiff.corruption.shape import (
    SIDE_WIDTHS,
    fall_strength,
    flattened,
    monotone_fit,
    stage_fit,
    stage_strength,
    stage_widths,
    strongest_stage,
    unimodal_fit,
    window_means,
)

Curve = np.ndarray


def brute_strength(curve: Curve) -> tuple[float, int, int]:
    """Strength, first checkpoint and width of the strongest stage, one window after the other."""
    best = (-np.inf, 0, 0)
    count = len(curve)
    for width in stage_widths(count):
        for start in range(1, count - width):
            floor = np.sort(curve[start : start + width])[1:].mean()
            sides = []
            for side in (curve[:start], curve[start + width :]):
                windows = [(side[i : i + v].mean(), v) for v in SIDE_WIDTHS for i in range(len(side) - v + 1)]
                sides.append(max((mean - floor) / np.sqrt(1 / v + 1 / width) for mean, v in windows))
            if min(sides) > best[0] + 1e-12:
                best = (min(sides), start, width)
    return best


@pytest.mark.parametrize("count", [4, 5, 6, 9, 17])
def test_the_strongest_stage_is_the_strongest_of_all(count: int) -> None:
    curves = np.random.default_rng(count).standard_normal((15, count))
    strengths = stage_strength(curves)
    for curve, strength in zip(curves, strengths, strict=True):
        expected, start, width = brute_strength(curve)
        assert strength == pytest.approx(expected)
        assert strongest_stage(curve) == (start, width)


def test_the_contrast_is_in_units_of_one_checkpoint_s_noise() -> None:
    """A stage of two between sides of four: the difference of means 1 has standard error sqrt(1/4 + 1/2)."""
    curve = np.array([1.0, 1, 1, 1, 0, 0, 1, 1, 1, 1])
    assert stage_strength(curve) == pytest.approx(1 / np.sqrt(1 / 4 + 1 / 2))


def test_a_single_low_checkpoint_is_no_stage_at_any_width() -> None:
    curve = np.ones(20)
    curve[9] = -5
    assert stage_strength(curve) == 0


def test_a_curve_with_one_mode_has_no_stage() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        mode = int(rng.integers(12))
        steps = np.abs(rng.standard_normal(12))
        curve = np.concatenate([np.cumsum(steps[:mode]), np.sum(steps[:mode]) - np.cumsum(steps[mode:])])
        assert stage_strength(curve) <= 1e-12


def test_strength_is_free_of_level_and_linear_in_scale() -> None:
    curves = np.random.default_rng(1).standard_normal((20, 12))
    assert stage_strength(3 * curves - 7) == pytest.approx(3 * stage_strength(curves))


def test_widths_begin_at_two_and_end_at_half() -> None:
    assert stage_widths(4) == [2]
    assert stage_widths(12) == [2, 3, 4, 6]
    assert stage_widths(40)[-1] == 19
    for count in range(4, 60):
        widths = stage_widths(count)
        assert widths == sorted(set(widths))
        assert widths[-1] <= max(count // 2, 2)


def test_window_means_are_means_of_windows() -> None:
    curve = np.array([1.0, 2, 4, 8])
    assert window_means(curve, 2) == pytest.approx([1.5, 3, 6])
    assert window_means(np.stack([curve, -curve]), 4) == pytest.approx(np.array([[3.75], [-3.75]]))


def test_the_fall_at_the_end_is_measured_from_the_best_before_it() -> None:
    assert fall_strength(np.array([0.0, 1, 1, 1, 1, 0, 0])) == pytest.approx(1 / np.sqrt(1 / 4 + 1 / 2))
    assert fall_strength(np.linspace(0, 1, 9)) < 0
    assert fall_strength(np.array([0.0, 1, 0, 0, 1, 1, 1])) < 0.01


def is_unimodal(curve: Curve) -> bool:
    mode = int(curve.argmax())
    return bool((np.diff(curve[: mode + 1]) >= -1e-12).all() and (np.diff(curve[mode:]) <= 1e-12).all())


def brute_unimodal(curve: Curve) -> float:
    """Smallest squared error of a unimodal curve; the optimum is a partition into blocks at their means."""
    best, inner = np.inf, range(1, len(curve))
    for cuts in (cut for size in range(len(curve)) for cut in combinations(inner, size)):
        fit = np.concatenate([np.full(b - a, curve[a:b].mean()) for a, b in pairwise((0, *cuts, len(curve)))])
        if is_unimodal(fit):
            best = min(best, float(((fit - curve) ** 2).sum()))
    return best


def test_the_unimodal_fit_is_the_closest_there_is() -> None:
    rng = np.random.default_rng(1)
    for curve in (rng.standard_normal(count) for count in (3, 4, 5, 6, 7) for _ in range(6)):
        fit = unimodal_fit(curve)
        assert is_unimodal(fit)
        assert float(((fit - curve) ** 2).sum()) == pytest.approx(brute_unimodal(curve), abs=1e-12)


UNIMODAL = (
    np.array([0.1, 0.4, 0.7, 0.7, 0.7]),
    np.array([0.1, 0.9, 0.5, 0.5, 0.2]),
    np.full(6, 0.5),
    np.array([0.9, 0.5, 0.4]),
)


@pytest.mark.parametrize("curve", UNIMODAL, ids=["rise", "decline", "flat", "fall"])
def test_a_unimodal_curve_is_its_own_fit(curve: Curve) -> None:
    assert unimodal_fit(curve) == pytest.approx(curve, abs=1e-12)


def test_the_monotone_fit_never_falls() -> None:
    curve = np.random.default_rng(2).standard_normal(30)
    assert (np.diff(monotone_fit(curve)) >= 0).all()
    assert monotone_fit(np.array([1.0, 3, 2])) == pytest.approx([1, 2.5, 2.5])


def test_the_stage_fit_has_one_mode_on_each_side_of_the_floor() -> None:
    curve = np.array([0.2, 0.8, 0.7, 0.3, 0.35, 0.9, 0.85])
    assert stage_fit(curve, 3) == pytest.approx(curve)
    noisy = curve + 0.05 * np.random.default_rng(0).standard_normal(7)
    fit = stage_fit(noisy, 3)
    assert is_unimodal(fit[:3])
    assert is_unimodal(fit[3:])


def test_flattening_forgets_steps_within_noise_and_keeps_the_others() -> None:
    fit = np.array([0.0, 0.0, 1.0, 1.05, 1.1, 1.05])
    assert flattened(fit, np.full(6, 0.1), 2.0) == pytest.approx([0, 0, 1.05, 1.05, 1.05, 1.05])
    assert flattened(fit, np.full(6, 0.001), 2.0) == pytest.approx(fit)
    assert flattened(fit, np.full(6, 10.0), 2.0) == pytest.approx(np.full(6, fit.mean()))


def test_flattening_keeps_the_mean_and_the_one_mode() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        fit = unimodal_fit(rng.standard_normal(15))
        flat = flattened(fit, np.full(15, 0.4), 2.0)
        assert flat.mean() == pytest.approx(fit.mean())
        assert is_unimodal(flat)
        assert len(set(flat)) <= len(set(fit))


def test_nothing_is_flattened_without_noise() -> None:
    fit = unimodal_fit(np.random.default_rng(4).standard_normal(9))
    assert flattened(fit, np.zeros(9), 2.0) == pytest.approx(fit)
