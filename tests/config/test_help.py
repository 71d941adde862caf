"""The help of ``run`` and ``worker``: Hydra's own text, without the second that Hydra takes for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bayesdiff.config.help import help_of, print_help

ROOT = Path(__file__).resolve().parents[2]


def printed(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(("command", "file"), [("run", "config"), ("worker", "worker")])
def test_the_help_is_hydras_own(command: str, file: str) -> None:
    assert printed(f"bayesdiff.{command}", "--help") == printed(f"bayesdiff.{command}", "--help", "hydra.job.name=other")
    assert printed(f"bayesdiff.{command}", "-h") == help_of(file) + "\n"


@pytest.mark.parametrize("words", [[], ["--cfg", "job"], ["--help", "--config-dir", "mine"], ["--hydra-help"]])
def test_other_words_are_hydras(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert not print_help("config", words)
    assert capsys.readouterr().out == ""
