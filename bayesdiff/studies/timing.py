"""Does the photograph set when something happens in training, or the order of timesteps and noise?

Each photograph is trained twice, with two seeds. Where the photograph sets the time, a subject that is early in one order is early
in the other. The test is a correlation over subjects, with a p-value from every permutation of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import MAIN
from bayesdiff.recording.columns import Array
from bayesdiff.studies.contrasts import Curve, curve_of, inside, read_row, row_named
from bayesdiff.studies.rows import Found, Row

ORDERS = 2
FEWEST = 5
"""Subjects below which no order of them is rare enough: 4 have 24 permutations."""
PERMUTATIONS = 100_000
"""All of them up to 8 subjects; a draw of so many beyond."""


@dataclass
class Timing:
    """One question of time: a row of a study that trains each photograph with two seeds, and a measure with a hump in a window."""

    name: str
    arm: str
    """Its letter in the plan of experiments."""
    study: str
    row: dict[str, str]
    measure: str
    window: list[int]
    """First and last step."""
    evaluation: str = MAIN
    predicts: dict[str, str] = field(default_factory=dict)
    """Explanation -> photograph or order: what sets the time."""


@dataclass(frozen=True)
class Agreement:
    """The centre of every subject's hump in two orders, and whether they go together."""

    subjects: tuple[str, ...]
    centres: Array
    """(2, subjects) in steps."""
    correlation: float
    p_value: float
    """One-sided, over permutations of the subjects."""


def centre(curve: Curve, window: Sequence[int]) -> float:
    """Centre of a curve's mass above its lowest value in a window, in steps; NaN for a flat curve and an empty window.

    A plateau has no sure highest step, but it has a centre.
    """
    steps, values = inside(curve, window)
    above = values - values.min(initial=np.inf)
    return float(np.average(steps, weights=above)) if above.sum() > 0 else float("nan")


def _centre_of(timing: Timing, found: Found) -> float | None:
    """The centre at the question's evaluation; None for a run without it."""
    if timing.evaluation not in found.run.scores:
        return None
    curve = curve_of(replace(found, evaluation=timing.evaluation), timing.measure)
    return None if curve is None else centre(curve, timing.window)


def agreement(timing: Timing, rows: Sequence[Row]) -> Agreement | None:
    """The centres in both orders, and their correlation; None while runs are missing, or with too few subjects.

    Raises:
        UserError: the row does not have two seeds.
    """
    from scipy.stats import PermutationMethod, pearsonr

    row = row_named(rows, timing.row, timing.name)
    seeds = list(dict.fromkeys(cell.labels.get("seed", "0") for cell in row.cells))
    if len(seeds) != ORDERS:
        raise UserError(f"{timing.name}: {len(seeds)} seeds in its row; name a row of two")
    if row.missing:
        return None
    cells = read_row(row, lambda found: _centre_of(timing, found))
    subjects = tuple(subject for seed, subject in cells if seed == seeds[0] and (seeds[1], subject) in cells)
    if len(subjects) < FEWEST:
        return None
    centres = np.array([[cells[seed, subject][0] for subject in subjects] for seed in seeds])
    found = pearsonr(*centres, alternative="greater", method=PermutationMethod(n_resamples=PERMUTATIONS, rng=np.random.default_rng(0)))
    return Agreement(subjects, centres, float(found.statistic), float(found.pvalue))
