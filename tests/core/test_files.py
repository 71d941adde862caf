"""Files and folders are whole or absent, whatever stops the writing."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.core.files import (
    STAGING,
    atomic_write,
    discard,
    faults_named,
    from_json,
    remove_partial,
    remove_partial_of,
    sha256,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def failing(code: int) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def write_folder(target: Path, content: str) -> None:
    with atomic_write(target) as part:
        part.mkdir()
        (part / "weights").write_text(content)


def test_a_write_makes_the_parents_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "ümlaut\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "ümlaut\n".encode()
    assert names(tmp_path) == ["a", "a/b.txt"]


def test_the_target_stays_old_until_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_text(target, "old")
    with atomic_write(target) as part:
        part.write_text("new")
        assert target.read_text() == "old"
        assert part.parent == target.parent
        assert part.name.endswith(STAGING)
    assert target.read_text() == "new"


def test_a_failing_write_keeps_the_old_file_and_no_partial(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_text(target, "old")
    with pytest.raises(ZeroDivisionError), atomic_write(target) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert (names(tmp_path), target.read_text()) == (["file"], "old")


def test_a_write_stopped_by_the_keyboard_leaves_no_partial(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "file") as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_a_failing_write_keeps_the_old_folder_and_no_partial(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    write_folder(target, "old")
    with pytest.raises(ZeroDivisionError), atomic_write(target) as part:
        part.mkdir()
        (part / "weights").write_text("half")
        raise ZeroDivisionError
    assert (names(tmp_path), (target / "weights").read_text()) == (["folder", "folder/weights"], "old")


def test_a_folder_is_replaced_with_everything_in_it(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    write_folder(target, "old")
    (target / "left over").write_text("x")
    write_folder(target, "new")
    assert (names(tmp_path), (target / "weights").read_text()) == (["folder", "folder/weights"], "new")


def test_a_failing_rename_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    write_text(target, "old")
    monkeypatch.setattr("os.replace", failing(errno.EIO))
    with pytest.raises(UserError, match=os.strerror(errno.EIO)):
        write_text(target, "new")
    assert (names(tmp_path), target.read_text()) == (["file"], "old")


def test_a_failing_rename_keeps_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "folder"
    write_folder(target, "old")
    monkeypatch.setattr("os.replace", failing(errno.EIO))
    with pytest.raises(UserError, match=os.strerror(errno.EIO)):
        write_folder(target, "new")
    assert names(tmp_path) == ["folder", "folder/weights"]


@pytest.mark.parametrize("place", ["replace", "fsync"])
def test_a_full_disk_is_said_in_one_line_that_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    target = tmp_path / "file"
    write_text(target, "old")
    monkeypatch.setattr(f"os.{place}", failing(errno.ENOSPC))
    with pytest.raises(UserError, match=f"no disk space left for {target}") as caught:
        write_text(target, "new")
    assert len(str(caught.value).splitlines()) == 1
    assert (names(tmp_path), target.read_text()) == (["file"], "old")


def test_a_disk_that_fills_up_inside_a_folder_is_said_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no disk space left"), atomic_write(tmp_path / "folder") as part:
        part.mkdir()
        failing(errno.ENOSPC)()
    assert names(tmp_path) == []


FAULTS = ("EIO", "EROFS", "EDQUOT", "EMFILE", "ESTALE", "EACCES", "EPERM", "EBUSY", "ETIMEDOUT")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_file_system_is_one_line_with_the_file_and_the_remedy(tmp_path: Path, name: str) -> None:
    number = getattr(errno, name)
    with pytest.raises(UserError) as caught, atomic_write(tmp_path / "file"):
        failing(number)()
    (line,) = str(caught.value).splitlines()
    assert str(tmp_path / "file") in line
    assert os.strerror(number) in line and line.endswith("give the same command again")
    assert names(tmp_path) == []


def test_what_is_no_fault_of_the_file_system_stays_what_it_is(tmp_path: Path) -> None:
    for error in (ValueError("no number"), TimeoutError()):
        with pytest.raises(type(error)), faults_named(tmp_path):
            raise error


def test_what_cannot_be_cleaned_up_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that became read-only nothing can be removed either."""
    with pytest.raises(UserError, match="Read-only file system"), atomic_write(tmp_path / "file") as part:
        part.write_text("half")
        monkeypatch.setattr("os.unlink", failing(errno.EROFS))
        failing(errno.EROFS)()


def test_what_could_not_be_removed_is_not_set_aside_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try would make its name longer, until no name can be."""
    (tmp_path / "step-000001").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a disk that fails
        discard(tmp_path / "step-000001")
        (aside,) = tmp_path.iterdir()
        for _ in range(9):
            discard(aside)
        assert list(tmp_path.iterdir()) == [aside]
    discard(aside)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_discarded_is_never_half_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "folder", "old")
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # killed before anything in it is removed
    discard(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    monkeypatch.undo()
    remove_partial(tmp_path)
    assert names(tmp_path) == []


def test_what_writes_of_one_file_left_is_removed_alone(tmp_path: Path) -> None:
    for name in ("a[1].json", f"a[1].json.host-1-0{STAGING}", f"a1.json.host-1-0{STAGING}"):
        (tmp_path / name).write_text("x")
    remove_partial_of(tmp_path / "a[1].json")
    assert names(tmp_path) == ["a1.json.host-1-0.partial", "a[1].json"]


def test_json_is_sorted_and_ends_with_a_line_break(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [None, "x"]})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    null,\n    "x"\n  ],\n  "b": 1\n}\n'


def test_json_refuses_what_json_cannot_say(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert '"a": 1' in (tmp_path / "a.json").read_text()


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_sweeping_removes_partials_at_every_depth_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "kept").write_text("x")
    (tmp_path / "deep" / f"file.1{STAGING}").write_text("half")
    folder = tmp_path / "deep" / "er" / f"folder.2{STAGING}"
    folder.mkdir()
    (folder / f"inside{STAGING}").write_text("half")
    remove_partial(tmp_path)
    assert names(tmp_path) == ["deep", "deep/er", "deep/kept"]


def test_sweeping_a_folder_that_is_not_there_does_nothing(tmp_path: Path) -> None:
    remove_partial(tmp_path / "nowhere")
    assert names(tmp_path) == []


def test_json_with_a_key_twice_is_refused_at_every_depth() -> None:
    """``json`` takes the later one in silence."""
    assert from_json('{"a": 1, "b": [{"a": 2}]}') == {"a": 1, "b": [{"a": 2}]}
    for text in ('{"a": 1, "b": 2, "a": 1}', '[{"b": {"a": 1, "a": 2}}]'):
        with pytest.raises(ValueError, match="key 'a' stands twice"):
            from_json(text)
