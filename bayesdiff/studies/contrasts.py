"""Contrasts of windows of training: a curve of every run, its mean over a window, and paired differences over subjects.

A *curve* is what one evaluation of a run measured at every checkpoint: a mean over images (``grain``, ``dino``, ``clip_t``,
``diversity``), or a probe (``g at 0.9``: the column ``g`` of ``probes.csv`` at nine tenths of the schedule). A window holds the
checkpoints from its first step to its last; its value is their plain mean. A run's seeds are averaged before subjects are tested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesdiff.config.schema import EvaluationConf, Weights
from bayesdiff.core.errors import UserError, first_line
from bayesdiff.core.layout import PROBES
from bayesdiff.corruption.kinds import is_flat
from bayesdiff.recording.archive import photo_energy
from bayesdiff.recording.columns import Array, Damaged
from bayesdiff.scoring.curve import is_count
from bayesdiff.stats import Difference, paired_difference
from bayesdiff.studies.rows import Cells, Found, Row, common_grid

GRAIN = "grain"
"""High-frequency energy of an image over that of the training photographs."""
LAST_SHARE = 0.9
"""The largest timestep that is probed, as a share of the schedule's length (``training.probes.SHARES``)."""
SAME_DECAY = 1e-6
"""Decays of averages that are nearer than this are one: tables of probes have seven digits."""
Windows = Mapping[str, Sequence[int]]
"""Name -> first and last step."""
Curve = tuple[NDArray[np.int64], Array]
"""Steps (T,) and values (T,)."""


@dataclass(frozen=True)
class Estimate:
    """A paired difference, and the value of every subject that it is over."""

    difference: Difference
    subjects: tuple[str, ...]
    values: Array
    """(subjects,) in their order."""

    @property
    def text(self) -> str:
        """Mean and interval."""
        mean, low, high = (float(part[0]) for part in (self.difference.mean, self.difference.low, self.difference.high))
        return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"

    @property
    def p_value(self) -> float:
        return float(self.difference.p_value[0]) if self.difference.of_runs else float("nan")

    @property
    def sign(self) -> int:
        return int(np.sign(self.difference.mean[0]))


def curve_of(found: Found, measure: str) -> Curve | None:
    """Steps and values of a measure; None where the run did not measure it."""
    column, at, share = measure.partition(" at ")
    if at:
        return _probe_curve(found, column, share)
    scores = image_scores(found, measure)
    return None if scores is None else (found.images.steps, scores.mean(1))


def image_scores(found: Found, measure: str) -> Array | None:
    """A measure of every image, (T, images); None where the run did not measure it."""
    images = found.images
    if measure != GRAIN:
        scores = images.columns.get(measure)
    elif is_flat(found.record.photographs.get("hf_energy")):
        scores = None
    elif (scores := images.columns.get("hf_relative")) is None and (own := photo_energy(found.record)):
        scores = images.columns["hf_energy"] / own
    return None if scores is None or not np.isfinite(scores).all() else scores


def at_shared_steps(curves: Sequence[Curve]) -> Curve:
    """Steps (T,) that all of several curves have, increasing, and their values (T, …) there, (curves, T, …)."""
    shared = np.array(sorted(set.intersection(*(set(steps.tolist()) for steps, _ in curves))), dtype=np.int64)
    return shared, np.stack([values[np.isin(steps, shared)] for steps, values in curves])


def curves_together(asked: Sequence[tuple[Found, str]]) -> Curve | None:
    """Several measures of one run or more, (curves, T), at the steps that all have; None where one was not measured."""
    curves = [curve for found, measure in asked if (curve := curve_of(found, measure)) is not None]
    return at_shared_steps(curves) if len(curves) == len(asked) else None


def _probe_curve(found: Found, column: str, share: str) -> Curve | None:
    """A column of ``probes.csv`` at a share of the schedule, of the weights that the evaluation shows."""
    path = found.folder / PROBES
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path)
        if not is_count(table["step"].to_numpy(np.float64)).all():
            raise ValueError("a step is no whole number from 0 on")
        timesteps = table["timestep"].to_numpy()
        nearest = timesteps[np.abs(timesteps - float(share) / LAST_SHARE * timesteps.max()).argmin()]
        chosen = table[(table["timestep"] == nearest) & _shown(table, found)].drop_duplicates("step")
        return (chosen["step"].to_numpy(np.int64), chosen[column].to_numpy(np.float64)) if len(chosen) else None
    except (KeyError, ValueError) as error:
        raise Damaged(f"{path}: no table of probes ({first_line(error)}); copy it again, or collect its run again") from error


