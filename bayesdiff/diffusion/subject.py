"""The subject: a handful of photographs of one thing, and the word for what it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bayesdiff.config.schema import DataConf, DataSource
from bayesdiff.core.errors import UserError, did_you_mean
from bayesdiff.core.seeds import derive
from bayesdiff.diffusion.photos import Photo, Photos, read_folder, skipped_line, square

DREAMBOOTH_CLASSES = {
    "backpack": "backpack", "backpack_dog": "backpack", "bear_plushie": "stuffed animal", "berry_bowl": "bowl", "can": "can",
    "candle": "candle", "cat": "cat", "cat2": "cat", "clock": "clock", "colorful_sneaker": "sneaker", "dog": "dog", "dog2": "dog",
    "dog3": "dog", "dog5": "dog", "dog6": "dog", "dog7": "dog", "dog8": "dog", "duck_toy": "toy", "fancy_boot": "boot",
    "grey_sloth_plushie": "stuffed animal", "monster_toy": "toy", "pink_sunglasses": "glasses", "poop_emoji": "toy", "rc_car": "toy",
    "red_cartoon": "cartoon", "robot_toy": "toy", "shiny_sneaker": "sneaker", "teapot": "teapot", "vase": "vase",
    "wolf_plushie": "stuffed animal",
}  # fmt: skip
"""Subjects and class nouns of the DreamBooth set (github.com/google/dreambooth, ``prompts_and_classes.txt``)."""


@dataclass(frozen=True)
class Subject:
    """Photographs and words of one subject; ``photos`` are the chosen shots, ``others`` those not trained on."""

    name: str
    class_noun: str
    identifier: str
    photos: tuple[Photo, ...]
    others: tuple[Photo, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    """Pictures of the folder that are neither: (name, why and what to do)."""
    notes: tuple[str, ...] = ()
    """What else is to be said of the photographs: frames, captions, folders."""
    fine: bool = True
    """Whether the photographs have the fine detail of a picture of their side, so that grain can be told as a share of theirs."""

    def said(self) -> list[str]:
        """Lines to print before a run starts: what is not trained on, and the notes."""
        left_out = [f"Photographs {skipped_line(list(self.skipped))}"] if self.skipped else []
        return left_out + [f"Photographs: {note}" for note in self.notes]


def _dataset_folder(conf: DataConf) -> Path:
    """The folder of exactly this subject below the data set's root; raises ``UserError`` with what there is."""
    root = Path(conf.path or "").expanduser()
    if not root.is_dir():
        raise UserError(f"data.path={root}: no such folder; give the root of the data set, with one folder a subject")
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if conf.subject not in names:
        shown = ", ".join(names[:40]) + (" …" if len(names) > 40 else "") if names else "none"
        raise UserError(f"data.subject={conf.subject}: no such folder in {root}; there are: {shown}")
    return root / conf.subject


def _toybox_photos(name: str, side: int, count: int) -> list[Photo]:
    from bayesdiff.toybox.subjects import SUBJECTS, render_subject

    if name not in SUBJECTS:
        raise UserError(f"data.subject={name}: unknown; choose one of {', '.join(SUBJECTS)}{did_you_mean(name, SUBJECTS)}")
    arrays: list[np.ndarray] = render_subject(name, count)
    return [Photo(f"{i:02d}.png", square(Image.fromarray(a), side), hashlib.sha256(a.tobytes()).hexdigest()) for i, a in enumerate(arrays)]


def choose_shots(photos: list[Photo], count: int | None, seed: int) -> tuple[Photo, ...]:
    """Pick ``count`` photos by seed, nested: the first k of one fixed order. Raises ``UserError``."""
    if count is None:
        return tuple(photos)
    if count > len(photos):
        raise UserError(f"shots.count={count}: the subject has only {len(photos)} images; choose 1 to {len(photos)}")
    order = np.random.default_rng(derive(seed, "shots")).permutation(len(photos))
    return tuple(photos[i] for i in order[:count])


def _photos_and_noun(conf: DataConf, side: int) -> tuple[Photos, str | None]:
    """All photographs of the subject, and the class noun that its source knows."""
    if conf.source is DataSource.toybox:
        from bayesdiff.toybox.subjects import SUBJECTS

        return Photos(_toybox_photos(conf.subject, side, conf.images)), SUBJECTS[conf.subject]
    if conf.source is DataSource.folder:
        return read_folder(Path(conf.path or "").expanduser(), side), None
    return read_folder(_dataset_folder(conf), side), DREAMBOOTH_CLASSES.get(conf.subject)


def load_subject(conf: DataConf, shots: int | None, seed: int, resolution: int) -> Subject:
    """Load a subject and choose its training images.

    Args:
        shots: how many images; None for all.
        resolution: side of the squares in pixels.

    Raises:
        UserError: unknown subject, missing or empty folder, unreadable image, too many shots, no class noun.
    """
    found, known = _photos_and_noun(conf, resolution)
    noun = conf.class_noun or known
    if not noun:
        raise UserError(f"data.subject={conf.subject}: its class is not known; add data.class_noun=… to the command")
    chosen = choose_shots(found.photos, shots, seed)
    names = {photo.name for photo in chosen}
    others = tuple(photo for photo in found.photos if photo.name not in names)
    return Subject(conf.subject, noun, conf.identifier, chosen, others, tuple(found.skipped), tuple(found.notes))
