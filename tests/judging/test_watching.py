"""A folder is judged at once and at every change; what cannot be used at all ends the watch."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from bayesdiff.core.errors import UserError
from bayesdiff.judging import watching
from bayesdiff.judging.settings import Asked
from bayesdiff.judging.watching import changes, listing, watch


def test_every_change_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that came, one that grew and one that went; hidden files and looks without a change tell nothing."""
    (one := tmp_path / "a" / "one.png").parent.mkdir()
    doings = iter([
        lambda: one.write_bytes(b"1"), lambda: None, lambda: one.write_bytes(b"12"), lambda: (tmp_path / ".hidden").touch(), one.unlink,
        lambda: (_ for _ in ()).throw(KeyboardInterrupt),
    ])  # fmt: skip
    monkeypatch.setattr(watching.time, "sleep", lambda _: next(doings)())
    seen = []
    with pytest.raises(KeyboardInterrupt):
        for _ in changes(tmp_path):
            seen.append({Path(name).name: size for name, (size, _) in listing(tmp_path).items()})
    assert seen == [{}, {"one.png": 1}, {"one.png": 2}, {}]


def test_the_page_that_a_watch_writes_is_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a page within the watched folder would have it judged for ever."""
    (tmp_path / "0.png").write_bytes(b"1")
    page = tmp_path / "page.html"
    doings = iter([lambda: page.write_text("a"), lambda: page.write_text("ab"), lambda: (_ for _ in ()).throw(KeyboardInterrupt)])
    monkeypatch.setattr(watching.time, "sleep", lambda _: next(doings)())
    seen = 0
    with pytest.raises(KeyboardInterrupt):
        for _ in changes(tmp_path, without=page):
            seen += 1
    assert seen == 1


def test_a_watch_that_saw_nothing_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "photos" / "0.png")

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", stop)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"stopped before a verdict; .*no pictures in it"):
        watch(tmp_path / "out", Asked(tmp_path / "photos", metrics="toybox"), None, lambda _: None)
    other = Asked(tmp_path / "photos", metrics="x")
    for asked, said in ((Asked(tmp_path / "none"), "no such folder"), (Asked(), "--photos is missing"), (other, "--metrics x")):
        with pytest.raises(UserError, match=said):
            watch(tmp_path / "out", asked, None, lambda _: None)
