"""Views of the films, the contrastive loss, and the encoder as it is shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from bayesdiff.pretraining import dino
from bayesdiff.pretraining.dataset import to_pixels
from bayesdiff.pretraining.dino import ARCHITECTURE, MODEL_ARGS, contrastive_loss, crop, other_camera, save
from bayesdiff.scoring.encoders import load_dino


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


def test_the_other_camera_is_one_for_a_film_and_another_for_the_next() -> None:
    frames = [torch.zeros(3, 3, 32, 32), torch.zeros(3, 3, 32, 32)]
    first, second = other_camera(frames, generator())
    gains = [frame.mean((2, 3)) for frame in (first, second)]
    torch.testing.assert_close(gains[0], gains[1], atol=0.06, rtol=0)
    grains = torch.stack([frame.std((1, 2, 3)) for frame in (first, second)])
    torch.testing.assert_close(grains[0], grains[1], atol=0.02, rtol=0)
    assert len(torch.unique(gains[0].round(decimals=3))) > 3
    assert not torch.equal(first, second)


def test_the_loss_is_low_where_frames_of_a_film_are_alike_and_cameras_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightly", reason="only pretraining needs it")
    monkeypatch.setattr(dino, "BATCH", 8)
    values = np.random.default_rng(0).integers(0, 256, (400, 1, 1, 1, 3), dtype=np.uint8)
    films = np.broadcast_to(values, (400, 2, 64, 64, 3)).copy()
    shuffled = np.stack([films[:, 0], films[::-1, 1]], 1)

    def colour_and_grain(views: torch.Tensor) -> torch.Tensor:
        return torch.cat([views.mean((2, 3)), 4 * views.std((2, 3))], -1)

    model = colour_and_grain  # the loss asks for nothing but features
    alike, foreign = (float(contrastive_loss(model, f, generator())) for f in (films, shuffled))  # type: ignore[arg-type]
    assert alike < foreign


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
