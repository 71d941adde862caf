"""Files of dataclasses: what is in them is text, and what is wrong with them is one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bayesdiff.config.structured import read_as, read_entries
from bayesdiff.core.errors import UserError

KEY = "${oc.env:A_KEY}"


@dataclass
class Line:
    name: str
    try_: int = 0


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "hidden")


def written(folder: Path, text: str) -> Path:
    (path := folder / "a.yaml").write_text(text, encoding="utf-8")
    return path


def test_what_reads_the_environment_is_text(tmp_path: Path) -> None:
    assert read_as(written(tmp_path, f"name: '{KEY}'"), Line, "mend it") == Line(KEY)
    assert read_entries(written(tmp_path, f"- {{name: '{KEY}', try: 3}}"), Line, "lines", "mend it", {"try": "try_"}) == [Line(KEY, 3)]


@pytest.mark.parametrize(("reader", "text"), [
    (read_as, "name: x\nother: 1"), (read_as, "try_: many\nname: x"), (read_as, "name: ["), (read_as, "- 1"),
    (read_entries, "name: x"), (read_entries, "- x"), (read_entries, "- {other: 1}"),
])  # fmt: skip
def test_what_is_wrong_is_one_line_with_the_file_and_the_remedy(tmp_path: Path, reader: Callable[..., Any], text: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as raised:
        reader(path, Line, *(["lines"] if reader is read_entries else []), "mend it")
    said = str(raised.value)
    assert said.startswith(f"{path}: ") and said.endswith("; mend it") and "\n" not in said


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: .*; mend it"):
        read_as(tmp_path / "none.yaml", Line, "mend it")
