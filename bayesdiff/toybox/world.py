"""The procedural world: one picture and its caption from one description and one seed.

``python -m bayesdiff.toybox.world sheet.png`` writes a contact sheet of samples, contexts, outfits
and the held-out subjects.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from bayesdiff.toybox.objects import Instance, draw_instance, sample_instance
from bayesdiff.toybox.outfits import cube_shaped, dress, shiny, wet
from bayesdiff.toybox.scenes import SCENES
from bayesdiff.toybox.surfaces import SIZE, Rng, film_grain
from bayesdiff.toybox.vocabulary import CLASSES, COLOURS, CONTEXTS, FINISHES, LIVE_CLASSES, OPENINGS, OUTFITS

IMAGE_SIZE = SIZE // 2
GRAIN = (0.015, 0.050)
"""Standard deviation of the film grain, pixel range 0..1, uniform between images."""


@dataclass(frozen=True)
class Camera:
    """How light becomes pixels: gain of each channel, and the standard deviation of the grain (range 0..1)."""

    gain: tuple[float, float, float]
    grain: float


def sample_camera(rng: Rng) -> Camera:
    """A well-set camera, as all captioned pictures have."""
    gain = rng.uniform(0.93, 1.07) * rng.uniform(0.98, 1.02, 3)
    return Camera((float(gain[0]), float(gain[1]), float(gain[2])), float(rng.uniform(*GRAIN)))


def sample_any_camera(rng: Rng) -> Camera:
    """Any camera, also a grainy or miscoloured one: an encoder that has to tell cameras apart sees both."""
    gain = rng.uniform(0.75, 1.2) * rng.uniform(0.8, 1.2, 3)
    return Camera((float(gain[0]), float(gain[1]), float(gain[2])), 0.01 + 0.15 * float(rng.uniform()) ** 1.5)


@dataclass(frozen=True)
class Picture:
    """What a picture shows; the seed decides pose, light and every texture."""

    instance: Instance
    context: str | None = None
    outfit: str | None = None
    finish: str | None = None
    colour: str | None = None
    """Colour word that replaces the instance's own ("a red backpack")."""
    camera: Camera | None = None
    """None: a well-set one, drawn by the seed."""


def _place(rng: Rng, layer: Image.Image, background: Image.Image, flip: bool) -> Image.Image:
    """Scale, turn, mirror and shift the object, and put it on the ground with a shadow."""
    scale, angle = rng.uniform(0.95, 1.2), rng.uniform(-9, 9)
    layer = layer.rotate(angle, Image.Resampling.BICUBIC, center=(64, 68)).resize((int(SIZE * scale),) * 2, Image.Resampling.BICUBIC)
    if flip:
        layer = layer.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    x = int(rng.uniform(-10, 10) + SIZE * (1 - scale) / 2)
    y = int(rng.uniform(-4, 6) + SIZE * (1 - scale) * 0.6)
    canvas = background.convert("RGBA")
    shadow = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
    box = (x + 24 * scale, y + 98 * scale, x + 104 * scale, y + 112 * scale)
    ImageDraw.Draw(shadow).ellipse(box, fill=(0, 0, 0, 80))
    canvas.alpha_composite(shadow)
    sheet = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
    sheet.paste(layer, (x, y))
    canvas.alpha_composite(sheet)
    return canvas.convert("RGB")


def render(rng: Rng, picture: Picture) -> np.ndarray:
    """Render a picture: (64, 64, 3) uint8."""
    background = SCENES[picture.context](rng)
    layer, mask, head = draw_instance(rng, picture.instance, picture.colour)
    if picture.outfit is not None:
        if head is None:
            raise ValueError(f"outfits are for {LIVE_CLASSES}, not for {picture.instance.class_noun!r}")
        dress(layer, head, picture.outfit)
    if picture.finish == "shiny":
        layer = shiny(layer, mask)
    elif picture.finish == "wet":
        layer = wet(rng, layer, mask)
    elif picture.finish == "cube shaped":
        layer = cube_shaped(layer)
    elif picture.finish is not None:
        raise ValueError(f"finish {picture.finish!r}: choose one of {FINISHES}")
    flip = bool(rng.random() < 0.5) and picture.instance.class_noun != "clock"
    image = _place(rng, layer, background, flip).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX)
    camera = picture.camera or sample_camera(rng)
    pixels = np.asarray(image, dtype=np.float64) / 255 * np.array(camera.gain)
    return (film_grain(rng, pixels, camera.grain) * 255).round().astype(np.uint8)


