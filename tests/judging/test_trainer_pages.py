"""Each page of docs/trainers leads from that trainer's output folder to the answer that it prints.

The folders are small, and named as the trainer names its files. Samples are drawings of the toybox's dog, which grow noisy and clear
again; checkpoints are LoRA files and adapters of a tiny random model. Encoders are the toybox's.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from bayesdiff import judge, verdict
from bayesdiff.core.errors import ExitCode
from bayesdiff.judging import settings
from bayesdiff.toybox.objects import Instance, sample_instance
from bayesdiff.toybox.pictures import Picture, render
from bayesdiff.toybox.subjects import render_subject, subject_instance
from tests.made_pages import Page, check_whole

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs" / "trainers").glob("*.md"))}
JUDGE = (ROOT / "docs" / "judge.md").read_text()
HEADS = ["Where things lie", "Three commands", "The answer", "What to do next", "Which options are needed"]
OTHER = (1.0, 0.7, 0.4, 0.2, 0.1, 0.05)
"""How much of the first checkpoints' samples is another dog; later ones have none of it."""
GRAIN = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.2, 0.5, 0.6, 0.5, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0)
"""How much of each checkpoint's samples is noise."""
PROMPTS = ("a photo of sks dog", "sks dog on the beach", "sks dog in the snow", "sks dog in the jungle")
SCENES = (None, "on the beach", "in the snow", "in the jungle")
ADAPTERS = range(1, 7)
"""Checkpoints with weights, in hundreds of steps."""
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_v"


@dataclass(frozen=True)
class Trainer:
    """Names of the files of a trainer."""

    sample: Callable[[int, int], str] | None
    """Step and prompt -> the sample; None for a trainer that keeps none."""
    checkpoint: Callable[[int], str]
    """Step -> the file of a LoRA, or the folder of an adapter."""
    answer: int
    """The command, from 0, whose output the page shows."""


TRAINERS = {
    "kohya": Trainer(
        lambda step, j: f"OUTPUT/sample/mine_{step:06d}_{j:02d}_20240819160839.png",
        lambda step: f"OUTPUT/mine-step{step:08d}.safetensors", 1,
    ),
    "ai-toolkit": Trainer(
        lambda step, j: f"OUTPUT/samples/1724080000123__{step:09d}_{j}.jpg", lambda step: f"OUTPUT/mine_{step:09d}.safetensors", 1,
    ),
    "simpletuner": Trainer(
        lambda step, j: f"OUTPUT/validation_images/step_{step}_name{j}_0_512x512.png",
        lambda step: f"OUTPUT/checkpoint-{step}/pytorch_lora_weights.safetensors", 1,
    ),
    "onetrainer": Trainer(
        lambda step, j: f"WORKSPACE/samples/{j} - {PROMPTS[j]}/2024-08-19_16-08-39-training-sample-{step}-{step // 100}-0.png",
        lambda step: f"WORKSPACE/save/2024-08-19_16-08-39-save-{step}-{step // 100}-0.safetensors", 1,
    ),
    "diffusers": Trainer(
        lambda step, j: f"validation/images/step-{step:06d}/prompt-{j:02d}-image-00.png",
        lambda step: f"OUTPUT/checkpoint-{step}/pytorch_lora_weights.safetensors", 1,
    ),
    "peft": Trainer(None, lambda step: f"OUTPUT/step-{step}", 2),
}  # fmt: skip


@cache
def drawn(seed: int, instance: Instance, scene: str | None) -> np.ndarray:
    return render(np.random.default_rng(seed), Picture(instance, scene)).astype(np.float64)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def write_samples(folder: Path, name: Callable[[int, int], str]) -> None:
    """The toybox's dog in four scenes: first another dog shines through, and in the middle it is noisy."""
    rng = np.random.default_rng(1)
    dog, stray = subject_instance("toy_dog"), sample_instance(np.random.default_rng(5), "dog")
    for i, grain in enumerate(GRAIN):
        for j, scene in enumerate(SCENES):
            other = OTHER[i] if i < len(OTHER) else 0.0
            clean = (1 - other) * drawn(j, dog, scene) + other * drawn(j, stray, scene)
            noisy = (1 - grain) * clean + grain * rng.integers(0, 255, clean.shape)
            write(folder / name(100 * (i + 1), j), noisy + 6 * rng.standard_normal(clean.shape))


