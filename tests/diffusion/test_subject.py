"""Photographs in, upright opaque squares out, and the choice of shots."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bayesdiff.config.schema import DataConf, DataSource
from bayesdiff.core.errors import UserError
from bayesdiff.diffusion.subject import DREAMBOOTH_CLASSES, Photo, choose_shots, load_subject
from bayesdiff.toybox.subjects import render_subject


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def own(folder: Path) -> DataConf:
    return DataConf(source=DataSource.folder, subject="own", path=str(folder), class_noun="dog")


def toybox(name: str) -> DataConf:
    return DataConf(source=DataSource.toybox, subject=name)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with images of several kinds and sizes, and things that are no images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    noise(40, 20).save(folder / "b.PNG")
    noise(16, 90).save(folder / "a.jpg")
    noise(64, 64).convert("L").save(folder / "c.webp")
    noise(33, 31).save(folder / "d.bmp")
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_text("not an image either")
    return folder


def test_a_folder_of_mixed_sizes_is_read_in_the_order_of_names(photos: Path) -> None:
    subject = load_subject(own(photos), None, 0, 32)
    assert [photo.name for photo in subject.photos] == ["a.jpg", "b.PNG", "c.webp", "d.bmp"]
    assert {(photo.image.size, photo.image.mode) for photo in subject.photos} == {((32, 32), "RGB")}
    assert (subject.name, subject.class_noun, subject.identifier) == ("own", "dog", "qwe")


def test_the_digest_is_that_of_the_file(photos: Path) -> None:
    for photo in load_subject(own(photos), None, 0, 32).photos:
        assert photo.digest == hashlib.sha256((photos / photo.name).read_bytes()).hexdigest()


def test_a_toybox_subject_is_its_renders_and_knows_its_noun() -> None:
    subject = load_subject(toybox("toy_clock"), None, 0, 64)
    assert (subject.class_noun, len(subject.photos)) == ("clock", 6)
    for photo, array in zip(subject.photos, render_subject("toy_clock"), strict=True):
        assert np.array_equal(pixels(photo.image), array)
    assert len({photo.digest for photo in subject.photos}) == 6


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A data set with one folder a subject; names that contain each other."""
    for seed, (name, count) in enumerate({"dog": 5, "backpack_dog": 6, "stranger": 1}.items()):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(count):
            noise(20, 20, 10 * seed + i).save(tmp_path / "set" / name / f"{i:02d}.jpg")
    (tmp_path / "set" / "prompts_and_classes.txt").write_text("x")
    return tmp_path / "set"


def listed(root: Path, subject: str, **more: str) -> DataConf:
    return DataConf(source=DataSource.dreambooth, subject=subject, path=str(root), **more)


def test_the_dreambooth_set_has_30_subjects_of_15_classes() -> None:
    assert len(DREAMBOOTH_CLASSES) == 30
    assert len(set(DREAMBOOTH_CLASSES.values())) == 15
    assert sum(noun in ("cat", "dog") for noun in DREAMBOOTH_CLASSES.values()) == 9


def test_a_subject_of_the_set_is_its_own_folder_alone_and_knows_its_noun(dataset: Path) -> None:
    dog, backpack = (load_subject(listed(dataset, name), None, 0, 16) for name in ("dog", "backpack_dog"))
    assert (dog.class_noun, len(dog.photos)) == ("dog", 5)
    assert (backpack.class_noun, len(backpack.photos)) == ("backpack", 6)
    assert not {p.digest for p in dog.photos} & {p.digest for p in backpack.photos}


@pytest.mark.parametrize("name", ["do", "og", "DOG", "dog-", "../set/dog", "."])
def test_a_subject_matches_by_its_exact_name(dataset: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"data\.subject=.*there are: backpack_dog, dog, stranger"):
        load_subject(listed(dataset, name), None, 0, 16)


def test_a_subject_that_the_set_does_not_list_needs_a_noun(dataset: Path) -> None:
    with pytest.raises(UserError, match=r"data\.subject=stranger.*data\.class_noun"):
        load_subject(listed(dataset, "stranger"), None, 0, 16)
    assert load_subject(listed(dataset, "stranger", class_noun="mug"), None, 0, 16).class_noun == "mug"


def test_the_root_of_a_set_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.path=.*none: no such folder; give the root"):
        load_subject(listed(tmp_path / "none", "dog"), None, 0, 16)


def numbered(count: int) -> list[Photo]:
    return [Photo(str(i), Image.new("RGB", (1, 1)), str(i)) for i in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_fewer_shots_are_the_beginning_of_more(seed: int) -> None:
    photos = numbered(6)
    choices = [choose_shots(photos, count, seed) for count in range(1, 7)]
    assert all(more[:-1] == fewer for fewer, more in pairwise(choices))
    assert {photo.name for photo in choices[-1]} == {photo.name for photo in photos}


def test_the_seed_decides_the_first_shot() -> None:
    photos = numbered(6)
    assert {choose_shots(photos, 1, seed)[0].name for seed in range(60)} == set("012345")
    assert choose_shots(photos, 3, 7) == choose_shots(photos, 3, 7)


def test_all_shots_keep_the_order_of_the_folder() -> None:
    assert [photo.name for photo in choose_shots(numbered(6), None, 3)] == list("012345")


def test_too_many_shots_are_refused_with_the_number_there_is() -> None:
    with pytest.raises(UserError, match=r"shots\.count=7.*only 6"):
        choose_shots(numbered(6), 7, 0)


def test_a_toybox_subject_has_as_many_photographs_as_are_asked_for() -> None:
    """The first six stay what they are; those not trained on are the others."""
    few, many = toybox("toy_clock"), DataConf(source=DataSource.toybox, subject="toy_clock", images=30)
    six, thirty = load_subject(few, None, 0, 64), load_subject(many, None, 0, 64)
    assert thirty.photos[:6] == six.photos
    assert len({photo.digest for photo in thirty.photos}) == 30
    some = load_subject(many, 10, 3, 64)
    assert len(some.photos) == 10
    assert {p.name for p in (*some.photos, *some.others)} == {p.name for p in thirty.photos}
    assert not {p.name for p in some.photos} & {p.name for p in some.others}


def test_an_unknown_toybox_subject_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"data\.subject=toy_dragon.*toy_dog"):
        load_subject(toybox("toy_dragon"), 1, 0, 64)
