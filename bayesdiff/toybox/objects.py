"""The sixteen classes of the procedural world as parametric instances.

An instance is a class, two colours, a pattern, proportions and a material. Its identity (everything
in ``Instance``) is fixed; pose, scene and light are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from bayesdiff.toybox.surfaces import SIZE, SURFACES, Rng, apply_texture
from bayesdiff.toybox.vocabulary import CLASSES, COLOURS, LIVE_CLASSES, PATTERNS

Colour = tuple[int, ...]
Point = tuple[float, float]
CX, CY = 64, 68
INK, PAPER = (32, 30, 34), (240, 238, 230)


@dataclass(frozen=True)
class Instance:
    """What makes one object itself: equal instances look alike in every scene."""

    class_noun: str
    colour: str
    second: str
    pattern: str
    material: str
    aspect: float
    """Width over height relative to the class's default, 0.85 to 1.18."""
    repeats: int
    """Stripes, dots or checks across the body, 3 to 6."""
    shape: tuple[float, ...]
    """Six free proportions in [0, 1], read by the class's drawing."""
    tint: tuple[int, ...]
    """Offset of both colours from their named colour, six integers in [-16, 16]."""


@dataclass(frozen=True)
class Head:
    """Where outfits go on a live class: head centre and radius, and the torso's box."""

    x: float
    y: float
    radius: float
    torso: tuple[float, float, float, float]


class Sketch:
    """Layers of one object on the canvas: parts behind, the body's mask, details in front."""

    def __init__(self, instance: Instance, colour: Colour, second: Colour):
        self.u, self.colour, self.second = instance.shape, colour, second
        self.dark: Colour = tuple(int(v * 0.55) for v in colour)
        self.w, self.h = 31 * instance.aspect, 34 / instance.aspect
        self.behind = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
        self.mask = Image.new("L", (SIZE, SIZE), 0)
        self.front = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
        self.back, self.body, self.top = (ImageDraw.Draw(i) for i in (self.behind, self.mask, self.front))
        self.head: Head | None = None

    def disc(self, layer: ImageDraw.ImageDraw, x: float, y: float, rx: float, ry: float, fill: Colour | int) -> None:
        layer.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)

    def eyes(self, x: float, y: float, gap: float, radius: float) -> None:
        for side in (-gap, gap):
            self.disc(self.top, x + side, y, radius + 1, radius + 1, PAPER)
            self.disc(self.top, x + side, y, radius, radius, INK)


def backpack(s: Sketch) -> None:
    s.back.arc((CX - 13, CY - s.h - 16, CX + 13, CY - s.h + 12), 180, 360, fill=s.dark, width=5)
    s.body.rounded_rectangle((CX - s.w, CY - s.h, CX + s.w, CY + s.h), int(8 + 12 * s.u[0]), fill=255)
    pocket = (CX - s.w * 0.65, CY + 2 + 8 * s.u[1], CX + s.w * 0.65, CY + s.h - 5)
    s.top.rounded_rectangle(pocket, 7, outline=s.dark, width=3)
    s.top.line((CX - s.w, CY - 10, CX + s.w, CY - 10), fill=s.dark, width=3)


def ball(s: Sketch) -> None:
    s.disc(s.body, CX, CY + 2, s.h, s.h, 255)
    for bend in (-0.5, 0.5) if s.u[0] < 0.5 else (0.0,):
        half = s.h * (0.35 + 0.5 * s.u[1])
        s.top.arc((CX + bend * s.h - half, CY + 2 - s.h, CX + bend * s.h + half, CY + 2 + s.h), 60, 300, s.dark, 3)


