"""A schedule in proportion to the photographs: the paper gives its steps for each of them."""

from __future__ import annotations

from dataclasses import replace

from bayesdiff.config.schema import Config
from bayesdiff.core.errors import UserError


def in_proportion(cfg: Config) -> Config:
    """The configuration with the steps and checkpoints of its own number of photographs, as if they had been given.

    ``schedule.photos`` is the number that the schedule is meant for. What comes back has none: its run has the name of one whose steps
    were written out.

    Raises:
        UserError: ``schedule.photos`` below 1, or with ``shots.count=null``, a number that only the folder knows.
    """
    meant, count = cfg.schedule.photos, cfg.shots.count
    if meant is None:
        return cfg
    if meant < 1:
        raise UserError(f"schedule.photos={meant}: give 1 or more, or null for the schedule as it is")
    if count is None:
        raise UserError(f"schedule.photos={meant}: steps are in proportion to shots.count, which is null; give shots.count=N")
    steps, *checkpoints = (round(step * count / meant) for step in (cfg.schedule.steps, *cfg.schedule.checkpoints))
    return replace(cfg, schedule=replace(cfg.schedule, steps=steps, checkpoints=checkpoints, photos=None))
