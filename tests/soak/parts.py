"""The parts of the soak: kills at sites, kills at random moments, faults, damages, bad records."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bayesdiff import tables
from bayesdiff.config.identity import run_name
from bayesdiff.core.errors import ExitCode
from bayesdiff.core.layout import CONFIG, LOCK, RECORD
from bayesdiff.recording.record import load_record
from tests.soak import damages as damaging
from tests.soak import sites
from tests.soak.sites import NUMBERS, Act, Ledger, Site, Watch
from tests.soak.verdict import differing, judge, left_over
from tests.soak.world import ARMS, World, fork, wait

TRACEBACK = "Traceback (most recent call last)"
COMMANDS = 5000
"""After so many a study counts as never ending."""


@dataclass(frozen=True)
class Size:
    """How much a soak does."""

    kills: int = 200
    """At least: at every kind of site once, and the rest at random moments."""
    damages: int = 60
    errnos: int = len(sites.ERRNOS)
    """Kinds of errors, each at every kind of site."""
    workers: int = 4
    seed: int = 0
    """Of random moments and places."""
    one_in: int = 1
    """Of the sites, and of the pairs of a site and an error, only every so manieth."""


class Soak:
    """The counters of a soak, the undisturbed study that everything is compared with, and how a disturbed one is done."""

    def __init__(self, folder: Path, size: Size, arms: tuple[str, ...] = ARMS):
        self.folder, self.size = folder, size
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        (folder / "world").mkdir()
        self.world = World(folder / "world", arms)
        self.whole = self.root("whole")
        self.do(self.whole, _nothing, _nothing)
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
            waiting = {self._command(root, given + number, in_worker) for number in range(self.size.workers)}
            given, quiet = given + self.size.workers, True
            while waiting:
                pid, status = os.wait()
                waiting.discard(pid)
                if os.waitstatus_to_exitcode(status) != 0:  # killed, or a run of it was: the same command again
                    quiet, given = False, given + 1
                    waiting.add(self._command(root, given, in_worker))
            if quiet and self._ended(root):
                return given
            self._say(root, given)
        self.wrong.append(f"{root.name}: lost: not done after {COMMANDS} commands")
        return given

    def _ended(self, root: Path) -> bool:
        """Whether every run has its end; a run that was stopped by SIGTERM has not failed."""
        records = [load_record(run) for run in root.glob("runs/toybox-*")]
        return len(records) == len(self.world.arms) and all(record and record.status == "completed" for record in records)

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

    def start(self, root: Path, words: tuple[str, ...], act: Act) -> tuple[int, str]:
        """One run's command, without a study; how it ended, and what it said."""
        with (self.words(root) / f"start-{len(list(self.words(root).iterdir()))}").open("w+") as said:
            command = [*words, f"paths.runs={root / 'runs'}"]
            code = wait(fork(lambda: self.world.command(command), said, lambda: Watch(root, act).begin()))
            said.seek(0)
            return code, said.read()

    def say(self, root: Path, call: Callable[[], int]) -> str:
        """What a command says, run in a process of its own."""
        with (self.words(root) / f"say-{len(list(self.words(root).iterdir()))}").open("w+") as said:
            wait(fork(call, said))
            said.seek(0)
            return said.read()

    def name_of(self, words: tuple[str, ...]) -> str:
        """The folder name of the run of a command."""
        return run_name(self.world.compose(words))

    def report(self) -> None:
        for name, count in self.counts.items():
            print(f"{name:40} {count}")
        kinds = Counter(re.split(": ", line)[1] for line in self.wrong)
        print(", ".join(f"{kind} {kinds[kind]}" for kind in ("lost", "doubled", "different", "left over", "traceback")))
        for line in self.wrong[:60]:
            print(f"  {line}")


def kills_at_sites(soak: Soak) -> None:
    """Every process of the study is killed before each write that it comes to, once a site."""
    root, ledger = soak.root("sites"), Ledger(soak.folder / "killed", one_in=soak.size.one_in)
    act = sites.killed_at(ledger)
    soak.counts["commands to the end, kills at sites"] = soak.do(root, act, act)
    soak.counts["kills at sites"] = len(ledger)
    soak.note("kills at sites", root)


