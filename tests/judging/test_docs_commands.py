"""The commands of docs/judge.md lead from each trainer's output folder to an answer."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from bayesdiff.core.errors import ExitCode
from bayesdiff.judge import main
from bayesdiff.judging import settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "judge.md").read_text()
SECTIONS = dict(re.findall(r"^### ([^\n]+)\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL))
NAMES: dict[str, tuple[Callable[[int, int], str], Callable[[int], str]]] = {
    "kohya's sd-scripts": (
        lambda i, j: f"OUTPUT/sample/mine_{100 * i:06d}_{j:02d}_20240819160839.png", lambda i: f"OUTPUT/mine-step{100 * i:08d}.safetensors",
    ),
    "ai-toolkit": (
        lambda i, j: f"OUTPUT/samples/1724080000123__{100 * i:09d}_{j}.jpg", lambda i: f"OUTPUT/mine_{100 * i:09d}.safetensors",
    ),
    "SimpleTuner": (
        lambda i, j: f"OUTPUT/validation_images/step_{100 * i}_name{j}_0_512x512.png",
        lambda i: f"OUTPUT/checkpoint-{100 * i}/pytorch_lora_weights.safetensors",
    ),
    "OneTrainer": (
        lambda i, j: f"WORKSPACE/samples/{j} - a photo of sks dog/2024-08-19_16-08-39-training-sample-{100 * i}-{i}-0.png",
        lambda i: f"WORKSPACE/save/2024-08-19_16-08-39-save-{100 * i}-{i}-0.safetensors",
    ),
    "A diffusers script, or any other": (
        lambda i, j: f"OUTPUT/step-{100 * i}/{j}.png", lambda i: f"OUTPUT/checkpoint-{100 * i}/pytorch_lora_weights.safetensors",
    ),
}  # fmt: skip
"""Of each section: samples by step and prompt, and checkpoints by step."""
STEPS = range(1, 7)


def picture(seed: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC)


def write(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photographs and prompts; the encoders are the toybox's, which need no download."""
    write(tmp_path / "PHOTOS" / "10_sks dog" / "0.jpg", picture(0))
    for name in ("sample_prompts.txt", "prompts.txt"):
        (tmp_path / name).write_text("a photo of sks dog\na sks dog on the beach\n")
    (tmp_path / "user_prompt_library.json").write_text('{"name0": "a photo of sks dog", "name1": "a sks dog on the beach"}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(settings, "DEFAULT_METRICS", "toybox")
    return tmp_path


def test_every_trainer_has_a_section_with_three_commands() -> None:
    assert {*NAMES, "peft", "A run of this package"} == set(SECTIONS)
    for text in SECTIONS.values():
        assert text.count("\npython -m bayesdiff.") == 3


@pytest.mark.parametrize("trainer", NAMES)
def test_the_commands_of_a_trainer_lead_to_an_answer(trainer: str, desk: Path, twin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample, checkpoint = NAMES[trainer]
    for i in STEPS:
        for j in range(2):
            write(desk / sample(i, j), picture(10 * i + j))
            if trainer.startswith("A diffusers"):
                write(desk / f"OUTPUT/out-{j}-at{100 * i}.png", picture(10 * i + j))
        (file := desk / checkpoint(i)).parent.mkdir(parents=True, exist_ok=True)
        layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
        save_file({f"{layer}.lora_A.weight": torch.full((1, 16), 0.1 * i), f"{layer}.lora_B.weight": torch.ones(16, 1)}, file)
    commands = [shlex.split(line)[3:] for line in SECTIONS[trainer].splitlines() if line.startswith("python -m bayesdiff.judge ")]
    assert ["--model" in words for words in commands] == [False, False, True]
    for words in commands:
        quick = ["sampler.steps=1", "sampler.images_per_prompt=1"] if "--model" in words else []
        ours = [str(twin) if before == "--model" else word for before, word in zip(["", *words], words, strict=False)]
        assert main([*ours, *quick]) in (ExitCode.DONE, ExitCode.FOUND), words
        said = capsys.readouterr().out
        if "--model" in words:
            assert "6 checkpoints, named as" in said
            assert "and the base model as step 0" in said
        else:
            assert "6 checkpoints of 2 samples" in said
        assert ("CLIP-T is left out" in said) == (words == commands[0] and trainer != "OneTrainer")
