"""A judged reading for people and for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bayesdiff.core import escape
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.corruption.outcome import outside_stage
from bayesdiff.corruption.shape import Array
from bayesdiff.readings.reading import Reading


def print_verdict(console: Console, verdict: CorruptionVerdict, reading: Reading, full: bool) -> None:
    """The sentence, the notes, and, where ``full``, a table of checkpoints."""
    lines = [f"{reading.name}: {verdict.sentence}", *(f"  note: {note}" for note in reading.notes)]
    if verdict.noise_source:
        between, images = verdict.checkpoint_noise, verdict.image_noise
        lines.append(f"  noise: {between:.4f} between checkpoints, {images:.4f} from images ({verdict.noise_source})")
    for line in lines:
        console.print(escape.plain(line), highlight=False, soft_wrap=True, markup=False)
    if full:
        console.print(_checkpoints(verdict, reading))


def _checkpoints(verdict: CorruptionVerdict, reading: Reading) -> Table:
    table = Table("step", escape.terminal(reading.metric), "± se", "stage", "best")
    digits = decimals(reading.columns[reading.metric])
    for step, row, label in zip(reading.steps, reading.columns[reading.metric], verdict.labels, strict=True):
        finite = bool(np.isfinite(row).all())
        error = f"{row.std(ddof=1) / math.sqrt(row.size):.{digits}f}" if row.size > 1 and finite else ""
        kept = "keep" if verdict.better_than_base and verdict.kind != "too_few_points" else "highest"
        best = kept if step == verdict.best_step else "as good" if step in verdict.best_steps else ""
        stage = "not finite" if not finite else "blip" if step in verdict.blips else label
        table.add_row(str(step), f"{row.mean():.{digits}f}" if finite else "", error, stage, best if finite else "")
    return table


def decimals(scores: Array) -> int:
    """Decimals that show three figures of the largest of some scores (…), and three or more: a KID of .002 is no 0."""
    largest = float(np.abs(scores[np.isfinite(scores)]).max(initial=0.0))
    return 3 if largest == 0.0 or largest >= 0.1 else min(2 - math.floor(math.log10(largest)), 12)


def as_json(verdict: CorruptionVerdict, reading: Reading) -> dict[str, Any]:
    """Source, metric, steps and notes of a reading, what is not to be kept by any level, and all fields of its verdict."""
    head = {"source": reading.name, "metric": reading.metric, "steps": list(reading.steps), "notes": list(reading.notes)}
    return {**head, "steps_to_avoid": _not_kept(reading.steps, verdict), **verdict.to_dict()}


def _not_kept(steps: Sequence[int], verdict: CorruptionVerdict) -> list[list[int]]:
    """First and last step of every stretch of checkpoints that are not to be kept: in a run, in a stage, grainy, or fallen at the end."""
    marked = zip(outside_stage(verdict.labels).tolist(), steps, strict=True)
    stretches = [[step for _, step in part] for kept, part in groupby(marked, key=itemgetter(0)) if not kept]
    return [[part[0], part[-1]] for part in stretches]
