"""Samples paired over checkpoints: the same prompt and the same number at every step, so that only the training differs."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from bayesdiff.core.errors import UserError
from bayesdiff.judging.layouts import Samples, Seen

Key = tuple[int, int]
"""Numbers of prompt and image."""


@dataclass(frozen=True)
class Paired:
    """The samples of every checkpoint that is judged, in one order of (prompt, image)."""

    keys: tuple[Key, ...]
    paths: dict[int, tuple[Path, ...]]
    """Step -> the files of ``keys``; steps increase."""
    prompts: dict[int, tuple[Seen, ...]]
    """Number of a prompt -> its samples by step."""
    notes: tuple[str, ...]
    """What was left out, and why."""


def _natural(text: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", text) if part]


def numbers(names: set[str]) -> dict[str, int]:
    """A number for each name: its own where all names are different numbers, else its place in natural order."""
    if all(name.isdecimal() for name in names) and len({int(name) for name in names}) == len(names):
        return {name: int(name) for name in names}
    return {name: place for place, name in enumerate(sorted(names, key=_natural))}


def pair(samples: Samples) -> Paired:
    """Keep the newest of samples with one name, and a set of samples that every kept checkpoint has.

    Raises ``UserError`` where only one checkpoint is left.
    """
    prompt, image = numbers({one.prompt for one in samples.seen}), numbers({one.image for one in samples.seen})
    newest: dict[int, dict[Key, Seen]] = defaultdict(dict)
    for one in sorted(samples.seen, key=lambda seen: (seen.date, str(seen.path))):
        newest[one.step][prompt[one.prompt], image[one.image]] = one
    double = len(samples.seen) - sum(map(len, newest.values()))
    steps, keys = _complete(newest)
    if len(steps) < 2:
        raise UserError(
            f"{samples.seen[0].path.parent}: samples of one checkpoint ({steps[0]}); two can be compared, and a verdict needs six"
        )
    by_prompt = {number: tuple(newest[s][k] for s in steps for k in keys if k[0] == number) for number in {k[0] for k in keys}}
    paths = {step: tuple(newest[step][key].path for key in keys) for step in steps}
    return Paired(keys, paths, by_prompt, tuple(_said(newest, steps, keys, double)))


def _complete(found: dict[int, dict[Key, Seen]]) -> tuple[list[int], tuple[Key, ...]]:
    """The checkpoints with all usual samples, or all checkpoints with what they share: whichever keeps more samples."""
    counts = Counter(key for at in found.values() for key in at)
    usual = {key for key, count in counts.items() if 2 * count >= len(found)}
    shared = {key for key, count in counts.items() if count == len(found)}
    whole = sorted(step for step, at in found.items() if usual <= at.keys())
    if usual and len(whole) >= 2 and len(whole) * len(usual) >= len(found) * len(shared):
        return whole, tuple(sorted(usual))
    if not shared:
        raise UserError("the checkpoints have no sample in common: prompts or numbers change from step to step; pair them with --pattern")
    return sorted(found), tuple(sorted(shared))


def _said(found: dict[int, dict[Key, Seen]], steps: list[int], keys: tuple[Key, ...], double: int) -> list[str]:
    notes = []
    if double:
        notes.append(f"{double} older samples of the same step, prompt and number left out")
    if lacking := sorted(set(found) - set(steps)):
        shown = ", ".join(map(str, lacking[:12]))
        notes.append(f"left out, because samples are missing: {'checkpoint' if len(lacking) == 1 else 'checkpoints'} {shown}")
    if extra := sum(len(found[step].keys() - set(keys)) for step in steps):
        notes.append(f"{extra} samples left out, because other checkpoints do not have them")
    return notes