def boot(s: Sketch) -> None:
    top, toe, sole = CY - s.h + 10 * s.u[0], CX + s.w + 8, CY + s.h
    leg = 13 + 5 * s.u[1]
    s.body.polygon(
        [(CX - 22, top), (CX - 22 + 2 * leg, top), (CX - 20 + 2 * leg, CY + 8), (toe, CY + 14), (toe + 2, sole), (CX - 22, sole)], 255
    )
    s.back.rectangle((CX - 25, sole - 1, toe + 4, sole + 7), fill=s.dark)
    for y in np.linspace(top + 8, CY + 4, 4):
        s.top.line((CX - 24 + 1.4 * leg, y, CX - 20 + 2 * leg, y + 2), fill=PAPER, width=2)


def can(s: Sketch) -> None:
    r, lid = s.w * 0.72, 5 + 4 * s.u[0]
    s.body.rectangle((CX - r, CY - s.h, CX + r, CY + s.h), fill=255)
    s.disc(s.body, CX, CY + s.h, r, lid, 255)
    s.disc(s.top, CX, CY - s.h, r, lid, (188, 192, 198))
    s.disc(s.top, CX, CY - s.h, r * 0.75, lid * 0.6, (150, 154, 160))
    if s.u[1] > 0.5:
        s.disc(s.top, CX, CY, r * 0.5, r * 0.5, s.second)


def candle(s: Sketch) -> None:
    r, top = s.w * (0.42 + 0.2 * s.u[0]), CY - s.h + 10
    s.body.rectangle((CX - r, top, CX + r, CY + s.h), fill=255)
    s.disc(s.body, CX, CY + s.h, r, 5, 255)
    s.back.line((CX, top, CX, top - 8), fill=INK, width=3)
    s.disc(s.back, CX, top - 16, 6, 10, (250, 178, 60))
    s.disc(s.back, CX, top - 14, 3, 6, (255, 236, 170))
    if s.u[1] > 0.4:
        s.disc(s.back, CX, CY + s.h + 2, s.w * 1.05, 8, s.dark)


def car(s: Sketch) -> None:
    w, roof = s.w + 14, CY - 18 - 8 * s.u[0]
    s.body.rounded_rectangle((CX - w, CY - 2, CX + w, CY + 25), 8, fill=255)
    s.body.polygon([(CX - s.w + 2, CY), (CX - s.w + 13, roof), (CX + s.w - 13, roof), (CX + s.w + 2, CY)], fill=255)
    s.top.polygon([(CX - s.w + 10, CY - 2), (CX - s.w + 17, roof + 5), (CX - 2, roof + 5), (CX - 2, CY - 2)], fill=(192, 216, 232))
    s.top.polygon([(CX + 3, CY - 2), (CX + 3, roof + 5), (CX + s.w - 16, roof + 5), (CX + s.w - 7, CY - 2)], fill=(192, 216, 232))
    for x in (CX - s.w + 3, CX + s.w - 3):
        s.disc(s.top, x, CY + 26, 11, 11, INK)
        s.disc(s.top, x, CY + 26, 3 + 3 * s.u[1], 3 + 3 * s.u[1], s.second)


def clock(s: Sketch) -> None:
    r = s.h + 2
    for side in (-1, 1):
        s.back.polygon([(CX + side * 18, CY + r - 6), (CX + side * 27, CY + r + 9), (CX + side * 12, CY + r - 1)], fill=s.dark)
        if s.u[0] > 0.4:
            s.disc(s.back, CX + side * 20, CY - r + 2, 9, 9, s.second)
    s.disc(s.body, CX, CY, r, r, 255)
    face = r * (0.62 + 0.14 * s.u[1])
    s.disc(s.top, CX, CY, face, face, PAPER)
    for angle in np.arange(12) * np.pi / 6:
        s.disc(s.top, CX + 0.84 * face * np.cos(angle), CY + 0.84 * face * np.sin(angle), 1.6, 1.6, INK)
    minute, hour = 2 * np.pi * s.u[2], 2 * np.pi * s.u[3]
    s.top.line((CX, CY, CX + 0.7 * face * np.cos(minute), CY + 0.7 * face * np.sin(minute)), fill=INK, width=3)
    s.top.line((CX, CY, CX + 0.45 * face * np.cos(hour), CY + 0.45 * face * np.sin(hour)), fill=INK, width=4)


