"""Run folders that were never run: curves with a stage, and samples of plain colours, for tests of pages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from bayesdiff.config.derive import derive
from bayesdiff.config.identity import as_dict, run_key
from bayesdiff.core.layout import image_name, images_folder
from bayesdiff.corruption.diagnosis import judge_run
from bayesdiff.recording.archive import detector_version
from bayesdiff.recording.record import RunRecord
from bayesdiff.scoring.curve import score_columns
from bayesdiff.scoring.metrics import COLUMNS

STAGE = (0.2, 0.5, 0.7, 0.85, 0.86, 0.84, 0.5, 0.45, 0.44, 0.5, 0.84, 0.85, 0.86, 0.85, 0.86)
"""Means of DINO at the checkpoints: a fall from the seventh to the tenth, and back."""


def made_run(
    folder: Path, *words: str, steps: int = len(STAGE), side: int = 16, prompts: int = 2, images: int = 3, shift: float = 0.0, seed: int = 0
) -> Path:
    """A finished run of ``+experiment=smoke`` and further words in ``folder``, whose samples are noise around a colour."""
    cfg = derive(("+experiment=smoke", f"sampler.images_per_prompt={images}", *words))
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    means = np.interp(np.linspace(0, 1, steps), np.linspace(0, 1, len(STAGE)), STAGE) + shift
    rows = [
        (10 * t, p, i, metric, "", float(value + 0.01 * rng.standard_normal()))
        for t in range(steps)
        for p in range(prompts)
        for i in range(images)
        for metric, value in (
            ("dino", means[t]),
            ("clip_i", means[t]),
            ("clip_t", 0.6 - 0.01 * t),
            ("hf_energy", 0.2),
            ("hf_relative", 1.0),
        )
    ]
    scores = pd.DataFrame(rows, columns=list(COLUMNS))
    scores.to_csv(folder / "scores.csv", index=False)
    for t in range(steps):
        images_folder(folder, 10 * t).mkdir(parents=True)
        for p in range(prompts):
            for i in range(images):
                pixels = rng.integers(0, 60, (side, side, 3)) + np.array([10 * t % 190, 60 * p % 190, 60 * i % 190])
                Image.fromarray(pixels.astype(np.uint8)).save(images_folder(folder, 10 * t) / image_name(p, i))
    at, columns, places = score_columns(scores)
    verdict = judge_run(at, columns, [p for p, _ in places], vars(cfg.detector), {"dino": 0.9}, cfg.seed)
    record = RunRecord(
        run_key(cfg), "completed", json.loads(json.dumps(as_dict(cfg))), f"python -m bayesdiff.run {' '.join(words)}",
        {"name": cfg.data.subject, "class_noun": "backpack", "photos": [{"name": "00.png", "sha256": "0"}]}, real_to_real={"dino": 0.9},
        verdict={**verdict.to_dict(), "detector_version": detector_version()}, seconds={"train": 90.0, "sample": 61.5},
        peak_memory_mb={"train": 1000.0}, environment={"device": "cpu", "threads": 1, "versions": {"torch": "2.9"}},
    )  # fmt: skip
    record.save(folder)
    return folder
