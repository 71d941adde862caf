"""Clothes and finishes on the layer of an instance."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bayesdiff.toybox.objects import Head, draw_instance, sample_instance
from bayesdiff.toybox.outfits import WARDROBE, cube_shaped, dress, shiny, wet
from bayesdiff.toybox.vocabulary import LIVE_CLASSES, OUTFITS


def layers(noun: str) -> tuple[Image.Image, Image.Image, Head | None]:
    return draw_instance(np.random.default_rng(0), sample_instance(np.random.default_rng(5), noun))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_the_wardrobe_holds_every_outfit_once() -> None:
    assert tuple(WARDROBE) == OUTFITS
    assert len(set(WARDROBE.values())) == len(OUTFITS)


@pytest.mark.parametrize("noun", LIVE_CLASSES)
@pytest.mark.parametrize("outfit", OUTFITS)
def test_an_outfit_covers_a_part_of_the_animal_in_place(noun: str, outfit: str) -> None:
    layer, _, head = layers(noun)
    before = pixels(layer)
    assert head is not None
    dress(layer, head, outfit)
    share = (np.abs(pixels(layer) - before).max(-1) > 0).mean()
    assert 0.005 < share < 0.3


def test_an_unknown_outfit_is_refused() -> None:
    layer, _, head = layers("dog")
    assert head is not None
    with pytest.raises(KeyError, match="in pyjamas"):
        dress(layer, head, "in pyjamas")


def test_shine_brightens_the_body_and_nothing_else() -> None:
    layer, mask, _ = layers("mug")
    before, body = pixels(layer), np.asarray(mask) > 0
    after = pixels(shiny(layer, mask))
    assert after[body].mean() > before[body].mean() + 5
    assert np.array_equal(after[~body], before[~body])


def test_water_darkens_the_body_under_drops() -> None:
    layer, mask, _ = layers("mug")
    before, body = pixels(layer)[..., :3], np.asarray(mask) == 255
    after = pixels(wet(np.random.default_rng(0), layer, mask))[..., :3]
    dry = body & (np.abs(after - (176, 218, 248)).max(-1) > 0)
    assert after[dry].mean() < before[dry].mean()
    assert (np.abs(after - (176, 218, 248)).max(-1) == 0).mean() > 0.01


@pytest.mark.parametrize("noun", ["mug", "dog"])
def test_a_cube_is_another_outline(noun: str) -> None:
    layer, _, _ = layers(noun)
    before = pixels(layer)
    cube = cube_shaped(layer)
    assert (cube.size, cube.mode) == (layer.size, "RGBA")
    assert np.array_equal(pixels(layer), before)
    box = cube.getchannel("A").getbbox()
    assert box is not None
    assert abs((box[2] - box[0]) - (box[3] - box[1])) <= 4
    filled = pixels(cube)[box[1] : box[3], box[0] : box[2], 3] > 0
    assert filled.mean() > 0.8