def write_checkpoints(folder: Path, name: Callable[[int], str]) -> None:
    for i in ADAPTERS:
        path = folder / name(100 * i)
        drawn_at = torch.Generator().manual_seed(i)
        weights = {"A": 2 * torch.randn(1, 16, generator=drawn_at), "B": 2 * torch.randn(16, 1, generator=drawn_at)}
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({f"unet.{LAYER}.lora_{end}.weight": value for end, value in weights.items()}, path)
        else:
            path.mkdir(parents=True)
            (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": [LAYER]}))
            named = {f"base_model.model.{LAYER}.lora_{end}.weight": value for end, value in weights.items()}
            save_file(named, path / "adapter_model.safetensors")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photographs, prompts, and scores of peft's benchmark; the encoders need no download."""
    write(tmp_path / "PHOTOS" / "10_sks dog" / "0.png", render_subject("toy_dog")[0])
    (tmp_path / "validation").mkdir()
    for name in ("sample_prompts.txt", "prompts.txt", "validation/prompts.txt"):
        (tmp_path / name).write_text("\n".join(PROMPTS))
    (tmp_path / "user_prompt_library.json").write_text(json.dumps({f"name{j}": prompt for j, prompt in enumerate(PROMPTS)}))
    (tmp_path / "results").mkdir()
    metrics = [{"step": 100 * i, "valid dino_similarity": 0.9 - grain, "train loss": 1.0} for i, grain in enumerate(GRAIN, 1)]
    (tmp_path / "results" / "NAME.json").write_text(json.dumps({"run_info": {}, "train_info": {"metrics": metrics}}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(settings, "DEFAULT_METRICS", "toybox")
    return tmp_path


def block(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0].splitlines()


def test_every_page_has_the_same_structure_and_is_linked() -> None:
    assert set(PAGES) == set(TRAINERS)
    for name, page in PAGES.items():
        assert re.findall(r"^## (.*)$", page, re.MULTILINE) == HEADS
        assert len(block(page, "sh")) == 3
        assert re.search(r"at commit [0-9a-f]{7}", page), "where names were read"
        assert f"(trainers/{name}.md)" in JUDGE


@pytest.mark.parametrize("name", TRAINERS)
def test_what_to_keep_is_what_the_answer_says(name: str) -> None:
    answer = block(PAGES[name], "text")[0]
    (advice,) = [line for line in PAGES[name].splitlines() if line.startswith("- **Keep")]
    said, named = re.search(r"Keep step (\d+)", answer), [int(found) for found in re.findall(r"\d{3,}", advice)]
    if said is None:
        assert advice.startswith("- **Keep:** Where it names a step, keep ")
    else:
        assert set(named) <= {int(said[1])}


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"\d+(?:\.\d+)?", text)]


def check_answer(shown: list[str], said: list[str], meaningless: bool) -> None:
    """The page's lines are what was printed: words and steps exactly, scores as nearly as other machines compute them."""
    for line, found in zip(shown, said, strict=False):
        if not meaningless:
            assert re.sub(r"\d+(\.\d+)?", "#", line) == re.sub(r"\d+(\.\d+)?", "#", found)
            assert numbers(line) == pytest.approx(numbers(found), abs=0.03)
        elif not line.startswith(("OUTPUT", "  noise")):
            assert line == found
    assert len(said) > len(shown), "a table follows"


@pytest.mark.parametrize("name", TRAINERS)
def test_the_three_commands_lead_to_the_answer(name: str, desk: Path, twin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer, page = TRAINERS[name], PAGES[name]
    if trainer.sample is not None:
        write_samples(desk, trainer.sample)
    write_checkpoints(desk, trainer.checkpoint)
    for number, line in enumerate(block(page, "sh")):
        program, command, *words = shlex.split(line)
        assert (program, command in ("judge", "verdict")) == ("bayesdiff", True)
        on_model = "--model" in words
        ours = [str(twin) if before == "--model" else word for before, word in zip(["", *words], words, strict=False)]
        quick = ["sampler.steps=1", "sampler.images_per_prompt=1"] if on_model else []
        code = (judge.main if command == "judge" else verdict.main)([*ours, *quick])
        assert code in (ExitCode.DONE, ExitCode.FOUND), line
        said = capsys.readouterr().out.replace(str(twin), "sd15").splitlines()
        if number == trainer.answer:
            check_answer(block(page, "text"), said, on_model)
        if "--report" in words:
            report = Page(Path(words[words.index("--report") + 1]).read_text())
            check_whole(report)
            arm = report.data["arms"][0]
            assert arm["pictures"] == arm["steps"], "every checkpoint has its samples, also those that were made"


@pytest.mark.parametrize("pattern", [False, True])
def test_any_other_trainer(pattern: bool, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands of docs/judge.md for a folder a step, and for names of one's own."""
    section = JUDGE.partition("### Any other trainer")[2]
    write_samples(desk, (lambda step, j: f"OUTPUT/out-{j}-at{step}.png") if pattern else (lambda step, j: f"OUTPUT/step-{step}/{j}.png"))
    words = shlex.split(block(section, "sh")[pattern])[3:]
    assert ("--pattern" in words) == pattern
    assert judge.main(words) == ExitCode.FOUND
    assert "Avoid steps 700 to 1100" in capsys.readouterr().out


def test_the_commands_name_what_the_text_says(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --prompts only OneTrainer's samples have prompts; kohya's folder names identifier and class noun."""
    for name in ("kohya", "onetrainer"):
        trainer = TRAINERS[name]
        assert trainer.sample is not None
        write_samples(desk, trainer.sample)
        assert judge.main(shlex.split(block(PAGES[name], "sh")[0])[2:]) in (ExitCode.DONE, ExitCode.FOUND)
        said = capsys.readouterr().out
        assert ("CLIP-T is left out" in said, "prompts from the names of folders" in said) == (name == "kohya", name == "onetrainer")
        assert "identifier sks and class noun dog from the folder 10_sks dog" in said
