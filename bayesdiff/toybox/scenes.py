"""The twenty DreamBooth scene contexts (and a plain studio) as procedural backgrounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from bayesdiff.toybox.surfaces import SIZE, SURFACES, Rng, apply_texture
from bayesdiff.toybox.vocabulary import COLOURS, CONTEXTS

Colour = tuple[int, ...]
SKY, SKY_LOW = (148, 194, 234), (214, 230, 241)


def jitter(rng: Rng, colour: Colour, amount: int = 12) -> Colour:
    return tuple(int(np.clip(v + rng.integers(-amount, amount + 1), 0, 255)) for v in colour)


class Stage:
    """A canvas split at the horizon, with one texture above and one below."""

    def __init__(self, rng: Rng, far: tuple[Colour, Colour], near: tuple[Colour, Colour], horizon: int | None = None):
        self.rng = rng
        self.horizon = int(rng.integers(58, 76)) if horizon is None else horizon
        pixels = np.zeros((SIZE, SIZE, 3), np.float32)
        for start, stop, (top, bottom) in ((0, self.horizon, far), (self.horizon, SIZE, near)):
            ramp = np.linspace(0, 1, stop - start, dtype=np.float32)[:, None, None]
            pixels[start:stop] = np.array(jitter(rng, top)) * (1 - ramp) + np.array(jitter(rng, bottom)) * ramp
        self.image = Image.fromarray(pixels.astype(np.uint8))
        self.draw = ImageDraw.Draw(self.image)

    def scatter(self, count: int, box: tuple[float, float, float, float], colours: Sequence[Colour], radius: tuple[float, float]) -> None:
        for _ in range(count):
            x, y = self.rng.uniform(box[0], box[2]), self.rng.uniform(box[1], box[3])
            r = self.rng.uniform(*radius)
            colour = jitter(self.rng, colours[int(self.rng.integers(len(colours)))])
            self.draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def finish(self, far: str, near: str) -> Image.Image:
        above = (np.arange(SIZE) < self.horizon).astype(np.float32)[:, None]
        field = SURFACES[far](self.rng) * above + SURFACES[near](self.rng) * (1 - above)
        return apply_texture(self.image, field)


def plain(rng: Rng) -> Image.Image:
    level = int(rng.integers(-24, 25))
    grey = jitter(rng, (186 + level, 184 + level, 178 + level), 8)
    floor = tuple(max(v - 28, 0) for v in grey)
    return Stage(rng, (grey, grey), (floor, grey)).finish("smooth", "weave")


def jungle(rng: Rng) -> Image.Image:
    s = Stage(rng, ((26, 74, 34), (38, 104, 46)), ((48, 82, 36), (34, 60, 26)))
    for _ in range(26):
        x, y = rng.uniform(-10, SIZE), rng.uniform(-10, s.horizon + 8)
        w, h = rng.uniform(6, 14), rng.uniform(16, 34)
        s.draw.ellipse((x, y, x + w, y + h), fill=jitter(rng, (36, 124, 46), 28))
    return s.finish("foliage", "foliage")


def snow(rng: Rng) -> Image.Image:
    s = Stage(rng, (SKY, SKY_LOW), ((240, 244, 250), (222, 230, 244)))
    s.scatter(60, (0, 0, SIZE, SIZE), [(252, 252, 255)], (1, 2.2))
    return s.finish("smooth", "sand")


def beach(rng: Rng) -> Image.Image:
    s = Stage(rng, (SKY, SKY_LOW), ((230, 206, 152), (214, 186, 128)))
    s.draw.rectangle((0, s.horizon - 14, SIZE, s.horizon), fill=jitter(rng, (58, 138, 190)))
    s.draw.line((0, s.horizon, SIZE, s.horizon), fill=(248, 250, 250), width=3)
    return s.finish("ripples", "sand")


def cobblestone(rng: Rng) -> Image.Image:
    s = Stage(rng, ((150, 140, 134), (170, 160, 150)), ((108, 106, 104), (124, 120, 116)))
    for row, y in enumerate(range(s.horizon, SIZE, 9)):
        for x in range(-6 + 6 * (row % 2), SIZE, 12):
            s.draw.rounded_rectangle((x, y, x + 10, y + 7), 3, fill=jitter(rng, (150, 145, 138), 20))
    return s.finish("stone", "gravel")


def pink_fabric(rng: Rng) -> Image.Image:
    s = Stage(rng, ((244, 166, 196), (240, 150, 185)), ((240, 150, 185), (250, 182, 206)))
    for _ in range(9):
        x = rng.uniform(0, SIZE)
        fold = (x, 0, x + rng.uniform(-40, 40), SIZE)
        s.draw.line(fold, fill=jitter(rng, (224, 130, 168), 10), width=int(rng.integers(2, 6)))
    return s.finish("weave", "weave")


def wooden_floor(rng: Rng) -> Image.Image:
    s = Stage(rng, ((225, 215, 200), (215, 205, 190)), ((150, 100, 60), (170, 115, 70)))
    for y in range(s.horizon, SIZE, 10):
        s.draw.rectangle((0, y, SIZE, y + 9), fill=jitter(rng, (160, 108, 66), 14))
        s.draw.line((0, y, SIZE, y), fill=(95, 60, 35), width=1)
    return s.finish("smooth", "wood")


def city(rng: Rng) -> Image.Image:
    s = Stage(rng, (SKY, SKY_LOW), ((120, 120, 125), (100, 100, 105)))
    x = -4
    while x < SIZE:
        width, top = int(rng.integers(12, 24)), int(rng.integers(6, s.horizon - 16))
        s.draw.rectangle((x, top, x + width, s.horizon), fill=jitter(rng, (105, 115, 140), 24))
        for y in range(top + 4, s.horizon - 4, 7):
            for wx in range(x + 3, x + width - 3, 6):
                s.draw.rectangle((wx, y, wx + 2, y + 3), fill=jitter(rng, (240, 225, 150), 12))
        x += width + 1
    return s.finish("smooth", "stone")


def mountain(rng: Rng) -> Image.Image:
    s = Stage(rng, (SKY, SKY_LOW), ((100, 140, 80), (80, 120, 65)))
    for peak in rng.uniform(0, SIZE, 3):
        top, w, base = rng.uniform(4, 24), rng.uniform(35, 60), s.horizon
        s.draw.polygon([(peak - w, base), (peak, top), (peak + w, base)], fill=jitter(rng, (110, 110, 122), 14))
        y = top + (base - top) * 0.28
        s.draw.polygon([(peak - w * 0.28, y), (peak, top), (peak + w * 0.28, y)], fill=(244, 248, 250))
    return s.finish("stone", "blades")


def blue_house(rng: Rng) -> Image.Image:
    s = Stage(rng, (SKY, SKY_LOW), ((105, 160, 85), (85, 140, 70)))
    x, base = rng.uniform(2, 62), s.horizon
    s.draw.rectangle((x, base - 38, x + 56, base), fill=jitter(rng, (50, 95, 200), 10))
    s.draw.polygon([(x - 6, base - 38), (x + 28, base - 58), (x + 62, base - 38)], fill=jitter(rng, (70, 60, 80), 10))
    for wx in (x + 8, x + 34):
        s.draw.rectangle((wx, base - 30, wx + 12, base - 17), fill=(245, 240, 190))
    return s.finish("wood", "blades")


def purple_rug(rng: Rng) -> Image.Image:
    s = Stage(rng, ((40, 75, 45), (60, 100, 60)), ((55, 75, 40), (60, 80, 45)))
    for x in range(0, SIZE, 18):
        trunk = x + rng.uniform(-4, 4)
        s.draw.rectangle((trunk, 0, trunk + 6, s.horizon), fill=jitter(rng, (75, 55, 40), 10))
    s.draw.ellipse((2, s.horizon - 2, SIZE - 2, SIZE + 8), fill=jitter(rng, (122, 56, 166), 10))
    return s.finish("foliage", "weave")


def wheat_field(rng: Rng) -> Image.Image:
    s = Stage(rng, (SKY, SKY_LOW), ((215, 180, 80), (190, 150, 60)))
    for _ in range(110):
        x, y = rng.uniform(0, SIZE), rng.uniform(s.horizon - 8, SIZE)
        tip = (x + rng.uniform(-2, 2), y - rng.uniform(6, 12))
        s.draw.line((x, y, *tip), fill=jitter(rng, (225, 190, 95), 20), width=2)
    return s.finish("smooth", "blades")


def autumn_tree(rng: Rng) -> Image.Image:
    s = Stage(rng, (SKY, SKY_LOW), ((140, 110, 60), (150, 105, 55)))
    x, leaves = rng.uniform(10, 110), [(220, 90, 30), (230, 150, 40), (190, 50, 30)]
    s.draw.rectangle((x, 20, x + 8, s.horizon), fill=(90, 62, 42))
    s.scatter(60, (x - 32, 0, x + 40, 44), leaves, (3, 6))
    s.scatter(44, (0, s.horizon, SIZE, SIZE), leaves, (1.5, 3.5))
    return s.finish("foliage", "foliage")


def eiffel_tower(rng: Rng) -> Image.Image:
    s = Stage(rng, (SKY, SKY_LOW), ((120, 160, 90), (150, 150, 130)))
    x, base = rng.uniform(22, 106), s.horizon
    iron = jitter(rng, (110, 90, 75), 8)
    outline = [(-20, base), (-3, 4), (3, 4), (20, base), (12, base), (0, base - 36), (-12, base)]
    s.draw.polygon([(x + dx, y) for dx, y in outline], fill=iron)
    for half, up in ((12, 24), (7, 42)):
        s.draw.rectangle((x - half, base - up, x + half, base - up + 3), fill=iron)
    return s.finish("smooth", "gravel")


def _liquid(rng: Rng, near: tuple[Colour, Colour], crest: Colour, far: tuple[Colour, Colour]) -> Image.Image:
    s = Stage(rng, far, near, horizon=int(rng.integers(46, 62)))
    for _ in range(24):
        x, y = rng.uniform(-10, SIZE), rng.uniform(s.horizon + 2, SIZE)
        s.draw.arc((x, y, x + 22, y + 7), 195, 345, fill=jitter(rng, crest, 8), width=2)
    return s.finish("smooth", "ripples")


def water(rng: Rng) -> Image.Image:
    return _liquid(rng, ((50, 120, 185), (30, 85, 150)), (170, 210, 235), (SKY, SKY_LOW))


def milk(rng: Rng) -> Image.Image:
    return _liquid(rng, ((252, 250, 244), (240, 237, 228)), (216, 212, 202), ((235, 233, 226), (246, 242, 234)))


def sunflowers(rng: Rng) -> Image.Image:
    s = Stage(rng, (SKY, SKY_LOW), ((80, 165, 60), (60, 140, 45)))
    for _ in range(16):
        x, y = rng.uniform(0, SIZE), rng.uniform(s.horizon - 10, SIZE)
        s.draw.ellipse((x - 7, y - 7, x + 7, y + 7), fill=(245, 205, 40))
        s.draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(95, 60, 30))
    return s.finish("smooth", "blades")


def mirror(rng: Rng) -> Image.Image:
    s = Stage(rng, ((205, 210, 215), (190, 196, 202)), ((172, 196, 214), (206, 222, 232)))
    for _ in range(5):
        x = rng.uniform(0, SIZE)
        s.draw.line((x, s.horizon, x - 30, SIZE), fill=(234, 242, 248), width=3)
    s.draw.line((0, s.horizon, SIZE, s.horizon), fill=(120, 124, 130), width=2)
    return s.finish("smooth", "glaze")


def crowded_street(rng: Rng) -> Image.Image:
    s = Stage(rng, ((165, 160, 160), (185, 180, 175)), ((162, 162, 164), (180, 180, 178)))
    clothes = list(COLOURS.values())
    for _ in range(12):
        x, top = rng.uniform(0, SIZE), rng.uniform(12, 34)
        s.draw.rectangle((x - 5, top + 9, x + 5, s.horizon), fill=jitter(rng, clothes[rng.integers(len(clothes))]))
        s.draw.ellipse((x - 4, top, x + 4, top + 9), fill=jitter(rng, (205, 160, 130), 30))
    s.draw.line((0, s.horizon + 20, SIZE, s.horizon + 20), fill=(138, 138, 140), width=2)
    return s.finish("stone", "gravel")


def dirt_road(rng: Rng) -> Image.Image:
    s = Stage(rng, (SKY, SKY_LOW), ((95, 140, 70), (85, 125, 60)))
    road = [(50, s.horizon), (78, s.horizon), (SIZE + 12, SIZE), (-12, SIZE)]
    s.draw.polygon(road, fill=jitter(rng, (165, 125, 85), 8))
    s.scatter(30, (20, s.horizon + 8, 108, SIZE), [(140, 105, 70), (185, 150, 105)], (1, 2.5))
    return s.finish("smooth", "gravel")


def white_rug(rng: Rng) -> Image.Image:
    s = Stage(rng, ((200, 185, 165), (185, 168, 150)), ((140, 105, 80), (130, 95, 72)))
    s.draw.ellipse((2, s.horizon - 2, SIZE - 2, SIZE + 10), fill=jitter(rng, (244, 243, 238), 5))
    s.scatter(40, (14, s.horizon + 6, SIZE - 14, SIZE), [(230, 228, 220)], (1, 2))
    return s.finish("smooth", "weave")


_PAINTERS = (
    jungle, snow, beach, cobblestone, pink_fabric, wooden_floor, city, mountain, blue_house, purple_rug,
    wheat_field, autumn_tree, eiffel_tower, water, milk, sunflowers, mirror, crowded_street, dirt_road, white_rug,
)  # fmt: skip
SCENES: dict[str | None, Callable[[Rng], Image.Image]] = {None: plain, **dict(zip(CONTEXTS, _PAINTERS, strict=True))}
