"""Records of a study that was never run: scores with a known effect, as run folders or as collected results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from bayesdiff.config.identity import as_dict, run_key, run_name
from bayesdiff.config.schema import Config
from bayesdiff.corruption.diagnosis import diagnose
from bayesdiff.recording.collect import collect
from bayesdiff.recording.record import RunRecord
from bayesdiff.scoring.metrics import COLUMNS
from bayesdiff.studies import plan

STUDY = """
title: made up
paper: Table 1
feeds: [table_1]
experiment: smoke
compare: {bnn: "off"}
grid:
  method: [dreambooth, lora]
  bnn: ["off", "on"]
models:
  toybox:
    minutes: 1
    overrides: [shots.count=4]
    grid:
      data.subject: [toy_dog, toy_robot]
      seed: [0, 1]
"""
EFFECT = 0.1
STEPS = (0, 10, 20)


def prepare(folder: Path, name: str = "table_1") -> plan.Study:
    """The study as the only one there is."""
    folder.mkdir(parents=True, exist_ok=True)
    plan.EXPERIMENTS = folder
    (folder / f"{name}.yaml").write_text(STUDY.lstrip())
    return plan.load_study(name)


def make_run(cell: plan.Cell, runs: Path, status: str = "completed") -> Path:
    """A run folder of a cell: DINO 0.5, 0.1 higher with Bayesian weights; a little of everything else."""
    cfg: Config = plan.compose_cell(cell)
    folder = runs / run_name(cfg)
    folder.mkdir(parents=True)
    pair = f"{cell.labels['data.subject']} {cell.labels['seed']} {cell.labels['method']}"
    rng, own = np.random.default_rng(list(pair.encode())), np.random.default_rng(list(cell.name.encode()))
    level = 0.05 * rng.standard_normal()
    rows = []
    for step in STEPS:
        for prompt in range(2):
            for image in range(2):
                dino = 0.5 + level + EFFECT * (cell.labels["bnn"] == "on") + 0.02 * rng.standard_normal()
                dino += 0.0005 * own.standard_normal()  # pairs share the rest
                of_metrics = {"dino": dino, "clip_i": dino, "clip_t": 0.3, "hf_energy": 0.1, "failed": 0.0, "diversity": 0.2}
                rows += [(step, prompt, image, metric, "", value) for metric, value in of_metrics.items()]
    scores = pd.DataFrame(rows, columns=list(COLUMNS))
    scores.to_csv(folder / "scores.csv", index=False)
    matrix = scores[scores["metric"] == "dino"].pivot(index="step", columns=["prompt", "image"], values="value").to_numpy()
    verdict = diagnose(STEPS, {"dino": matrix}).to_dict()
    config = json.loads(json.dumps(as_dict(cfg)))
    config["sampler"]["images_per_prompt"] = 2
    record = RunRecord(
        run_key(cfg), status, config, verdict=verdict, seconds={"train": 60.0}, peak_memory_mb={"train": 1000.0},
        environment={"platform": "here"},
    )  # fmt: skip
    record.save(folder)
    return folder


def evaluate(run: Path, name: str, by: float = 0.0) -> Path:
    """An evaluation of a run: its scores, with DINO higher by ``by``."""
    scores = pd.read_csv(run / "scores.csv")
    scores.loc[scores["metric"] == "dino", "value"] += by
    folder = run / "evaluations" / name
    folder.mkdir(parents=True)
    scores.to_csv(folder / "scores.csv", index=False)
    return folder


def fill_one(cell: plan.Cell, folder: Path, status: str = "completed") -> Path:
    """Collected results of one run, beside what ``fill`` made in ``folder``."""
    return collect(make_run(cell, folder / "runs", status), folder / "results")


def fill(study: plan.Study, folder: Path, cells: tuple[plan.Cell, ...] | None = None) -> Path:
    """Collected results of some cells of a study (all, unless named)."""
    results = folder / "results"
    for cell in study.cells if cells is None else cells:
        fill_one(cell, folder)
    return results
