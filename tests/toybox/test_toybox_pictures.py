"""What a description says can be seen in its picture."""

from __future__ import annotations

import numpy as np
import pytest

from bayesdiff.toybox.objects import Instance, sample_instance
from bayesdiff.toybox.pictures import Camera, Picture, render
from bayesdiff.toybox.vocabulary import COLOURS, CONTEXTS, FINISHES, LIVE_CLASSES, OBJECT_CLASSES, OUTFITS

STILL = Camera((1.0, 1.0, 1.0), 0.0)
DOG = sample_instance(np.random.default_rng(3), "dog")
MUG = sample_instance(np.random.default_rng(4), "mug")


def shot(picture: Picture, seed: int = 0) -> np.ndarray:
    return render(np.random.default_rng(seed), picture).astype(int)


def gap(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(a - b).mean())


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
