"""Measures of an image that need its pixels alone: high-frequency energy and mean colour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def high_frequency_energy(image: Image.Image) -> float:
    """Mean absolute Laplacian (four neighbours, no border) of the image in [-1, 1]; flat images have 0."""
    x = np.asarray(image.convert("RGB"), dtype=np.float64) / 127.5 - 1
    inner = 4 * x[1:-1, 1:-1] - x[:-2, 1:-1] - x[2:, 1:-1] - x[1:-1, :-2] - x[1:-1, 2:]
    return float(np.abs(inner).mean())


def mean_colour(image: Image.Image) -> NDArray[np.float64]:
    """Mean RGB (3,) of an image, in [0, 1]."""
    colour: NDArray[np.float64] = np.asarray(image.convert("RGB"), dtype=np.float64).mean((0, 1)) / 255
    return colour


def describe_photos(photos: list[Image.Image]) -> dict[str, float]:
    """What samples are measured against besides features: the photographs' mean ``hf_energy``."""
    return {"hf_energy": round(float(np.mean([high_frequency_energy(photo) for photo in photos])), 6)}
