"""``python -m bayesdiff.judge``: exit codes, words and JSON; known samples are judged without loading an encoder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bayesdiff.core.errors import ExitCode
from bayesdiff.judge import main
from tests.made_pages import Page, check_whole
from tests.timed import cpu_seconds

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


def test_a_report_is_the_page_of_the_verdict(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the samples, which stay as they are; the page's own command has the words that were given."""
    target = tmp_path / "out" / "page.html"
    assert main([*words, "--json", "--report", str(target)]) == ExitCode.FOUND
    out, err = capsys.readouterr()
    assert err.endswith(f"page: {target}\n")
    page = Page(target.read_text())
    check_whole(page)
    assert json.loads(out)["sentence"] in page.text
    (arm,) = page.data["arms"]
    assert arm["pictures"] == arm["steps"] == list(range(100, 1700, 100))
    assert all(uri.startswith("data:image/webp") for step in arm["steps"] for uri in page.store(f"pictures-0-{step}"))
    assert len(page.data["photos"]) == 1
    assert [metric["name"] for metric in page.data["metrics"]][:2] == ["dino", "clip_i"]
    assert f"Judge it again bayesdiff judge {tmp_path / 'out'} --photos" in page.text
    assert main([*words, "--report", str(tmp_path / "photos" / "0.png" / "x.html")]) == ExitCode.BAD_INPUT
    assert capsys.readouterr().err.count("\n") == 1


def test_known_samples_are_judged_without_loading_an_encoder(words: list[str], tmp_path: Path) -> None:
    assert main(words) == ExitCode.FOUND
    code = f"import sys; from bayesdiff.judge import main; main({words!r}); print(sorted(sys.modules), file=sys.stderr)"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    asked = partial(subprocess.run, [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    done, seconds = cpu_seconds(partial(asked, timeout=120), 3)
    assert seconds < 3, "from start to end"
    assert "Avoid steps 700 to 1100" in done.stdout
    assert "'bayesdiff.scoring.encoders'" in done.stderr
    assert not {"torch", "open_clip", "timm", "diffusers", "transformers", "scipy.stats"} & set(
        done.stderr.replace("'", " ").replace(",", " ").split()
    )


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


def heeds_ctrl_c() -> None:
    """What runs behind a shell's ``&`` is born deaf to Ctrl-C, and so are these tests then."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_folder_that_is_watched_is_judged_again_and_ctrl_c_ends_with_the_verdict(words: list[str], tmp_path: Path) -> None:
    steps = {step: tmp_path / "out" / f"step-{step}" for step in range(100, 1700, 100)}
    for step in range(600, 1700, 100):
        steps[step].rename(tmp_path / f"aside-{step}")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bayesdiff.judge", *words, "--watch"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeds_ctrl_c
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None

        def until_it_waits() -> str:
            said = ""
            while (line := watching.stdout.readline()) != "watching; Ctrl-C ends with the verdict\n":  # type: ignore[union-attr]
                assert line, f"it ended: {said}"
                said += line
            return said

        assert "too few for a verdict" in until_it_waits()
        shutil.copytree(tmp_path / "aside-600", steps[600])
        (half := steps[600] / "0.png").write_bytes(b"half")
        assert "cannot read the sample" in watching.stderr.readline(), "a file that is being written is waited for"
        shutil.copy(tmp_path / "aside-600" / "0.png", half)
        while "6 checkpoints of 6 samples" not in until_it_waits():
            pass
        for step in range(700, 1700, 100):
            shutil.move(tmp_path / f"aside-{step}", tmp_path / "staged" / f"step-{step}")
        for step in range(700, 1700, 100):
            (tmp_path / "staged" / f"step-{step}").rename(steps[step])
        while "16 checkpoints of 6 samples" not in until_it_waits():
            pass
        watching.send_signal(signal.SIGINT)
        out, err = watching.communicate(timeout=60)
        assert "Avoid steps 700 to 1100" in out.splitlines()[-1]
        assert (watching.returncode, "Traceback" in err) == (ExitCode.FOUND, False)
    assert main([*words, "--watch", "--photos", str(tmp_path / "none")]) == ExitCode.BAD_INPUT
