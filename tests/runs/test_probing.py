"""Probes read the model as it stands, its text encoders too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import Make, load

from bayesdiff.diffusion.batch import encode_pictures
from bayesdiff.runs.probing import pretrained_losses
from bayesdiff.training.loop import Training, prepare


def run_of(make_config: Make, folder: Path, *words: str) -> tuple[Any, Training]:
    cfg, pipe = make_config("+experiment=smoke", "model.resolution=64", *words), load(folder)
    return cfg, prepare(pipe, cfg, encode_pictures(pipe, [Image.new("RGB", (64, 64), "red")], "a photo of qwe backpack"), None)


@pytest.mark.parametrize(("trained", "changes"), [("true", True), ("false", False)])
def test_a_trained_text_encoder_is_read_anew(make_config: Make, random_pipeline: Path, trained: str, changes: bool) -> None:
    """The loss with the prompt changes as its encoding does. A frozen encoder is not read again, whatever the test does to it."""
    cfg, state = run_of(make_config, random_pipeline, f"method.train_text_encoder={trained}")
    before = pretrained_losses(state, cfg)
    with torch.no_grad():
        for parameter in state.pipe.text_encoder.parameters():
            parameter.add_(0.1)
    assert (pretrained_losses(state, cfg) != before) is changes


def test_the_empty_prompt_is_read_once(make_config: Make, random_pipeline: Path) -> None:
    cfg, state = run_of(make_config, random_pipeline)
    passes: list[int] = []
    state.pipe.text_encoder.register_forward_hook(lambda *_: passes.append(1))
    assert pretrained_losses(state, cfg) == pretrained_losses(state, cfg)
    assert len(passes) == 1