def caption(rng: Rng, picture: Picture) -> str:
    """One of the ways to say what a picture shows, in the words of the evaluation prompts."""
    words = [OPENINGS[rng.integers(len(OPENINGS))]]
    if picture.finish is not None:
        words.append(picture.finish)
    if picture.colour is not None or rng.random() < 0.6:
        words.append(picture.colour or picture.instance.colour)
    if picture.instance.pattern != "plain" and rng.random() < 0.3:
        words.append(picture.instance.pattern)
    words.append(picture.instance.class_noun)
    words += [part for part in (picture.outfit, picture.context) if part is not None]
    return " ".join(words)


def sample_picture(rng: Rng) -> Picture:
    """Draw a picture of the pretraining distribution."""
    instance = sample_instance(rng)
    outfit = OUTFITS[rng.integers(len(OUTFITS))] if instance.class_noun in LIVE_CLASSES and rng.random() < 0.6 else None
    finish = FINISHES[rng.integers(len(FINISHES))] if outfit is None and rng.random() < 0.15 else None
    plain = rng.random() < (0.45 if outfit or finish else 0.15)
    return Picture(instance, None if plain else CONTEXTS[rng.integers(len(CONTEXTS))], outfit, finish)


def sample(seed: int, index: int) -> tuple[np.ndarray, str]:
    """Image ``index`` of the world with this seed: (64, 64, 3) uint8 and its caption."""
    rng = np.random.default_rng((seed, index))
    picture = sample_picture(rng)
    return render(rng, picture), caption(rng, picture)


def film(seed: int, index: int) -> np.ndarray:
    """Two frames of film ``index``: the same thing and the same camera, later and elsewhere; (2, 64, 64, 3) uint8."""
    rng = np.random.default_rng((seed, 1, index))
    first = replace(sample_picture(rng), camera=sample_any_camera(rng))
    moved = rng.random() < 0.75
    second = replace(first, context=CONTEXTS[rng.integers(len(CONTEXTS))] if moved else first.context)
    return np.stack([render(rng, first), render(rng, second)])


def contact_sheet(rows: list[list[np.ndarray]], zoom: int = 2) -> Image.Image:
    """Rows of images (H, W, 3) uint8 on one sheet; shorter rows are padded with white."""
    side, width = rows[0][0].shape[0], max(len(row) for row in rows)
    sheet = np.full((side * len(rows), side * width, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet[y * side : (y + 1) * side, x * side : (x + 1) * side] = image
    return Image.fromarray(sheet).resize((sheet.shape[1] * zoom, sheet.shape[0] * zoom), Image.Resampling.NEAREST)


def _gallery() -> list[list[np.ndarray]]:
    from bayesdiff.toybox.subjects import SUBJECTS, render_subject

    rng = np.random.default_rng(0)
    everything = [[sample(0, row * 12 + i)[0] for i in range(12)] for row in range(4)]
    classes = [
        [render(rng, Picture(sample_instance(rng, c))) for _ in range(6) for c in pair]
        for pair in zip(CLASSES[::2], CLASSES[1::2], strict=True)
    ]
    contexts = [render(rng, Picture(sample_instance(rng), context)) for context in CONTEXTS]
    dressed = [render(rng, Picture(sample_instance(rng, LIVE_CLASSES[i % 4]), outfit=o)) for i, o in enumerate(OUTFITS)]
    finished = [render(rng, Picture(sample_instance(rng), finish=f)) for f in FINISHES * 4]
    coloured = [render(rng, Picture(sample_instance(rng), colour=c)) for c in COLOURS]
    subjects = [render_subject(name) for name in SUBJECTS]
    paired = [subjects[i] + (subjects[i + 1] if i + 1 < len(subjects) else []) for i in range(0, len(subjects), 2)]
    return [*everything, *classes, contexts[:10], contexts[10:], dressed, finished, coloured, *paired]


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "world.png")
    contact_sheet(_gallery()).save(target)
    print(f"wrote {target}")
