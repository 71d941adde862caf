"""Captioned pictures and films are functions of a seed, and captions say what is in them."""

from __future__ import annotations

import numpy as np

from bayesdiff.toybox.objects import sample_instance
from bayesdiff.toybox.pictures import Picture
from bayesdiff.toybox.vocabulary import CONTEXTS, FINISHES, LIVE_CLASSES, OPENINGS
from bayesdiff.toybox.world import caption, contact_sheet, film, sample, sample_picture

MUG = sample_instance(np.random.default_rng(4), "mug")


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