def lamp(s: Sketch) -> None:
    top, bottom, flare = CY - s.h - 4, CY + 4 + 6 * s.u[0], s.w * (0.35 + 0.3 * s.u[1])
    s.back.rectangle((CX - 4, bottom, CX + 4, CY + s.h), fill=s.dark)
    s.disc(s.back, CX, CY + s.h, s.w * 0.75, 7, s.dark)
    s.body.polygon([(CX - flare, top), (CX + flare, top), (CX + s.w + 3, bottom), (CX - s.w - 3, bottom)], fill=255)
    s.top.line((CX - s.w - 3, bottom, CX + s.w + 3, bottom), fill=s.second, width=4)


def mug(s: Sketch) -> None:
    r, top = s.w * 0.82, CY - s.h * (0.75 + 0.15 * s.u[0])
    s.back.arc((CX + r - 12, CY - 16, CX + r + 18, CY + 20), 270, 90, fill=s.colour, width=8)
    s.body.rounded_rectangle((CX - r, top, CX + r, CY + s.h), int(3 + 9 * s.u[1]), fill=255)
    s.disc(s.top, CX, top, r, 7, s.dark)
    s.disc(s.top, CX, top + 1, r * 0.85, 5, (84, 56, 40))


def robot(s: Sketch) -> None:
    r, neck = s.w * 0.72, CY - 8
    for side in (-1, 1):
        arm = CX + side * (r + 6)
        s.back.rectangle((arm - 6, neck + 4, arm + 6, neck + 28), fill=s.dark)
        leg = CX + side * r * 0.5
        s.back.rectangle((leg - 7, CY + s.h - 10, leg + 7, CY + s.h + 8), fill=s.dark)
    s.back.line((CX, neck - 30, CX, neck - 42), fill=s.dark, width=3)
    s.disc(s.back, CX, neck - 43, 4, 4, s.second)
    s.body.rectangle((CX - r, neck, CX + r, CY + s.h - 6), fill=255)
    s.body.rounded_rectangle((CX - r * 0.85, neck - 32, CX + r * 0.85, neck - 3), int(2 + 9 * s.u[0]), fill=255)
    for side in (-9, 9):
        s.disc(s.top, CX + side, neck - 20, 4 + 2 * s.u[1], 4 + 2 * s.u[1], (250, 246, 190))
    s.top.rectangle((CX - 9, neck - 11, CX + 9, neck - 8), fill=INK)


def teapot(s: Sketch) -> None:
    low, ry = CY + 8, s.h * (0.62 + 0.16 * s.u[0])
    s.back.arc((CX + s.w - 10, low - 20, CX + s.w + 22, low + 16), 270, 90, fill=s.dark, width=7)
    s.back.polygon([(CX - s.w + 8, low + 12), (CX - s.w - 22, low - 18), (CX - s.w - 12, low - 22), (CX - s.w + 8, low - 6)], fill=s.colour)
    s.disc(s.body, CX, low, s.w + 1, ry, 255)
    s.disc(s.top, CX, low - ry + 2, s.w * 0.5, 5, s.dark)
    s.disc(s.top, CX, low - ry - 5, 4 + 3 * s.u[1], 4 + 3 * s.u[1], s.second)


def vase(s: Sketch) -> None:
    lip, neck, belly = 9 + 9 * s.u[0], 6 + 5 * s.u[1], CY + 14 * (s.u[2] - 0.5)
    top, low = CY - s.h - 4, CY + s.h + 4
    half = [(lip, top), (neck, top + 14), (s.w, belly), (s.w * 0.8, belly + 14), (12, low)]
    s.body.polygon([(CX + x, y) for x, y in half] + [(CX - x, y) for x, y in reversed(half)], fill=255)
    s.top.line((CX - lip, top, CX + lip, top), fill=s.dark, width=4)


