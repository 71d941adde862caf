"""Files that are either whole or absent: staged beside the target, flushed, then renamed."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from bayesdiff.core.errors import UserError, first_line, shortened

STAGING = ".partial"
"""Suffix of a file or folder that is still being written; never read back."""
MOST_READ = 2**31
"""Bytes of a file that is read whole."""
MOST_BYTES = 255
"""Of one name in a path."""
LOCK_SECONDS = 1.0
"""How long a claim waits for its lock: someone who only looks whether it is held (``plan.is_held``) has it for a moment."""


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target``; on success it replaces ``target``, on failure it is removed.

    Works for files and for folders. Raises ``UserError`` where the file system cannot write, as ``faults_named``.
    """
    with faults_named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = _beside(target)
        try:
            yield part
            _flush(part)
            _replace(part, target)
        except BaseException:
            _remove(part)
            raise


@contextmanager
def faults_named(target: Path, remedy: str = "give the same command again") -> Iterator[None]:
    """Within the block a fault of the file system (a full disk, a lost mount, too many open files) is a ``UserError`` of one line."""
    try:
        yield
    except Exception as error:
        if (number := _fault(error)) is None:
            raise
        place = target if (named := getattr(error, "filename", None)) is None or STAGING in str(named) else named
        if number in FULL:
            raise UserError(f"no disk space left for {place} ({os.strerror(number)}): free some, then {remedy}") from error
        raise UserError(f"{place}: cannot be written ({os.strerror(number)}); mend that, then {remedy}") from error


FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of a full disk, and of a full share of it."""


def _fault(error: Exception) -> int | None:
    """The number of a file system's error; None for another. safetensors has an exception of its own, which says it in words."""
    if isinstance(error, OSError):
        return error.errno
    said = re.search(r"\(os error (\d+)\)", str(error))
    return int(said.group(1)) if said else None


def _remove(path: Path) -> None:
    """Remove a file or folder where that can be done; what stays has a name that the next start sweeps."""
    with suppress(OSError):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Remove a folder that is whole until it is gone: a kill on the way leaves only what the next start sweeps.

    One that was set aside already, and could not be removed, is not set aside again: its name would grow until no name can be longer.
    """
    aside = folder if folder.name.endswith(STAGING) else _beside(folder)
    if aside is not folder:
        folder.replace(aside)
    _remove(aside)


def _beside(target: Path) -> Path:
    """A name that no other writer has: containers that share a file system have the same process ids, and often the same host name.

    A part of the random number is enough: names of files end at 255 bytes.
    """
    host = "".join(c for c in socket.gethostname() if c.isascii() and (c.isalnum() or c == "-"))[:24]
    return target.with_name(f"{target.name}.{host}-{os.getpid()}-{uuid4().hex[:12]}{STAGING}")


def _replace(part: Path, target: Path) -> None:
    """Rename onto ``target``; a folder in the way is moved aside first and removed last."""
    if not (part.is_dir() and target.exists()):
        part.replace(target)
        return
    aside = _beside(target)
    target.replace(aside)
    try:
        part.replace(target)
    except OSError:
        aside.replace(target)
        raise
    _remove(aside)


def _flush(part: Path) -> None:
    for path in [p for p in part.rglob("*") if p.is_file()] if part.is_dir() else [part]:
        with path.open("r+b" if os.name == "nt" else "rb") as handle:  # Windows flushes no file that is open for reading
            os.fsync(handle.fileno())


def read_file(path: Path) -> bytes:
    """Every byte of a regular file, or of a pipe that the shell made (``<(…)``).

    Raises:
        OSError: also for a folder, a device or a pipe of the file system, which may never end, and for more than ``MOST_READ``.
    """
    about = path.stat()
    piped = stat.S_ISFIFO(about.st_mode) and str(path).startswith(("/dev/fd/", "/proc/self/fd/"))
    if not (stat.S_ISREG(about.st_mode) or piped):
        raise OSError(errno.EINVAL, "a folder" if stat.S_ISDIR(about.st_mode) else "no regular file", str(path))
    if about.st_size > MOST_READ:
        raise OSError(errno.EFBIG, f"{about.st_size / 2**30:.1f} GB are too many to read at once", str(path))
    return path.read_bytes()


def no_path(text: str) -> str:
    """Why a text is no path of any file system, which raises where one is only asked for; empty for one that can be."""
    if "\0" in text:
        return "has the letter 0, which no path has"
    longest = max((len(os.fsencode(part)) for part in text.split("/")), default=0)
    return f"has a name of {longest} bytes; file systems take 255" if longest > MOST_BYTES else ""


def check_writable(folder: Path, option: str) -> None:
    """Raises ``UserError``, naming the option it came by, where a folder could not be made or written to; makes nothing."""
    try:
        there = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    except (OSError, ValueError) as error:  # a name that no file system has
        raise UserError(f"{option}={shortened(folder.parent)}: {first_line(error)}; choose another {option}") from error
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"{option}={folder.parent}: {there} is not a folder one can write to; choose another {option}")


def check_target(target: Path, option: str) -> None:
    """Raises ``UserError`` where a file could not be written anew: ``atomic_write`` stages it beside its place."""
    check_writable(target.with_name(target.name + STAGING), option)


PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg", ".webp")
"""Endings of pictures that are written."""
SAMPLES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff")
"""Endings of pictures that trainers write."""


def check_picture(target: Path, option: str) -> None:
    """Raises ``UserError`` for a picture that could not be written: its folder, its ending, or a folder of its name."""
    check_target(target, option)
    if target.is_dir() or target.suffix.lower() not in PICTURES:
        why = "is a folder" if target.is_dir() else "has no ending of a picture"
        raise UserError(f"{option} {target}: {why}; give a file's name that ends in one of {', '.join(PICTURES)}")


def write_text(target: Path, text: str) -> None:
    with atomic_write(target) as part:
        part.write_text(text, encoding="utf-8")


def as_json(content: Any) -> str:
    """As ``write_json`` writes it."""
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"


def from_json(text: str, **kinds: Any) -> Any:
    """What JSON holds, read as ``json.loads`` reads it; raises ``ValueError`` also for a key that stands twice in an object.

    Readers of JSON differ in which of the two they take, and none says so.
    """
    return json.loads(text, object_pairs_hook=_each_once, **kinds)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"key {shortened(repr(twice))} stands twice")
    return found


def write_json(target: Path, content: Any) -> None:
    write_text(target, as_json(content))


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def remove_partial(folder: Path) -> None:
    """Remove what an interrupted write left in ``folder``."""
    for part in folder.rglob(f"*{STAGING}"):
        _remove(part)


def remove_partial_of(target: Path) -> None:
    """Remove what interrupted writes of one file or folder left beside it; only for who holds a lock on it."""
    for part in target.parent.glob(f"{glob.escape(target.name)}.*{STAGING}"):
        _remove(part)
