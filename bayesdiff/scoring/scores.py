"""Per-image scores of one checkpoint: fidelity, alignment, quality and diversity.

A row is one image and one metric; CLIP-I and DINO have a row for every training image besides
(column ``reference``), because the paper averages over all pairs. Diversity and LPIPS of an image are
its mean distance from the other images of its prompt.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from bayesdiff.config.prompts import Prompt
from bayesdiff.corruption.kinds import is_flat
from bayesdiff.diffusion.sampling import Sample
from bayesdiff.diffusion.subject import Subject
from bayesdiff.scoring.encoders import Encoders, ImageEncoder
from bayesdiff.scoring.metrics import COLUMNS
from bayesdiff.scoring.pixels import BANDS, band_contrasts, high_frequency_energy, mean_colour, mean_energy


@dataclass(frozen=True)
class References:
    """Features that do not change over a run: training images (R, D), and prompts (P, D) by CLIP-T's name."""

    names: tuple[str, ...]
    dino: torch.Tensor
    clip: torch.Tensor
    texts: dict[str, torch.Tensor]
    hf_energy: float
    """Mean over the training images."""
    colour: NDArray[np.float64]
    """(3,) mean RGB over the training images, in [0, 1]."""


def embed_references(encoders: Encoders, subject: Subject, prompts: list[Prompt]) -> References:
    photos = [photo.image for photo in subject.photos]
    texts = {
        "clip_t": encoders.clip_text([prompt.clip_text for prompt in prompts]),
        "clip_t_with_token": encoders.clip_text([prompt.text for prompt in prompts]),
        "clip_t_without_token": encoders.clip_text([prompt.plain_text for prompt in prompts]),
    }
    return References(
        tuple(p.name for p in subject.photos), encoders.dino(photos), encoders.clip_image(photos), texts,
        mean_energy(photos), np.mean([mean_colour(photo) for photo in photos], axis=0),
    )  # fmt: skip


def _distance_from_others(table: torch.Tensor, samples: list[Sample]) -> list[float | None]:
    """Mean distance (N, N) of every image from the other images of its prompt; None for a prompt's only image."""
    found: list[float | None] = []
    for i, sample in enumerate(samples):
        others = [j for j, other in enumerate(samples) if other.prompt == sample.prompt and j != i]
        found.append(float(table[i, others].mean()) if others else None)
    return found


def _lpips(samples: list[Sample], measure: ImageEncoder) -> list[float | None]:
    """LPIPS from the other images of the prompt; only those pairs are computed."""
    table = torch.zeros(len(samples), len(samples))
    for prompt in {sample.prompt for sample in samples}:
        rows = [i for i, sample in enumerate(samples) if sample.prompt == prompt]
        table[torch.tensor(rows)[:, None], torch.tensor(rows)] = measure([samples[i].image for i in rows])
    return _distance_from_others(table, samples)


def _single_values(
    samples: list[Sample], clip: torch.Tensor, dino: torch.Tensor, encoders: Encoders, references: References
) -> Iterator[tuple[str, list[float | None]]]:
    """Metrics with one value an image, from its CLIP and DINO features or its pixels."""
    images = [sample.image for sample in samples]
    for name, texts in references.texts.items():
        yield name, (clip * texts[[s.prompt for s in samples]]).sum(-1).tolist()
    energies = [high_frequency_energy(image) for image in images]
    yield "hf_energy", list(energies)
    if not is_flat(references.hf_energy):
        yield "hf_relative", [energy / references.hf_energy for energy in energies]
    yield "colour_distance", [float(np.linalg.norm(mean_colour(image) - references.colour)) for image in images]
    bands = [band_contrasts(image) for image in images]
    for name in BANDS:
        yield name, [band[name] for band in bands]
    yield "failed", [float(sample.failed) for sample in samples]
    yield "diversity", _distance_from_others(1 - dino @ dino.T, samples)
    if encoders.lpips:
        yield "lpips", _lpips(samples, encoders.lpips)
    if encoders.clip_iqa:
        yield "clip_iqa", encoders.clip_iqa(images).tolist()
    for name, measure in encoders.extra.items():
        yield name, [value if math.isfinite(value := float(measure(image))) else math.nan for image in images]


def score_samples(samples: list[Sample], step: int, encoders: Encoders, references: References) -> pd.DataFrame:
    """Score the samples of one checkpoint; cosines in [-1, 1], one row an image, metric and reference.

    A failed (not finite) image is scored as the black image it is shown as, never dropped; the metric
    ``failed`` counts it.
    """
    images = [sample.image for sample in samples]
    clip, dino = encoders.clip_image(images), encoders.dino(images)
    pairs = {"dino": dino @ references.dino.T, "clip_i": clip @ references.clip.T}
    rows = [
        (step, sample.prompt, sample.index, metric, name, float(table[i, r]))
        for metric, table in pairs.items()
        for i, sample in enumerate(samples)
        for r, name in enumerate(references.names)
    ]
    for metric, values in _single_values(samples, clip, dino, encoders, references):
        rows += [(step, s.prompt, s.index, metric, "", v) for s, v in zip(samples, values, strict=True) if v is not None]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def real_to_real(references: torch.Tensor, others: torch.Tensor) -> float | None:
    """Mean cosine of each training image (R, D) with every other photograph of the subject, trained on or not (N, D).

    Samples above it are closer to the training images than another photograph of the same subject is:
    copies. None where there is but one photograph.
    """
    pairs = len(references) * (len(references) + len(others) - 1)
    if pairs == 0:
        return None
    similarity = references @ torch.cat([references, others]).T
    return float((similarity.sum() - similarity.trace()) / pairs)
