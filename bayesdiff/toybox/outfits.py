"""Outfits and accessories for the live classes, and the finishes shiny, wet and cube shaped."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from bayesdiff.toybox.objects import CX, CY, INK, PAPER, Colour, Head
from bayesdiff.toybox.surfaces import SIZE, Rng
from bayesdiff.toybox.vocabulary import OUTFITS

Draw = ImageDraw.ImageDraw
RED, GOLD, BLACK = (200, 40, 44), (238, 200, 60), (30, 30, 36)


def _shirt(d: Draw, h: Head, colour: Colour) -> None:
    left, top, right, bottom = h.torso
    d.rounded_rectangle((left, top + 2, right, bottom - 6), 9, fill=colour)


def _brim(d: Draw, h: Head, colour: Colour, wide: float = 1.25) -> float:
    """A flat brim; returns the height of its upper edge."""
    y = h.y - h.radius * 0.62
    d.ellipse((h.x - h.radius * wide, y - 4, h.x + h.radius * wide, y + 4), fill=colour)
    return y


def red_hat(d: Draw, h: Head) -> None:
    y = _brim(d, h, RED)
    d.pieslice((h.x - h.radius * 0.8, y - 20, h.x + h.radius * 0.8, y + 20), 180, 360, fill=RED)


def santa_hat(d: Draw, h: Head) -> None:
    y = h.y - h.radius * 0.6
    d.polygon([(h.x - h.radius * 0.9, y), (h.x + h.radius * 0.9, y), (h.x + h.radius * 0.9, y - 26)], fill=RED)
    d.ellipse((h.x + h.radius * 0.9 - 6, y - 32, h.x + h.radius * 0.9 + 6, y - 20), fill=PAPER)
    d.rounded_rectangle((h.x - h.radius, y - 4, h.x + h.radius, y + 5), 4, fill=PAPER)


def rainbow_scarf(d: Draw, h: Head) -> None:
    y = h.y + h.radius * 0.78
    for i, colour in enumerate(((214, 48, 48), (238, 150, 44), (238, 214, 60), (60, 160, 70), (60, 90, 200), (140, 66, 176))):
        d.rectangle((h.x - h.radius + i * h.radius / 3, y, h.x - h.radius + (i + 1) * h.radius / 3, y + 9), fill=colour)
        d.rectangle((h.x + h.radius * 0.3, y + 9 + 3 * i, h.x + h.radius * 0.75, y + 12 + 3 * i), fill=colour)


def top_hat_and_monocle(d: Draw, h: Head) -> None:
    y = _brim(d, h, BLACK, 1.2)
    d.rectangle((h.x - h.radius * 0.75, y - 26, h.x + h.radius * 0.75, y), fill=BLACK)
    d.rectangle((h.x - h.radius * 0.75, y - 8, h.x + h.radius * 0.75, y - 4), fill=(150, 150, 156))
    d.ellipse((h.x + 1, h.y - 12, h.x + 17, h.y + 4), outline=GOLD, width=3)
    d.line((h.x + 16, h.y, h.x + 18, h.y + 20), fill=GOLD, width=1)


def chef(d: Draw, h: Head) -> None:
    _shirt(d, h, PAPER)
    for button in (8, 18, 28):
        d.ellipse((CX - 2, h.torso[1] + button, CX + 2, h.torso[1] + button + 4), fill=BLACK)
    y = h.y - h.radius * 0.6
    d.rectangle((h.x - h.radius * 0.75, y - 14, h.x + h.radius * 0.75, y + 3), fill=PAPER)
    for dx in (-12, 0, 12):
        d.ellipse((h.x + dx - 10, y - 28, h.x + dx + 10, y - 8), fill=PAPER)


def firefighter(d: Draw, h: Head) -> None:
    _shirt(d, h, (150, 40, 34))
    for stripe in (10, 22):
        d.rectangle((h.torso[0], h.torso[1] + stripe, h.torso[2], h.torso[1] + stripe + 4), fill=(240, 230, 80))
    y = _brim(d, h, (190, 36, 30), 1.35)
    d.pieslice((h.x - h.radius * 0.85, y - 19, h.x + h.radius * 0.85, y + 19), 180, 360, fill=(190, 36, 30))
    d.ellipse((h.x - 5, y - 14, h.x + 5, y - 3), fill=GOLD)


def police(d: Draw, h: Head) -> None:
    _shirt(d, h, (34, 48, 110))
    d.polygon([(CX + 8, h.torso[1] + 8), (CX + 20, h.torso[1] + 8), (CX + 14, h.torso[1] + 20)], fill=GOLD)
    y = _brim(d, h, BLACK, 1.1)
    d.rectangle((h.x - h.radius * 0.9, y - 12, h.x + h.radius * 0.9, y), fill=(34, 48, 110))
    d.ellipse((h.x - 5, y - 13, h.x + 5, y - 3), fill=GOLD)


def pink_glasses(d: Draw, h: Head) -> None:
    pink = (244, 96, 170)
    for side in (-1, 1):
        d.ellipse((h.x + side * 10 - 8, h.y - 11, h.x + side * 10 + 8, h.y + 5), outline=pink, width=4)
    d.line((h.x - 3, h.y - 3, h.x + 3, h.y - 3), fill=pink, width=4)


def yellow_shirt(d: Draw, h: Head) -> None:
    _shirt(d, h, (240, 208, 50))


def purple_wizard(d: Draw, h: Head) -> None:
    purple = (116, 48, 160)
    _shirt(d, h, purple)
    y = _brim(d, h, purple, 1.3)
    d.polygon([(h.x - h.radius * 0.8, y), (h.x + h.radius * 0.8, y), (h.x + 5, y - 36)], fill=purple)
    for x, dy in ((h.x - 5, -9), (h.x + 5, -18)):
        d.polygon([(x, y + dy - 4), (x + 3, y + dy), (x, y + dy + 4), (x - 3, y + dy)], fill=GOLD)
    d.ellipse((CX - 4, h.torso[1] + 10, CX + 4, h.torso[1] + 18), fill=GOLD)


WARDROBE: dict[str, Callable[[Draw, Head], None]] = dict(
    zip(
        OUTFITS,
        (red_hat, santa_hat, rainbow_scarf, top_hat_and_monocle, chef, firefighter, police, pink_glasses, yellow_shirt, purple_wizard),
        strict=True,
    )
)


def dress(layer: Image.Image, head: Head, outfit: str) -> None:
    """Draw an outfit onto a live instance's RGBA layer, in place."""
    WARDROBE[outfit](ImageDraw.Draw(layer), head)


