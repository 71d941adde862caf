"""Damage to the files of a run that was killed, between two starts, and records that are none."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bayesdiff.core.layout import LOCK
from tests.soak.sites import NUMBERS


def removed(path: Path, other: Path, draw: random.Random) -> None:
    path.unlink()


def cut(path: Path, other: Path, draw: random.Random) -> None:
    os.truncate(path, draw.randrange(path.stat().st_size))


def doubled(path: Path, other: Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes() * 2)


def first_line_alone(path: Path, other: Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])


def flipped(path: Path, other: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(content))


def swapped(path: Path, other: Path, draw: random.Random) -> None:
    """The file of another run in its place."""
    shutil.copy(other, path)


DAMAGES: tuple[Callable[[Path, Path, random.Random], None], ...] = (removed, cut, doubled, first_line_alone, flipped, swapped)


@dataclass(frozen=True)
class Case:
    """One file of one run, and what is done to it."""

    number: int
    run: str
    file: str
    other: Path
    """A file of that kind, of another run where there is one."""
    damage: Callable[[Path, Path, random.Random], None]

    @property
    def name(self) -> str:
        return f"{self.damage.__name__} {self.run}/{self.file}"

    def do(self, runs: Path, seed: int) -> None:
        self.damage(runs / self.run / self.file, self.other, random.Random(f"{seed} {self.name}"))


def _kinds(runs: list[Path]) -> dict[str, list[Path]]:
    """Files that are not empty, by kind: for any step and picture, and of the newest step apart."""
    kinds: dict[str, list[Path]] = {}
    for run in runs:
        for path in sorted(p for p in run.rglob("*") if p.is_file() and p.name != LOCK and p.stat().st_size):
            name = path.relative_to(run).as_posix()
            newest = " (newest)" if "step-000002" in name else ""
            kinds.setdefault(NUMBERS.sub("N", name) + newest, []).append(path)
    return kinds


def cases(runs: list[Path], count: int, seed: int) -> list[Case]:
    """``count`` damages: each kind of file in turn, each time damaged in another way."""
    draw, found, kinds = random.Random(f"{seed} cases"), [], _kinds(runs)
    for number in range(count):
        kind = sorted(kinds)[number % len(kinds)]
        path = draw.choice(kinds[kind])
        run = next(run for run in runs if run in path.parents)
        others = [one for one in kinds[kind] if run not in one.parents] or [one for one in kinds[kind] if one != path] or [path]
        damage = DAMAGES[(number + number // len(kinds)) % len(DAMAGES)]
        found.append(Case(number, run.name, path.relative_to(run).as_posix(), draw.choice(others), damage))
    return found


BAD_RECORDS = (
    "", "{", "[]", "null", "7", '"a text"', "{}", '{"run_key": 1}', '{"run_key": "x", "status": "completed"}',
    '{"run_key": "x", "status": "completed", "config": {}, "what": 1}', "\x00\xff", "[" * 100_000,
)  # fmt: skip
"""Contents of a ``record.json`` that is none."""