def _sitting(s: Sketch, head_r: float) -> tuple[float, float]:
    """Body and head of a sitting animal; returns the head's centre."""
    hx, hy = CX, CY - s.h * 0.62
    s.disc(s.body, CX, CY + 16, s.w * 0.84, s.h * 0.72, 255)
    s.disc(s.body, hx, hy, head_r * 1.08, head_r, 255)
    for side in (-1, 1):
        s.disc(s.top, CX + side * s.w * 0.42, CY + s.h - 1, 9, 5, s.dark)
    s.head = Head(hx, hy, head_r, (CX - s.w * 0.84, CY - 4, CX + s.w * 0.84, CY + s.h + 4))
    return hx, hy


def bear(s: Sketch) -> None:
    r = 21 + 4 * s.u[0]
    x, y = _sitting(s, r)
    for side in (-1, 1):
        s.disc(s.body, x + side * r * 0.8, y - r * 0.75, 8 + 3 * s.u[1], 8 + 3 * s.u[1], 255)
        s.disc(s.top, x + side * r * 0.8, y - r * 0.75, 4, 4, s.second)
    s.disc(s.top, x, y + r * 0.42, 9, 7, s.second)
    s.disc(s.top, x, y + r * 0.28, 4, 3, INK)
    s.eyes(x, y - 3, 9, 3)


def cat(s: Sketch) -> None:
    r = 20 + 4 * s.u[0]
    s.back.arc((CX + s.w * 0.4, CY - 6, CX + s.w + 16, CY + s.h), 270, 120, fill=s.colour, width=8)
    x, y = _sitting(s, r)
    for side in (-1, 1):
        tip = (x + side * r * 0.95, y - r - 10 - 6 * s.u[1])
        s.body.polygon([(x + side * r * 0.25, y - r * 0.8), tip, (x + side * r * 1.05, y - r * 0.2)], fill=255)
        s.top.line((x + side * 7, y + 7, x + side * 24, y + 4 + 4 * s.u[2]), fill=PAPER, width=1)
    s.top.polygon([(x - 4, y + 4), (x + 4, y + 4), (x, y + 9)], fill=(226, 130, 140))
    s.eyes(x, y - 3, 9, 3.5)


def dog(s: Sketch) -> None:
    r = 20 + 4 * s.u[0]
    s.back.line((CX + s.w * 0.6, CY + 18, CX + s.w + 14, CY - 4 - 8 * s.u[2]), fill=s.colour, width=8)
    x, y = _sitting(s, r)
    for side in (-1, 1):
        s.disc(s.top, x + side * r * 1.02, y + 2 + 6 * s.u[1], 7, 13, s.dark)
    s.disc(s.top, x, y + r * 0.45, 11, 9, s.second)
    s.disc(s.top, x, y + r * 0.25, 5, 4, INK)
    s.eyes(x, y - 4, 8, 3)


def duck(s: Sketch) -> None:
    r, hx, hy = 17 + 4 * s.u[0], CX - 10, CY - s.h * 0.55
    s.body.polygon([(CX + s.w - 4, CY + 10), (CX + s.w + 16, CY - 8 - 6 * s.u[1]), (CX + s.w + 6, CY + 24)], fill=255)
    s.disc(s.body, CX + 2, CY + 16, s.w + 2, s.h * 0.55, 255)
    s.disc(s.body, hx, hy, r, r, 255)
    s.top.polygon([(hx - r + 4, hy - 2), (hx - r - 15, hy + 5), (hx - r + 5, hy + 10)], fill=(238, 150, 34))
    s.disc(s.top, CX + 10, CY + 15, s.w * 0.5, 9, s.dark)
    s.eyes(hx - 3, hy - 4, 5, 2.5)
    s.head = Head(hx, hy, r, (CX - s.w * 0.75, CY + 1, CX + s.w * 0.8, CY + s.h * 0.85))