def shiny(layer: Image.Image, mask: Image.Image) -> Image.Image:
    """Two hard highlights and a brighter body."""
    gleam = Image.new("L", (SIZE, SIZE), 0)
    d = ImageDraw.Draw(gleam)
    d.ellipse((CX - 26, CY - 30, CX - 6, CY - 4), fill=235)
    d.polygon([(CX + 8, CY - 40), (CX + 15, CY - 40), (CX - 8, CY + 44), (CX - 15, CY + 44)], fill=170)
    inside = np.minimum(np.asarray(gleam), np.asarray(mask))
    layer.paste(Image.new("RGBA", layer.size, (255, 255, 255, 255)), (0, 0), Image.fromarray(inside))
    return layer


def wet(rng: Rng, layer: Image.Image, mask: Image.Image) -> Image.Image:
    """A darker body under drops, and drops falling from it."""
    shadow = Image.fromarray((np.asarray(mask) * 0.35).astype(np.uint8))
    layer.paste(Image.new("RGBA", layer.size, (20, 30, 60, 255)), (0, 0), shadow)
    d = ImageDraw.Draw(layer)
    for x, y in zip(rng.uniform(CX - 38, CX + 38, 34), rng.uniform(CY - 40, CY + 50, 34), strict=True):
        d.polygon([(x, y - 6), (x + 3, y), (x - 3, y)], fill=(176, 218, 248))
        d.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(176, 218, 248))
    return layer


def cube_shaped(layer: Image.Image) -> Image.Image:
    """The object's picture on the three visible faces of a cube."""
    box = layer.getchannel("A").getbbox() or (0, 0, SIZE, SIZE)
    mean = np.asarray(layer.crop(box)).reshape(-1, 4)
    body = mean[mean[:, 3] > 128][:, :3].mean(0)
    face = Image.new("RGBA", (SIZE, SIZE), (*(int(v * 0.8) for v in body), 255))
    face.alpha_composite(layer.resize((SIZE - 24, SIZE - 24)), (12, 12))
    out = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
    front = face.resize((62, 62))
    out.paste(front, (CX - 42, CY - 24))
    side = front.transform((24, 86), Image.Transform.AFFINE, (62 / 24, 0, 0, 24 / 24, 1, -24), fillcolor=(0, 0, 0, 0))
    dark = Image.new("RGBA", side.size, (0, 0, 0, 110))
    shaded = Image.alpha_composite(side, Image.composite(dark, Image.new("RGBA", side.size), side.getchannel("A")))
    out.alpha_composite(shaded, (CX + 20, CY - 48))
    d = ImageDraw.Draw(out)
    top = [(CX - 42, CY - 24), (CX - 18, CY - 48), (CX + 43, CY - 48), (CX + 19, CY - 24)]
    d.polygon(top, fill=(*(int(min(v * 1.15 + 16, 255)) for v in body), 255))
    d.line([*top, top[0], (CX - 42, CY + 37), (CX + 19, CY + 37), (CX + 43, CY + 14), (CX + 43, CY - 48)], fill=(*INK, 255), width=1)
    d.line((CX + 19, CY - 24, CX + 19, CY + 37), fill=(*INK, 255), width=1)
    return out
