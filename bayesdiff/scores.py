"""Per-image scores of one checkpoint: CLIP-T, CLIP-I, DINO and high-frequency energy.

A row is one image and one metric; CLIP-I and DINO have a row for every training image besides
(column ``reference``), because the paper averages over all pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from PIL import Image

from bayesdiff.encoders import Encoders
from bayesdiff.prompts import Prompt
from bayesdiff.sampling import Sample
from bayesdiff.subject import Subject

COLUMNS = ("step", "prompt", "image", "metric", "reference", "value")
METRICS = ("dino", "clip_i", "clip_t", "hf_energy", "failed")
HIGHER_IS_BETTER = {"dino": True, "clip_i": True, "clip_t": True, "hf_energy": False, "failed": False}


@dataclass(frozen=True)
class References:
    """Features that do not change over a run: training images (R, D) and prompts (P, D)."""

    names: tuple[str, ...]
    dino: torch.Tensor
    clip: torch.Tensor
    text: torch.Tensor


def embed_references(encoders: Encoders, subject: Subject, prompts: list[Prompt]) -> References:
    photos = [photo.image for photo in subject.photos]
    texts = encoders.clip_text([prompt.clip_text for prompt in prompts])
    return References(tuple(p.name for p in subject.photos), encoders.dino(photos), encoders.clip_image(photos), texts)


def high_frequency_energy(image: Image.Image) -> float:
    """Mean absolute Laplacian (four neighbours, no border) of the image in [-1, 1]; flat images have 0."""
    x = np.asarray(image.convert("RGB"), dtype=np.float64) / 127.5 - 1
    inner = 4 * x[1:-1, 1:-1] - x[:-2, 1:-1] - x[2:, 1:-1] - x[1:-1, :-2] - x[1:-1, 2:]
    return float(np.abs(inner).mean())


def score_samples(samples: list[Sample], step: int, encoders: Encoders, references: References) -> pd.DataFrame:
    """Score the samples of one checkpoint; cosines in [-1, 1], one row an image, metric and reference.

    A failed (not finite) image is scored as the black image it is shown as, never dropped; the metric
    ``failed`` counts it.
    """
    images = [sample.image for sample in samples]
    clip = encoders.clip_image(images)
    pairs = {"dino": encoders.dino(images) @ references.dino.T, "clip_i": clip @ references.clip.T}
    aligned = (clip * references.text[[s.prompt for s in samples]]).sum(-1)

    def rows() -> Iterator[tuple[int, int, int, str, str, float]]:
        for i, sample in enumerate(samples):
            at = (step, sample.prompt, sample.index)
            for metric, table in pairs.items():
                for r, name in enumerate(references.names):
                    yield (*at, metric, name, float(table[i, r]))
            yield (*at, "clip_t", "", float(aligned[i]))
            yield (*at, "hf_energy", "", high_frequency_energy(sample.image))
            yield (*at, "failed", "", float(sample.failed))

    return pd.DataFrame(list(rows()), columns=list(COLUMNS))


def real_to_real(features: torch.Tensor) -> float | None:
    """Mean cosine between different photographs of the subject: above it, samples are copies."""
    count = len(features)
    if count < 2:
        return None
    similarity = features @ features.T
    return float((similarity.sum() - similarity.trace()) / (count * (count - 1)))
