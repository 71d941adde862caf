"""What a person reads when something is wrong."""

import ast
import os
import sys
from pathlib import Path

import pytest

from bayesdiff.core.errors import ExitCode, UserError, bad_input_in_one_line, did_you_mean, first_line

ROOT = Path(__file__).resolve().parents[2]


def test_bad_input_is_one_line_and_exit_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    @bad_input_in_one_line
    def command(shots: int) -> int:
        if shots > 6:
            raise UserError(f"shots.count={shots}: there are 6 photographs")
        return 0

    assert command(4) == 0
    assert command(7) == ExitCode.BAD_INPUT == 2
    assert capsys.readouterr().err == "bayesdiff: shots.count=7: there are 6 photographs\n"


def test_a_defect_of_ours_keeps_its_traceback() -> None:
    @bad_input_in_one_line
    def command() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command()


SAID: list[tuple[Exception, str]] = [
    (FileNotFoundError(2, "No such file or directory", "a.yaml"), "No such file or directory"),
    (ValueError("first\nsecond"), "first"),
    (KeyError(), "KeyError"),
    (ValueError("x" * 999), "x" * 160),
]


@pytest.mark.parametrize(("error", "said"), SAID)
def test_the_first_line_of_an_exception(error: Exception, said: str) -> None:
    assert first_line(error) == said


NEAR = [("sead", "seed"), ("modle", "model"), ("DINO", "dino"), ("toy_dgo", "toy_dog")]


@pytest.mark.parametrize(("word", "meant"), NEAR)
def test_the_nearest_name_is_suggested(word: str, meant: str) -> None:
    assert did_you_mean(word, ["seed", "model", "dino", "toy_dog", "toy_car"]) == f"; did you mean {meant}?"


def test_nothing_is_suggested_where_no_name_is_near() -> None:
    assert did_you_mean("toy_unicorn", ["toy_car", "toy_bear"]) == did_you_mean("x", []) == ""


def test_the_page_on_guarantees_has_the_exit_codes_as_they_are() -> None:
    tree = ast.parse((ROOT / "bayesdiff" / "core" / "errors.py").read_text())
    (codes,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "ExitCode"]
    said = [node.value.value for node in codes.body[1:] if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    rows = [f"| {int(code)} | {code.name} | {str(text).replace('``', '`')} |" for code, text in zip(ExitCode, said, strict=True)]
    assert "\n".join(rows) in (ROOT / "docs" / "guarantees.md").read_text()


def test_a_reader_that_goes_changes_no_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    @bad_input_in_one_line
    def command() -> int:
        for _ in range(3000):
            print("a line that has nowhere to go", flush=True)
        return ExitCode.FOUND

    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert command() == ExitCode.FOUND
        assert sys.stdout is gone
