"""``python -m bayesdiff.judge``: exit codes, words and JSON; known samples are judged without loading an encoder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bayesdiff.core.errors import ExitCode
from bayesdiff.judge import main

ROOT = Path(__file__).resolve().parents[1]
LEVELS = (0.9, 0.6, 0.3, 0.1, 0.1, 0.1, 0.3, 0.5, 0.7, 0.5, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1)
"""How much of each checkpoint's samples is noise instead of the photograph: a stage from the seventh to the eleventh."""


def picture(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC), dtype=np.float64)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The command for samples that are a mixture of the photograph and noise, judged by the shipped toybox encoders."""
    (tmp_path / "photos").mkdir()
    photo, rng = picture(0), np.random.default_rng(1)
    Image.fromarray(photo.astype(np.uint8)).save(tmp_path / "photos" / "0.png")
    for i, level in enumerate(LEVELS, 1):
        (step := tmp_path / "out" / f"step-{100 * i}").mkdir(parents=True)
        for j in range(6):
            share = np.clip(level + 0.05 * rng.standard_normal(), 0, 1)
            mixed = (1 - share) * photo + share * picture(1000 + j)
            Image.fromarray(mixed.clip(0, 255).astype(np.uint8)).save(step / f"{j}.png")
    named = ["--metrics", "toybox", "--cache", str(tmp_path / "cache")]
    return [str(tmp_path / "out"), "--photos", str(tmp_path / "photos"), *named]


def test_a_stage_is_found_avoided_and_said_first(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = main(words)
    lines = capsys.readouterr().out.splitlines()
    assert code == ExitCode.FOUND
    assert ": Keep step " in lines[0]
    assert "Avoid steps 700 to 1100" in lines[0]
    assert "16 checkpoints of 6 samples, named as a folder a step does" in lines[1]
    assert sum("corrupted" in line for line in lines) >= 3
    assert main([*words, "--json"]) == ExitCode.FOUND
    told = json.loads(capsys.readouterr().out)
    assert (told["layout"], told["samples"], told["scored_now"]) == ("a folder a step", 96, 0)


def test_known_samples_are_judged_without_loading_an_encoder(words: list[str], tmp_path: Path) -> None:
    assert main(words) == ExitCode.FOUND
    code = f"import sys; from bayesdiff.judge import main; main({words!r}); print(sorted(sys.modules), file=sys.stderr)"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=True)
    assert "Avoid steps 700 to 1100" in done.stdout
    assert "'bayesdiff.scoring.encoders'" in done.stderr
    assert not {"torch", "open_clip", "timm", "diffusers", "transformers"} & set(done.stderr.replace("'", " ").replace(",", " ").split())


def test_bad_input_is_one_line_on_stderr(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given, said in (
        ([str(tmp_path / "none")], "no such folder"),
        ([*words, "second"], "KEY=VALUE"),
        (words[:1], "--photos is missing"),
    ):
        assert main(given) == ExitCode.BAD_INPUT
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert said in err


def test_too_few_checkpoints_are_not_judged(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in range(400, 1700, 100):
        (tmp_path / "out" / f"step-{step}").rename(tmp_path / f"aside-{step}")
    assert main(words) == ExitCode.NOT_JUDGED
    assert "too few for a verdict" in capsys.readouterr().out
