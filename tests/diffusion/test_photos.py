"""Photographs in, upright opaque squares out; what is left out is named, what is damaged is refused by name."""

from __future__ import annotations

import io
import os
import random
import socket
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from bayesdiff.config.schema import DataConf, DataSource
from bayesdiff.core.errors import UserError
from bayesdiff.diffusion import photos as module
from bayesdiff.diffusion.photos import MAX_PIXELS, endings, kind_of, read_folder, square
from bayesdiff.diffusion.subject import load_subject

HEIC = b"\0\0\0\x18ftypheic" + b"\0" * 64
ORIENTATION = 0x0112
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
}
"""EXIF orientation to how a camera stores an upright picture."""


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def own(folder: Path) -> DataConf:
    return DataConf(source=DataSource.folder, subject="own", path=str(folder), class_noun="dog")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    noise(16, 90).save(folder / "a.jpg")
    return folder


def names(folder: Path) -> list[str]:
    return [photo.name for photo in read_folder(folder, 32).photos]


@pytest.mark.parametrize("orientation", STORED)
def test_a_photo_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    upright, exif = pixels(noise(24, 24)), Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.ascontiguousarray(STORED[orientation](upright))).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(pixels(square(image, 24)), upright)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("ending", ["tiff", "webp", "jpg", "mpo", "avif"])
def test_a_photo_of_every_kind_is_turned_upright_once(tmp_path: Path, ending: str, orientation: int) -> None:
    """Pillow itself turns a TIFF while it reads it."""
    if ending == "avif" and not features.check("avif"):
        pytest.skip("no AVIF here")
    upright, exif = np.kron(np.array([[0, 90], [170, 250]], dtype=np.uint8), np.ones((16, 16), dtype=np.uint8)), Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.ascontiguousarray(STORED[orientation](upright))).convert("RGB").save(tmp_path / f"a.{ending}", exif=exif)
    (photo,) = read_folder(tmp_path, 32).photos
    assert np.abs(pixels(photo.image)[:, :, 0].astype(int) - upright).mean() < 8


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_becomes_white(mode: str) -> None:
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 10, 20))
    squared = pixels(square(image.convert(mode), 20))
    assert (squared[:, :10] == 255).all()
    assert (squared[:, 10:] == 0).all()


def test_a_transparent_palette_colour_becomes_white() -> None:
    image = Image.new("P", (12, 12), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, 6, 12))
    image.info["transparency"] = 1
    squared = pixels(square(image, 12))
    assert (squared[:, :6] == 255).all()
    assert (squared[:, 6:] == (10, 20, 30)).all()


def test_half_transparency_is_mixed_with_white() -> None:
    squared = pixels(square(Image.new("RGBA", (8, 8), (0, 0, 0, 128)), 8))
    assert np.abs(squared.astype(int) - 127).max() <= 1


def test_greyscale_is_spread_over_three_channels() -> None:
    grey = noise(10, 10).convert("L")
    squared = pixels(square(grey, 10))
    assert squared.shape == (10, 10, 3)
    assert all(np.array_equal(squared[..., c], pixels(grey)) for c in range(3))


