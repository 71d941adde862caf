"""The parts of the soak: kills at sites, kills at random moments, faults, damages, bad records."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.soak import sites
from tests.soak.sites import Act, Ledger, Site, Watch
from tests.soak.verdict import judge
from tests.soak.world import World, fork, wait

TRACEBACK = "Traceback (most recent call last)"
COMMANDS = 5000
"""After so many a study counts as never ending."""


class Soak:
    """The counters of a soak, the undisturbed study that everything is compared with, and how a disturbed one is done."""

    def __init__(self, folder: Path, kills: int, damages: int, errnos: int, workers: int, seed: int):
        self.folder, self.workers, self.seed = folder, workers, seed
        self.kills, self.damages, self.errnos = kills, damages, sites.ERRNOS[:errnos]
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        (folder / "world").mkdir()
        self.world = World(folder / "world")
        self.whole = self.root("whole")
        self.workers, asked = 1, workers
        self.do(self.whole, lambda _: None, lambda _: None)
        self.workers = asked
        self.note("undisturbed", self.whole)

    def root(self, name: str) -> Path:
        """A new folder for a study."""
        root = self.folder / name
        root.mkdir()
        (self.folder / f"{name}.words").mkdir()
        return root

    def words(self, root: Path) -> Path:
        """Beside it: what its processes said, out of the sites."""
        return root.with_name(f"{root.name}.words")

    def note(self, part: str, root: Path) -> None:
        """Compare a study that is done with the undisturbed one, and look for tracebacks."""
        self.wrong += [f"{part}: {line}" for line in judge(root, self.whole)]
        self.note_words(part, root)

    def note_words(self, part: str, root: Path) -> None:
        for path in sorted(self.words(root).iterdir()):
            text = path.read_text(errors="replace")
            if TRACEBACK in text:
                self.wrong.append(f"{part}: traceback: {text.strip().splitlines()[-1]}  ({path})")
                self.counts["tracebacks"] += text.count(TRACEBACK)

    def do(self, root: Path, in_run: Act, in_worker: Act, follow: Callable[[int], int] = wait) -> int:
        """Give the study's command until it is done and nothing disturbed it on the way; how often it was given."""
        self.world.disturb = lambda: Watch(root, in_run).begin()
        self.world.follow = self._listening(root, follow)
        given = 0
        while given < COMMANDS:
            waiting = {self._command(root, given + number, in_worker) for number in range(self.workers)}
            given, quiet = given + self.workers, True
            while waiting:
                pid, status = os.wait()
                waiting.discard(pid)
                if os.waitstatus_to_exitcode(status) != 0:  # killed, or a run of it was: the same command again
                    quiet, given = False, given + 1
                    waiting.add(self._command(root, given, in_worker))
            if quiet:
                return given
            self._say(root, given)
        self.wrong.append(f"{root.name}: lost: not done after {COMMANDS} commands")
        return given

    def _say(self, root: Path, given: int) -> None:
        """How far it is, for somebody who watches."""
        print(f"{root.name}: {given} commands", file=sys.stderr, flush=True)

    def _command(self, root: Path, number: int, in_worker: Act) -> int:
        """The study's command, given to a worker; its process id."""

        def work() -> int:
            Watch(root, in_worker).begin()
            return self.world.study(root)

        with (self.words(root) / f"worker-{number}").open("w") as said:
            return fork(work, said)

    def _listening(self, root: Path, follow: Callable[[int], int]) -> Callable[[int], int]:
        """A run's own words, kept where there is a traceback: its log is written anew at every start."""

        def followed(pid: int) -> int:
            code = follow(pid)
            for log in (root / "runs" / "logs").glob("*.log"):
                text = log.read_text(errors="replace")
                if TRACEBACK in text:
                    (self.words(root) / f"run-{pid}").write_text(text)
            return code

        return followed

    def report(self) -> None:
        for name, count in self.counts.items():
            print(f"{name:40} {count}")
        kinds = Counter(re.split(": ", line)[1] for line in self.wrong)
        print(", ".join(f"{kind} {kinds[kind]}" for kind in ("lost", "doubled", "different", "left over", "traceback")))
        for line in self.wrong[:60]:
            print(f"  {line}")


def kills_at_sites(soak: Soak) -> None:
    """Every process of the study is killed before each write that it comes to, once a site."""
    root, ledger = soak.root("sites"), Ledger(soak.folder / "killed")
    act = sites.killed_at(ledger)
    soak.counts["commands to the end, kills at sites"] = soak.do(root, act, act)
    soak.counts["kills at sites"] = len(ledger)
    soak.note("kills at sites", root)


def kills_at_random(soak: Soak) -> None:
    """Runs are killed at random moments, every fourth time by SIGTERM, until there were enough kills."""
    ledger, left = Ledger(soak.folder / "killed at random"), soak.kills - soak.counts["kills at sites"]
    wanted = max(left, soak.kills // 4)
    ledger.most, study = wanted, 0

    def follow(pid: int) -> int:
        draw = random.Random(f"{soak.seed} {pid} {len(ledger)}")
        end = time.monotonic() + draw.uniform(0, 2.0)
        number = signal.SIGTERM if draw.random() < 0.25 else signal.SIGKILL
        while time.monotonic() < end:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        if ledger.claim(f"{pid} {end}"):
            os.kill(pid, number)
        return wait(pid)

    while len(ledger) < wanted:
        root = soak.root(f"random-{study}")
        soak.do(root, _nothing, _nothing, follow)
        soak.note("kills at random", root)
        study += 1
    soak.counts["kills at random moments"] = len(ledger)


def _nothing(site: Site) -> None:
    """Not disturbed."""


def faults(soak: Soak) -> None:
    """Every kind of write fails once with every kind of error, in runs and in workers."""
    ledger, study, before = Ledger(soak.folder / "failed"), 0, -1
    while len(ledger) > before:  # pictures that failed are not drawn again: sites behind them are met in another study
        before = len(ledger)
        root = soak.root(f"faults-{study}")
        act = sites.failing_at(ledger, soak.errnos)
        soak.do(root, act, act)
        soak.note("faults", root)
        study += 1
    kinds = {name.partition(" ")[2] for name in ledger.names()}
    soak.counts |= {"faults": len(ledger), "kinds of errors": len(soak.errnos), "kinds of sites that failed": len(kinds)}
    lacking = len(kinds) * len(soak.errnos) - len(ledger)
    if lacking:
        soak.wrong.append(f"faults: lost: {lacking} pairs of a site and an error were not met")


PARTS: dict[str, Callable[[Soak], None]] = {
    "sites": kills_at_sites, "random": kills_at_random, "faults": faults,
}  # fmt: skip
