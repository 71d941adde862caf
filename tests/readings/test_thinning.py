"""Thinning invents no stage, hides none that is long enough, and says what it did."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesdiff.corruption import detect_corruption
from bayesdiff.corruption.shape import Array
from bayesdiff.readings.judging import judge
from bayesdiff.readings.reading import Reading
from bayesdiff.readings.thinning import MOST, WHOLE, thinned


def log(curve: Array, steps: Array | None = None) -> Reading:
    at = np.arange(len(curve)) if steps is None else steps
    return Reading("log", tuple(int(s) for s in at), {"dino": curve.reshape(len(curve), -1)}, "dino")


def test_a_short_curve_stays_as_it_is() -> None:
    reading = log(np.linspace(0, 1, WHOLE))
    assert thinned(reading) is reading


@settings(max_examples=50, deadline=None)
@given(count=st.integers(WHOLE + 1, 5_000))
def test_every_row_counts_once_in_windows_of_one_size(count: int) -> None:
    found = thinned(log(np.arange(count, dtype=float), np.arange(1, count + 1)))
    length = len(found.steps)
    assert MOST / 2 <= length <= MOST
    sizes = [len(rows) for rows in np.array_split(np.arange(count), length)]
    assert max(sizes) - min(sizes) <= 1
    assert np.average(found.columns["dino"][:, 0], weights=sizes) == pytest.approx((count - 1) / 2)
    assert np.abs(found.columns["dino"][:, 0] + 1 - found.steps).max() <= 0.5


@settings(max_examples=50, deadline=None)
@given(count=st.integers(WHOLE + 1, 5_000))
def test_the_base_model_is_in_no_window(count: int) -> None:
    curve = np.arange(count, dtype=float)
    curve[0] = 1e6
    found = thinned(log(curve))
    assert len(found.steps) <= MOST
    assert (found.steps[0], found.columns["dino"][0, 0]) == (0, 1e6)
    assert found.columns["dino"][1:].max() < count
    assert np.abs(found.columns["dino"][1:, 0] - found.steps[1:]).max() <= 0.5


@settings(max_examples=100, deadline=None)
@given(data=st.data(), top=st.floats(0, 1), count=st.integers(WHOLE + 1, 700))
def test_a_curve_with_one_mode_has_one_afterwards(data: st.DataObject, top: float, count: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    jumps = rng.exponential(size=count) ** 4
    peak = int(top * (count - 1))
    curve = np.cumsum(np.where(np.arange(count) <= peak, jumps, -jumps))
    means = thinned(log(curve)).columns["dino"][:, 0]
    highest = int(means.argmax())
    assert (np.diff(means[: highest + 1]) >= -1e-9).all()
    assert (np.diff(means[highest:]) <= 1e-9).all()


def test_the_note_says_what_was_done_and_what_may_not_show() -> None:
    found = thinned(log(np.linspace(0, 1, 6_000), 10 * np.arange(1, 6_001)))
    assert found.notes == (
        "6,000 rows thinned to 60 checkpoints: means of 100 neighbouring rows, each shown at its middle step; a stage shorter than 3,000 "
        "steps may not show, and noise that lasts longer than 1,000 is called slow, and no stage",
    )
    assert found.steps[:2] == (510, 1510)
    assert found.unthinned is not None
    assert found.unthinned.steps[-1] == 60_000
    assert found.unthinned.scores.shape == (6_000,)
    (with_base,) = thinned(log(np.linspace(0, 1, 5_901))).notes
    assert with_base.startswith("5,901 rows thinned to 60 checkpoints: step 0 as it is, and means of 100 neighbouring rows")


@pytest.mark.parametrize("count", [100, 200])
def test_a_base_model_that_is_the_best_is_seen_in_a_log_of_any_length(count: int) -> None:
    rng = np.random.default_rng(0)
    curve = np.where(np.arange(count) == 0, 0.8, 0.55 + 0.1 * np.arange(count) / count) + 0.01 * rng.standard_normal(count)
    verdict, shown = judge(thinned(log(curve, 10 * np.arange(count))))
    assert shown.steps[0] == 0
    assert not verdict.better_than_base
    assert verdict.sentence.startswith("Keep nothing yet")


def test_a_step_0_that_noise_may_have_made_is_left_out() -> None:
    """One row scatters ten times as much as a mean of 100: it would exceed all of them in half of the logs."""
    for seed in range(3):
        noise = 0.1 * np.random.default_rng(seed).standard_normal(6_000)
        noise[0] = 0.19
        verdict, shown = judge(thinned(log(0.5 + noise)))
        assert verdict.better_than_base
        assert shown.steps[0] > 0
        assert shown.notes[-1].startswith("step 0, the base model, is left out: single rows scatter by 0.")


def test_rows_that_are_not_finite_count_for_nothing_unless_they_are_half_of_a_window() -> None:
    curve = np.full(6_000, 0.5)
    curve[10:40] = np.inf
    curve[200:250] = np.inf
    found = thinned(log(curve, np.arange(1, 6_001)))
    assert np.isfinite(found.columns["dino"][:, 0]).tolist() == [True, True, False, *[True] * 57]
    assert found.columns["dino"][0, 0] == pytest.approx(0.5)
    assert found.notes[1].startswith("80 rows")


def noisy(seed: int, stage: float, size: float = 0.1, lasting: float = 40) -> Array:
    """6,000 rows that rise, with noise that lasts ``lasting`` rows (windows have 100), and a stage of so much depth."""
    from scipy.signal import lfilter

    rng, at, rho = np.random.default_rng(seed), np.arange(6_000), np.exp(-1 / lasting)
    noise = lfilter([np.sqrt(1 - rho**2)], [1, -rho], rng.standard_normal(7_000))[1_000:]
    return np.asarray(0.3 + 0.4 * (1 - np.exp(-at / 600)) - stage * np.exp(-(((at - 3_000) / 400) ** 2)) + size * noise)


def test_noise_that_lasts_less_than_a_window_is_no_stage_and_a_stage_is_found() -> None:
    """Of 12 logs without a stage, more than two flags would be an error rate above 5 % (p = .02)."""
    nothing = [thinned(log(noisy(seed, 0.0))) for seed in range(12)]
    assert sum(detect_corruption(r.steps, r.columns["dino"], seed=i).flagged for i, r in enumerate(nothing)) <= 2
    found = [thinned(log(noisy(seed, 0.5, 0.02))) for seed in range(2)]
    for reading in found:
        verdict = detect_corruption(reading.steps, reading.columns["dino"])
        assert verdict.flagged
        assert verdict.trough_step == pytest.approx(3_000, abs=400)
