"""From a folder of samples to a verdict that can be printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesdiff.config.prompts import Prompt
from bayesdiff.config.schema import Config
from bayesdiff.core.errors import UserError, first_line
from bayesdiff.core.layout import CHECKPOINTS
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.corruption.diagnosis import ALIGNMENT, FAILED, FAILED_SHARE, judge_run
from bayesdiff.corruption.kinds import SPECKLE, grain
from bayesdiff.corruption.levels import MIN_IMAGES
from bayesdiff.diffusion.subject import Subject
from bayesdiff.judging.checkpoints import Checkpoints, find_checkpoints, has_checkpoints
from bayesdiff.judging.layouts import Samples, find_samples
from bayesdiff.judging.pairing import Paired, pair
from bayesdiff.judging.sampling import Plan, as_paired, plan_samples, sample_missing
from bayesdiff.judging.scored import Scored, score_paired
from bayesdiff.judging.settings import (
    Asked,
    Run,
    check_photos,
    configured,
    in_order,
    prompts_of,
    prompts_to_sample,
    run_of,
    subject_of,
    with_words_of,
)  # fmt: skip
from bayesdiff.readings import Reading
from bayesdiff.scoring.curve import score_columns
from bayesdiff.scoring.pixels import flat_line

NAMED = 5
"""Pictures that are no samples and are named."""


@dataclass(frozen=True)
class Judgement:
    """A verdict, the curve it is about, and what was looked at."""

    verdict: CorruptionVerdict
    reading: Reading
    details: dict[str, Any]
    """Layout, counts, sources of prompts, what was left out."""
    paired: Paired
    """The files behind the scores; those of checkpoints are gone where no cache keeps them."""
    prompts: dict[int, str]
    """Number of a prompt -> the prompt, or where it is not known its name among the samples."""
    subject: Subject
    scored: Scored
    run: Run | None
    """The run of this package that the samples belong to."""


@dataclass(frozen=True)
class _Looked:
    """Samples that are there, or were made, and what is known of their prompts."""

    paired: Paired
    prompts: Sequence[Prompt]
    """At their numbers; without words where they are not known."""
    source: str
    """Where the prompts come from; empty where they are not known."""
    notes: list[str]
    details: dict[str, Any]


def judge_folder(folder: Path, asked: Asked, cache: Path | None) -> Judgement:
    """Recognise, pair, score and judge the samples of a folder, or of its checkpoints; nothing in it is changed.

    Args:
        cache: where scores, and samples of checkpoints, are kept; None keeps none.

    Raises:
        UserError: bad input of any kind, in one line with the remedy.
    """
    if folder.is_file():
        raise UserError(f"{folder}: a file; give a folder of samples or checkpoints, or give a file of scores to 'bayesdiff verdict'")
    asked, notes = with_words_of(asked)
    run = run_of(folder)
    if run is not None and asked.model is not None:
        raise UserError(f"--model {asked.model}: a run of this package knows its model; leave the option out, and give RUN/checkpoints")
    cfg = configured(asked, run)
    if asked.model is None and not (run is not None and folder.resolve().name == CHECKPOINTS):
        return _judged(folder, _samples(folder, asked, run, cfg), notes, asked, run, cfg, cache)
    check_photos(asked, run)
    with TemporaryDirectory() as place:
        looked = _sampled(folder, asked, run, cfg, (cache or Path(place)) / "samples")
        return _judged(folder, looked, notes, asked, run, cfg, cache)


def _judged(
    folder: Path, looked: _Looked, notes: list[str], asked: Asked, run: Run | None, cfg: Config, cache: Path | None
) -> Judgement:  # fmt: skip
    paired = looked.paired
    subject, more_notes = subject_of(asked, run, paired)
    notes = [*notes, *more_notes]
    scored = score_paired(paired, looked.prompts, subject, cfg.metrics, cfg.device, cache)
    verdict, steps, columns, images = verdict_of(scored, bool(looked.source), cfg)
    said = [*looked.notes, *paired.notes, *notes, _prompt_note(looked.source), _score_note(scored, paired, cfg)]
    if flat := flat_line([photo.image for photo in subject.photos]):
        said.append(flat)
    if unchanged := _unchanged_note(steps, columns, asked.model is not None):
        said.append(unchanged)
    if few := _few_note(steps, columns, scored.photo_hf):
        said.append(few)
    metric = cfg.detector.metric.value
    reading = Reading(
        str(folder), tuple(steps), columns, metric, scored.ceilings.get(metric), scored.photo_hf, tuple(said), tuple(images), own=True
    )  # fmt: skip
    more = {"samples": len(paired.keys) * len(paired.paths), "scored_now": scored.computed, "prompts_from": looked.source,
            "photographs": [photo.name for photo in subject.photos]}  # fmt: skip
    return Judgement(verdict, reading, {**looked.details, **more}, paired, _texts(looked), subject, scored, run)


def _texts(looked: _Looked) -> dict[int, str]:
    known = dict(enumerate(prompt.text for prompt in looked.prompts)) if looked.source else {}
    named = {number: seen[0].prompt for number, seen in looked.paired.prompts.items() if seen}
    return {number: known.get(number) or named.get(number, "") for number in looked.paired.prompts}


def verdict_of(
    scored: Scored, with_prompts: bool, cfg: Config
) -> tuple[CorruptionVerdict, list[int], dict[str, NDArray[np.float64]], list[tuple[int, int]]]:
    """The verdict on scores, with what it is about: steps (T,), columns (T, images) by metric, and (prompt, number) of the images.

    Raises ``UserError`` for settings of the detector that cannot be used.
    """
    steps, columns, images = score_columns(scored.scores)
    if not with_prompts:
        columns = {name: values for name, values in columns.items() if not name.startswith(ALIGNMENT)}
    prompt_of = [prompt for prompt, _ in images]
    try:
        verdict = judge_run(steps, columns, prompt_of, vars(cfg.detector), scored.ceilings, cfg.seed, photo_hf=scored.photo_hf)
    except (ValueError, KeyError) as error:  # a level, a depth or a metric that cannot be used
        raise UserError(f"the settings of the detector: {first_line(error)}; correct detector.…") from error
    return verdict, steps, columns, images


def _samples(folder: Path, asked: Asked, run: Run | None, cfg: Config) -> _Looked:
    """The samples that a trainer wrote."""
    try:
        samples = find_samples(folder, asked.pattern)
    except UserError as error:
        if asked.pattern is None and has_checkpoints(folder):
            raise UserError(
                f"{folder}: checkpoints and no samples; sample them with a base model: bayesdiff judge FOLDER --photos PHOTOS --model sd15"
            ) from error
        raise
    paired = pair(samples)
    prompts, source = prompts_of(paired, asked, run, cfg)
    whole = bool(prompts) and set(paired.prompts) <= set(prompts)
    details = {"layout": samples.layout.name, "unit": samples.layout.unit, "not_looked_at": list(samples.others)}
    listed = in_order(prompts) if whole else _empty(paired)
    return _Looked(paired, listed, source if whole else "", _layout_notes(samples, paired), details)


def _sampled(folder: Path, asked: Asked, run: Run | None, cfg: Config, store: Path) -> _Looked:
    """The samples of a folder of checkpoints, made where they are not known yet."""
    found = find_checkpoints(folder, asked.pattern)
    prompts, source = prompts_to_sample(asked, run, cfg)
    plan = plan_samples(found, prompts, cfg, run is None, store)
    made = sample_missing(plan, cfg)
    details = {"layout": found.naming.name, "unit": found.naming.unit, "not_looked_at": list(found.others), "sampled_now": made}
    return _Looked(as_paired(plan), prompts, source, _checkpoint_notes(found, plan, cfg, made), details)


def _checkpoint_notes(found: Checkpoints, plan: Plan, cfg: Config, made: int) -> list[str]:
    naming, count = found.naming, len(plan.prompts) * plan.images
    base = " and the base model as step 0" if len(plan.checkpoints) > len(found.found) else ""
    sampler = f"{cfg.sampler.scheduler.value}, {cfg.sampler.steps} steps, guidance {cfg.sampler.guidance_scale:g}, seed {cfg.sampler.seed}"
    known = len(plan.checkpoints) * count - made
    notes = [
        f"{len(found.found)} checkpoints, named as {naming.name} does ({naming.example}){base}, sampled with {cfg.model.path}",
        f"{count} images each ({sampler}): {made} sampled now, {known} before",
    ]
    if naming.unit != "step":
        notes += [f"these names count {naming.unit}s: every step below is one", *found.notes]
    if found.others:
        notes.append(f"{len(found.others)} files not sampled: {_first(found.others)}")
    return notes


def _empty(paired: Paired) -> Sequence[Prompt]:
    """Prompts without words, one at every number."""
    return in_order(dict.fromkeys(paired.prompts, Prompt("", "", "")))


def _layout_notes(samples: Samples, paired: Paired) -> list[str]:
    layout = samples.layout
    notes = [f"{len(paired.paths)} checkpoints of {len(paired.keys)} samples, named as {layout.name} does ({layout.example})"]
    if layout.unit != "step":
        notes += [f"these names count {layout.unit}s: every step below is one", *samples.notes]
    if samples.others:
        notes.append(f"{len(samples.others)} other pictures not looked at: {_first(samples.others)}")
    return notes


def _first(names: Sequence[object]) -> str:
    """The first ``NAMED`` of many, as a note shows them."""
    return ", ".join(map(str, names[:NAMED])) + (" …" if len(names) > NAMED else "")


def _unchanged_note(steps: Sequence[int], columns: Mapping[str, NDArray[np.float64]], sampled: bool) -> str:
    """Steps whose samples score as those of the step before do, to the last digit: the same pictures; empty where there are none.

    Failed samples are alike, and the verdict speaks of them. ``sampled``: checkpoints were sampled here.
    """
    good = columns[FAILED].mean(1) <= FAILED_SHARE if FAILED in columns else np.ones(len(steps), bool)
    as_before = [all(np.array_equal(values[t], values[t - 1]) for values in columns.values()) for t in range(1, len(steps))]
    same = [step for step, unchanged, seen in zip(steps[1:], as_before, good[1:], strict=True) if unchanged and seen]
    if not same:
        return ""
    remedy = (
        "check that these files differ and fit this model" if sampled else "check that your trainer samples with the weights that it trains"
    )
    if len(same) == len(steps) - 1:
        return f"the samples of all {len(steps)} steps are the same pictures, so that this verdict says nothing: {remedy}"
    return f"the samples of step {_first(same)} are the pictures of the step before: {remedy}"


def _few_note(steps: Sequence[int], columns: Mapping[str, NDArray[np.float64]], photo_hf: float | None) -> str:
    """What so few samples a checkpoint cannot show, and which checkpoints to look at instead; empty where there are enough."""
    count = next(iter(columns.values())).shape[1]
    if count >= MIN_IMAGES:
        return ""
    said = f"{count} sample{'s' if count > 1 else ''} a checkpoint: {MIN_IMAGES} or more are needed to name checkpoints to avoid"
    if (share := grain(columns, photo_hf)) is None:
        return said
    energy = share.mean(1)
    speckled = [step for step, one in zip(steps, energy, strict=True) if one > SPECKLE * max(1.0, float(np.median(energy)))]
    return f"{said}; look at step {', '.join(map(str, speckled))}: finer detail than the photographs have" if speckled else said


def _prompt_note(source: str) -> str:
    if source:
        return f"prompts from {source}: CLIP-T weighs in which checkpoint to keep"
    return "the prompts are not known, so that CLIP-T is left out and fidelity alone decides what to keep; give --prompts FILE"


def _score_note(scored: Scored, paired: Paired, cfg: Config) -> str:
    total = len(paired.keys) * len(paired.paths)
    known = total - scored.computed
    encoders = " and ".join(dict.fromkeys((cfg.metrics.dino, cfg.metrics.clip)))
    return f"{total} samples scored with {encoders}: {scored.computed} now, {known} before"
