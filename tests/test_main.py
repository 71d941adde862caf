"""``bayesdiff`` itself: it lists, completes and calls the commands, and imports only the one it calls."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import bayesdiff
from bayesdiff.__main__ import COMMANDS, SHELLS, main
from bayesdiff.core.errors import ExitCode
from tests.timed import cpu_seconds

ROOT = Path(__file__).resolve().parents[1]
ANSWER_FD = 8
"""Where argcomplete's shell code reads the answer."""


def asked(*words: str, cwd: Path, module: str = "bayesdiff", **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([sys.executable, "-m", module, *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, list[str]]:
    """The exit code of ``bayesdiff`` and the words with which it called ``run``."""
    seen: list[str] = []
    monkeypatch.setattr("bayesdiff.run.main", lambda: seen.extend(["run", *sys.argv[1:]]))
    monkeypatch.setattr(sys, "argv", ["bayesdiff", *words])
    return main(), seen


def test_every_command_is_listed_and_has_a_main() -> None:
    files = {path.stem for path in (ROOT / "bayesdiff").glob("*.py")} - {"__init__", "__main__"}
    assert {name for name in files if hasattr(import_module(f"bayesdiff.{name}"), "main")} == set(COMMANDS)


def test_console_scripts_are_commands() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts.pop("bayesdiff") == "bayesdiff.__main__:main"
    assert all(target == f"bayesdiff.{name.removeprefix('bayesdiff-')}:main" for name, target in scripts.items())
    assert {name.removeprefix("bayesdiff-") for name in scripts} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_takes_less_than_two_seconds_and_loads_no_model_library(tmp_path: Path, name: str) -> None:
    done, seconds = cpu_seconds(lambda: asked(name, "--help", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1"), 2)
    assert done.returncode == 0
    assert f"bayesdiff.{name}" in done.stdout if name in ("run", "worker") else f"usage: bayesdiff {name} " in done.stdout
    assert seconds < 2
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"torch", "diffusers", "transformers", "wandb", "open_clip", "timm", "matplotlib", "scipy.stats", "scipy.linalg"}
    assert "pandas" not in loaded or name not in ("run", "worker")


def test_the_help_lists_the_commands_one_line_each_and_imports_none(tmp_path: Path) -> None:
    done = asked("--help", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and line.split()[0] in COMMANDS] == list(COMMANDS)
    assert not {f"bayesdiff.{name}" for name in COMMANDS} & {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_the_version_is_the_one_that_is_built(tmp_path: Path) -> None:
    assert asked("--version", cwd=tmp_path).stdout == f"bayesdiff {bayesdiff.__version__}\n"
    assert f"version: {bayesdiff.__version__}" in (ROOT / "CITATION.cff").read_text().splitlines()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["version"]["path"] == "bayesdiff/__init__.py"


@pytest.mark.parametrize("words", [["+experiment=smoke"], ["seed=3", "bnn=on"], ["--cfg", "job"], ["-m", "seed=1,2"], ["~bnn"]])
def test_words_of_a_run_without_a_command_are_a_run(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    assert called(monkeypatch, *words) == called(monkeypatch, "run", *words) == (0, ["run", *words])


def test_an_unknown_command_is_bad_input_and_the_nearest_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "verdct") == (ExitCode.BAD_INPUT, [])
    assert capsys.readouterr().err.endswith("; did you mean verdict?\n")


@pytest.mark.parametrize("words", [["study", "figure_1", "--dry-run"], ["verdict", "none.csv"], ["status", "figre_1"]])
def test_a_command_says_and_ends_as_its_module(tmp_path: Path, words: list[str]) -> None:
    ours, theirs = asked(*words, cwd=tmp_path), asked(*words[1:], cwd=tmp_path, module=f"bayesdiff.{words[0]}")
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)


def completions(line: str, cwd: Path) -> set[str]:
    """What the shell is offered at the end of ``line``."""
    code = f"import os, sys; os.dup2(1, {ANSWER_FD}); sys.argv = ['bayesdiff']; from bayesdiff.__main__ import main; main()"
    asking = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SHELL": "bash", "_ARGCOMPLETE_COMP_WORDBREAKS": " =:"}
    typed = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
    env = {**os.environ, "PYTHONPATH": str(ROOT), **asking, **typed}
    answer = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=120)
    return {word.strip() for word in answer.stdout.splitlines()}


COMPLETED = [
    ("bayesdiff st", {"study", "status"}),
    ("bayesdiff study figure_9", {"figure_9a", "figure_9b"}),
    ("bayesdiff status table_1_", {"table_1_faces"}),
    ("bayesdiff tables --ex", {"--explain"}),
    ("bayesdiff run +experiment=sm", {"smoke"}),
    ("bayesdiff +experiment=sm", {"smoke"}),
    ("bayesdiff run bnn=o", {"on", "off"}),
    ("bayesdiff run schedule.kee", {"schedule.keep="}),
    ("bayesdiff verdict cur", {"curve.csv"}),
]


@pytest.mark.parametrize(("line", "offered"), COMPLETED)
def test_tab_completes(tmp_path: Path, line: str, offered: set[str]) -> None:
    (tmp_path / "curve.csv").touch()
    assert completions(line, tmp_path) == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_code_names_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: str) -> None:
    monkeypatch.setattr(sys, "argv", ["bayesdiff", "--completion", shell])
    assert main() == 0
    assert "bayesdiff" in capsys.readouterr().out
