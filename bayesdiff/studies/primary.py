"""The registered claims: read as they were written down before their runs, and judged by the records alone.

``results/primary.yaml`` fixes study, windows, claims and their parts. A part compares windows of one arm (``off: middle - before
> 0``) or one window of two arms (``on - off: middle < 0``). The test is the paired t-test over subjects, two-sided. A claim's p-value is
the largest of its parts', and Holm corrects over the claims. While runs are missing nothing is computed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bayesdiff.config.structured import read_as
from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import MAIN
from bayesdiff.recording.archive import Archive
from bayesdiff.stats import holm
from bayesdiff.studies.contrasts import GRAIN, Estimate, along_steps, estimate, in_window, read_row
from bayesdiff.studies.plan import Study, load_study
from bayesdiff.studies.rows import Found, Row, rows_of

LEVEL = 0.05
HOLDS, AGAINST, OPEN = "holds", "contradicted", "not decided"
SEEN_BEFORE = ("toy_backpack", "toy_dog", "toy_robot", "toy_vase", "toy_car", "toy_cat")
"""Subjects whose single pilot runs were seen before the claims were written, as the registered file says."""
PART = re.compile(r"(?P<arm>\w+)(?: - (?P<other>\w+))?: (?P<window>\w+)(?: - (?P<base>\w+))? (?P<sign>[<>]) 0")
OVER_STEPS = " over steps"


@dataclass
class RegisteredClaim:
    """One claim; it holds when all of its parts do."""

    name: str
    claim: str
    parts: list[str]


@dataclass
class Registered:
    """``results/primary.yaml``."""

    study: str
    windows: dict[str, list[int]]
    claims: list[RegisteredClaim]
    beside: list[str] = field(default_factory=list)
    exploratory: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """One comparison of a claim."""

    text: str
    arm: str
    other: str | None
    window: str
    base: str | None
    sign: int
    """1 where the claim says more than 0, -1 where it says less."""


@dataclass(frozen=True)
class Judged:
    """One claim with what the records show of its parts."""

    claim: RegisteredClaim
    parts: tuple[tuple[Part, Estimate], ...]
    p_value: float
    """The largest of the parts', uncorrected; NaN without runs."""
    corrected: float
    """By Holm over the claims."""

    @property
    def verdict(self) -> str:
        if not self.corrected <= LEVEL:
            return OPEN
        return HOLDS if all(found.sign == part.sign for part, found in self.parts) else AGAINST


@dataclass(frozen=True)
class Primary:
    """The registered claims and their study, as far as the records go."""

    registered: Registered
    study: Study
    rows: tuple[Row, ...]
    """One an arm and evaluation."""

    @property
    def found(self) -> int:
        """Runs that ended."""
        return sum(len(row.cells) - row.missing for row in self._arms)

    @property
    def runs(self) -> int:
        return len(self.study.cells)

    @property
    def complete(self) -> bool:
        return self.found == self.runs

    @property
    def diverged(self) -> int:
        return sum(len(row.diverged) for row in self._arms)

    @property
    def evaluations(self) -> list[str]:
        """The run's own, and those that any run has beside it."""
        return list(dict.fromkeys(row.labels["evaluation"] for row in self.rows))

    @property
    def middle(self) -> str:
        """The window that the first claim is about."""
        return parse_part(self.registered.claims[0].parts[0], self.registered).window

    @property
    def found_runs(self) -> list[Found]:
        """The runs that have records, each once."""
        return [one for row in self._arms for one in row.found]

    @property
    def _arms(self) -> list[Row]:
        return [row for row in self.rows if row.labels["evaluation"] == MAIN]

    def row(self, arm: str, evaluation: str = MAIN) -> Row:
        return next(row for row in self.rows if (row.labels["bnn"], row.labels["evaluation"]) == (arm, evaluation))


def load_registered(path: Path) -> Registered:
    """Read the file; raises ``UserError`` for an unknown key, an unreadable part, or a window that no step lies in."""
    loaded = read_as(path, Registered, "restore the registered file")
    for claim in loaded.claims:
        for text in claim.parts:
            parse_part(text, loaded, path)
    return loaded


