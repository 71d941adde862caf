"""Bad input to every command: exit code 2, one line with key or file and the remedy, nothing written, no weights loaded."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from bad_inputs import LATER, RUN, cases, make, of_schema
from hydra._internal.hydra import Hydra

from bayesdiff.config.derive import derive
from bayesdiff.core import escape
from bayesdiff.core.errors import ExitCode, UserError
from bayesdiff.studies import plan
from bayesdiff.studies.study_file import check_word

REMEDY = re.compile(
    r"allowed: |--help|--cfg job|did you mean|such as|"
    r"\b(give|choose|add|correct|remove|repeat|copy|name|use|write|must|put|leave|set|make|save|let|run a|log in|replace|download|one of|"
    r"there are)\b"
)
"""What tells a reader what to do, in any of our words."""
OWN_STUDIES = ("tables", "claims")
SMOKE = "+experiment=smoke"


class WeightsLoaded(BaseException):
    """Somebody began to read a model's weights, or to do a study's runs."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The files, and the two things that no bad input may reach."""

    def too_late(*_: Any, **__: Any) -> None:
        raise WeightsLoaded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "EXPERIMENTS", plan.EXPERIMENTS)
        shipped = plan.EXPERIMENTS
        places = make(tmp_path_factory.mktemp("inputs"))
        places["own"], places["shipped"] = str(plan.EXPERIMENTS), str(shipped)
        for name in (
            "diffusion.pipeline.load_pipeline", "scoring.encoders.load_clip", "scoring.encoders.load_dino", "study.run_study",
            "studies.engine.run_study", "calibration.calibrate",
        ):  # fmt: skip
            patch.setattr(f"bayesdiff.{name}", too_late)
        yield places


def files_of(*folders: Path) -> set[Path]:
    """Everything below folders but the caches of result sets, which hold no result."""
    return {path for folder in folders for path in folder.rglob("*") if ".cache" not in path.parts}


def said(command: str, words: list[str], cwd: Path) -> str:
    """What a command says on stderr, called in this process; it has to end with code 2 and leave nothing."""
    out, err = StringIO(), StringIO()
    before = files_of(cwd)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", [f"bayesdiff-{command}", *words])
        try:
            code = import_module(f"bayesdiff.{command}").main()
        except SystemExit as end:
            code = end.code
    assert code == ExitCode.BAD_INPUT, (code, err.getvalue(), out.getvalue()[:500])
    assert files_of(cwd) == before
    return err.getvalue()


def is_one_line_with_a_remedy(line: str) -> None:
    assert line.startswith("bayesdiff: ")
    assert line.count("\n") == 1 and line.endswith("\n")
    assert "Traceback" not in line and len(line) < 2500
    assert REMEDY.search(line), line


def named(words: list[str]) -> list[str]:
    """Key, option or file of the last word: one of them has to stand in the line."""
    if not words:
        return ["required", "missing", "name the", "study"]
    last = words[-1]
    key = last.lstrip("+~").partition("=")[0]
    option = next((word for word in reversed(words) if word.startswith("--")), key)
    return [
        key[:60], option, last[:60], key.rpartition(".")[0] or key, "required", "--photos is missing",
        *(word.partition("=")[2][:60] or word[:60] for word in words),
        str(Path(words[0]).parent / "claims.yaml"),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(len(cases())))
def test_a_command_refuses(inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    command, words = cases()[number]
    for name, value in inputs.items():
        words = [word.replace(name, value) for word in words]
    monkeypatch.setattr(plan, "EXPERIMENTS", Path(inputs["own" if command in OWN_STUDIES else "shipped"]))
    before = files_of(Path(inputs["{R}"]))
    line = said(command, words, tmp_path)
    is_one_line_with_a_remedy(line)
    assert any(escape.plain(name) in line for name in named(words)), (line, words)
    assert files_of(Path(inputs["{R}"])) == before


@pytest.mark.parametrize("words", RUN + LATER, ids=lambda words: " ".join(words)[:60])
def test_a_run_refuses(inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    words = [word.replace("{R}", inputs["{R}"]) for word in words]
    if not any("hydra" in word for word in words):  # nobody sets hydra.mode, for which alone Hydra composes a first time
        monkeypatch.setattr(Hydra, "get_mode", lambda *_, **__: None)
    line = said("run", [SMOKE, *words], tmp_path)
    is_one_line_with_a_remedy(line)
    assert any(name in line for name in named(words)), (line, words)


@pytest.mark.parametrize("word", of_schema(), ids=lambda word: word[:60])
def test_no_study_and_no_plan_takes(word: str) -> None:
    with pytest.raises(UserError) as error:
        check_word(word)
        derive((SMOKE, word))
    line = f"bayesdiff: {error.value}\n"
    is_one_line_with_a_remedy(line)
    assert word.partition("=")[0] in line


@pytest.mark.slow
@pytest.mark.parametrize("word", of_schema(), ids=lambda word: word[:60])
def test_no_run_takes(inputs: dict[str, str], tmp_path: Path, word: str) -> None:
    line = said("run", [SMOKE, word], tmp_path)
    is_one_line_with_a_remedy(line)
    assert word.partition("=")[0] in line


def test_there_are_many() -> None:
    assert len(cases()) + len(RUN) + len(LATER) + len(of_schema()) >= 400
