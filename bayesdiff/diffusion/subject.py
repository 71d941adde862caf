"""The subject: a handful of photographs of one thing, and the word for what it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bayesdiff.config.schema import DataConf, DataSource
from bayesdiff.core.errors import UserError, did_you_mean
from bayesdiff.core.seeds import derive

DREAMBOOTH_CLASSES = {
    "backpack": "backpack", "backpack_dog": "backpack", "bear_plushie": "stuffed animal", "berry_bowl": "bowl", "can": "can",
    "candle": "candle", "cat": "cat", "cat2": "cat", "clock": "clock", "colorful_sneaker": "sneaker", "dog": "dog", "dog2": "dog",
    "dog3": "dog", "dog5": "dog", "dog6": "dog", "dog7": "dog", "dog8": "dog", "duck_toy": "toy", "fancy_boot": "boot",
    "grey_sloth_plushie": "stuffed animal", "monster_toy": "toy", "pink_sunglasses": "glasses", "poop_emoji": "toy", "rc_car": "toy",
    "red_cartoon": "cartoon", "robot_toy": "toy", "shiny_sneaker": "sneaker", "teapot": "teapot", "vase": "vase",
    "wolf_plushie": "stuffed animal",
}  # fmt: skip
"""Subjects and class nouns of the DreamBooth set (github.com/google/dreambooth, ``prompts_and_classes.txt``)."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


@dataclass(frozen=True)
class Photo:
    """One training image: its name, square RGB pixels, and the hash of the bytes it came from."""

    name: str
    image: Image.Image
    digest: str


@dataclass(frozen=True)
class Subject:
    """Photographs and words of one subject; ``photos`` are the chosen shots, ``others`` those not trained on."""

    name: str
    class_noun: str
    identifier: str
    photos: tuple[Photo, ...]
    others: tuple[Photo, ...] = ()


def square(image: Image.Image, side: int) -> Image.Image:
    """Upright, opaque RGB, centre-cropped to a square and resized to ``side`` pixels.

    Applies the EXIF rotation, puts transparency on white, and spreads greyscale over three channels.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip
        image = Image.fromarray((np.asarray(image, dtype=np.float64) / 257).clip(0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba)
    image = image.convert("RGB")
    if image.size == (side, side):
        return image
    return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)


def _read(path: Path, side: int) -> Photo:
    try:
        with Image.open(path) as image:
            pixels = square(image, side)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read the image {path}: replace it or take it out of the folder") from error
    return Photo(path.name, pixels, hashlib.sha256(path.read_bytes()).hexdigest())


def _folder_photos(folder: Path, side: int) -> list[Photo]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; correct data.path")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not files:
        raise UserError(f"{folder}: no images in it ({', '.join(sorted(SUFFIXES))})")
    return [_read(path, side) for path in files]


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


def _photos_and_noun(conf: DataConf, side: int) -> tuple[list[Photo], str | None]:
    """All photographs of the subject, and the class noun that its source knows."""
    if conf.source is DataSource.toybox:
        from bayesdiff.toybox.subjects import SUBJECTS

        return _toybox_photos(conf.subject, side, conf.images), SUBJECTS[conf.subject]
    if conf.source is DataSource.folder:
        return _folder_photos(Path(conf.path or "").expanduser(), side), None
    return _folder_photos(_dataset_folder(conf), side), DREAMBOOTH_CLASSES.get(conf.subject)


def load_subject(conf: DataConf, shots: int | None, seed: int, resolution: int) -> Subject:
    """Load a subject and choose its training images.

    Args:
        shots: how many images; None for all.
        resolution: side of the squares in pixels.

    Raises:
        UserError: unknown subject, missing or empty folder, unreadable image, too many shots, no class noun.
    """
    photos, known = _photos_and_noun(conf, resolution)
    noun = conf.class_noun or known
    if not noun:
        raise UserError(f"data.subject={conf.subject}: its class is not known; add data.class_noun=… to the command")
    chosen = choose_shots(photos, shots, seed)
    names = {photo.name for photo in chosen}
    return Subject(conf.subject, noun, conf.identifier, chosen, tuple(photo for photo in photos if photo.name not in names))