def test_greyscale_of_16_bits_keeps_its_shades() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(256, 0)
    assert np.abs(pixels(square(Image.fromarray(ramp), 256))[0, :, 0].astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("size", [(40, 20), (20, 40)])
def test_the_middle_is_kept(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "red")
    left, top = (size[0] - 20) // 2, (size[1] - 20) // 2
    image.paste((0, 0, 255), (left, top, left + 20, top + 20))
    assert (pixels(square(image, 20)) == (0, 0, 255)).all()


def test_a_photo_of_the_right_size_is_unchanged() -> None:
    image = noise(32, 32)
    assert np.array_equal(pixels(square(image, 32)), pixels(image))


def test_a_flat_photo_stays_flat_when_resized() -> None:
    assert (pixels(square(Image.new("RGB", (70, 50), (9, 99, 199)), 32)) == (9, 99, 199)).all()


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such folder; correct data\.path"):
        load_subject(own(tmp_path / "nowhere"), 1, 0, 32)


def test_a_file_in_place_of_a_folder_is_refused(photos: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_subject(own(photos / "a.jpg"), 1, 0, 32)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="no images in it"):
        load_subject(own(tmp_path), 1, 0, 32)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_file_that_is_no_image_is_refused_by_name(photos: Path, content: bytes) -> None:
    (photos / "zz.png").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read the image .*zz\.png") as caught:
        load_subject(own(photos), 1, 0, 32)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg"])
def test_a_photo_that_was_cut_off_is_refused_by_name(photos: Path, name: str) -> None:
    noise(64, 64).save(photos / name)
    (photos / name).write_bytes((photos / name).read_bytes()[:-600])
    with pytest.raises(UserError, match=name):
        load_subject(own(photos), 1, 0, 32)


def test_a_folder_named_like_an_image_is_refused_by_name(photos: Path) -> None:
    (photos / "odd.png").mkdir()
    with pytest.raises(UserError, match=r"odd\.png"):
        load_subject(own(photos), 1, 0, 32)


def test_a_picture_too_large_to_open_is_refused(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="cannot read the image"):
        load_subject(own(photos), 1, 0, 32)


KINDS = ["jpg", "JPEG", "jfif", "jpe", "png", "webp", "bmp", "tif", "TIFF", "gif", "jp2", "ppm", "tga"]
KINDS += ["avif"] if features.check("avif") else []


@pytest.mark.parametrize("ending", KINDS)
def test_every_kind_that_pillow_reads_is_trained_on(photos: Path, ending: str) -> None:
    noise(40, 30, 1).save(photos / f"b.{ending}")
    assert names(photos) == ["a.jpg", f"b.{ending}"]
    assert read_folder(photos, 32).skipped == []


def test_heic_is_read_where_pillow_heif_is_there(photos: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    noise(40, 30, 1).save(photos / "IMG_1.HEIC")
    assert names(photos) == ["IMG_1.HEIC", "a.jpg"]


def test_no_kind_starts_another_program() -> None:
    assert not {".eps", ".ps", ".wmf", ".mpg", ".h5"} & endings()


@pytest.fixture
def no_heif(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)


def said(folder: Path) -> str:
    lines = load_subject(own(folder), None, 0, 32).said()
    assert all("\n" not in line for line in lines)
    return " | ".join(lines)


def test_heic_without_its_reader_is_named_with_the_remedy(photos: Path, no_heif: None) -> None:
    (photos / "IMG_0001.HEIC").write_bytes(HEIC)
    (photos / "IMG_0002.heic").write_bytes(HEIC)
    assert said(photos) == (
        "Photographs not trained on: IMG_0001.HEIC, IMG_0002.heic (HEIC: pip install 'bayesdiff[heif]', or convert it to JPEG)"
    )
    subject = load_subject(own(photos), None, 0, 32)
    assert [name for name, _ in subject.skipped] == ["IMG_0001.HEIC", "IMG_0002.heic"]
    assert [photo.name for photo in subject.photos] == ["a.jpg"]


@pytest.mark.parametrize(("name", "words"), [("IMG.HEIC", "HEIC: pip install"), ("IMG.jpg", "HEIC in truth: pip install")])
def test_a_folder_of_heic_alone_is_refused_with_the_remedy(tmp_path: Path, no_heif: None, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(HEIC)
    with pytest.raises(UserError, match=rf"no images in it; not trained on: {name} \({words} 'bayesdiff\[heif\]'"):
        read_folder(tmp_path, 32)


def test_heic_that_its_reader_cannot_read_is_named_too(photos: Path) -> None:
    pytest.importorskip("pillow_heif")
    (photos / "IMG_0001.HEIC").write_bytes(HEIC)
    assert "IMG_0001.HEIC (HEIC: pillow-heif cannot read it, convert it to JPEG)" in said(photos)


@pytest.mark.parametrize("name", ["a.dng", "b.CR2", "c.jxl", "d.svg", "e.ico", "f.dds", "g.pdf"])
def test_pictures_of_kinds_that_are_not_read_are_named(photos: Path, name: str) -> None:
    (photos / name).write_bytes(b"II*\0")
    assert f"{name} (a kind that is not read here: convert" in said(photos)


@pytest.mark.parametrize("name", ["a-masklabel.png", "a-condlabel.png", "A-MaskLabel.PNG"])
def test_a_mask_of_onetrainer_is_no_photograph(photos: Path, name: str) -> None:
    noise(40, 30).save(photos / name)
    assert said(photos) == f"Photographs not trained on: {name} (a mask of OneTrainer beside its photograph)"
    assert names(photos) == ["a.jpg"]


def test_a_photo_without_its_ending_is_named_and_no_picture_is_not(photos: Path) -> None:
    noise(40, 30).save(photos / "IMG_1", format="JPEG")
    noise(40, 30).save(photos / "b.png_", format="PNG")
    for name in ("notes.md", "Thumbs.db", "metadata.jsonl", ".hidden.png"):
        (photos / name).write_text("x")
    assert said(photos) == (
        "Photographs not trained on: IMG_1 (JPEG without its ending: rename it); b.png_ (PNG without its ending: rename it)"
    )


def test_pictures_in_sub_folders_are_counted(photos: Path) -> None:
    (photos / "more" / "deep").mkdir(parents=True)
    (photos / "empty").mkdir()
    noise(8, 8).save(photos / "more" / "b.png")
    noise(8, 8).save(photos / "more" / "deep" / "c.JPG")
    assert names(photos) == ["a.jpg"]
    assert said(photos) == f"Photographs not trained on: more/ (2 pictures in a sub-folder: move them up, or give data.path={photos}/more)"


def test_nested_folders_are_read_where_that_is_asked_for_but_the_classs(photos: Path) -> None:
    for name in ("more/deep", "10_sks dog", "reg/1_dog"):
        (folder := photos / name).mkdir(parents=True)
        Image.new("RGB", (4, 4), "red").save(folder / "a.png")
    found = read_folder(photos, 4, nested=True)
    assert {photo.name for photo in found.photos if "/" in photo.name} == {"more/deep/a.png", "10_sks dog/a.png"}
    assert [name for name, _ in found.skipped] == ["reg/"]


def test_a_folder_whose_pictures_are_all_below_names_where(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    noise(8, 8).save(tmp_path / "sub" / "b.png")
    with pytest.raises(UserError, match=rf"no images in it; not trained on: sub/ \(1 picture .*data\.path={tmp_path}/sub"):
        read_folder(tmp_path, 32)


def test_kohyas_folders_are_read_once_and_that_is_said(tmp_path: Path) -> None:
    for name in ("10_sks dog", "3_dog", "2024_holiday"):
        (tmp_path / name).mkdir()
        noise(16, 16, len(name)).save(tmp_path / name / "00.jpg")
    (tmp_path / "10_sks dog" / "00.txt").write_text("a photo of sks dog on the grass")
    assert names(tmp_path) == ["10_sks dog/00.jpg", "3_dog/00.jpg"]
    lines = said(tmp_path)
    assert "2024_holiday/ (1 picture in a sub-folder" in lines
    assert "1 caption (.txt) not read: data.instance_prompt" in lines
    assert "10_sks dog, 3_dog: every image once, without repeats" in lines


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tiff"])
def test_of_many_frames_the_first_is_taken_and_that_is_said(photos: Path, ending: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(photos / f"b.{ending}", save_all=True, append_images=frames[1:], **({"lossless": True} if ending == "webp" else {}))
    found = read_folder(photos, 20)
    assert (pixels(found.photos[1].image) == (255, 0, 0)).all()
    assert found.notes == [f"b.{ending}: the first of its 3 frames"]


def test_nothing_is_said_of_plain_photographs(photos: Path) -> None:
    subject = load_subject(own(photos), None, 0, 32)
    assert (subject.skipped, subject.notes, subject.said()) == ((), (), [])


def test_a_picture_that_stands_there_twice_is_said(photos: Path) -> None:
    noise(40, 30).save(photos / "b.png")
    noise(40, 30).save(photos / "c.bmp")
    (photos / "b copy.png").write_bytes((photos / "b.png").read_bytes())
    assert read_folder(photos, 16).notes == ["the same picture more than once: b copy.png = b.png = c.bmp; keep one of each"]


def test_a_picture_that_is_much_smaller_than_the_training_is_said(photos: Path) -> None:
    Image.new("RGB", (500, 1), "red").save(photos / "strip.png")
    assert read_folder(photos, 32).notes == ["strip.png: 500 × 1 pixels are enlarged to 32"]


def exif_with(orientation: int) -> bytes:
    found = Image.Exif()
    found[ORIENTATION], found[0x010F], found[0x011A] = orientation, "maker", 72.0
    found.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    found.get_ifd(0x8825)[2] = (1.0, 2.0, 3.0)
    return found.tobytes()


@pytest.mark.parametrize("seed", range(40))
def test_damaged_exif_costs_no_photo(photos: Path, seed: int) -> None:
    """Any bytes behind the head changed or cut off: the pixels are read, upright or as they are stored."""
    rng, exif = random.Random(seed), bytearray(exif_with(6))
    for _ in range(rng.randint(1, 40)):
        exif[rng.randrange(6, len(exif))] = rng.randrange(256)
    stored = noise(24, 24)
    stored.save(photos / "b.png", exif=bytes(exif[: rng.randrange(8, len(exif))] if seed % 4 == 0 else exif))
    found = pixels(read_folder(photos, 24).photos[1].image)
    assert any(np.array_equal(found, turn(pixels(stored))) for turn in INVERSE)


INVERSE: list[Callable[[np.ndarray], np.ndarray]] = [
    *STORED.values(), lambda a: a.swapaxes(0, 1)[::-1], lambda a: a.swapaxes(0, 1)[:, ::-1],
]  # fmt: skip


@pytest.mark.parametrize("error", [struct.error, TypeError, ZeroDivisionError, AttributeError, SyntaxError])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_orientation_is_found_where_the_library_fails(
    photos: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], orientation: int
) -> None:
    upright = pixels(noise(24, 24))
    Image.fromarray(np.ascontiguousarray(STORED[orientation](upright))).save(photos / "b.png", exif=exif_with(orientation))

    def fail(_: Any) -> None:
        raise error("damaged")

    monkeypatch.setattr(Image.Image, "getexif", fail)
    assert np.array_equal(pixels(read_folder(photos, 24).photos[1].image), upright)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_is_none_leaves_the_picture(tmp_path: Path, value: int) -> None:
    noise(24, 24).save(tmp_path / "b.png", exif=exif_with(value))
    assert np.array_equal(pixels(read_folder(tmp_path, 24).photos[0].image), pixels(noise(24, 24)))


def bomb(width: int, height: int) -> bytes:
    """A PNG of some bytes with the header of a huge picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(10_001, 10_001), (50_000, 40_000), (MAX_PIXELS + 1, 1)])
def test_a_picture_small_on_disk_and_huge_in_memory_is_refused_by_its_pixels(
    photos: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    (photos / "b.png").write_bytes(bomb(*size))

    def never(*_: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", never)
    with pytest.raises(UserError, match=r"cannot read the image .*b\.png \(.*pixels.*\): replace it or take it out") as caught:
        read_folder(photos, 32)
    assert "\n" not in str(caught.value)


def test_floating_point_pixels_are_refused(photos: Path) -> None:
    Image.fromarray(np.random.default_rng(0).random((8, 8)).astype(np.float32)).save(photos / "b.tiff")
    with pytest.raises(UserError, match=r"b\.tiff \(its pixels are floating-point numbers; save it with 8 or 16 bits\)"):
        read_folder(photos, 32)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO here")
@pytest.mark.parametrize("make", ["fifo", "socket", "device", "link to nothing", "link to itself"])
def test_what_is_no_file_is_no_picture(photos: Path, make: str) -> None:
    target = photos / "b.png"
    if make == "fifo":
        os.mkfifo(target)
    elif make == "socket":
        socket.socket(socket.AF_UNIX).bind(str(target))
    else:
        target.symlink_to({"device": "/dev/zero", "link to nothing": "nowhere", "link to itself": "b.png"}[make])
    with pytest.raises(UserError, match=r"cannot read the image .*b\.png \(no regular file\)"):
        read_folder(photos, 32)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO here")
def test_a_fifo_of_another_name_is_not_waited_for(photos: Path) -> None:
    os.mkfifo(photos / "control")
    assert names(photos) == ["a.jpg"]


def test_a_link_to_a_photo_is_one(photos: Path, tmp_path: Path) -> None:
    noise(8, 8).save(tmp_path / "else.png")
    (photos / "b.png").symlink_to(tmp_path / "else.png")
    assert names(photos) == ["a.jpg", "b.png"]


def test_a_line_does_not_grow_without_end(photos: Path, no_heif: None) -> None:
    for i in range(500):
        (photos / f"{i:03d}.heic").write_bytes(HEIC)
    assert len(said(photos)) < 600
    assert "and 480 more" in said(photos)
    assert len(load_subject(own(photos), None, 0, 32).skipped) == 500


@pytest.mark.parametrize(("kind", "suffix"), [("JPEG", "jpg"), ("PNG", "png"), ("GIF", "gif"), ("TIFF", "tif"), ("WebP", "webp")])
def test_a_kind_is_seen_in_the_bytes(tmp_path: Path, kind: str, suffix: str) -> None:
    noise(8, 8).save(path := tmp_path / f"a.{suffix}")
    assert kind_of(path.rename(tmp_path / "a")) == kind


def test_a_video_is_no_photograph(tmp_path: Path) -> None:
    for brand in (b"isom", b"mp42", b"qt  ", b"msnv"):
        (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(64))
        assert kind_of(tmp_path / "a.mp4") == ""


def test_any_damage_is_refused_by_name_or_read(photos: Path) -> None:
    """Bytes changed anywhere in files of five kinds: one line, never a traceback."""
    rng = random.Random(0)
    for n in range(120):
        kind = ("jpg", "png", "webp", "gif", "tif")[n % 5]
        noise(30, 20, n).save(buffer := io.BytesIO(), format=Image.registered_extensions()[f".{kind}"])
        data = bytearray(buffer.getvalue())
        for _ in range(rng.randint(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path = photos / f"b.{kind}"
        path.write_bytes(data)
        try:
            read_folder(photos, 16)
        except UserError as error:
            assert f"b.{kind}" in str(error)
            assert "\n" not in str(error)
        path.unlink()


def test_a_folder_that_cannot_be_listed_is_refused(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module.Path, "iterdir", fail)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\); correct data\.path"):
        read_folder(photos, 32)
