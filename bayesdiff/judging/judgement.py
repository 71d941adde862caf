"""From a folder of samples to a verdict that can be printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayesdiff.config.prompts import Prompt
from bayesdiff.config.schema import Config
from bayesdiff.core.errors import UserError, first_line
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.corruption.diagnosis import ALIGNMENT, judge_run
from bayesdiff.judging.layouts import Samples, find_samples
from bayesdiff.judging.pairing import Paired, pair
from bayesdiff.judging.scored import Scored, score_paired
from bayesdiff.judging.settings import Asked, configured, in_order, prompts_of, run_of, subject_of
from bayesdiff.readings import Reading
from bayesdiff.scoring.curve import score_columns

NAMED = 5
"""Pictures that are no samples and are named."""


@dataclass(frozen=True)
class Judgement:
    """A verdict, the curve it is about, and what was looked at."""

    verdict: CorruptionVerdict
    reading: Reading
    details: dict[str, Any]
    """Layout, counts, sources of prompts, what was left out."""


def judge_folder(folder: Path, asked: Asked, cache: Path | None) -> Judgement:
    """Recognise, pair, score and judge the samples of a folder; nothing in it is changed.

    Args:
        cache: where scores are kept; None keeps none.

    Raises:
        UserError: bad input of any kind, in one line with the remedy.
    """
    run, samples = run_of(folder), find_samples(folder, asked.pattern)
    paired, cfg = pair(samples), configured(asked, run)
    subject, notes = subject_of(asked, run, paired.paths[next(iter(paired.paths))][0])
    prompts, source = prompts_of(paired, asked, run, cfg)
    whole = bool(prompts) and set(paired.prompts) <= set(prompts)
    scored = score_paired(paired, in_order(prompts) if whole else _empty(paired), subject, cfg.metrics, cfg.device, cache)
    steps, columns, images = score_columns(scored.scores)
    if not whole:
        columns = {name: values for name, values in columns.items() if not name.startswith(ALIGNMENT)}
    prompt_of = [prompt for prompt, _ in images]
    try:
        verdict = judge_run(steps, columns, prompt_of, vars(cfg.detector), scored.ceilings, cfg.seed, photo_hf=scored.photo_hf)
    except (ValueError, KeyError) as error:  # a level, a depth or a metric that cannot be used
        raise UserError(f"the settings of the detector: {first_line(error)}; correct detector.…") from error
    said = [*_layout_notes(samples, paired), *paired.notes, *notes, _prompt_note(whole, source), _score_note(scored, paired, cfg)]
    metric = cfg.detector.metric.value
    reading = Reading(
        str(folder), tuple(steps), columns, metric, scored.ceilings.get(metric), scored.photo_hf, tuple(said), tuple(images), own=True
    )  # fmt: skip
    return Judgement(verdict, reading, _details(samples, paired, scored, source if whole else "", [p.name for p in subject.photos]))


def _empty(paired: Paired) -> Sequence[Prompt]:
    """Prompts without words, one at every number."""
    return in_order(dict.fromkeys(paired.prompts, Prompt("", "", "")))


def _layout_notes(samples: Samples, paired: Paired) -> list[str]:
    layout = samples.layout
    notes = [f"{len(paired.paths)} checkpoints of {len(paired.keys)} samples, named as {layout.name} does ({layout.example})"]
    if layout.unit != "step":
        notes.append(f"these names count {layout.unit}s: every step below is one")
    if samples.others:
        shown = ", ".join(samples.others[:NAMED]) + (" …" if len(samples.others) > NAMED else "")
        notes.append(f"{len(samples.others)} other pictures not looked at: {shown}")
    return notes


def _prompt_note(whole: bool, source: str) -> str:
    if whole:
        return f"prompts from {source}: CLIP-T weighs in which checkpoint to keep"
    return "the prompts are not known, so that CLIP-T is left out and fidelity alone decides what to keep; give --prompts FILE"


def _score_note(scored: Scored, paired: Paired, cfg: Config) -> str:
    total = len(paired.keys) * len(paired.paths)
    known = total - scored.computed
    return f"{scored.computed} samples scored with {cfg.metrics.dino} and {cfg.metrics.clip}, {known} scored before"


def _details(samples: Samples, paired: Paired, scored: Scored, source: str, photos: list[str]) -> dict[str, Any]:
    return {
        "layout": samples.layout.name, "unit": samples.layout.unit, "samples": len(paired.keys) * len(paired.paths),
        "scored_now": scored.computed, "prompts_from": source, "photographs": photos, "not_looked_at": list(samples.others),
    }  # fmt: skip