def _shown(table: pd.DataFrame, found: Found) -> pd.Series[bool]:
    """Rows of the weights that an evaluation shows. A table without the column ``ema_decay`` has averages of one decay."""
    own = found.record.config.get("evaluations", {}).get(found.evaluation, {})
    kind = own.get("weights", "kept")
    rows = table["weights"] == kind
    if kind == Weights.ema.value and "ema_decay" in table:
        rows &= (table["ema_decay"] - own.get("ema_decay", EvaluationConf.ema_decay)).abs() < SAME_DECAY
    return rows


def inside(curve: Curve, window: Sequence[int]) -> Curve:
    """The checkpoints of a curve in a window; empty where it holds none."""
    steps, values = curve
    held = (steps >= window[0]) & (steps <= window[1])
    return steps[held], values[held]


def window_mean(curve: Curve, window: Sequence[int]) -> float:
    """Plain mean over the checkpoints of a window; NaN where it holds none."""
    _, values = inside(curve, window)
    return float(values.mean()) if values.size else float("nan")


def over_steps(curve: Curve) -> float:
    """Mean over training time; NaN for a single checkpoint."""
    steps, values = curve
    return float(np.trapezoid(values, steps) / (steps[-1] - steps[0])) if len(steps) > 1 else float("nan")


def read_row(row: Row, value: Callable[[Found], float | None]) -> Cells:
    """A value of every run that has one, by seed and subject."""
    read_off = {found.place: value(found) for found in row.found}
    return {place: np.array([one]) for place, one in read_off.items() if one is not None and np.isfinite(one)}


def in_window(measure: str, window: Sequence[int], less: Sequence[int] | None = None) -> Callable[[Found], float | None]:
    """What ``read_row`` reads: a measure's mean over a window, less that over another one."""

    def value(found: Found) -> float | None:
        if (curve := curve_of(found, measure)) is None:
            return None
        return window_mean(curve, window) - (window_mean(curve, less) if less is not None else 0.0)

    return value


def along_steps(measure: str) -> Callable[[Found], float | None]:
    """What ``read_row`` reads: a measure's mean over training time."""
    return lambda found: None if (curve := curve_of(found, measure)) is None else over_steps(curve)


def estimate(
    mine: Cells, other: Cells | None = None, only: Callable[[str], bool] = lambda subject: True, level: float = 0.95,
    sampled_prompts: bool = False,
) -> Estimate | None:  # fmt: skip
    """The mean over subjects of a value, or of its difference from another row's, at the places that both have; None without one.

    With ``sampled_prompts`` a place has a value a prompt, and the interval speaks for other prompts too.
    """
    tables = [_of(mine, only)] + ([] if other is None else [_of(other, only)])
    if not all(tables):
        return None
    names = list(dict.fromkeys(subject for _, subject in tables[0]))
    index = {place: np.full(len(value), names.index(place[1])) for place, value in tables[0].items()}
    *grids, numbers = common_grid(*tables, index)
    if not numbers.size:
        return None
    less = grids[1] if other is not None else np.zeros_like(grids[0])
    values = (grids[0] - less).mean((0, 3))[:, 0]
    found = paired_difference(grids[0], less, level=level, sampled_prompts=sampled_prompts)
    return Estimate(found, tuple(names[int(i)] for i in numbers[0, :, 0, 0]), values)


def _of(cells: Cells, only: Callable[[str], bool]) -> Cells:
    return {place: value for place, value in cells.items() if only(place[1])}


def row_named(rows: Sequence[Row], labels: Mapping[str, str], of: str) -> Row:
    """The one row with these labels; raises ``UserError`` for none or several."""
    found = [row for row in rows if row.labels.items() >= labels.items()]
    if len(found) != 1:
        raise UserError(f"{of}: {len(found)} rows of its study are {dict(labels)}; name one")
    return found[0]
