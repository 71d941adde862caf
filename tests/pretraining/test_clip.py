"""The contrastive loss, its tokens, and the model as it is shipped."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bayesdiff.pretraining.clip import build, contrastive_loss, save, tokenize
from bayesdiff.pretraining.dataset import to_pixels
from bayesdiff.scoring.encoders import load_clip
from bayesdiff.toybox.vocabulary import BOS, EOS, MAX_TOKENS, PAD, vocabulary

WORDS = vocabulary()
TWINS = ["a red dog", "a red dog", "a mug"]
OTHERS = ["a red dog", "a blue dog", "a mug"]


class Given(nn.Module):
    """A model whose features are given: rows of ``image`` and of ``text``."""

    def __init__(self, image: torch.Tensor, text: torch.Tensor, scale: float):
        super().__init__()
        self.image, self.text, self.scale = image, text, torch.tensor(scale)

    def forward(self, pixels: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.image, self.text, self.scale


def loss(captions: list[str], image: torch.Tensor, text: torch.Tensor, scale: float = 10.0) -> float:
    return float(contrastive_loss(Given(image, text, scale), torch.empty(0), tokenize(captions)))


def test_equal_captions_are_one_target() -> None:
    image = torch.nn.functional.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    text = torch.nn.functional.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(1)), dim=-1)
    swapped = text[[1, 0, 2]]
    assert loss(TWINS, image, text) == pytest.approx(loss(TWINS, image, swapped), rel=1e-6)
    assert abs(loss(OTHERS, image, text) - loss(OTHERS, image, swapped)) > 0.1


def test_a_perfect_match_costs_nothing_and_twins_share_it() -> None:
    eye = torch.eye(3)
    assert loss(OTHERS, eye, eye, scale=100) == pytest.approx(0, abs=1e-6)
    same = eye[[0, 0, 2]]
    assert loss(TWINS, same, same, scale=100) == pytest.approx(2 / 3 * math.log(2), rel=1e-5)


def test_features_that_say_nothing_cost_the_logarithm_of_the_batch() -> None:
    assert loss(OTHERS, torch.ones(3, 1), torch.ones(3, 1)) == pytest.approx(math.log(3), rel=1e-6)


def test_the_temperature_is_clamped() -> None:
    image, text = torch.eye(3), torch.eye(3)[[1, 0, 2]]
    assert loss(OTHERS, image, text, scale=1e6) == loss(OTHERS, image, text, scale=100.0)


def test_tokens_are_framed_and_padded() -> None:
    tokens = tokenize(["a mug", "", "dog " * 60])
    assert tokens.shape == (3, MAX_TOKENS)
    assert tokens[0].tolist() == [WORDS[BOS], WORDS["a"], WORDS["mug"], WORDS[EOS], *[WORDS[PAD]] * (MAX_TOKENS - 4)]
    assert tokens.argmax(-1).tolist() == [3, 1, MAX_TOKENS - 1]


def test_a_random_model_has_a_finite_loss_that_reaches_both_towers() -> None:
    torch.manual_seed(0)
    model = build()
    value = contrastive_loss(model, torch.randn(3, 3, 64, 64), tokenize(OTHERS))
    value.backward()
    assert torch.isfinite(value)
    assert float(model.visual.conv1.weight.grad.abs().sum()) > 0
    assert float(model.token_embedding.weight.grad[WORDS["mug"]].abs().sum()) > 0


def test_a_saved_model_is_loaded_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build().eval()
    save(model, tmp_path / "clip")
    images, texts = load_clip(f"local-dir:{tmp_path / 'clip'}", torch.device("cpu"))
    array = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        image, text, _ = model(to_pixels(array[None]), tokenize(["a Red dog"]))
    assert float((images([Image.fromarray(array)]) * image).sum()) == pytest.approx(1, abs=1e-3)
    assert float((texts(["a Red dog"]) * text).sum()) == pytest.approx(1, abs=1e-3)
    assert float((texts(["a mug"]) * text).sum()) < 0.999
