"""The held-out subjects: sixteen things that pretraining never sees."""

from __future__ import annotations

import numpy as np
import pytest

from bayesdiff.pretraining.dataset import TRAIN_SEED
from bayesdiff.toybox.subjects import IMAGES_PER_SUBJECT, SUBJECTS, render_subject, subject_instance
from bayesdiff.toybox.vocabulary import CLASSES
from bayesdiff.toybox.world import sample_picture


def test_there_is_one_subject_a_class() -> None:
    assert len(SUBJECTS) == 16
    assert sorted(SUBJECTS.values()) == sorted(CLASSES)
    assert all(subject_instance(name).class_noun == noun for name, noun in SUBJECTS.items())


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_subject_has_six_different_photographs_that_never_change(name: str) -> None:
    images = render_subject(name)
    assert len(images) == IMAGES_PER_SUBJECT == 6
    assert {(image.shape, image.dtype.name) for image in images} == {((64, 64, 3), "uint8")}
    assert len({image.tobytes() for image in images}) == 6
    assert np.array_equal(images[2], render_subject(name, 3)[2])


def test_no_subject_is_another_or_one_of_pretraining() -> None:
    seen = {sample_picture(np.random.default_rng((TRAIN_SEED, index))).instance for index in range(3000)}
    held_out = {subject_instance(name) for name in SUBJECTS}
    assert len(held_out) == 16
    assert held_out.isdisjoint(seen)


def test_subjects_are_patterned() -> None:
    assert "plain" not in {subject_instance(name).pattern for name in SUBJECTS}


def test_an_unknown_subject_is_refused() -> None:
    with pytest.raises(KeyError, match="toy_dragon"):
        render_subject("toy_dragon")
