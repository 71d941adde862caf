"""Whether files that were written hold a word: a key, a host's name, a home folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def holding(root: Path, words: Iterable[str]) -> list[tuple[str, str]]:
    """(file, word) of everything below a folder that holds a word: in its bytes, in its name, or in where a link points to."""
    found = []
    for path in root.rglob("*"):
        content = str(path.relative_to(root)).encode()
        content += os.fsencode(path.readlink()) if path.is_symlink() else b""
        content += path.read_bytes() if path.is_file() else b""
        found += [(str(path), word) for word in words if word.encode() in content]
    return found
