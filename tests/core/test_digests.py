"""A remembered hash is never that of other bytes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bayesdiff.core import digests
from bayesdiff.core.digests import cache_folder, digest
from bayesdiff.core.files import fingerprint

CONTENT = bytes(range(256)) * 8


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, that remembers small files too and takes the file for settled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "REMEMBERED", 1)
    monkeypatch.setattr(digests, "SETTLED", -1e6)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "a.safetensors"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read."""
    found: list[Path] = []
    real = digests._hashed
    monkeypatch.setattr(digests, "_hashed", lambda path: (found.append(path), real(path))[1])
    return found


def true(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_read_once(weights: Path, reads: list[Path]) -> None:
    assert digest(weights) == digest(weights) == true(weights)
    assert len(reads) == 1


def rewritten(path: Path) -> None:
    path.write_bytes(CONTENT[::-1])


def with_its_old_date(path: Path) -> None:
    status = path.stat()
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced(path: Path) -> None:
    status, other = path.stat(), path.with_name("b")
    other.write_bytes(CONTENT[::-1])
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


def in_the_middle(path: Path) -> None:
    with path.open("r+b") as handle:
        handle.seek(len(CONTENT) // 2)
        handle.write(b"x")


@pytest.mark.parametrize("change", [rewritten, with_its_old_date, replaced, in_the_middle])
def test_other_bytes_of_the_same_size_have_another_hash(weights: Path, reads: list[Path], change: Callable[[Path], None]) -> None:
    first, whole = digest(weights), fingerprint(weights.parent)
    time.sleep(0.02)  # a clock ticks every few milliseconds; changes within a tick are the next test's
    change(weights)
    assert digest(weights) == true(weights) != first
    assert fingerprint(weights.parent) != whole


def test_a_file_that_just_changed_is_not_remembered(weights: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "SETTLED", 2.0)
    digest(weights)
    assert digest(weights) == true(weights)
    assert len(reads) == 2
    assert not (cache_folder() or Path()).exists()


def test_a_file_that_changes_while_it_is_read_is_not_remembered(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = digests._hashed

    def slow(path: Path) -> str:
        found = real(path)
        with path.open("ab") as handle:
            handle.write(b"more")
        return found

    monkeypatch.setattr(digests, "_hashed", slow)
    digest(weights)
    assert not (cache_folder() or Path()).exists()


def test_small_files_are_not_remembered(weights: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "REMEMBERED", 64 << 20)
    digest(weights)
    digest(weights)
    assert len(reads) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"sha256": "x"}'])
def test_a_damaged_note_is_not_believed(weights: Path, content: str) -> None:
    digest(weights)
    (note,) = (cache_folder() or Path()).iterdir()
    note.write_text(content)
    assert digest(weights) == true(weights)
    assert json.loads(note.read_text())["sha256"] == true(weights)


def test_a_cache_that_cannot_be_written_costs_time_alone(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert digest(weights) == true(weights)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO here")
def test_a_fingerprint_waits_for_no_fifo(weights: Path) -> None:
    before = fingerprint(weights.parent)
    os.mkfifo(weights.parent / "pipe.bin")
    (weights.parent / "folder.bin").mkdir()
    assert fingerprint(weights.parent) == before
