"""A folder of photographs as upright opaque squares: every kind that Pillow reads, and nothing left out in silence.

What stands in the folder and is not trained on is named with the remedy (``Photos.skipped``); what is trained on otherwise
than one might think is said (``Photos.notes``). A damaged file is refused by name.
"""

from __future__ import annotations

import os
import re
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from bayesdiff.core.errors import UserError, first_line
from bayesdiff.core.files import sha256

FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "AVIF", "HEIF", "JPEG2000", "PPM", "TGA", "PCX", "SGI", "QOI", "PSD",
)  # fmt: skip
"""Of what Pillow opens, the kinds that it decodes itself: none that only names its content, or starts another program (EPS)."""
HEIF_ENDINGS = frozenset((".heic", ".heif", ".heics", ".heifs", ".hif"))
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
OTHER_ENDINGS = frozenset((".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".raw", ".jxl", ".svg", ".eps"))
"""Pictures that Pillow does not read."""
MAX_PIXELS = 100_000_000
"""More are refused before they are decoded: 100 megapixels take 300 MB as RGB, and a bomb of some kilobytes any amount."""
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""EXIF orientation to what turns the stored picture upright."""
KOHYA = re.compile(r"\d{1,3}_\S.*")
"""Kohya's sub-folders of training images: ``REPEATS_IDENTIFIER CLASS``; a year has more digits."""
MASKS = ("-masklabel", "-condlabel")
"""How the names of pictures end that OneTrainer puts beside a photograph."""
OF_THE_CLASS = frozenset(("reg", "regularization", "regularisation", "class", "class_images"))
"""Folders of pictures that show other things of the class."""
NAMED = 20
"""Files of one reason that are named in a line; the record has all."""


@dataclass(frozen=True)
class Photo:
    """One training image: its name (below the folder), square RGB pixels, and the hash of the bytes it came from."""

    name: str
    image: Image.Image
    digest: str
    enlarged: float = 1.0
    """How many times larger its pixels are than those of its file; below 1 where it was shrunk."""


@dataclass
class Photos:
    """What a folder gave: pictures in the order of names, what was left out and why, and what else is to be said."""

    photos: list[Photo] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(name, reason with its remedy)."""
    notes: list[str] = field(default_factory=list)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or it cannot be read. Nothing else of the EXIF is looked at."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF raises many kinds; the pixels are as good as ever
        found = _stored_orientation(image.info.get("exif", b""))
    return found if isinstance(found, int) and found in UPRIGHT else 1


def _stored_orientation(exif: object) -> int:
    """The orientation in the first directory of raw EXIF bytes, found without reading any other entry."""
    data = exif.removeprefix(b"Exif\0\0") if isinstance(exif, bytes) else b""
    order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4) if order else (0,)
        (count,) = struct.unpack_from(f"{order}H", data, start) if order else (0,)
        entries = [struct.unpack_from(f"{order}HHIH", data, start + 2 + 12 * i) for i in range(count)]
    except struct.error:
        return 1
    return next((int(value) for tag, _, _, value in entries if tag == ORIENTATION), 1)


def square(image: Image.Image, side: int) -> Image.Image:
    """Upright, opaque RGB, centre-cropped to a square and resized to ``side`` pixels.

    Applies the EXIF rotation, puts transparency on white, and spreads greyscale over three channels. Raises ``ValueError``
    for floating-point pixels, whose range nobody knows.
    """
    from PIL import ImageOps

    image.load()  # a TIFF is turned upright while it is read, and says so only then
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    if (orientation := _orientation(image)) != 1:
        image = image.transpose(UPRIGHT[orientation])
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


def heif_is_read() -> bool:
    """Whether pillow-heif (the extra ``heif``) is there; Pillow reads HEIC with it from now on."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def endings() -> frozenset[str]:
    """Endings of the files that are taken for photographs, lower-case."""
    return HEIF_ENDINGS | {ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS}


def kind_of(path: Path) -> str:
    """What a file is by its first bytes (``JPEG``, ``HEIC`` …), whatever it is called; empty for no kind of photograph."""
    with path.open("rb") as handle:
        head = handle.read(16)
    if head[4:8] == b"ftyp":
        return {b"avif": "AVIF", b"avis": "AVIF"}.get(head[8:12], "HEIC" if head[8:12] in HEIF_BRANDS else "")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    starts = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
    return next((kind for start, kind in starts.items() if head.startswith(start)), "")


def _refused(path: Path, why: str) -> UserError:
    return UserError(f"cannot read the image {path} ({why}): replace it or take it out of the folder")


def _read(path: Path, name: str, side: int) -> tuple[Photo, str]:
    """The picture, and what is to be said of it. Raises ``UserError`` for what cannot be read."""
    known = [kind for kind in FORMATS if kind in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF, and of sizes that are checked here
            with Image.open(path, formats=known) as image:
                check_pixels(image)
                note, pixels, own = _noted(image, name, side), square(image, side), min(image.size)
    except Exception as error:  # decoders raise many kinds for a damaged file
        raise _refused(path, first_line(error).replace(str(path), "it").replace(repr(str(path)), "it")) from error
    return Photo(name, pixels, sha256(path), side / own), note


def check_picture(path: Path) -> None:
    """Raises ``ValueError`` for a pipe, a device or a folder: opening one may wait for ever."""
    if not path.is_file():
        raise ValueError("no regular file")


def check_pixels(image: Image.Image) -> None:
    """Raises ``ValueError`` for a picture that is small on disk and huge in memory."""
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} × {image.height} pixels are more than {MAX_PIXELS // 1_000_000} million; make it smaller")


def _noted(image: Image.Image, name: str, side: int) -> str:
    """What is to be said of a picture that can be read; empty for most."""
    size = f"{name}: {image.width} × {image.height} pixels are enlarged to {side}" if 2 * min(image.size) < side else ""
    return size or _frames(image, name)


def _frames(image: Image.Image, name: str) -> str:
    """Which frame of several is trained on; a camera's picture with a preview (MPO) is one picture."""
    try:
        count = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
    except Exception:  # a damaged later frame
        count = 1
    return f"{name}: the first of its {count} frames" if count > 1 else ""


def _skip_reason(path: Path, is_photo: bool) -> str:
    """Why a file that is a picture, or is called like one, is not trained on; empty for one that is, and for no picture."""
    if path.stem.lower().endswith(MASKS) and is_photo:
        return "a mask of OneTrainer beside its photograph"
    if path.suffix.lower() in OTHER_ENDINGS | set(Image.registered_extensions()) - endings():
        return "a kind that is not read here: convert it to JPEG or PNG"
    kind = kind_of(path)
    if is_photo:
        readable = kind != "HEIC" or (heif_is_read() and _opens(path))
        way = "pillow-heif cannot read it," if heif_is_read() else "pip install 'bayesdiff[heif]', or"
        truth = "" if path.suffix.lower() in HEIF_ENDINGS else " in truth"
        return "" if readable else f"{kind}{truth}: {way} convert it to JPEG"
    return f"{kind} without its ending: rename it" if kind else ""


def _opens(path: Path) -> bool:
    try:
        with Image.open(path, formats=["HEIF"]):
            return True
    except Exception:  # as in _read
        return False


def _entries(folder: Path) -> list[Path]:
    """What is in a folder in the order of names, hidden files left out; raises ``UserError``."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); correct data.path") from error


def _files(folder: Path, root: Path, nested: bool) -> Iterator[tuple[Path, str]]:
    """(file, its name below ``root``) of a folder and kohya's folders in it; where ``nested``, of all folders but those of the class."""
    for path in _entries(folder):
        if nested and path.is_dir() and not path.is_symlink() and path.name.lower() not in OF_THE_CLASS:
            yield from _files(path, root, nested)
        elif path.is_dir() and KOHYA.fullmatch(path.name):
            yield from ((inside, inside.relative_to(root).as_posix()) for inside in _entries(path))
        else:
            yield path, path.relative_to(root).as_posix()


def _pictures_below(folder: Path, known: frozenset[str]) -> int:
    """How many pictures a sub-folder has at any depth."""
    files = (Path(name) for _, _, names in os.walk(folder) for name in names)
    return sum(file.suffix.lower() in known | OTHER_ENDINGS and not file.name.startswith(".") for file in files)


def _take(path: Path, name: str, side: int, found: Photos) -> None:
    """Put one entry of the folder where it belongs."""
    known = endings()
    is_photo = path.suffix.lower() in known
    if path.is_dir() and not is_photo:
        if count := _pictures_below(path, known):
            reason = f"{count} picture{'s' if count > 1 else ''} in a sub-folder: move them up, or give data.path={path}"
            found.skipped.append((f"{name}/", reason))
        return
    if not path.is_file():
        if is_photo:
            raise _refused(path, "no regular file")
        return
    try:
        reason = _skip_reason(path, is_photo)
    except OSError as error:
        if is_photo:
            raise _refused(path, error.strerror or type(error).__name__) from error
        return
    if reason:
        found.skipped.append((name, reason))
    elif is_photo:
        photo, note = _read(path, name, side)
        found.photos.append(photo)
        found.notes += [note] if note else []


def read_folder(folder: Path, side: int, nested: bool = False) -> Photos:
    """All photographs of a folder, and of kohya's folders in it, as squares of ``side`` pixels.

    Args:
        nested: also those of all other folders below it, but for the class's.

    Raises:
        UserError: no such folder, no picture in it, or one that is damaged, too large, or no regular file.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; correct data.path")
    heif_is_read()
    found, files = Photos(), list(_files(folder, folder, nested))
    for path, name in files:
        _take(path, name, side, found)
    if not found.photos:
        kinds = f" ({', '.join(sorted(endings()))})"
        raise UserError(f"{folder}: no images in it{'; ' + skipped_line(found.skipped) if found.skipped else kinds}; give data.path=…")
    found.notes += _repeated(found.photos)
    captions = {name.rpartition(".")[0] for _, name in files if name.endswith(".txt")}
    if count := sum(photo.name.rpartition(".")[0] in captions for photo in found.photos):
        found.notes.append(f"{count} caption{'s' if count > 1 else ''} (.txt) not read: data.instance_prompt is the text of every image")
    if kohya := sorted({name.partition("/")[0] for _, name in files if "/" in name}):
        found.notes.append(f"{', '.join(kohya)}: every image once, without repeats; the words are data.identifier and data.class_noun")
    return found


def _repeated(photos: list[Photo]) -> list[str]:
    """One line for the pictures that stand in a folder more than once: each would count as a shot of its own."""
    groups: dict[bytes, list[str]] = {}
    for photo in photos:
        groups.setdefault(photo.image.tobytes(), []).append(photo.name)
    parts = [" = ".join(names[:NAMED]) for names in groups.values() if len(names) > 1]
    return [f"the same picture more than once: {', '.join(parts[:NAMED])}; keep one of each"] if parts else []


def skipped_line(skipped: list[tuple[str, str]]) -> str:
    """What is not trained on, in one line: every name with its reason, names of one reason together."""
    groups: dict[str, list[str]] = {}
    for name, reason in skipped:
        groups.setdefault(reason, []).append(name)
    parts = []
    for reason, names in groups.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        parts.append(f"{', '.join(names[:NAMED])}{more} ({reason})")
    return f"not trained on: {'; '.join(parts)}"
