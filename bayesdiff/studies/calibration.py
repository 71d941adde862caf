"""The calibration study: error rates, power and coverage of the verdict, as tables and a picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import track

from bayesdiff import corruption
from bayesdiff.config.structured import read_as
from bayesdiff.core.files import atomic_write
from bayesdiff.corruption.noise import deviations, measure_noise
from bayesdiff.corruption.simulation import FAMILIES, STRONG, SimulatedStage, Study, coverage_cell, null_cell, power_cell
from bayesdiff.corruption.simulation_levels import Sizes, designs, null_cells, null_row, power_row
from bayesdiff.readings import Naming, read
from bayesdiff.recording.record import load_record
from bayesdiff.stats.coverage import coverage_rows

DECIDES = ("levels", "covariance", "timescale", "noise", "shape", "stage", "detector", "power", "simulation", "simulation_levels")
"""Modules of ``corruption`` that the tables are made by."""
PARTS = ("false_flags", "power", "coverage", "levels", "differences")


def measured_noise(pattern: str) -> pd.DataFrame:
    """Noise of every real run that matches, one row a run; see ``NoiseLevel`` for the columns."""
    rows = []
    for path in sorted(Path().glob(pattern)):
        (reading,) = read(str(path), Naming())
        scores = reading.columns[reading.metric]
        noise = measure_noise(scores)
        record = load_record(path.parent)
        method = record.config["method"] if record is not None else {}
        rows.append({
            "run": path.parent.name, "method": method.get("name", ""), "learning_rate": method.get("learning_rate", ""),
            "checkpoints": len(scores), "images": scores.shape[1],
            "level": float(scores.mean(0).std(ddof=1)), "image": float(np.sqrt((deviations(scores) ** 2).sum() / noise.freedom)),
            "image_correlation": noise.image_rho, "standard_error": float(noise.images.mean()), "checkpoint": noise.between(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _table(name: str, function: Callable[[Any, Any], dict[str, Any]], study: Study, options: Any, cells: list[Any]) -> pd.DataFrame:
    """A row a cell, by ``function(options, cell)``; kept in a file as they come, so that the same command goes on after a stop."""
    kept, detector = _part_file(study, name), _detector_digest()
    names = [hashlib.sha256(f"{detector} {options} {cell}".encode()).hexdigest()[:16] for cell in cells]
    kept.parent.mkdir(parents=True, exist_ok=True)
    done = dict(json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()) if kept.exists() else {}
    left = [(key, cell) for key, cell in zip(names, cells, strict=True) if key not in done]
    with ProcessPoolExecutor(study.workers) as pool, kept.open("a", encoding="utf-8") as file:
        rows = pool.map(partial(function, options), [cell for _, cell in left])
        for (key, _), row in track(zip(left, rows, strict=True), name, len(left)):
            done[key] = row
            file.write(f"{json.dumps([key, row])}\n")
            file.flush()
    return pd.DataFrame([done[key] for key in names])


def _part_file(study: Study, name: str) -> Path:
    return Path(study.output) / f"{name}.jsonl.partial"


def _detector_digest() -> str:
    """Of the code that decides: rows that other code made are made again."""
    room = Path(corruption.__file__).parent
    return hashlib.sha256(b"".join((room / f"{name}.py").read_bytes() for name in DECIDES)).hexdigest()


def _middle_width(study: Study) -> float:
    return study.widths[len(study.widths) // 2]


def calibrate(study: Study, parts: Sequence[str] = PARTS) -> dict[str, pd.DataFrame]:
    """The tables of the study, by name; a function of the study alone."""
    nulls = [(f, t, n) for f in FAMILIES for t in study.checkpoints for n in study.images]
    stages = [
        SimulatedStage(level, t, n, d, w)
        for level in ("noise", "quiet", "loud", "lora")
        for t in study.checkpoints
        if t >= 12
        for n in study.images
        for d in study.depths
        for w in study.widths
    ]
    middle = _middle_width(study)
    stages += [
        SimulatedStage("noise", t, 16, d, middle, s) for t in study.checkpoints if t >= 12 for d in study.depths for s in study.seeds
    ]
    levels = [(16, c, 0.0, known) for c in (0.0, 0.02, 0.04) for known in (False, True)] + [(1, c, 0.0, False) for c in (0.005, 0.02)]
    levels += [(16, c, STRONG, known) for c in (0.02, 0.04) for known in (False, True)]  # as the verdict assumes
    covered = [(shape, t, *level) for shape in ("flat floor", "slow") for t in study.covered for level in levels]
    functions: dict[str, tuple[Callable[[Study, Any], dict[str, Any]], list[Any]]] = {
        "false_flags": (null_cell, nulls), "power": (power_cell, stages), "coverage": (coverage_cell, covered),
    }  # fmt: skip
    tables = {name: _table(name, function, study, study, cells) for name, (function, cells) in functions.items() if name in parts}
    if "levels" in parts:
        sizes = Sizes(
            repeats=study.level_repeats, most_repeats=5 * study.level_repeats, power_repeats=max(study.level_repeats // 5, 1),
            bound=study.bound, seed=study.seed,
        )  # fmt: skip
        tables["level_false_flags"] = _table("level_false_flags", null_row, study, sizes, null_cells(sizes))
        tables["level_power"] = _table("level_power", power_row, study, sizes, designs())
    if "differences" in parts:
        tables["difference_coverage"] = pd.DataFrame(coverage_rows(study.difference_repeats, study.seed))
    return tables


def draw(tables: dict[str, pd.DataFrame], study: Study, target: Path) -> None:
    """False flags by family, and power by depth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from bayesdiff.recording.plots import save_figure

    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.6), layout="constrained")
    for i, (family, part) in enumerate(tables["false_flags"].groupby("family", sort=False)):
        worst = part.groupby("checkpoints")[["rate", "upper_95"]].max()
        left.errorbar(
            range(len(worst)), worst["rate"], [0 * worst["rate"], worst["upper_95"] - worst["rate"]], fmt="o-", color=f"C{i}", label=family
        )
    left.axhline(study.alpha, color="black", linewidth=0.8, linestyle="--")
    left.set(
        xticks=range(len(study.checkpoints)),
        xticklabels=study.checkpoints,
        xlabel="checkpoints",
        ylabel="false flags (worst number of images)",
    )
    left.legend(fontsize=7)
    power = tables["power"]
    chosen = power[(power["width"] == _middle_width(study)) & (power["images"] == 16) & (power["runs"] == 1)]
    for i, ((level, count), part) in enumerate(chosen.groupby(["noise", "checkpoints"], sort=False)):
        right.plot(part["depth"], part["found"], marker="o", color=f"C{i}", label=f"{level}, {count} checkpoints")
        right.plot(part["depth"], part["found_known_noise"], marker=".", linestyle=":", color=f"C{i}")
    right.set(xlabel="depth of the stage", ylabel="found (dotted: noise between checkpoints known)", title="16 images")
    if len(chosen):  # none where no curve of the study is long enough for power
        right.legend(fontsize=7)
    save_figure(figure, target)


def load_study(path: Path) -> Study:
    """Read a study; raises ``UserError`` for a missing file or an unknown key."""
    return read_as(path, Study, "give a study such as experiments/detector_calibration.yaml")


def write(tables: dict[str, pd.DataFrame], study: Study) -> None:
    """Tables, and the picture of false flags and power, into ``study.output``, each whole or not at all."""
    output = Path(study.output)
    output.mkdir(parents=True, exist_ok=True)
    noise = measured_noise(study.runs)
    for name, table in {**tables, "noise": noise}.items():
        with atomic_write(output / f"{name}.csv") as part:
            table.to_csv(part, index=False, float_format="%.4f")
        _part_file(study, name).unlink(missing_ok=True)
    if {"false_flags", "power"} <= set(tables):
        draw(tables, study, output / "calibration.png")
