"""The subject: a handful of photographs of one thing, and the word for what it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bayesdiff.config import DataConf, DataSource
from bayesdiff.errors import UserError
from bayesdiff.seeds import derive

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
LIVE_NOUNS = {"cat", "dog", "bear", "duck", "person", "man", "woman", "horse", "bird"}


@dataclass(frozen=True)
class Photo:
    """One training image: its name, square RGB pixels, and the hash of the bytes it came from."""

    name: str
    image: Image.Image
    digest: str


@dataclass(frozen=True)
class Subject:
    """Photographs and words of one subject; ``photos`` are the chosen shots."""

    name: str
    class_noun: str
    identifier: str
    live: bool
    photos: tuple[Photo, ...]


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


def _folder_photos(conf: DataConf, side: int) -> list[Photo]:
    folder = Path(conf.path or "").expanduser()
    if not folder.is_dir():
        raise UserError(f"data.path={folder}: no such folder")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not files:
        raise UserError(f"data.path={folder}: no images in it ({', '.join(sorted(SUFFIXES))})")
    return [_read(path, side) for path in files]


def _toybox_photos(name: str, side: int) -> list[Photo]:
    from bayesdiff.toybox.subjects import SUBJECTS, render_subject

    if name not in SUBJECTS:
        raise UserError(f"data.subject={name}: unknown; choose one of {', '.join(SUBJECTS)}")
    arrays: list[np.ndarray] = render_subject(name)
    return [Photo(f"{i:02d}.png", square(Image.fromarray(a), side), hashlib.sha256(a.tobytes()).hexdigest()) for i, a in enumerate(arrays)]


def choose_shots(photos: list[Photo], count: int | None, seed: int) -> tuple[Photo, ...]:
    """Pick ``count`` photos by seed, nested: the first k of one fixed order. Raises ``UserError``."""
    if count is None:
        return tuple(photos)
    if count > len(photos):
        raise UserError(f"shots.count={count}: the subject has only {len(photos)} images; choose 1 to {len(photos)}")
    order = np.random.default_rng(derive(seed, "shots")).permutation(len(photos))
    return tuple(photos[i] for i in order[:count])


def load_subject(conf: DataConf, shots: int | None, seed: int, resolution: int) -> Subject:
    """Load a subject and choose its training images.

    Args:
        shots: how many images; None for all.
        resolution: side of the squares in pixels.

    Raises:
        UserError: unknown subject, missing or empty folder, unreadable image, too many shots.
    """
    if conf.source is DataSource.toybox:
        photos = _toybox_photos(conf.subject, resolution)
        from bayesdiff.toybox.subjects import SUBJECTS

        noun = conf.class_noun or SUBJECTS[conf.subject]
    else:
        photos, noun = _folder_photos(conf, resolution), conf.class_noun or ""
    return Subject(conf.subject, noun, conf.identifier, noun in LIVE_NOUNS, choose_shots(photos, shots, seed))
