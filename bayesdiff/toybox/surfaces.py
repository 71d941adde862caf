"""Fine texture for the surfaces of the world.

Every field is an array ``(SIZE, SIZE)`` of relative brightness around zero. The texture is what
keeps small noise levels unpredictable for the denoiser, as photographs do; it lives in the images,
not in the latents, so that the autoencoder has to carry it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

SIZE = 128
"""Side of the supersampled canvas in pixels; images are half of it."""

Field = np.ndarray
Rng = np.random.Generator


def cells(rng: Rng, width: int, height: int | None = None) -> Field:
    """White noise in cells of ``width`` × ``height`` canvas pixels, smoothly upsampled."""
    height = height or width
    grid = rng.standard_normal((SIZE // height + 2, SIZE // width + 2)).astype(np.float32)
    image = Image.fromarray(grid).resize((grid.shape[1] * width, grid.shape[0] * height), Image.Resampling.BILINEAR)
    return np.asarray(image)[:SIZE, :SIZE]


def smooth(rng: Rng) -> Field:
    return 0.04 * cells(rng, 32)


def gravel(rng: Rng) -> Field:
    return 0.10 * cells(rng, 3) + 0.06 * cells(rng, 7)


def sand(rng: Rng) -> Field:
    return 0.08 * cells(rng, 2) + 0.03 * cells(rng, 16, 5)


def foliage(rng: Rng) -> Field:
    return 0.16 * cells(rng, 5) + 0.10 * cells(rng, 3)


def blades(rng: Rng) -> Field:
    return 0.16 * cells(rng, 2, 8) + 0.05 * cells(rng, 4)


def wood(rng: Rng) -> Field:
    return 0.10 * cells(rng, 24, 2) + 0.03 * cells(rng, 2)


def stone(rng: Rng) -> Field:
    return 0.07 * cells(rng, 4) + 0.05 * cells(rng, 2)


def weave(rng: Rng) -> Field:
    """Threads over and under, with irregular thickness."""
    y, x = np.mgrid[:SIZE, :SIZE]
    phase = rng.uniform(0, 2 * np.pi, 2)
    threads = np.sin(x * np.pi / 2.5 + phase[0]) * np.sin(y * np.pi / 2.5 + phase[1])
    woven: np.ndarray = (0.07 * threads + 0.06 * cells(rng, 3)).astype(np.float32)
    return woven


def fur(rng: Rng) -> Field:
    return 0.13 * cells(rng, 2, 5) + 0.05 * cells(rng, 6)


def glaze(rng: Rng) -> Field:
    return 0.03 * cells(rng, 2) + 0.03 * cells(rng, 20)


def ripples(rng: Rng) -> Field:
    return 0.08 * cells(rng, 12, 3) + 0.03 * cells(rng, 4, 2)


SURFACES: dict[str, Callable[[Rng], Field]] = {
    f.__name__: f for f in (smooth, gravel, sand, foliage, blades, wood, stone, weave, fur, glaze, ripples)
}


def apply_texture(image: Image.Image, field: Field, mask: Field | None = None) -> Image.Image:
    """Multiply an RGB canvas by ``1 + field`` where ``mask`` (0..1) is set."""
    gain = 1.0 + (field if mask is None else field * mask)
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32) * gain[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def film_grain(rng: Rng, pixels: Field, strength: float) -> Field:
    """Add grain of standard deviation ``strength`` (pixel range 0..1), mostly luminance, to (H, W, 3)."""
    luminance = rng.standard_normal((*pixels.shape[:2], 1))
    chroma = rng.standard_normal(pixels.shape)
    return np.clip(pixels + strength * (luminance + 0.1 * chroma), 0.0, 1.0)
