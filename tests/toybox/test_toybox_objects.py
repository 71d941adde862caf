"""Instances: identity in a handful of values, and what each of them changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bayesdiff.toybox.objects import DRAWINGS, Instance, draw_instance, named_colour, sample_instance
from bayesdiff.toybox.surfaces import SIZE
from bayesdiff.toybox.vocabulary import CLASSES, COLOURS, LIVE_CLASSES, PATTERNS


def some(noun: str, seed: int = 0) -> Instance:
    return sample_instance(np.random.default_rng(seed), noun)


def drawn(instance: Instance, colour: str | None = None) -> np.ndarray:
    return np.asarray(draw_instance(np.random.default_rng(1), instance, colour)[0]).astype(int)


def test_every_class_has_a_drawing() -> None:
    assert set(DRAWINGS) == set(CLASSES)


def test_an_instance_is_a_function_of_the_seed_and_within_its_ranges() -> None:
    instances = [sample_instance(np.random.default_rng(seed)) for seed in range(300)]
    assert instances == [sample_instance(np.random.default_rng(seed)) for seed in range(300)]
    assert len(set(instances)) == 300
    assert {i.class_noun for i in instances} == set(CLASSES)
    assert {i.pattern for i in instances} == set(PATTERNS)
    assert {i.colour for i in instances} == set(COLOURS)
    for i in instances:
        assert i.colour != i.second
        assert 0.85 <= i.aspect <= 1.18
        assert 3 <= i.repeats <= 6
        assert len(i.shape) == len(i.tint) == 6
        assert all(0 <= u <= 1 for u in i.shape)
        assert all(-16 <= t <= 16 for t in i.tint)
        assert (i.material == "fur") == (i.class_noun in LIVE_CLASSES)


@pytest.mark.parametrize("noun", CLASSES)
def test_a_drawing_is_transparent_around_a_body_and_has_a_head_when_live(noun: str) -> None:
    layer, mask, head = draw_instance(np.random.default_rng(0), some(noun))
    assert (layer.size, layer.mode, mask.mode) == ((SIZE, SIZE), "RGBA", "L")
    alpha, body = np.asarray(layer)[..., 3], np.asarray(mask)
    assert 0.1 < (body > 0).mean() < 0.6
    assert (alpha[body == 255] == 255).all()
    assert alpha[0, 0] == alpha[-1, -1] == 0
    assert (head is not None) == (noun in LIVE_CLASSES)


@pytest.mark.parametrize("noun", CLASSES)
def test_everything_in_an_instance_changes_its_looks(noun: str) -> None:
    base = replace(some(noun), pattern="striped", colour="red", second="blue", aspect=0.9, repeats=3, shape=(0.1,) * 6, tint=(0,) * 6)
    picture = drawn(base)
    assert np.array_equal(picture, drawn(base))
    changes = {
        "colour": "green",
        "second": "yellow",
        "pattern": "dotted",
        "material": "glaze" if base.material != "glaze" else "wood",
        "aspect": 1.15,
        "repeats": 6,
        "shape": (0.9,) * 6,
        "tint": (16, -16, 16, -16, 16, -16),
    }
    for name, value in changes.items():
        assert not np.array_equal(picture, drawn(replace(base, **{name: value}))), name


@pytest.mark.parametrize("noun", CLASSES)
def test_classes_do_not_look_alike(noun: str) -> None:
    base = replace(some("can"), pattern="plain")
    silhouette = np.asarray(draw_instance(np.random.default_rng(0), replace(base, class_noun=noun))[0])[..., 3] > 128
    for other in CLASSES:
        shape = np.asarray(draw_instance(np.random.default_rng(0), replace(base, class_noun=other))[0])[..., 3] > 128
        assert other == noun or (shape ^ silhouette).mean() > 0.005


def test_patterns_do_not_look_alike() -> None:
    base = replace(some("backpack"), colour="red", second="blue")
    pictures = [drawn(replace(base, pattern=pattern)) for pattern in PATTERNS]
    assert min(np.abs(a - b).mean() for i, a in enumerate(pictures) for b in pictures[:i]) > 1


@pytest.mark.parametrize("colour", COLOURS)
def test_a_colour_word_paints_the_body_in_it(colour: str) -> None:
    plain = replace(some("can"), pattern="plain", tint=(0,) * 6)
    layer, mask, _ = draw_instance(np.random.default_rng(0), plain, colour)
    seen = np.median(np.asarray(layer)[np.asarray(mask) == 255][:, :3], axis=0)
    distances = {name: float(np.linalg.norm(seen - value)) for name, value in COLOURS.items()}
    assert min(distances, key=distances.__getitem__) == colour


def test_a_tint_shifts_both_colours_and_stays_in_range() -> None:
    instance = replace(some("can"), tint=(16, 0, -16, -16, 16, 0))
    assert named_colour(instance, "red", 0) == (221, 45, 29)
    assert named_colour(instance, "white", 3) == (220, 252, 232)
    assert named_colour(replace(instance, tint=(16,) * 6), "white", 0) == (252, 252, 248)
