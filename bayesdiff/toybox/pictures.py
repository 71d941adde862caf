"""What a picture of the world shows, and how it becomes pixels: one description and one seed, one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from bayesdiff.toybox.objects import Instance, draw_instance
from bayesdiff.toybox.outfits import cube_shaped, dress, shiny, wet
from bayesdiff.toybox.scenes import SCENES
from bayesdiff.toybox.surfaces import SIZE, Rng, film_grain
from bayesdiff.toybox.vocabulary import FINISHES, LIVE_CLASSES

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