def kills_at_random(soak: Soak) -> None:
    """Runs are killed at random moments, every fourth time by SIGTERM, until there were enough kills."""
    ledger, left = Ledger(soak.folder / "killed at random"), soak.size.kills - soak.counts["kills at sites"]
    wanted = max(left, soak.size.kills // 4)
    ledger.most, study = wanted, 0

    def follow(pid: int) -> int:
        draw = random.Random(f"{soak.size.seed} {pid} {len(ledger)}")
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
    ledger, study, before = Ledger(soak.folder / "failed", one_in=soak.size.one_in), 0, -1
    kinds = sites.ERRNOS[: soak.size.errnos]
    while len(ledger) > before:  # pictures that failed are not drawn again: sites behind them are met in another study
        before = len(ledger)
        root = soak.root(f"faults-{study}")
        act = sites.failing_at(ledger, kinds)
        soak.do(root, act, act)
        soak.note("faults", root)
        study += 1
    failed = {name.partition(" ")[2] for name in ledger.names()}
    soak.counts |= {"faults": len(ledger), "kinds of errors": len(kinds), "kinds of sites that failed": len(failed)}
    lacking = len(failed) * len(kinds) - len(ledger)
    if lacking and soak.size.one_in == 1:
        soak.wrong.append(f"faults: not met: {lacking} pairs of a site and an error")


def damages(soak: Soak) -> None:
    """Runs are killed at their last checkpoint, one file is damaged, and the same command has to mend it or to name it."""
    stopped = soak.root("stopped")
    for words in soak.world.words():
        soak.start(stopped, words, sites.killed_once_at("mkdir runs/RUN/checkpoints/step-000003.partial"))
    runs = sorted(stopped.glob("runs/toybox-*"))
    cases = damaging.cases(runs, soak.size.damages, soak.size.seed)
    by_run = {soak.name_of(words): words for words in soak.world.words()}
    outcomes = Ledger(soak.folder / "outcomes")

    def work(worker: int) -> int:
        for case in cases[worker :: soak.size.workers]:
            outcomes.claim(f"{_damage(soak, stopped, case, by_run[case.run])}: {case.name}")
        return 0

    with (soak.folder / "damages.words").open("w") as said:
        pids = [fork(partial(work, worker), said) for worker in range(soak.size.workers)]
    codes = [wait(pid) for pid in pids]
    if any(codes) or len(outcomes) != len(cases):
        soak.wrong.append(f"damages: lost: {(soak.folder / 'damages.words').read_text()[-300:]}")
    for line in outcomes.names():
        kind = line.partition(":")[0]
        soak.counts[f"damages {kind}" if kind in ("made good", "refused") else "damages"] += 1
        if kind not in ("made good", "refused"):
            soak.wrong.append(f"damages: {line}")
    soak.counts["kinds of files damaged"] = len({NUMBERS.sub("N", case.file) for case in cases})


def _damage(soak: Soak, stopped: Path, case: damaging.Case, words: tuple[str, ...]) -> str:
    """What became of one damage: made good, refused, or what is wrong."""
    root = soak.root(f"damage-{case.number}")
    for name in (case.run, "cache"):
        if (stopped / "runs" / name).exists():
            shutil.copytree(stopped / "runs" / name, root / "runs" / name)
    case.do(root / "runs", soak.size.seed)
    run = root / "runs" / case.run
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name not in (LOCK, CONFIG, RECORD)}
    code, said = soak.start(root, words, _nothing)
    if TRACEBACK in said:
        return f"traceback: {said.strip().splitlines()[-1]}"
    if code == 0:
        wrong = differing(run, soak.whole / "runs" / case.run) + left_over(root)
        shutil.rmtree(root)
        return f"different: {wrong}" if wrong else "made good"
    last = said.strip().splitlines()[-1]
    if code != ExitCode.BAD_INPUT or not last.startswith("bayesdiff: ") or "remove" not in last or str(run) not in last:
        return f"lost: code {code}, {last}"
    if {path: path.read_bytes() for path in before if path.exists()} != before:
        return f"different: the refused run was changed, {last}"
    shutil.rmtree(root)
    return "refused"


def records(soak: Soak) -> None:
    """Every run's record is spoiled in the runs folder or among the results: study and tables name it and go on."""
    for number, content in enumerate(damaging.BAD_RECORDS):
        root = Path(shutil.copytree(soak.whole, soak.folder / f"records-{number}"))
        (soak.folder / f"records-{number}.words").mkdir()
        name = sorted(path.name for path in root.glob("runs/toybox-*"))[number % 4 % len(list(root.glob("runs/toybox-*")))]
        (root / "results" / "records" / name / RECORD).write_text(content, encoding="latin-1")
        said = soak.say(root, lambda root=root: tables.main([str(root / "results"), "--partial"]))  # type: ignore[misc]
        if name not in said:
            soak.wrong.append(f"records: lost: tables do not name {name} with {content[:20]!r}")
        soak.say(root, lambda root=root: soak.world.study(root))  # type: ignore[misc]
        soak.note("records", root)
        (root / "runs" / name / RECORD).write_text(content, encoding="latin-1")
        shutil.rmtree(root / "results")
        if name not in (said := soak.say(root, lambda root=root: soak.world.study(root))):  # type: ignore[misc]
            soak.wrong.append(f"records: lost: the study does not name {name} with {content[:20]!r}: {said[-200:]}")
        soak.note_words("records", root)
        soak.counts["bad records"] += 2


PARTS: dict[str, Callable[[Soak], None]] = {
    "sites": kills_at_sites, "random": kills_at_random, "faults": faults, "damages": damages, "records": records,
}  # fmt: skip
