"""Steps in proportion to photographs: the run is the one whose steps were written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bayesdiff.config.compose import compose
from bayesdiff.config.derive import derive
from bayesdiff.config.identity import run_name
from bayesdiff.config.schema import Config
from bayesdiff.core.errors import UserError
from bayesdiff.studies.plan import compose_cell, load_study, models_of

SIX = ("+experiment=smoke", "schedule.steps=1200", "schedule.checkpoints=[0,200,600,1200]", "schedule.photos=6")


@pytest.mark.parametrize("build", [compose, derive])
def test_steps_are_in_proportion_to_photographs(build: Callable[[tuple[str, ...]], Config]) -> None:
    given = build((*SIX, "shots.count=4"))
    assert (given.schedule.steps, given.schedule.checkpoints, given.schedule.photos) == (800, [0, 133, 400, 800], None)
    written = build(("+experiment=smoke", "schedule.steps=800", "schedule.checkpoints=[0,133,400,800]", "shots.count=4"))
    assert run_name(given) == run_name(written)
    assert build((*SIX, "shots.count=6")).schedule.checkpoints == [0, 200, 600, 1200]


@pytest.mark.parametrize("build", [compose, derive])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("shots.count=null",), "shots.count, which is null; give shots.count=N"),
        (("schedule.photos=0",), "schedule.photos=0: give 1 or more"),
        (("shots.count=1", "schedule.photos=900"), "give increasing, distinct steps"),
    ],
)
def test_what_no_run_can_have_is_refused(build: Callable[[tuple[str, ...]], Config], words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build((*SIX, *words))


@pytest.mark.parametrize(("study", "of_faces"), [("table_1", False), ("table_1_faces", True), ("table_2", False)])
def test_tables_have_the_papers_steps_an_image(study: str, of_faces: bool) -> None:
    """200 for DreamBooth and OFT, 400 for LoRA and on SD 2.0; of faces 250."""
    for model in (name for name in models_of(study) if name != "toybox"):
        for cell in load_study(study, model).cells[::7]:
            cfg = compose_cell(cell)
            an_image = 400 if "sd20" in model or cfg.method.name == "lora" else 250 if of_faces else 200
            assert cfg.shots.count is not None
            assert cfg.schedule.steps == an_image * cfg.shots.count == cfg.schedule.checkpoints[-1], cell.name
