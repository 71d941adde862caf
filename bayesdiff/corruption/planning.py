"""What a planned run can show, before it is made: by a short simulation of its checkpoints and images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesdiff.core.seeds import derive
from bayesdiff.corruption.detector import MIN_POINTS, decide
from bayesdiff.corruption.levels import MIN_IMAGES
from bayesdiff.corruption.power import WIDTH, stage_curve
from bayesdiff.corruption.simulation_levels import scores_of

DEPTH, SWINGS, TIME = 0.4, 0.1, 31.0
"""The stage that is looked for (Figure 1's is .43 deep), and assumed swings: their standard deviation and correlation time in steps.

On toybox runs they were measured at .035 (rates up to 5e-4) to .18 (1e-3), with 31 steps.
"""
TRIES, RESAMPLES = 16, 200
"""So few that the answer comes in about a second; shares are told to the nearest 10 %."""
SEVERAL = 3


@dataclass(frozen=True)
class PlannedPower:
    """Shares of simulated tries."""

    avoid: float
    """In which one run names checkpoints to avoid."""
    stage: float
    """In which one run tells the stage from its swings."""
    together: float
    """In which ``SEVERAL`` runs with the stage at the same steps show it together."""


def planned_power(
    steps: NDArray[np.int64], images: int, *, depth: float = DEPTH, swings: float = SWINGS, time: float = TIME
) -> PlannedPower:
    """Simulate runs at these steps (T,), T at least 6, with a stage over a third of the checkpoints' range; a function of its arguments."""
    fine = stage_curve(401, depth, WIDTH)
    mean = np.interp((steps - steps[0]) / (steps[-1] - steps[0]), np.linspace(0, 1, 401), fine)
    one, several = [], []
    for repeat in range(TRIES):
        rng = np.random.default_rng(derive(repeat, "planned power"))
        runs = np.stack([scores_of(mean, steps, images, rng, swings=swings, time=time) for _ in range(SEVERAL)])
        one.append(decide(steps, runs[0], seed=repeat, resamples=RESAMPLES))
        if repeat % 2:  # the scatter of runs tells more: half as many tries say as much
            several.append(decide(steps, runs, seed=repeat, resamples=RESAMPLES).stage)
    return PlannedPower(float(np.mean([d.avoid for d in one])), float(np.mean([d.stage for d in one])), float(np.mean(several)))


def power_sentence(steps: list[int], images: int) -> str:
    """What a run with these checkpoints and images a checkpoint can show, and what to change for more; one sentence."""
    if len(steps) < MIN_POINTS:
        return f"{len(steps)} checkpoints are too few for a verdict; give {MIN_POINTS} or more (schedule=early, curve or paper)."
    found = planned_power(np.array(steps), images)
    sees = f"names the steps to avoid in {_about(found.avoid)}" if images >= MIN_IMAGES else "cannot name steps to avoid"
    return (
        f"With {len(steps)} checkpoints x {images} images, one run with a stage {DEPTH} deep {sees} and tells the stage from swings "
        f"in {_about(found.stage)} of tries (assumed: swings of {SWINGS} that last {TIME:.0f} steps); {_more(images, found)}."
    )


def _about(share: float) -> str:
    return f"about {round(10 * share) * 10} %"


def _more(images: int, found: PlannedPower) -> str:
    """The change that helps most."""
    if images < MIN_IMAGES:
        return f"for more, give {MIN_IMAGES} images or more a checkpoint (sampler=five)"
    if found.stage >= 0.8:
        return "enough for one run"
    return (
        f"for more, judge {SEVERAL} seeds of one photograph together (shots.seed=0 seed=0, 1, 2): {_about(found.together)}, where all fall "
        "at the same steps"
    )
