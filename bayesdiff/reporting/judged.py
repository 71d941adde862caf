"""The samples of another trainer as an arm of a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bayesdiff.judging.judgement import judge_folder
from bayesdiff.judging.layouts import find_samples
from bayesdiff.judging.pairing import pair
from bayesdiff.judging.settings import Asked, configured, prompts_of, run_of, subject_of
from bayesdiff.reporting.traces import Trace


def judged_arm(folder: Path, asked: Asked, cache: Path | None) -> Trace:
    """Judge a folder of samples as ``bayesdiff judge`` does, and keep what a page shows; nothing in the folder is changed.

    Raises:
        UserError: as ``judge_folder``.
    """
    judgement = judge_folder(folder, asked, cache)
    reading, run = judgement.reading, run_of(folder)
    paired, cfg = pair(find_samples(folder, asked.pattern)), configured(asked, run)
    subject, _ = subject_of(asked, run, paired.paths[next(iter(paired.paths))][0])
    prompts, _ = prompts_of(paired, asked, run, cfg)
    texts = {number: prompt.text for number, prompt in prompts.items()} or {n: seen[0].prompt for n, seen in paired.prompts.items()}
    arm = Trace(folder.resolve().name, reading.metric, reading.steps, reading.columns, reading.images, judgement.verdict)
    return replace(
        arm, files={step: dict(zip(paired.keys, paths, strict=True)) for step, paths in paired.paths.items()}, prompts=texts,
        photos=tuple(photo.image for photo in subject.photos), notes=reading.notes,
        ceilings={} if reading.ceiling is None else {reading.metric: reading.ceiling},
    )  # fmt: skip
