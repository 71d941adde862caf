"""A reading judged: which way its metric is better, in which unit it stands, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bayesdiff.core.errors import ExitCode, UserError
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.corruption.diagnosis import ALIGNMENT, diagnose
from bayesdiff.readings.directions import higher_is_better
from bayesdiff.readings.reading import Reading
from bayesdiff.scoring.metrics import HIGHER_IS_BETTER

PERCENT = 1.5
"""Similarities above this are taken as percent, and the smallest depth with them."""
SMALLEST = 0.03
"""Smallest depth of a stage: of a similarity as it stands, of other scores as a share of the curve's range."""
CANNOT_BE_JUDGED = ("too_few_points", "diverged", "broken_sampling")
"""Kinds of verdicts that say nothing of the curve's shape."""

NOTHING_FINITE = "Cannot be judged: no score is finite. Check the metric's code, or whether training diverged before the first checkpoint."


Judged = tuple[CorruptionVerdict, Reading]


@dataclass(frozen=True)
class Options:
    """What a person may say beside the curve."""

    higher_is_better: bool | None = None
    """None goes by the metric's name."""
    alpha: float = 0.05
    min_depth: float | None = None
    checkpoint_noise: float | None = None
    sampled_prompts: bool = False
    seed: int = 0


def check_options(options: Options) -> None:
    """Raises ``UserError`` for a number of the command that is out of range."""
    if not 0 < options.alpha < 1:
        raise UserError(f"--alpha {options.alpha}: give a number between 0 and 1, such as 0.05")
    for name, value in (("--min-depth", options.min_depth), ("--checkpoint-noise", options.checkpoint_noise)):
        if value is not None and not 0 <= value < np.inf:
            raise UserError(f"{name} {value}: give a finite number that is not negative")
    if not 0 <= options.seed < 2**63:
        raise UserError(f"--seed {options.seed}: give a whole number from 0 to 2**63 - 1")


def judge(reading: Reading, options: Options | None = None) -> tuple[CorruptionVerdict, Reading]:
    """The verdict on one reading, and the reading with scores that are better when higher and with notes on what was decided.

    Raises:
        UserError: a metric whose name does not say which way is better, and no word on it; prompts that are not known.
        ValueError: options out of range.
    """
    options = options or Options()
    higher = _direction(reading, options)
    turned = reading if higher else _turned(reading)
    min_depth, percent, notes = _unit(turned, higher, options)
    if options.sampled_prompts and not reading.images:
        raise UserError(f"{reading.name}: --sampled-prompts needs the prompt of each image, which a run folder has")
    groups = [prompt for prompt, _ in reading.images] if options.sampled_prompts else None
    verdict = diagnose(
        turned.steps, turned.columns, turned.metric, ceiling=turned.ceiling, alpha=options.alpha, min_depth=min_depth, seed=options.seed,
        groups=groups, checkpoint_noise=options.checkpoint_noise, whole=100.0 if percent else 1.0,
        photo_hf=turned.photo_hf,
    )  # fmt: skip
    if not np.isfinite(turned.columns[turned.metric]).any():
        verdict = replace(verdict, sentence=NOTHING_FINITE)
    return verdict, replace(turned, notes=(*turned.notes, *notes))


def _direction(reading: Reading, options: Options) -> bool:
    """Whether higher is better: by a person's word, this package's table or record, the metric's name, or the file's."""
    if options.higher_is_better is not None:
        return options.higher_is_better
    own = HIGHER_IS_BETTER.get(reading.metric)  # calls a diversity lpips, which is a distance anywhere else
    recorded: list[bool | None] = [own, reading.higher_is_better] if reading.own else []
    for said in (*recorded, higher_is_better(reading.metric), reading.higher_is_better, own):
        if said is not None:
            return said
    raise UserError(
        f"{reading.name}: is a higher {reading.metric} better? its name does not say; give --higher-is-better or --lower-is-better, or "
        "another column with --metric NAME"
    )


def _turned(reading: Reading) -> Reading:
    """The reading with the other sign, and without prompt alignment: a score without an upper end makes no trade-off with it."""
    columns = {name: scores for name, scores in reading.columns.items() if name != ALIGNMENT}
    columns[reading.metric] = -reading.columns[reading.metric]
    note = f"{reading.metric} is better when lower: it is judged and shown with the other sign, and decides alone what to keep"
    return replace(reading, columns=columns, ceiling=None, notes=(*reading.notes, note))


def _unit(reading: Reading, higher: bool, options: Options) -> tuple[float, bool, list[str]]:
    """The smallest depth of a stage, whether scores are percent, and what to say of it."""
    scores, given = reading.columns[reading.metric], options.min_depth
    finite = np.isfinite(scores)
    if not higher:
        means = scores[finite.all(axis=1)].mean(1)
        depth = SMALLEST * float(np.ptp(means)) if means.size else SMALLEST
        said = [f"the smallest depth is {depth:.3g}, 3 % of the curve's range (set it with --min-depth)"]
        return (depth, False, said) if given is None else (given, False, [])
    percent = bool(finite.any()) and float(np.abs(scores[finite]).max()) > PERCENT
    depth = SMALLEST * (100 if percent else 1) if given is None else given
    said = [f"scores above 1 are taken as percent{'' if given is not None else ': the smallest depth is 3.0 (set it with --min-depth)'}"]
    return depth, percent, said if percent else []


def exit_code_of(judged: Sequence[Judged], bad: bool) -> ExitCode:
    """One number for several curves; the first of bad input, found, cannot be judged that holds of any."""
    if bad:
        return ExitCode.BAD_INPUT
    if any(verdict.flagged for verdict, _ in judged):
        return ExitCode.FOUND
    return ExitCode.NOT_JUDGED if any(verdict.kind in CANNOT_BE_JUDGED for verdict, _ in judged) else ExitCode.DONE
