"""Textures: fields around zero that multiply a picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bayesdiff.toybox.surfaces import SIZE, SURFACES, apply_texture, cells, film_grain


@pytest.mark.parametrize("name", SURFACES)
def test_a_surface_is_a_small_field_around_zero_and_a_function_of_its_seed(name: str) -> None:
    fields = [SURFACES[name](np.random.default_rng(seed)) for seed in range(4)]
    assert all(field.shape == (SIZE, SIZE) and np.isfinite(field).all() for field in fields)
    assert abs(np.mean(fields)) < 0.02
    assert 0.01 < np.std(fields) < 0.25
    assert np.array_equal(fields[0], SURFACES[name](np.random.default_rng(0)))
    assert not np.array_equal(fields[0], fields[1])


@pytest.mark.parametrize(("width", "height"), [(2, None), (8, 3), (24, 2), (7, 7)])
def test_cells_cover_the_canvas_and_vary_slower_along_their_longer_side(width: int, height: int | None) -> None:
    field = cells(np.random.default_rng(0), width, height)
    assert field.shape == (SIZE, SIZE)
    across, down = np.abs(np.diff(field, axis=1)).mean(), np.abs(np.diff(field, axis=0)).mean()
    assert (across < down) == (width > (height or width)) or width == (height or width)


def test_no_texture_changes_nothing() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
    assert np.array_equal(np.asarray(apply_texture(image, np.zeros((SIZE, SIZE)))), np.asarray(image))


def test_texture_multiplies_and_is_clipped_and_masked() -> None:
    field, mask = np.full((SIZE, SIZE), 0.5), np.zeros((SIZE, SIZE))
    mask[:10] = 1
    pixels = np.asarray(apply_texture(Image.new("RGB", (SIZE, SIZE), (100, 200, 0)), field, mask))
    assert (pixels[:10] == (150, 255, 0)).all()
    assert (pixels[10:] == (100, 200, 0)).all()


@pytest.mark.parametrize("strength", [0.02, 0.1])
def test_grain_has_the_strength_asked_for_and_is_mostly_grey(strength: float) -> None:
    noise = film_grain(np.random.default_rng(0), np.full((64, 64, 3), 0.5), strength) - 0.5
    assert noise.std() == pytest.approx(strength, rel=0.05)
    assert noise.mean(-1).std() > 5 * (noise - noise.mean(-1, keepdims=True)).std()


def test_grain_stays_in_range_and_no_grain_changes_nothing() -> None:
    flat = np.random.default_rng(1).uniform(size=(16, 16, 3))
    assert np.array_equal(film_grain(np.random.default_rng(0), flat, 0.0), flat)
    strong = film_grain(np.random.default_rng(0), flat, 2.0)
    assert (strong.min(), strong.max()) == (0, 1)
