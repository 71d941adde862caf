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
from bayesdiff.core.digests import cache_folder, digest, fingerprint, fingerprint_of_ends

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
    real = digests.sha256
    monkeypatch.setattr(digests, "sha256", lambda path: (found.append(path), real(path))[1])
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
    real = digests.sha256

    def slow(path: Path) -> str:
        found = real(path)
        with path.open("ab") as handle:
            handle.write(b"more")
        return found

    monkeypatch.setattr(digests, "sha256", slow)
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


def test_a_fingerprint_sees_weights_and_configurations_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "REMEMBERED", 1 << 30)  # the file changes faster than any clock
    (tmp_path / "unet").mkdir()
    weights = tmp_path / "unet" / "model.safetensors"
    weights.write_bytes(bytes(3 << 20))
    first = fingerprint(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    assert fingerprint(tmp_path) == first
    middle = bytes(3 << 19) + b"x" + bytes((3 << 19) - 1)
    for content in (bytes((3 << 20) - 1) + b"x", b"x" + bytes((3 << 20) - 1), middle, bytes((3 << 20) + 1)):
        weights.write_bytes(content)
        assert fingerprint(tmp_path) != first
    weights.write_bytes(bytes(3 << 20))
    assert fingerprint(tmp_path) == first
    for name in ("config.json", "merges.txt", "vocab.txt", "old.ckpt", "spiece.model"):
        before = fingerprint(tmp_path)
        (tmp_path / name).write_text("{}")
        assert fingerprint(tmp_path) != before, name


def test_what_is_not_there_has_no_fingerprint(tmp_path: Path) -> None:
    assert fingerprint(tmp_path / "none") == fingerprint_of_ends(tmp_path / "none") == ""


def test_the_committed_records_hold_the_shipped_weights_as_they_saw_them() -> None:
    from bayesdiff.toybox.weights import CLIP, DINO, PIPELINE

    places = {"model": PIPELINE, "clip": CLIP, "dino": DINO}
    seen = [{name: of(place) for name, place in places.items()} for of in (fingerprint, fingerprint_of_ends)]
    records = sorted((Path(__file__).parents[2] / "results" / "toybox" / "records").glob("*/record.json"))
    assert len(records) > 100
    assert all(json.loads(path.read_text())["weights"] in seen for path in records)
    assert seen[0]["model"] != seen[1]["model"], "older records saw the ends of files, newer ones every byte"
