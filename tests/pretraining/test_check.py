"""The check's own arithmetic; the measured bars are a slow test of the shipped weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from bayesdiff.pretraining.check import Bar, auc, hundred_pictures, measure, similarity_loss


def test_auc_of_separated_and_of_equal_scores() -> None:
    assert auc(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 1.0
    assert auc(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 0.5
    assert auc(np.array([0.0]), np.array([1.0])) == 0.0


@pytest.mark.parametrize(("value", "passed"), [(0.7, False), (0.8, True), (1.25, True), (1.3, False), (float("nan"), False)])
def test_a_bar_holds_between_its_bounds(value: float, passed: bool) -> None:
    assert Bar("x", value, 0.8, 1.25).passed is passed


def test_the_hundred_captions_differ() -> None:
    pictures, captions = hundred_pictures(np.random.default_rng(0))
    assert len(pictures) == len(set(captions)) == 100


def test_an_unchanged_picture_loses_no_similarity() -> None:
    def encode(images: list[Image.Image]) -> torch.Tensor:
        flat = torch.stack([torch.from_numpy(np.asarray(i, dtype=np.float32)).flatten() for i in images])
        return torch.nn.functional.normalize(flat, dim=-1)

    pictures = hundred_pictures(np.random.default_rng(0))[0][:4]
    assert similarity_loss(encode, pictures, lambda x: x) == pytest.approx(0.0, abs=1e-4)
    assert similarity_loss(encode, pictures, lambda x: -x) > 0.1


@pytest.mark.slow
def test_the_shipped_toybox_reaches_its_bars() -> None:
    assert [bar.name for bar in measure() if not bar.passed] == []
