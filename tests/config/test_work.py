"""The work of a run: what steps and checkpoints cost, against the configuration's own numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bayesdiff.config.schema import Config
from bayesdiff.config.work import Work, spoken, work_of


def test_a_guided_image_costs_two_passes_a_step(make_config: Callable[..., Config]) -> None:
    sampler = ("sampler.prompts=['a photo of {identifier} {class_noun}']", "sampler.images_per_prompt=3", "sampler.steps=10")
    assert work_of(make_config(*sampler)).of_checkpoint == 3 * 10 * 2
    assert work_of(make_config(*sampler, "sampler.guidance_scale=1")).of_checkpoint == 3 * 10
    more = "+evaluations={one:{guidance_scale:1},fine:{steps:20,images_per_prompt:1}}"
    assert work_of(make_config(*sampler, more)).of_checkpoint == 60 + 30 + 1 * 20 * 2


def test_a_step_costs_by_its_images(make_config: Callable[..., Config]) -> None:
    one, four = work_of(make_config("training.batch_size=1")), work_of(make_config("training.batch_size=4"))
    assert four.of_step == 4 * one.of_step
    assert work_of(make_config("training.batch_size=1", "method.prior_preservation=true")).of_step == 2 * one.of_step


def test_time_left_counts_checkpoints_that_are_to_come() -> None:
    work = Work(100, 1.0, 50.0, (0, 10, 20, 100))
    assert work.until(0) == 50
    assert work.until(20) == 20 + 150
    assert work.until(100) == 100 + 200
    assert work.seconds_left(0, 0, 1.0) is None
    # from 0 to 30: 30 steps and the checkpoints at 0, 10, 20 are 180; 70 steps and the one at 100 are left: 120
    assert work.seconds_left(0, 30, 360.0) == pytest.approx(240)
    # at step 20 its own checkpoint is to come: 120 are behind, 180 ahead
    assert work.seconds_left(0, 20, 120.0) == pytest.approx(180)
    # resumed at 20, whose checkpoint was not there yet
    assert work.seconds_left(20, 30, 60.0) == pytest.approx(120)


@pytest.mark.parametrize(("seconds", "words"), [(40, "40 s"), (720, "12 min"), (9000, "2.5 h")])
def test_times_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert spoken(seconds) == words
