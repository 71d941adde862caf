"""A judgement of samples, or of checkpoints, as an arm of a page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from bayesdiff.core.layout import MAIN
from bayesdiff.core.privacy import public
from bayesdiff.judging.judgement import Judgement
from bayesdiff.reporting.traces import Place, Trace

PLACES = ("sample", "samples", "images", "validation_images", "save", "checkpoints", "output", "outputs", "results")
"""Folders that trainers call alike in every training: the folder above them tells one training from another."""


def judged_arm(judgement: Judgement, command: Sequence[str] = ()) -> Trace:
    """What a page shows of a judgement; ``command`` are the words that repeat it."""
    reading, run = judgement.reading, judgement.run
    return Trace(
        _name(Path(reading.name)), reading.metric, reading.steps, reading.columns, reading.images, judgement.verdict,
        None if run is None else run.record, evaluation=(run.evaluation if run else "") or MAIN, files=_there(judgement),
        prompts=judgement.prompts, photos=tuple(photo.image for photo in judgement.subject.photos),
        ceilings=judgement.scored.ceilings, notes=tuple(public(list(reading.notes))), command=public(shlex.join(command)),
    )  # fmt: skip


def _name(folder: Path) -> str:
    folder = folder.resolve()
    return f"{folder.parent.name}/{folder.name}" if folder.name.lower() in PLACES else folder.name


def _there(judgement: Judgement) -> dict[int, dict[Place, Path]]:
    """Step -> the samples that are still there."""
    keys = judgement.paired.keys
    named = {step: dict(zip(keys, paths, strict=True)) for step, paths in judgement.paired.paths.items()}
    found = {step: {at: path for at, path in there.items() if path.exists()} for step, there in named.items()}
    return {step: there for step, there in found.items() if there}