def parse_part(text: str, registered: Registered, path: Path | str = "results/primary.yaml") -> Part:
    """A part's words as data; raises ``UserError`` for others than ``ARM [- OTHER]: WINDOW [- BASE] > 0`` (or < 0)."""
    if (read := PART.fullmatch(text)) is None:
        raise UserError(f"{path}: part {text!r}: write it as 'arm - other: window < 0' or 'arm: window - base > 0'")
    for name in (read["window"], read["base"]):
        if name is not None and name not in registered.windows:
            raise UserError(f"{path}: part {text!r}: no window {name}; choose one of {', '.join(registered.windows)}")
    return Part(text, read["arm"], read["other"], read["window"], read["base"], 1 if read["sign"] == ">" else -1)


def open_primary(path: Path, archive: Archive) -> Primary:
    """The registered file with the records of its study; raises ``UserError`` as ``load_registered`` and ``load_study``."""
    registered = load_registered(path)
    study = load_study(registered.study)
    own = [found.run for row in rows_of(study, archive) for found in row.found]
    names = dict.fromkeys([MAIN, *(name for run in own for name in run.scores)])
    seen = replace(study, evaluations=tuple(names))
    return Primary(registered, study, tuple(rows_of(seen, archive)))


def judge(primary: Primary, evaluation: str = MAIN, only: Callable[[str], bool] = lambda subject: True) -> list[Judged]:
    """Every claim at an evaluation, over the subjects that ``only`` names; empty while runs are missing."""
    if not primary.complete:
        return []
    found = [[(part, _of_part(primary, part, evaluation, only)) for part in _parts(primary, claim)] for claim in primary.registered.claims]
    known = [tuple((part, one) for part, one in parts if one is not None) for parts in found]
    p_values = [max((one.p_value for _, one in parts), default=np.nan) if len(parts) == len(claim.parts) else np.nan
                for parts, claim in zip(known, primary.registered.claims, strict=True)]  # fmt: skip
    corrected = holm(p_values)
    judged = zip(primary.registered.claims, known, p_values, corrected, strict=True)
    return [Judged(claim, parts, float(p), float(holm_p)) for claim, parts, p, holm_p in judged]


def _parts(primary: Primary, claim: RegisteredClaim) -> list[Part]:
    return [parse_part(text, primary.registered) for text in claim.parts]


def _of_part(primary: Primary, part: Part, evaluation: str, only: Callable[[str], bool]) -> Estimate | None:
    windows = primary.registered.windows
    read = in_window(GRAIN, windows[part.window], windows[part.base] if part.base else None)
    mine = read_row(primary.row(part.arm, evaluation), read)
    return estimate(mine, read_row(primary.row(part.other, evaluation), read) if part.other else None, only)


def costs(primary: Primary, reference: str = "off") -> dict[tuple[str, str], Estimate]:
    """(arm, measure) -> difference from plain of what stands beside the claims; empty while runs are missing."""
    if not primary.complete:
        return {}
    arms = [row.labels["bnn"] for row in primary.rows if row.labels["evaluation"] == MAIN and row.labels["bnn"] != reference]
    found = {}
    for measure in primary.registered.beside:
        read = along_steps(measure.removesuffix(OVER_STEPS))
        plain = read_row(primary.row(reference), read)
        for arm in arms:
            if (one := estimate(read_row(primary.row(arm), read), plain)) is not None:
                found[arm, measure] = one
    return found


def flagged_in_the_middle(row: Row, window: Sequence[int]) -> tuple[int, Counter[str]]:
    """How many runs have checkpoints to avoid in a window by the verdict of one run, and the kinds of change that it names there.

    A run of checkpoints counts where it overlaps the window: lower in fidelity, or grainier than before and after.
    """
    flagged, kinds = 0, Counter[str]()
    for found in row.found:
        if (verdict := found.verdict) is None:
            continue
        named = [*zip(verdict.avoid, verdict.avoid_kinds or ["other"] * len(verdict.avoid), strict=False),
                 *((span, "noise_pattern") for span in verdict.grainy)]  # fmt: skip
        here = {kind for span, kind in named if span[0] <= window[1] and span[1] >= window[0]}
        flagged += bool(here)
        kinds.update(here)
    return flagged, kinds
