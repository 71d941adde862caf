"""Checkpoints are recognised by the names that each trainer gives them, and what is none is named with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bayesdiff.core.errors import UserError
from bayesdiff.judging.checkpoints import NAMINGS, find_checkpoints, has_checkpoints

Name = Callable[[int], str]
TRAINERS: dict[str, tuple[str, Name]] = {
    "diffusers": ("diffusers", lambda i: f"checkpoint-{100 * i}/pytorch_lora_weights.safetensors"),
    "SimpleTuner": ("diffusers", lambda i: f"checkpoint-{100 * i}/pytorch_lora_weights.safetensors"),
    "kohya": ("kohya", lambda i: f"my-lora-step{100 * i:08d}.safetensors"),
    "kohya without a name": ("kohya", lambda i: f"at-step{100 * i:08d}.safetensors"),
    "kohya, by epoch": ("kohya, by epoch", lambda i: f"my-lora-{i:06d}.safetensors"),
    "ai-toolkit": ("ai-toolkit", lambda i: f"my_lora_v1_{100 * i:09d}.safetensors"),
    "OneTrainer": ("OneTrainer", lambda i: f"2024-08-19_16-0{i}-39-save-{100 * i}-{i}-0.safetensors"),
    "OneTrainer with a prefix": ("OneTrainer", lambda i: f"dog-2024-08-19_16-0{i}-39-save-{100 * i}-{i}-0.safetensors"),
    "plain": ("a folder a step", lambda i: f"step-{100 * i}/pytorch_lora_weights.safetensors"),
    "epochs": ("a folder an epoch", lambda i: f"epoch_{i}/pytorch_lora_weights.safetensors"),
}


def lora(file: Path, **metadata: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({"lora_unet_mid_block_to_q.lora_down.weight": torch.ones(1, 2)}, file, metadata=metadata or None)
    return file


def made(folder: Path, name: Name) -> Path:
    for i in range(1, 4):
        lora(folder / name(i))
    return folder


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_naming_of_a_trainer_is_recognised(tmp_path: Path, trainer: str) -> None:
    naming, name = TRAINERS[trainer]
    found = find_checkpoints(made(tmp_path, name))
    assert found.naming.name == naming
    unit = 1 if found.naming.unit == "epoch" else 100
    assert [one.step for one in found.found] == [unit, 2 * unit, 3 * unit]
    assert {one.kind for one in found.found} == {"lora"}
    assert not found.others
    assert has_checkpoints(tmp_path)


def test_an_epoch_0_is_trained_and_leaves_step_0_to_the_base_model(tmp_path: Path) -> None:
    for epoch in range(3):
        lora(tmp_path / TRAINERS["epochs"][1](epoch))
    found = find_checkpoints(tmp_path)
    assert [(one.step, one.name) for one in found.found] == [(1, "epoch_0"), (2, "epoch_1"), (3, "epoch_2")]
    assert "epoch 0 is trained" in found.notes[0]


@pytest.mark.parametrize("naming", NAMINGS, ids=lambda naming: naming.name)
def test_the_example_of_a_naming_is_of_that_naming(tmp_path: Path, naming: object) -> None:
    (one,) = (one for one in NAMINGS if one is naming)
    lora(tmp_path / one.example / "pytorch_lora_weights.safetensors" if one.example.endswith("/") else tmp_path / one.example)
    assert find_checkpoints(tmp_path).naming is one


def test_the_last_file_has_its_step_in_its_metadata(tmp_path: Path) -> None:
    made(tmp_path / "kohya", TRAINERS["kohya"][1])
    lora(tmp_path / "kohya" / "my-lora.safetensors", ss_steps="350", ss_epoch="4")
    assert [one.step for one in find_checkpoints(tmp_path / "kohya").found] == [100, 200, 300, 350]
    made(tmp_path / "epochs", TRAINERS["kohya, by epoch"][1])
    lora(tmp_path / "epochs" / "my-lora.safetensors", ss_steps="350", ss_epoch="4")
    assert [one.step for one in find_checkpoints(tmp_path / "epochs").found] == [1, 2, 3, 4]
    made(tmp_path / "toolkit", TRAINERS["ai-toolkit"][1])
    lora(tmp_path / "toolkit" / "my_lora_v1.safetensors", training_info=json.dumps({"step": 350, "epoch": 0}))
    assert [one.step for one in find_checkpoints(tmp_path / "toolkit").found] == [100, 200, 300, 350]


def test_what_is_not_sampled_is_named_with_the_reason(tmp_path: Path) -> None:
    made(tmp_path, TRAINERS["kohya"][1])
    lora(tmp_path / "other.safetensors")
    save_file({"emb_params": torch.ones(2)}, tmp_path / "embedding.safetensors")
    save_file({"model.diffusion_model.x": torch.ones(2)}, tmp_path / "whole.safetensors")
    (tmp_path / "old.ckpt").touch()
    (tmp_path / "sample").mkdir()
    said = dict(other.split(" (", 1) for other in find_checkpoints(tmp_path).others)
    assert said["other.safetensors"] == "no step in its name)"
    assert said["embedding.safetensors"] == "no LoRA in it)"
    assert said["whole.safetensors"].startswith("a whole model in one file")
    assert said["old.ckpt"].startswith("a pickle may run code")
    assert len(said) == 4


def test_what_training_alone_needs_does_not_change_the_hash_and_weights_do(tmp_path: Path) -> None:
    def digests() -> list[str]:
        return [one.digest for one in find_checkpoints(tmp_path).found]

    made(tmp_path, TRAINERS["diffusers"][1])
    before = digests()
    (tmp_path / "checkpoint-100" / "optimizer.bin").write_bytes(b"moments")
    assert digests() == before
    save_file({"x.lora_down.weight": torch.zeros(1, 2)}, tmp_path / "checkpoint-100" / "pytorch_lora_weights.safetensors")
    assert [a == b for a, b in zip(digests(), before, strict=True)] == [False, True, True]


def test_several_trainings_are_refused_and_the_pattern_that_is_named_chooses_one(tmp_path: Path) -> None:
    for name in ("first", "second"):
        made(tmp_path, lambda i, name=name: f"{name}-step{i:08d}.safetensors")
    with pytest.raises(UserError, match=r"first \(3\), second \(3\)") as refused:
        find_checkpoints(tmp_path)
    pattern = str(refused.value).partition("--pattern '")[2].rstrip("'")
    assert {one.name.partition("-")[0] for one in find_checkpoints(tmp_path, pattern).found} == {"first"}


def test_folders_without_checkpoints_are_refused_with_the_reason(tmp_path: Path) -> None:
    assert not has_checkpoints(tmp_path)
    with pytest.raises(UserError, match="no checkpoints in it") as refused:
        find_checkpoints(tmp_path)
    assert all(naming.example in str(refused.value) for naming in NAMINGS)
    with pytest.raises(UserError, match="no such folder"):
        find_checkpoints(tmp_path / "none")
    (tmp_path / "checkpoint-100").mkdir()
    with pytest.raises(UserError, match=r"checkpoint-100: no pytorch_lora_weights\.safetensors"):
        find_checkpoints(tmp_path)
    (tmp_path / "a-step00000100.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="no whole safetensors file; wait"):
        find_checkpoints(tmp_path)


BESIDE_EACH_OTHER: dict[str, Callable[[str, int], str]] = {
    "kohya": lambda name, i: f"{name}-step{100 * i:08d}.safetensors",
    "kohya, by epoch": lambda name, i: f"{name}-{i:06d}.safetensors",
    "ai-toolkit": lambda name, i: f"{name}_{100 * i:09d}.safetensors",
    "OneTrainer": lambda name, i: f"{name}2024-08-19_16-0{i}-39-save-{100 * i}-{i}-0.safetensors",
}


@pytest.mark.parametrize("trainer", BESIDE_EACH_OTHER)
def test_the_pattern_that_is_named_chooses_the_checkpoints_of_one_training(tmp_path: Path, trainer: str) -> None:
    name = BESIDE_EACH_OTHER[trainer]
    for series in ("lora", "lora2x"):
        made(tmp_path, partial(name, series))
    with pytest.raises(UserError, match="several trainings") as refused:
        find_checkpoints(tmp_path)
    found = find_checkpoints(tmp_path, str(refused.value).partition("--pattern '")[2].rstrip("'"))
    unit = 1 if trainer == "kohya, by epoch" else 100
    assert [(one.step, one.name) for one in found.found] == [(unit * i, name("lora", i)) for i in range(1, 4)]
