"""A reading judged: which way its metric is better, in which unit it stands, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bayesdiff.core.errors import ExitCode, UserError
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.corruption.diagnosis import ALIGNMENT, diagnose
from bayesdiff.corruption.words import sentence_of
from bayesdiff.readings.directions import higher_is_better, is_similarity
from bayesdiff.readings.reading import Reading
from bayesdiff.readings.thinning import without_unclear_base
from bayesdiff.scoring.metrics import HIGHER_IS_BETTER

PERCENT, HUNDRED = 1.5, 100.0
"""Similarities above the first and up to the second are taken as percent, and the smallest depth with them."""
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
    turned, min_depth, percent = _scaled(without_unclear_base(reading if higher else _turned(reading)), higher, options)
    if options.sampled_prompts and not reading.images:
        raise UserError(f"{reading.name}: --sampled-prompts needs the prompt of each image, which a run folder has")
    groups = [prompt for prompt, _ in reading.images] if options.sampled_prompts else None
    verdict = diagnose(
        turned.steps, turned.columns, turned.metric, ceiling=turned.ceiling, alpha=options.alpha, min_depth=min_depth, seed=options.seed,
        groups=groups, checkpoint_noise=options.checkpoint_noise, whole=HUNDRED if percent else 1.0,
        photo_hf=turned.photo_hf,
    )  # fmt: skip
    if not np.isfinite(turned.columns[turned.metric]).any():
        verdict = replace(verdict, sentence=NOTHING_FINITE)
    return _without_extra_steps(verdict, turned), turned


def _without_extra_steps(verdict: CorruptionVerdict, reading: Reading) -> CorruptionVerdict:
    """A log that was thinned has its checkpoints: between those that are shown there are more already."""
    if reading.unthinned is None or not verdict.extra_steps:
        return verdict
    verdict = replace(verdict, extra_steps=())
    return replace(verdict, sentence=sentence_of(verdict))


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
    """The reading with the other sign; its ceiling is none any more."""
    columns = {**reading.columns, reading.metric: -reading.columns[reading.metric]}
    note = f"{reading.metric} is better when lower: it is judged and shown with the other sign, and decides alone what to keep"
    return _alone(replace(reading, columns=columns, ceiling=None), note)


def _alone(reading: Reading, note: str) -> Reading:
    """The reading without prompt alignment: a score without an upper end makes no trade-off with it."""
    columns = {name: scores for name, scores in reading.columns.items() if name != ALIGNMENT or name == reading.metric}
    return replace(reading, columns=columns, notes=(*reading.notes, note))


def _scaled(reading: Reading, higher: bool, options: Options) -> tuple[Reading, float, bool]:
    """The reading as it is weighed, the smallest depth of a stage, and whether scores are percent. Notes say what was taken."""
    scores, given = reading.columns[reading.metric], options.min_depth
    finite = scores[np.isfinite(scores)]
    largest = float(np.abs(finite).max()) if finite.size else 0.0
    if higher and is_similarity(reading.metric) and largest <= HUNDRED:
        percent = largest > PERCENT
        depth = SMALLEST * (HUNDRED if percent else 1) if given is None else given
        said = f"scores above 1 are taken as percent{'' if given is not None else ': the smallest depth is 3.0 (set it with --min-depth)'}"
        return (replace(reading, notes=(*reading.notes, said)) if percent else reading), depth, percent
    if ALIGNMENT in reading.columns and reading.metric != ALIGNMENT and reading.ceiling is None:
        reading = _alone(reading, f"{ALIGNMENT} was not weighed: nothing says how much {reading.metric} can reach; fidelity alone decides")
    return (*_by_range(reading, given), False)


def _by_range(reading: Reading, given: float | None) -> tuple[Reading, float]:
    """The reading with a note of its smallest depth, a share of the range that the curve's means have, where none was given."""
    if given is not None:
        return reading, given
    scores = reading.columns[reading.metric]
    means = scores[np.isfinite(scores).all(axis=1)].mean(1)
    depth = SMALLEST * float(np.ptp(means)) if means.size else SMALLEST
    said = f"the smallest depth is {depth:.3g}, 3 % of the curve's range (set it with --min-depth)"
    return replace(reading, notes=(*reading.notes, said)), depth


def exit_code_of(judged: Sequence[Judged], bad: bool) -> ExitCode:
    """One number for several curves; the first of bad input, found, cannot be judged that holds of any."""
    if bad:
        return ExitCode.BAD_INPUT
    if any(verdict.flagged for verdict, _ in judged):
        return ExitCode.FOUND
    return ExitCode.NOT_JUDGED if any(verdict.kind in CANNOT_BE_JUDGED for verdict, _ in judged) else ExitCode.DONE
