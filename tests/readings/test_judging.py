"""Directions, units and what a person says beside a curve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.readings import Options, Reading, judge
from tests.corruption.test_detector import CLEAR, TWELVE


def curve(metric: str, scale: float = 1.0, **more: object) -> Reading:
    return Reading("curve", tuple(TWELVE), {metric: scale * CLEAR, "clip_t": np.full(CLEAR.shape, 0.3)}, metric, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", ["dino", "score", "my cosine"])
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