DRAWINGS: dict[str, Callable[[Sketch], None]] = {
    f.__name__: f for f in (backpack, ball, boot, can, candle, car, clock, lamp, mug, robot, teapot, vase, bear, cat, dog, duck)
}


def sample_instance(rng: Rng, class_noun: str | None = None) -> Instance:
    """Draw an instance; the class uniformly unless given."""
    noun = class_noun or CLASSES[rng.integers(len(CLASSES))]
    colours = rng.choice(sorted(COLOURS), 2, replace=False)
    materials = ("fur",) if noun in LIVE_CLASSES else ("weave", "glaze", "stone", "wood")
    return Instance(
        class_noun=noun,
        colour=str(colours[0]),
        second=str(colours[1]),
        pattern=PATTERNS[rng.integers(len(PATTERNS))],
        material=materials[rng.integers(len(materials))],
        aspect=float(rng.uniform(0.85, 1.18)),
        repeats=int(rng.integers(3, 7)),
        shape=tuple(float(v) for v in rng.uniform(size=6)),
        tint=tuple(int(v) for v in rng.integers(-16, 17, 6)),
    )


def _paint(instance: Instance, colour: Colour, second: Colour) -> Image.Image:
    """The instance's pattern over the whole canvas."""
    image = Image.new("RGB", (SIZE, SIZE), colour)
    draw, step = ImageDraw.Draw(image), SIZE // (2 * instance.repeats)
    offsets = range(0, SIZE, 2 * step)
    if instance.pattern == "striped":
        for y in offsets:
            draw.rectangle((0, y, SIZE, y + step), fill=second)
    elif instance.pattern == "banded":
        for x in offsets:
            draw.rectangle((x, 0, x + step, SIZE), fill=second)
    elif instance.pattern == "dotted":
        for row, y in enumerate(range(0, SIZE, step)):
            for x in range((row % 2) * step // 2, SIZE, step):
                draw.ellipse((x, y, x + step * 0.58, y + step * 0.58), fill=second)
    elif instance.pattern == "checkered":
        for row, y in enumerate(range(0, SIZE, step)):
            for x in range((row % 2) * step, SIZE, 2 * step):
                draw.rectangle((x, y, x + step, y + step), fill=second)
    elif instance.pattern == "patched":
        draw.ellipse((CX - 16, CY - 4, CX + 14, CY + 26), fill=second)
        draw.ellipse((CX - 7, CY + 4, CX + 5, CY + 17), fill=colour)
    return image


def named_colour(instance: Instance, name: str, offset: int) -> Colour:
    """RGB of a named colour, shifted by the instance's own tint (``offset`` 0: body, 3: second)."""
    return tuple(int(np.clip(v + t, 0, 255)) for v, t in zip(COLOURS[name], instance.tint[offset:], strict=False))


def draw_instance(rng: Rng, instance: Instance, colour: str | None = None) -> tuple[Image.Image, Image.Image, Head | None]:
    """Draw an instance on a transparent canvas.

    Args:
        rng: randomness of the material's texture.
        colour: a colour word that replaces the instance's own body colour ("a red backpack").

    Returns:
        RGBA layer, the body's mask (mode L), and the head of a live class.
    """
    body, second = named_colour(instance, colour or instance.colour, 0), named_colour(instance, instance.second, 3)
    sketch = Sketch(instance, body, second)
    DRAWINGS[instance.class_noun](sketch)
    y, x = np.mgrid[:SIZE, :SIZE]
    shade = 0.12 - 0.42 * ((x - 50) / SIZE) ** 2 * 4 * 0.5 - 0.25 * (y - 40) / SIZE
    painted = apply_texture(_paint(instance, body, second), shade + SURFACES[instance.material](rng))
    layer = sketch.behind.copy()
    layer.paste(painted.convert("RGBA"), (0, 0), sketch.mask)
    layer.alpha_composite(sketch.front)
    return layer, sketch.mask, sketch.head
