"""A reader that goes, or a terminal without letters, ends nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bayesdiff.core.errors import complain
from bayesdiff.core.output import say

ROOT = Path(__file__).resolve().parents[2]
TALK = """
import sys
from rich.console import Console
from bayesdiff.core.output import steady_output
with steady_output():
    for number in range(3000):
        print("line", number, "zoë ★", flush=number % 2 == 0)
        Console().print("[bold]rich[/bold] ├─ table")
sys.stderr.write("finished")
"""


def talk(environment: dict[str, str], lines: int | None) -> subprocess.CompletedProcess[bytes]:
    """The program's end and its words, when its reader leaves after so many lines (None: reads all)."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    with subprocess.Popen([sys.executable, "-c", TALK], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        out = process.stdout.read() if lines is None else b"".join(process.stdout.readline() for _ in range(lines))
        process.stdout.close()
        err = process.stderr.read()
    return subprocess.CompletedProcess([], process.returncode, out, err)


def test_a_reader_that_goes_ends_nothing() -> None:
    done = talk({}, 2)
    assert (done.returncode, done.stderr) == (0, b"finished")


def test_a_terminal_without_letters_ends_nothing() -> None:
    done = talk({"PYTHONIOENCODING": "ascii:strict"}, None)
    assert (done.returncode, done.stderr) == (0, b"finished")
    assert b"line 0 zo? ?" in done.stdout


def test_letters_that_there_are_stay() -> None:
    assert "line 0 zoë ★".encode() in talk({"PYTHONIOENCODING": "utf-8"}, None).stdout


def test_a_line_that_is_said_holds_no_control_character(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[31m photo\n\x07.png")
    complain("a\x1b[31m photo\n\x07.png: not there")
    found = capsys.readouterr()
    assert found.out == "a\ufffd[31m photo \ufffd.png\n"
    assert found.err == "bayesdiff: a\ufffd[31m photo \ufffd.png: not there\n"


def test_every_line_that_is_no_markup_is_made_plain() -> None:
    """rich leaves an escape character of such a line as it is."""
    lines = [line for path in (ROOT / "bayesdiff").rglob("*.py") for line in path.read_text(encoding="utf-8").splitlines()]
    printed = [line for line in lines if "markup=False" in line]
    assert len(printed) > 15
    assert not [line for line in printed if "escape.plain(" not in line]
