"""Every place where a process writes to the file system, seen before it happens: Python's audit events, and what has none.

A site is an operation and a place. The place is a path below the watched folder, without what differs between two runs
of the same command (names of runs, hosts, process ids, random parts), so that it can be met again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

RUN = re.compile(r"toybox-[a-z]+-[^/]*?-seed\d+-[0-9a-f]{12}")
CHANCE = re.compile(r"\.[A-Za-z0-9-]*-\d+-[0-9a-f]{12}(?=\.partial)|(?<=\.tmp)\w{6}\b|(?<=class-)[0-9a-f]{16}")
NUMBERS = re.compile(r"(?<=step-|draw-)\d+|prompt-\d+-image-\d+")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
TORN = b'{"step": 2, "lo'
"""What a kill in the middle of an appended line leaves."""


@dataclass(frozen=True)
class Site:
    """One operation at one place, before it is done."""

    operation: str
    """open, append, tear (half of an appended line is written), write (of tensors), fsync, rename, remove, rmdir, mkdir, truncate."""
    place: str
    path: Path

    @property
    def name(self) -> str:
        return f"{self.operation} {self.place}"

    @property
    def kind(self) -> str:
        """The name for any step, draw and picture; of a further evaluation as of the run's own."""
        return f"{self.operation} {NUMBERS.sub('N', self.place).replace('evaluations/shown/', '')}"


Act = Callable[[Site], None]


class Watch:
    """Calls ``act`` at every site below ``root`` in this process, and in those it forks, until another one is begun."""

    current: Watch | None = None
    _hooked = False

    def __init__(self, root: Path, act: Act):
        self.root, self.act, self.busy = str(root), act, False

    def begin(self) -> None:
        """A hook cannot be taken away again: there is one for all."""
        Watch.current = self
        if not Watch._hooked:
            sys.addaudithook(_hook)
            _watch_what_has_no_event()
            Watch._hooked = True

    def at(self, operation: str, path: str) -> None:
        if self.busy or not path.startswith(self.root + os.sep):
            return
        place = CHANCE.sub("", RUN.sub("RUN", os.path.relpath(path, self.root)))
        self.busy = True
        try:
            self.act(Site(operation, place, Path(path)))
        finally:
            self.busy = False


def _at(operation: str, path: str) -> None:
    if Watch.current is not None:
        Watch.current.at(operation, path)


def _whole(path: Any, folder: int = -1) -> str:
    """The absolute path of what an event names, below an opened folder or the working one."""
    name = os.fsdecode(path)
    if folder != -1 and not name.startswith("/"):
        return str(Path(f"/proc/self/fd/{folder}").readlink() / name)
    return os.path.abspath(name)  # noqa: PTH100  symbolic links stay as they are


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, int) and isinstance(flags, int) and flags & WRITING:
            _opened(_whole(path), flags)
    elif event == "os.rename":
        _at("rename", _whole(arguments[1], arguments[3]))
    elif event in ("os.remove", "os.rmdir"):
        _at(event[3:], _whole(*arguments[:2]))
    elif event == "os.mkdir":
        _at("mkdir", _whole(arguments[0], arguments[2]))
    elif event == "os.truncate" and not isinstance(arguments[0], int):
        _at("truncate", _whole(arguments[0]))


def _opened(path: str, flags: int) -> None:
    _at("append" if flags & os.O_APPEND else "open", path)
    if flags & os.O_APPEND and path.endswith(".jsonl"):
        _at("tear", path)


def _watch_what_has_no_event() -> None:
    """``fsync``, and tensors, which are written by code that is not Python's."""
    import safetensors.torch
    from safetensors import SafetensorError
    from safetensors import serialize_file as serialize

    flush = os.fsync

    def fsync(number: Any) -> None:
        _at("fsync", str(Path(f"/proc/self/fd/{number}").readlink()))
        flush(number)

    def serialize_file(content: Any, path: Any, *rest: Any, **named: Any) -> None:
        try:
            _at("write", _whole(path))
        except OSError as error:  # as the library says it
            raise SafetensorError(f"Error while serializing: I/O error: {error.strerror} (os error {error.errno})") from None
        serialize(content, path, *rest, **named)

    vars(os)["fsync"] = fsync
    vars(safetensors.torch)["serialize_file"] = serialize_file


