"""The power of a planned run."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from bayesdiff.config.compose import CONF
from bayesdiff.corruption.planning import planned_power, power_sentence
from tests.timed import cpu_seconds

PAIRS = np.array([step + apart for step in range(0, 1000, 80) for apart in (0, 20)])


def test_a_deeper_stage_is_found_at_least_as_often() -> None:
    found = [planned_power(PAIRS, 5, depth=depth) for depth in (0.01, 0.4, 0.8)]
    assert [one.avoid for one in found] == sorted(one.avoid for one in found)
    assert found[0].stage <= 0.2
    assert found[2].together == 1.0
    assert found[1].together >= found[1].stage


def test_the_power_is_a_function_of_the_design() -> None:
    assert planned_power(PAIRS, 5) == planned_power(PAIRS, 5)


@pytest.mark.parametrize("schedule", ["early", "curve", "paper", "early_15", "stage"])
def test_the_sentence_of_every_schedule_comes_quickly_and_says_what_to_change(schedule: str) -> None:
    steps = yaml.safe_load((CONF / "schedule" / f"{schedule}.yaml").read_text())["checkpoints"]
    said, seconds = cpu_seconds(lambda: power_sentence(steps, 5), 4)
    assert seconds < 4  # 2 on an idle core
    assert f"With {len(steps)} checkpoints x 5 images" in said
    assert "for more, judge 3 seeds" in said or "enough for one run" in said


def test_too_few_checkpoints_or_images_name_the_remedy() -> None:
    assert "6 or more" in power_sentence([0, 50, 100], 16)
    assert "cannot name steps to avoid" in power_sentence(PAIRS.tolist(), 1)
    assert "sampler=five" in power_sentence(PAIRS.tolist(), 1)
