"""Pictures are functions of a seed, and everything a caption can say can be seen."""

from __future__ import annotations

import numpy as np
import pytest

from bayesdiff.toybox.objects import Instance, sample_instance
from bayesdiff.toybox.vocabulary import COLOURS, CONTEXTS, FINISHES, LIVE_CLASSES, OBJECT_CLASSES, OPENINGS, OUTFITS
from bayesdiff.toybox.world import Camera, Picture, caption, contact_sheet, film, render, sample, sample_picture

STILL = Camera((1.0, 1.0, 1.0), 0.0)
DOG = sample_instance(np.random.default_rng(3), "dog")
MUG = sample_instance(np.random.default_rng(4), "mug")


def shot(picture: Picture, seed: int = 0) -> np.ndarray:
    return render(np.random.default_rng(seed), picture).astype(int)


def gap(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(a - b).mean())


def test_a_picture_is_a_function_of_seed_and_index() -> None:
    (image, text), (again, text_again) = sample(5, 7), sample(5, 7)
    assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
    assert np.array_equal(image, again)
    assert text == text_again


def test_seeds_and_indices_give_other_pictures() -> None:
    pictures = [sample(seed, index)[0].tobytes() for seed in (1, 2) for index in range(8)]
    assert len(set(pictures)) == 16


def test_pictures_use_the_range_of_brightness() -> None:
    for index in range(8):
        image = sample(1, index)[0]
        assert 40 < image.mean() < 225
        assert image.std() > 10


@pytest.mark.parametrize("instance", [DOG, MUG], ids=["dog", "mug"])
def test_every_context_changes_the_picture(instance: Instance) -> None:
    shots = [shot(Picture(instance, context, camera=STILL)) for context in (None, *CONTEXTS)]
    assert min(gap(a, b) for i, a in enumerate(shots) for b in shots[:i]) > 8


def test_every_outfit_changes_a_part_of_the_picture() -> None:
    bare = shot(Picture(DOG, camera=STILL))
    dressed = [shot(Picture(DOG, outfit=outfit, camera=STILL)) for outfit in OUTFITS]
    for image in dressed:
        assert 0.005 < (np.abs(image - bare).max(-1) > 8).mean() < 0.5
    assert min(gap(a, b) for i, a in enumerate(dressed) for b in dressed[:i]) > 0.5


@pytest.mark.parametrize("noun", LIVE_CLASSES)
def test_every_live_class_can_be_dressed(noun: str) -> None:
    instance = sample_instance(np.random.default_rng(1), noun)
    assert gap(shot(Picture(instance, camera=STILL)), shot(Picture(instance, outfit="wearing a red hat", camera=STILL))) > 0.5


@pytest.mark.parametrize("noun", OBJECT_CLASSES)
def test_outfits_are_refused_for_objects(noun: str) -> None:
    with pytest.raises(ValueError, match=noun):
        shot(Picture(sample_instance(np.random.default_rng(0), noun), outfit=OUTFITS[0]))


@pytest.mark.parametrize("instance", [DOG, MUG], ids=["dog", "mug"])
def test_every_finish_changes_the_picture(instance: Instance) -> None:
    shots = [shot(Picture(instance, finish=finish, camera=STILL)) for finish in (None, *FINISHES)]
    assert min(gap(a, b) for i, a in enumerate(shots) for b in shots[:i]) > 2


def test_every_colour_changes_the_picture_and_the_own_one_does_not() -> None:
    own = shot(Picture(MUG, camera=STILL))
    shots = {colour: shot(Picture(MUG, colour=colour, camera=STILL)) for colour in COLOURS}
    assert np.array_equal(shots[MUG.colour], own)
    images = list(shots.values())
    assert min(gap(a, b) for i, a in enumerate(images) for b in images[:i]) > 1


def test_the_camera_decides_gain_and_grain() -> None:
    still = shot(Picture(MUG, camera=STILL))
    assert shot(Picture(MUG, camera=Camera((0.5, 0.5, 0.5), 0.0))).mean() == pytest.approx(still.mean() / 2, rel=0.01)
    noise = shot(Picture(MUG, camera=Camera((1.0, 1.0, 1.0), 0.05))) - still
    assert noise.std() / 255 == pytest.approx(0.05, rel=0.1)


def test_the_same_instance_looks_alike_in_other_poses() -> None:
    others = [sample_instance(np.random.default_rng(seed), "mug") for seed in range(10, 16)]
    mean = np.mean([shot(Picture(MUG, camera=STILL), seed) for seed in range(6)], axis=0)
    own = np.mean([gap(shot(Picture(MUG, camera=STILL), seed), mean) for seed in range(20, 24)])
    foreign = np.mean([gap(shot(Picture(other, camera=STILL), 20), mean) for other in others])
    assert own < 0.9 * foreign


def test_a_caption_says_what_is_in_the_picture() -> None:
    for index in range(60):
        rng = np.random.default_rng((9, index))
        picture = sample_picture(rng)
        text = caption(rng, picture)
        for part in (picture.instance.class_noun, picture.context, picture.outfit, picture.finish):
            assert part is None or part in text
        assert text.startswith(OPENINGS)


def test_a_caption_always_says_a_colour_that_was_asked_for() -> None:
    picture = Picture(MUG, colour="teal")
    assert all("teal mug" in caption(np.random.default_rng(i), picture).replace(MUG.pattern + " ", "") for i in range(20))


def test_only_the_live_are_dressed_and_the_dressed_have_no_finish() -> None:
    pictures = [sample_picture(np.random.default_rng((8, index))) for index in range(600)]
    dressed = [picture for picture in pictures if picture.outfit]
    assert dressed
    assert all(p.instance.class_noun in LIVE_CLASSES and p.finish is None for p in dressed)
    assert {p.finish for p in pictures} == {None, *FINISHES}
    assert {p.context for p in pictures} == {None, *CONTEXTS}


def test_a_film_is_two_frames_of_one_thing() -> None:
    frames = film(1, 3)
    assert (frames.shape, frames.dtype) == ((2, 64, 64, 3), np.uint8)
    assert np.array_equal(frames, film(1, 3))
    assert not np.array_equal(frames[0], frames[1])


def test_a_contact_sheet_holds_its_rows_and_pads_with_white() -> None:
    tiles = [np.full((4, 4, 3), shade, np.uint8) for shade in (10, 20, 30)]
    sheet = np.asarray(contact_sheet([tiles[:2], tiles[2:]], zoom=2))
    assert sheet.shape == (16, 16, 3)
    assert (sheet[0, 0, 0], sheet[0, 15, 0], sheet[15, 0, 0], sheet[15, 15, 0]) == (10, 20, 30, 255)
