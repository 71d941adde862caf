"""Does the photograph set when something happens in training, or the order of timesteps and noise?

Each photograph is trained twice, with two seeds. Where the photograph sets the time, a subject that is early in one order is early
in the other. The test is a correlation over subjects, with a p-value from every permutation of them. Where the order sets part of a
curve, subjects share part of what the two orders differ in. The test swaps the two orders of every subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import MAIN
from bayesdiff.recording.columns import Array
from bayesdiff.studies.contrasts import Curve, at_shared_steps, curve_of, inside, row_named
from bayesdiff.studies.rows import Found, Row

ORDERS = 2
FEWEST = 5
"""Subjects below which no order of them is rare enough: 4 have 24 permutations."""
PERMUTATIONS = 100_000
"""All of them up to 8 subjects; a draw of so many beyond."""
ROUNDING = 1e-9
"""Of sums that are equal."""


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
    order_p: float
    """That the subjects share what the two orders differ in, over swaps of the two orders of a subject."""


def row_of(timing: Timing, rows: Sequence[Row]) -> Row:
    """The row that a question is about; raises ``UserError`` for none or several."""
    return row_named(rows, timing.row, timing.name)


def centre(curve: Curve, window: Sequence[int]) -> float:
    """Centre of a curve's mass above its lowest value in a window, in steps; NaN for a flat curve and an empty window.

    A plateau has no sure highest step, but it has a centre.
    """
    steps, values = inside(curve, window)
    above = values - values.min(initial=np.inf)
    return float(np.average(steps, weights=above)) if above.sum() > 0 else float("nan")


def shared_by_subjects(differences: Array) -> float:
    """P-value of a shape over steps that the differences (subjects, T) of two orders share; their levels do not count.

    The statistic is the energy of the mean difference. Without an effect of the order, each subject's sign is a toss of a coin.
    """
    shapes = differences - differences.mean(1, keepdims=True)
    count = len(shapes)
    if 2 ** (count - 1) <= PERMUTATIONS:  # a swap of all subjects changes nothing, so one of them stays
        signs = np.array([(1, *others) for others in product((1, -1), repeat=count - 1)])
    else:
        drawn = np.random.default_rng(0).choice((1, -1), (PERMUTATIONS - 1, count))
        signs = np.concatenate([np.ones((1, count), drawn.dtype), drawn])
    energy = ((signs @ shapes) ** 2).sum(1)
    return float((energy >= energy[0] * (1 - ROUNDING)).mean())


def _curve_of(timing: Timing, found: Found) -> Curve | None:
    """The measure at the question's evaluation, inside its window; None for a run without it."""
    if timing.evaluation not in found.run.scores:
        return None
    curve = curve_of(replace(found, evaluation=timing.evaluation), timing.measure)
    return None if curve is None else inside(curve, timing.window)


def agreement(timing: Timing, rows: Sequence[Row]) -> Agreement | None:
    """The centres in both orders, and what the p-values say; None while runs are missing, or with too few subjects.

    Raises:
        UserError: the row does not have two seeds.
    """
    row = row_of(timing, rows)
    seeds = list(dict.fromkeys(cell.labels.get("seed", "0") for cell in row.cells))
    if len(seeds) != ORDERS:
        raise UserError(f"{timing.name}: {len(seeds)} seeds in its row; name a row of two")
    if row.missing:
        return None
    curves = {found.place: curve for found in row.found if (curve := _curve_of(timing, found)) is not None}
    curves = {place: curve for place, curve in curves.items() if np.isfinite(centre(curve, timing.window))}
    subjects = tuple(subject for seed, subject in curves if seed == seeds[0] and (seeds[1], subject) in curves)
    if len(subjects) < FEWEST:
        return None
    return _agreement(timing, subjects, [[curves[seed, subject] for subject in subjects] for seed in seeds])


def _agreement(timing: Timing, subjects: tuple[str, ...], curves: Sequence[Sequence[Curve]]) -> Agreement:
    """Both tests on the curves of each order."""
    from scipy.stats import PermutationMethod, pearsonr

    centres = np.array([[centre(curve, timing.window) for curve in order] for order in curves])
    found = pearsonr(*centres, alternative="greater", method=PermutationMethod(n_resamples=PERMUTATIONS, rng=np.random.default_rng(0)))
    _, values = at_shared_steps([curve for order in curves for curve in order])
    one, other = values.reshape(ORDERS, len(subjects), -1)
    return Agreement(subjects, centres, float(found.statistic), float(found.pvalue), shared_by_subjects(one - other))
