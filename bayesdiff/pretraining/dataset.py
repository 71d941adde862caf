"""The pretraining images, rendered once into one array on disk."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bayesdiff.core.files import atomic_write, write_text
from bayesdiff.toybox.pictures import IMAGE_SIZE
from bayesdiff.toybox.world import film, sample

TRAIN_SEED, HELD_OUT_SEED = 1, 2
CHUNK = 500


@dataclass(frozen=True)
class WorldData:
    """``images`` (N, 64, 64, 3) uint8, memory-mapped, and one caption each."""

    images: np.ndarray
    captions: list[str]

    def batch(self, indices: torch.Tensor | list[int]) -> torch.Tensor:
        """Images as float (B, 3, 64, 64) in [-1, 1]."""
        return to_pixels(self.images[np.asarray(indices)])


def to_pixels(images: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) uint8 to float (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _films(job: tuple[int, int, int]) -> np.ndarray:
    seed, start, stop = job
    return np.stack([film(seed, i) for i in range(start, stop)])


def render_films(folder: Path, count: int, seed: int = TRAIN_SEED) -> np.ndarray:
    """Render ``count`` films, (count, 2, 64, 64, 3) uint8, or open them if they are there."""
    file = folder / f"films-{seed}-{count}.npy"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [(seed, start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
        with ProcessPoolExecutor(os.cpu_count()) as pool, atomic_write(file) as part, part.open("wb") as target:
            np.save(target, np.concatenate(list(pool.map(_films, jobs))))
    films: np.ndarray = np.load(file, mmap_mode="r")
    return films


def _chunk(job: tuple[int, int, int]) -> tuple[np.ndarray, list[str]]:
    seed, start, stop = job
    pairs = [sample(seed, i) for i in range(start, stop)]
    return np.stack([image for image, _ in pairs]), [text for _, text in pairs]


def render_world(folder: Path, count: int, seed: int = TRAIN_SEED) -> WorldData:
    """Render ``count`` pictures of the world with ``seed`` into ``folder``, or open them if they are there."""
    images, captions = folder / f"world-{seed}-{count}.npy", folder / f"world-{seed}-{count}.json"
    if not captions.exists():
        folder.mkdir(parents=True, exist_ok=True)
        target = np.lib.format.open_memmap(images, "w+", np.uint8, (count, IMAGE_SIZE, IMAGE_SIZE, 3))
        texts: list[str] = []
        jobs = [(seed, start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            for (_, start, stop), (block, words) in zip(jobs, pool.map(_chunk, jobs), strict=True):
                target[start:stop] = block
                texts += words
        target.flush()
        write_text(captions, json.dumps(texts))
    return WorldData(np.load(images, mmap_mode="r"), json.loads(captions.read_text()))
