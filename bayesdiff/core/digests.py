"""Hashes of large files, remembered: gigabytes of weights are read once, and again only when they changed.

A file is known again by its path, inode, size, and times of its last change (``mtime`` and ``ctime``, in nanoseconds). No ordinary
tool sets ``ctime``, so that also a file put in another's place with its old date is read again. A file that changed in the
last seconds is not remembered, because a clock is too coarse to tell two changes in the same moment apart.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from bayesdiff.core.errors import UserError
from bayesdiff.core.files import sha256, write_json

REMEMBERED = 64 << 20
"""Bytes from which on a hash is remembered; smaller files are read faster than it is worth."""
SETTLED = 2.0
"""Seconds since the last change after which a file counts as settled (the coarsest clock in use, FAT's, has 2)."""


def cache_folder() -> Path | None:
    """Where hashes are remembered, by the XDG convention; None where the user has no home."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "bayesdiff" / "digests"
    try:
        return Path.home() / ".cache" / "bayesdiff" / "digests"
    except RuntimeError:
        return None


def _identity(path: Path) -> dict[str, int | str]:
    """What a file has to keep for its hash to be still true."""
    status = path.stat()
    return {
        "path": str(path.resolve()), "inode": status.st_ino, "device": status.st_dev, "size": status.st_size,
        "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns,
    }  # fmt: skip


def digest(path: Path) -> str:
    """SHA-256 of every byte of a file, from the cache where the file is the same as then. Raises ``OSError``."""
    before, folder = _identity(path), cache_folder()
    if int(before["size"]) < REMEMBERED or folder is None:
        return sha256(path)
    note = folder / f"{hashlib.sha256(str(before['path']).encode(errors='surrogateescape')).hexdigest()[:32]}.json"
    if (known := _recall(note, before)) is not None:
        return known
    began, found = time.time_ns(), sha256(path)
    changed = max(int(before["mtime_ns"]), int(before["ctime_ns"]))
    if _identity(path) == before and began - changed > SETTLED * 1e9:
        _remember(note, {**before, "sha256": found})
    return found


def _recall(note: Path, identity: dict[str, int | str]) -> str | None:
    """The remembered hash of exactly this file; None where there is none."""
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        found = str(content.pop("sha256"))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return found if content == identity and len(found) == 64 else None


def _remember(note: Path, content: dict[str, int | str]) -> None:
    """Keep a hash where that can be done: a cache that cannot be written costs time alone."""
    try:
        write_json(note, content)
    except (OSError, UserError, ValueError):
        return


LOADED = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".json", ".model")
"""Endings of what loaders read in a model's folder: weights, configurations and vocabularies."""
VOCABULARIES = ("merges.txt", "vocab.txt")


def fingerprint(folder: Path) -> str:
    """A digest of every byte of the weights, configurations and vocabularies below a folder; empty where there is no such folder.

    Hashes of large files are remembered.
    """
    if not folder.is_dir():
        return ""
    found = hashlib.sha256()
    loaded = (p for p in folder.rglob("*") if (p.suffix in LOADED or p.name in VOCABULARIES) and p.is_file())
    for path in sorted(loaded):
        found.update(f"{path.relative_to(folder).as_posix()}\0{digest(path)}\0".encode(errors="surrogateescape"))
    return found.hexdigest()


def fingerprint_of_ends(folder: Path) -> str:
    """What records of version 0.1 hold in place of ``fingerprint``: of each file the name, the size, and its first and last megabyte.

    Only for comparison with such a record; it does not see a change in the middle of a large file.
    """
    if not folder.is_dir():
        return ""
    found = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".safetensors", ".bin", ".json") and p.is_file()):
        found.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as handle:
            found.update(handle.read(1 << 20))
            handle.seek(max(path.stat().st_size - (1 << 20), 0))
            found.update(handle.read())
    return found.hexdigest()
