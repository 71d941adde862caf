"""Directions, units and what a person says beside a curve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.readings import Options, Reading, judge
from bayesdiff.readings.thinning import thinned
from tests.corruption.test_detector import CLEAR, TWELVE


def curve(metric: str, scale: float = 1.0, **more: object) -> Reading:
    return Reading("curve", tuple(TWELVE), {metric: scale * CLEAR, "clip_t": np.full(CLEAR.shape, 0.3)}, metric, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", ["dino", "val/dino_similarity", "my cosine"])
def test_a_similarity_is_judged_as_it_stands(metric: str) -> None:
    verdict, shown = judge(curve(metric))
    assert verdict.flagged
    assert shown.columns[metric] == pytest.approx(CLEAR)
    assert shown.notes == ()


def test_a_distance_is_turned_and_makes_no_trade_off() -> None:
    verdict, shown = judge(curve("lpips", -1.0))
    assert verdict.flagged
    assert list(shown.columns) == ["lpips"]
    assert shown.columns["lpips"] == pytest.approx(CLEAR)
    assert "better when lower" in shown.notes[0]
    depth = 0.03 * float(np.ptp(CLEAR.mean(1)))
    assert shown.notes[1].startswith(f"the smallest depth is {depth:.3g}")


def test_this_package_calls_a_diversity_lpips() -> None:
    _, shown = judge(curve("lpips", own=True))
    assert shown.columns["lpips"] == pytest.approx(CLEAR)


def test_an_unknown_direction_is_asked_about_unless_someone_says() -> None:
    for metric in ("q17", "Value", "clip_lpips"):
        with pytest.raises(UserError, match=f"is a higher {metric} better"):
            judge(curve(metric))
    assert judge(curve("q17"), Options(higher_is_better=True))[0].flagged
    assert judge(curve("q17", -1.0), Options(higher_is_better=False))[0].flagged
    assert judge(curve("Value", higher_is_better=True))[0].flagged


def test_percent_has_its_own_smallest_depth() -> None:
    verdict, shown = judge(curve("dino", 100.0))
    assert verdict.flagged
    assert shown.notes == ("scores above 1 are taken as percent: the smallest depth is 3.0 (set it with --min-depth)",)
    shallow, _ = judge(curve("dino", 100.0), Options(min_depth=90.0))
    assert not shallow.flagged


def staged(low: float, high: float) -> np.ndarray:
    """A clear stage between two scores, (21, 1), at steps 0, 100, … 2000."""
    at = np.arange(0, 2001, 100)
    curve = 0.3 + 0.45 * (1 - np.exp(-at / 250)) - 0.3 * np.exp(-(((at - 1000) / 220) ** 4))
    curve = curve + 0.015 * np.random.default_rng(1).standard_normal(len(at))
    return np.asarray(low + (high - low) * (curve - curve.min()) / np.ptp(curve))[:, None]


UNITS = {"psnr": (18.0, 22.5), "aesthetic": (3.8, 6.3), "ImageReward": (-0.1, 2.0), "hpsv2": (0.26, 0.3), "score": (0.1, 7.0)}


@pytest.mark.parametrize("metric", UNITS)
def test_a_score_in_its_own_unit_has_a_smallest_depth_of_its_range(metric: str) -> None:
    """The same curve in any unit is the same finding: none of these is a share or percent."""
    low, high = UNITS[metric]
    steps = tuple(range(0, 2001, 100))
    verdict, shown = judge(Reading("curve", steps, {metric: staged(low, high)}, metric))
    alike, _ = judge(Reading("curve", steps, {"dino": staged(0.3, 0.75)}, "dino"))
    assert verdict.flagged
    assert (verdict.onset_step, verdict.recovery_step) == (alike.onset_step, alike.recovery_step)
    assert shown.notes == (f"the smallest depth is {0.03 * (high - low):.3g}, 3 % of the curve's range (set it with --min-depth)",)
    assert not judge(Reading("curve", steps, {metric: staged(low, high)}, metric), Options(min_depth=high - low))[0].flagged


def test_a_score_without_an_upper_end_makes_no_trade_off() -> None:
    """With 1 taken for all of it, every PSNR would be enough, and prompt alignment alone would choose step 100."""
    falling = np.linspace(0.3, 0.2, 21)[:, None]
    reading = Reading("curve", tuple(range(0, 2001, 100)), {"psnr": staged(18, 22.5), "clip_t": falling}, "psnr")
    verdict, shown = judge(reading)
    assert verdict.best_step == 100 * int(staged(18, 22.5)[:, 0].argmax())
    assert shown.notes[0] == "clip_t was not weighed: nothing says how much psnr can reach; fidelity alone decides"


def test_scores_that_are_all_not_finite_cannot_be_judged() -> None:
    verdict, _ = judge(Reading("curve", tuple(TWELVE), {"dino": np.full((12, 1), np.inf)}, "dino"))
    assert verdict.sentence.startswith("Cannot be judged: no score is finite.")


def test_prompts_have_to_be_known_to_be_sampled() -> None:
    with pytest.raises(UserError, match="--sampled-prompts needs"):
        judge(curve("dino"), Options(sampled_prompts=True))


@pytest.mark.parametrize("higher", [True, False])
def test_what_a_run_records_of_a_custom_metric_goes_before_its_name(higher: bool) -> None:
    """``clean_loss`` would be better when lower by its name; a table of others has no record, and goes by the name."""
    own = replace(curve("clean_loss", 1.0 if higher else -1.0, own=True), higher_is_better=higher)
    _, shown = judge(own)
    assert shown.columns["clean_loss"] == pytest.approx(CLEAR)
    _, by_name = judge(replace(own, own=False, higher_is_better=True))
    assert by_name.columns["clean_loss"] == pytest.approx(-own.columns["clean_loss"])


def test_a_thinned_log_asks_for_no_steps_between_those_that_are_shown() -> None:
    """Such a log has a row at each of them already; the same checkpoints alone do ask."""
    rng, at = np.random.default_rng(2), np.arange(10, 2_010, 10)
    curve = 0.3 + 0.4 * (1 - np.exp(-at / 250)) - 0.1 * np.exp(-(((at - 1_000) / 150) ** 2)) + 0.06 * rng.standard_normal(len(at))
    log = thinned(Reading("log", tuple(at.tolist()), {"dino": curve[:, None]}, "dino"))
    alone, _ = judge(replace(log, unthinned=None))
    assert alone.extra_steps
    assert "at steps" in alone.sentence
    verdict, _ = judge(log)
    assert verdict.extra_steps == ()
    assert "at steps" not in verdict.sentence
