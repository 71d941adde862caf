"""Records of a study that was never run: scores with a known effect, as run folders or as collected results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesdiff.config.identity import as_dict, run_key, run_name
from bayesdiff.config.schema import Config
from bayesdiff.core.layout import RECORDS
from bayesdiff.corruption.diagnosis import diagnose
from bayesdiff.corruption.outcome import DETECTOR_VERSION
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
    config["sampler"] |= {"prompts": config["sampler"]["prompts"][:2], "images_per_prompt": 2}
    config["schedule"]["checkpoints"] = list(STEPS)
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


_made: dict[tuple[str, tuple[str, ...], str], tuple[Path, Path]] = {}
_folder = TemporaryDirectory()
"""Run folders and collected results that were made before: most tests begin with the same sixteen."""


def fill_one(cell: plan.Cell, folder: Path, status: str = "completed") -> Path:
    """Collected results of one run, beside what ``fill`` made in ``folder``."""
    key = cell.name, cell.overrides, status
    if key not in _made:
        place = Path(_folder.name) / str(len(_made))
        run = make_run(cell, place / "runs", status)
        _made[key] = run, collect(run, place / "results")
    run, collected = _made[key]
    shutil.copytree(run, folder / "runs" / run.name)
    return Path(shutil.copytree(collected, folder / "results" / RECORDS / collected.name, dirs_exist_ok=True))


def fill(study: plan.Study, folder: Path, cells: tuple[plan.Cell, ...] | None = None) -> Path:
    """Collected results of some cells of a study (all, unless named)."""
    results = folder / "results"
    for cell in study.cells if cells is None else cells:
        fill_one(cell, folder)
    return results


Grain = Callable[[plan.Cell, NDArray[np.int64], np.random.Generator], NDArray[np.float64]]
"""Cell, steps (T,) -> relative high-frequency energy (T,) of a made run."""


def made_curves(
    study: plan.Study, results: Path, grain: Grain, cells: tuple[plan.Cell, ...] | None = None, evaluations: tuple[str, ...] = ()
) -> Path:
    """Collected records of a real study with known curves of grain; DINO rises. Two images a checkpoint, verdicts of one made curve."""
    verdicts: dict[bytes, dict[str, object]] = {}
    for cell in study.cells if cells is None else cells:
        cfg = plan.compose_cell(cell)
        folder = results / "records" / run_name(cfg)
        rng = np.random.default_rng(list(cell.name.encode()))
        steps = np.array(cfg.schedule.checkpoints)
        if steps.tobytes() not in verdicts:
            verdicts[steps.tobytes()] = _verdict_of_none(steps)
        for place in (folder, *(folder / "evaluations" / name for name in evaluations)):
            place.mkdir(parents=True)
            _write_curves(place, steps, grain(cell, steps, rng))
        config = json.loads(json.dumps(as_dict(cfg)))
        config["sampler"] |= {"prompts": config["sampler"]["prompts"][:1], "images_per_prompt": 2}
        for name in evaluations:
            config["evaluations"].get(name, {}).update(prompts=None, images_per_prompt=None)
        RunRecord(run_key(cfg), "completed", config, verdict=verdicts[steps.tobytes()], photographs={"hf_energy": 0.3}).save(folder)
    return results


def _verdict_of_none(steps: NDArray[np.int64]) -> dict[str, object]:
    """What opening a set takes as its records' own, so that it judges none of them: on these checkpoints, by this detector."""
    return {**diagnose(steps.tolist(), {"dino": np.full((len(steps), 2), 0.5)}).to_dict(), "detector_version": DETECTOR_VERSION}


def _write_curves(folder: Path, steps: NDArray[np.int64], grain: NDArray[np.float64]) -> None:
    dino = 0.8 - 0.7 * np.exp(-steps / 100)
    rows = [
        (step, 0, image, dino[t], grain[t] * 0.3, grain[t] + sign * 0.05, 0.3, 0.2)
        for t, step in enumerate(steps) for image, sign in enumerate((-1, 1))
    ]  # fmt: skip
    columns = ["step", "prompt", "image", "dino", "hf_energy", "hf_relative", "clip_t", "diversity"]
    table = pd.DataFrame(rows, columns=columns)
    table.to_csv(folder / "images.csv", index=False)
    table.groupby("step").mean().drop(columns=["prompt", "image"]).reset_index().to_csv(folder / "curve.csv", index=False)
