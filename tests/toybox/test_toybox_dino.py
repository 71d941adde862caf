"""Views of the self-distillation, its loss, and the encoder as it is shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from bayesdiff.encoders import load_dino
from bayesdiff.toybox import dino
from bayesdiff.toybox.dataset import to_pixels
from bayesdiff.toybox.dino import ARCHITECTURE, MODEL_ARGS, Student, crop, distillation_loss, save


def numbered(count: int, side: int) -> torch.Tensor:
    """Images whose every value occurs once."""
    return torch.arange(count * 3 * side * side, dtype=torch.float32).reshape(count, 3, side, side)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("side", [1, 5, 8])
def test_a_view_is_a_window_of_its_image_or_its_mirror_image(side: int) -> None:
    images = numbered(40, 8)
    views = crop(images, side, generator())
    assert views.shape == (40, 3, side, side)
    mirrored = 0
    for image, view in zip(images, views, strict=True):
        windows = image.unfold(1, side, 1).unfold(2, side, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
        straight, turned = ((windows == v).flatten(1).all(1).any() for v in (view, view.flip(-1)))
        assert straight or turned
        mirrored += int(turned and not straight)
    assert side == 1 or 8 <= mirrored <= 32


def test_views_reach_every_corner() -> None:
    views = crop(numbered(1, 6).expand(400, -1, -1, -1), 4, generator())
    assert len(torch.unique(views[:, 0, 0, :].amin(-1))) == 9


def test_views_are_a_function_of_the_generator() -> None:
    images = numbered(6, 8)
    assert torch.equal(crop(images, 5, generator(1)), crop(images, 5, generator(1)))
    assert not torch.equal(crop(images, 5, generator(1)), crop(images, 5, generator(2)))


def test_the_loss_is_finite_and_teaches_the_student_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightly", reason="only pretraining needs it")
    monkeypatch.setattr(dino, "BATCH", 3)
    films = np.random.default_rng(0).integers(0, 256, (4, 2, 64, 64, 3), dtype=np.uint8)
    torch.manual_seed(0)
    student, teacher = Student(), Student()
    loss = distillation_loss(student, teacher, films, generator())
    loss.backward()
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert float(student.prototypes.weight.grad.abs().sum()) > 0
    assert float(student.backbone.patch_embed.proj.weight.grad.abs().sum()) > 0
    assert all(p.grad is None for p in teacher.parameters())


def test_a_saved_encoder_is_loaded_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = timm.create_model(ARCHITECTURE, pretrained=False, **MODEL_ARGS).eval()
    save(backbone, tmp_path / "dino")
    array = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    loaded = load_dino(f"local-dir:{tmp_path / 'dino'}", torch.device("cpu"))([Image.fromarray(array)])
    with torch.no_grad():
        truth = torch.nn.functional.normalize(backbone(to_pixels(array[None])), dim=-1)
    assert loaded.shape == (1, MODEL_ARGS["embed_dim"])
    assert float((loaded * truth).sum()) == pytest.approx(1, abs=1e-3)
