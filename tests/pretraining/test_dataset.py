"""Rendered once, opened from then on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bayesdiff.pretraining import dataset
from bayesdiff.pretraining.dataset import WorldData, render_films, render_world, to_pixels
from bayesdiff.toybox.world import film, sample


def refuse(*_: object) -> None:
    raise AssertionError("rendered again")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorldData:
    """Three pictures in two chunks; anything that renders after that fails."""
    monkeypatch.setattr(dataset, "CHUNK", 2)
    data = render_world(tmp_path, 3, seed=9)
    monkeypatch.setattr(dataset, "ProcessPoolExecutor", refuse)
    return data


def test_the_world_on_disk_is_the_world(world: WorldData) -> None:
    assert (world.images.shape, world.images.dtype, len(world.captions)) == ((3, 64, 64, 3), np.uint8, 3)
    for index in range(3):
        image, text = sample(9, index)
        assert np.array_equal(world.images[index], image)
        assert world.captions[index] == text


def test_a_rendered_world_is_opened_unchanged(world: WorldData, tmp_path: Path) -> None:
    again = render_world(tmp_path, 3, seed=9)
    assert np.array_equal(again.images, world.images)
    assert again.captions == world.captions
    with pytest.raises(ValueError, match="read-only"):
        again.images[0] = 0


def test_another_seed_or_count_is_another_world(world: WorldData, tmp_path: Path) -> None:
    for count, seed in ((4, 9), (3, 10)):
        with pytest.raises(AssertionError, match="rendered again"):
            render_world(tmp_path, count, seed)


def test_a_world_that_was_not_finished_is_rendered_again(tmp_path: Path) -> None:
    first = render_world(tmp_path, 2, seed=9)
    (tmp_path / "world-9-2.json").unlink()
    (tmp_path / "world-9-2.npy").write_bytes(b"half a file")
    again = render_world(tmp_path, 2, seed=9)
    assert again.captions == first.captions
    assert np.array_equal(again.images[1], sample(9, 1)[0])


def test_films_are_rendered_once_and_are_the_world_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    films = render_films(tmp_path, 2, seed=9)
    assert np.array_equal(films, np.stack([film(9, 0), film(9, 1)]))
    monkeypatch.setattr(dataset, "ProcessPoolExecutor", refuse)
    assert np.array_equal(render_films(tmp_path, 2, seed=9), films)


def test_pixels_reach_from_minus_one_to_one(world: WorldData) -> None:
    ends = np.zeros((1, 2, 2, 3), np.uint8)
    ends[0, 0, 1] = (0, 255, 0)
    pixels = to_pixels(ends)
    assert (pixels.shape, pixels.dtype) == ((1, 3, 2, 2), torch.float32)
    assert pixels[0, :, 0, 1].tolist() == [-1, 1, -1]
    assert pixels.min() == -1


@pytest.mark.parametrize("indices", [[2, 0, 2], torch.tensor([2, 0, 2])], ids=["list", "tensor"])
def test_a_batch_is_the_pictures_asked_for(world: WorldData, indices: list[int] | torch.Tensor) -> None:
    batch = world.batch(indices)
    assert batch.shape == (3, 3, 64, 64)
    assert torch.equal(batch[0], batch[2])
    assert torch.equal(batch[1], to_pixels(np.array(world.images[:1]))[0])