class Ledger:
    """What was done already, by name, shared by all processes: a file each, made by whoever is first."""

    def __init__(self, folder: Path, most: int | None = None, one_in: int = 1):
        """``one_in`` leaves out all names but every so manieth, by their hash; ``most`` is how many there may be."""
        self.folder, self.most, self.one_in = folder, most, one_in
        folder.mkdir(parents=True, exist_ok=True)

    def claim(self, name: str) -> bool:
        """Whether this process is the first with a name that is not left out."""
        key = self._key(name)
        if int(key, 16) % self.one_in or (self.most is not None and len(self) >= self.most):
            return False
        try:
            number = os.open(self.folder / key, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        os.write(number, name.encode())
        os.close(number)
        return True

    @staticmethod
    def _key(name: str) -> str:
        return hashlib.sha256(name.encode()).hexdigest()[:24]

    def __contains__(self, name: str) -> bool:
        """Whether it was claimed, or is left out."""
        return int(key := self._key(name), 16) % self.one_in != 0 or (self.folder / key).exists()

    def names(self) -> list[str]:
        return sorted(path.read_text() for path in self.folder.iterdir())

    def __len__(self) -> int:
        return len(os.listdir(self.folder))  # noqa: PTH208  counted at every site


def _tear(site: Site) -> None:
    with site.path.open("ab", buffering=0) as log:
        log.write(TORN)


def killed_at(ledger: Ledger) -> Act:
    """Kill this process at each kind of site that no process was killed at yet."""

    def act(site: Site) -> None:
        if ledger.claim(site.kind):
            die(site)

    return act


def killed_once_at(name: str) -> Act:
    """Kill this process at the site of a name."""

    def act(site: Site) -> None:
        if site.name == name:
            die(site)

    return act


def die(site: Site) -> NoReturn:
    """SIGKILL before the operation."""
    if site.operation == "tear":
        _tear(site)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a process outlived SIGKILL")


STAYING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""Faults that stay: from the first on every write of the process fails. A full disk lets files be removed, a read-only one does not."""
PASSING = (errno.EMFILE, errno.ESTALE, errno.EACCES, errno.EPERM, errno.EBUSY, errno.ETIMEDOUT)
"""Faults of one operation."""
FULL, FREEING = (errno.ENOSPC, errno.EDQUOT), ("remove", "rmdir")
ERRNOS = (*STAYING, *PASSING)


def failing_at(ledger: Ledger, kinds: tuple[int, ...] = ERRNOS) -> Act:
    """Raise each kind of error once at every kind of site; behind one that stays a process cannot write any more.

    Some sites are only met behind a fault that passes: what was half-written is removed. Where such a site lacks errors, what
    leads to it fails again.
    """
    stays: list[int] = []
    failed: list[Site] = []
    behind = Behind(ledger, kinds)

    def act(site: Site) -> None:
        if stays:
            if not (stays[0] in FULL and site.operation in FREEING):
                raise _error(stays[0], site)
            return
        for number in kinds:
            if ledger.claim(_pair(number, site.kind)):
                stays.extend({number} & set(STAYING))
                behind.note(failed, site)
                failed.append(site)
                raise _error(number, site)
        if not failed and behind.lacks(site):
            failed.append(site)
            raise _error(PASSING[0], site)

    return act


def _pair(number: int, kind: str) -> str:
    return f"{errno.errorcode[number]} {kind}"


class Behind:
    """Which kinds of sites were met behind a fault at which others, by all processes; read once in each."""

    def __init__(self, ledger: Ledger, kinds: tuple[int, ...]):
        self.ledger, self.kinds = ledger, kinds
        self.pairs = Ledger(ledger.folder.with_name(f"{ledger.folder.name} behind"))
        self.tries = Ledger(ledger.folder.with_name(f"{ledger.folder.name} again"))
        self.known: list[list[str]] | None = None

    def note(self, failed: list[Site], site: Site) -> None:
        if failed:
            self.pairs.claim(f"{failed[-1].kind}\n{site.kind}")

    def lacks(self, site: Site) -> bool:
        """Whether a site behind this one lacks an error; said once for each kind of error, for it may not be met again."""
        if self.known is None:
            self.known = [name.split("\n") for name in self.pairs.names()]
        there = [kind for first, kind in self.known if first == site.kind]
        lacking = [kind for kind in there if any(_pair(number, kind) not in self.ledger for number in self.kinds)]
        return any(self.tries.claim(f"{number} {site.kind}\n{kind}") for kind in lacking for number in self.kinds)


def _error(number: int, site: Site) -> OSError:
    if site.operation == "tear":
        _tear(site)
    if site.operation in ("fsync", "tear"):  # the system names no file there
        return OSError(number, os.strerror(number))
    return OSError(number, os.strerror(number), str(site.path))
