"""Measures of an image that need its pixels alone: high-frequency energy, contrast by spatial frequency, and mean colour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bayesdiff.corruption.kinds import is_flat


def high_frequency_energy(image: Image.Image) -> float:
    """Mean absolute Laplacian (four neighbours, no border) of the image in [-1, 1]; flat images have 0, and those without an inside."""
    x = np.asarray(image.convert("RGB"), dtype=np.float64) / 127.5 - 1
    inner = 4 * x[1:-1, 1:-1] - x[:-2, 1:-1] - x[2:, 1:-1] - x[1:-1, :-2] - x[1:-1, 2:]
    return float(np.abs(inner).mean()) if inner.size else 0.0


BANDS = {"band_fine": (0.25, 0.5), "band_middle": (1 / 16, 0.25)}
"""Spatial frequencies in cycles a pixel: periods of 2 to 4 pixels, and of 4 to 16."""


def band_contrasts(image: Image.Image) -> dict[str, float]:
    """Root mean square of the luminance in [-1, 1] within each of ``BANDS`` (radial frequency); flat images have 0.

    A Hann window keeps the borders, which do not fit each other, out of the fine band.
    """
    x = np.asarray(image.convert("L"), dtype=np.float64) / 127.5 - 1
    window = np.outer(np.hanning(x.shape[0]), np.hanning(x.shape[1]))
    weight = max(float((window**2).sum()), 1e-12)
    power = np.abs(np.fft.fft2((x - x.mean()) * window)) ** 2 / (x.size * weight)
    radius = np.hypot(np.fft.fftfreq(x.shape[0])[:, None], np.fft.fftfreq(x.shape[1])[None])
    return {name: float(np.sqrt(power[(low <= radius) & (radius < high)].sum())) for name, (low, high) in BANDS.items()}


def mean_colour(image: Image.Image) -> NDArray[np.float64]:
    """Mean RGB (3,) of an image, in [0, 1]."""
    colour: NDArray[np.float64] = np.asarray(image.convert("RGB"), dtype=np.float64).mean((0, 1)) / 255
    return colour


def flat_line(photos: list[Image.Image]) -> str:
    """What is said of photographs of one colour; empty for others."""
    if not photos or not is_flat(mean_energy(photos)):
        return ""
    return "Photographs: of one colour, without grain that samples could be compared with: hf_relative is left out"


def describe_photos(photos: list[Image.Image]) -> dict[str, float]:
    """What samples are measured against besides features: the photographs' mean ``hf_energy``, and contrast in each of ``BANDS``."""
    bands = [band_contrasts(photo) for photo in photos]
    return {"hf_energy": mean_energy(photos), **{name: round(float(np.mean([one[name] for one in bands])), 6) for name in BANDS}}


def mean_energy(photos: list[Image.Image]) -> float:
    """The photographs' mean ``hf_energy``, as records keep it."""
    return round(float(np.mean([high_frequency_energy(photo) for photo in photos])), 6)
