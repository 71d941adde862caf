"""Where does the corruption stage appear on the toybox, and what changes it?

Command:  python experiments/phenomenon.py scan       learning rates on three development subjects (12 runs)
          python experiments/phenomenon.py pairs      BNN off and on, three subjects, two seeds (12)
          python experiments/phenomenon.py rates      learning rates of LoRA and OFT (8)
          python experiments/phenomenon.py methods    three methods, BNN off and on, 1 and 4 shots (12)
          python experiments/phenomenon.py controls   plain, BNN and six controls, three seeds (24)
Cost:     about 5 minutes a run on 2 CPU cores: --workers (one a core, one thread each) is faster than one
          run on all cores; resumable, give the same command again
Expected: results/toybox/phenomenon/STUDY.csv, STUDY.png and the grids; what was seen is in the README there

Every run goes through the command of record, so that any row can be made again alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd
from PIL import Image

from bayesdiff.config import arm_name
from bayesdiff.curve import read_scores, score_matrix
from bayesdiff.plots import draw_band, save_figure
from bayesdiff.record import RunRecord, load_record

RESULTS = Path(__file__).resolve().parents[1] / "results" / "toybox" / "phenomenon"
SUBJECTS = ("toy_backpack", "toy_dog", "toy_robot")
LEARNING_RATES = (1e-4, 3e-4, 5e-4, 1e-3)
SCAN_STEPS = (0, 50, 100, 150, 200, 300, 400, 500, 700, 1000, 1300, 1600, 2000, 2500, 3000)
ADAPTER_RATES = (5e-4, 2e-3, 5e-3, 1e-2)
METHOD_RATES = {"dreambooth": 5e-4, "lora": 5e-3, "oft": 5e-3}
"""Adapters train few weights from zero and want larger steps; ``rates`` looks for them."""
ARMS = ("off", "on", "weight_noise", "ema", "input_noise", "dropout", "lr_decay", "l2_to_pretrained")
DEEP = 0.10
"""A fall of this much DINO similarity counts as the stage in the scan's summary."""


@dataclass(frozen=True)
class Shape:
    """Rise, fall and recovery of one curve, read off its means."""

    start: float
    peak_step: int
    peak: float
    trough_step: int
    trough: float
    fall: float
    checkpoints_down: int
    """Checkpoints after the peak that lie at least ``DEEP`` below it."""
    recovered: float
    """Share of the fall that is won back by the best checkpoint after the trough."""


def shape_of(steps: np.ndarray, curve: np.ndarray) -> Shape:
    """The deepest fall from an earlier peak, and what came back after it."""
    highest = np.maximum.accumulate(curve)
    trough = int((highest - curve).argmax())
    peak = int(curve[: trough + 1].argmax())
    fall = float(curve[peak] - curve[trough])
    back = float(curve[trough:].max() - curve[trough])
    down = int((curve[peak:] <= curve[peak] - DEEP).sum())
    return Shape(
        float(curve[0]),
        int(steps[peak]),
        float(curve[peak]),
        int(steps[trough]),
        float(curve[trough]),
        fall,
        down,
        back / fall if fall > 0 else 0.0,
    )


@dataclass(frozen=True)
class Job:
    """One run of a study: where its curve is drawn, and what it overrides."""

    panel: str
    line: str
    overrides: list[str]

    @property
    def name(self) -> str:
        return f"{self.panel}-{self.line}".replace(" ", "_")


def run(root: Path, overrides: list[str]) -> tuple[Path, RunRecord]:
    """One run by the command of record into ``root``; found done if it is."""
    command = [sys.executable, "-m", "bayesdiff.run", "+experiment=corruption_curve", f"paths.runs={root}", *overrides]
    print("$", *command[1:], flush=True)
    code = subprocess.run(command, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
    if code not in (0, 3):
        raise SystemExit(f"the run in {root} failed with exit code {code}")
    folder = max(root.glob("*/record.json"), key=lambda path: path.stat().st_mtime).parent  # older settings may lie beside it
    record = load_record(folder)
    assert record is not None
    return folder, record


def summarise(folder: Path, record: RunRecord) -> dict[str, object]:
    curve = pd.read_csv(folder / "curve.csv")
    verdict = record.verdict or {}
    shape = asdict(shape_of(curve["step"].to_numpy(), curve["dino"].to_numpy()))
    row: dict[str, object] = {
        "subject": record.config["data"]["subject"], "seed": record.config["seed"], "method": record.config["method"]["name"],
        "shots": record.config["shots"]["count"], "arm": arm_name(record.config["bnn"]),
        "learning_rate": record.config["method"]["learning_rate"], "status": record.status,
        "last": round(float(curve["dino"].iloc[-1]), 4), "clip_t_last": round(float(curve["clip_t"].iloc[-1]), 4),
        **{key: round(value, 4) if isinstance(value, float) else value for key, value in shape.items()},
        "flagged": verdict.get("flagged"), "onset_step": verdict.get("onset_step"), "recovery_step": verdict.get("recovery_step"),
        "best_step": verdict.get("best_step"), "seconds": round(sum(record.seconds.values())), "run_key": record.run_key,
    }  # fmt: skip
    return row


def keep(folder: Path, target: Path, name: str, pictures: bool) -> None:
    """Copy the small results of a run: the curve, DINO of every image, and its two pictures in 128 colours."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "curve.csv", target / f"{name}-curve.csv")
    steps, matrix = score_matrix(read_scores(folder), "dino")
    images = pd.DataFrame(matrix, columns=[f"dino_{i}" for i in range(matrix.shape[1])]).round(4)
    images.insert(0, "step", steps)
    images.to_csv(target / f"{name}-images.csv", index=False)
    for picture in ("curve.png", "grid.png") if pictures else ():
        with Image.open(folder / picture) as image:
            image.convert("RGB").quantize(128).save(target / f"{name}-{picture}", optimize=True)


def scan_jobs() -> list[Job]:
    steps = [f"schedule.checkpoints=[{','.join(map(str, SCAN_STEPS))}]", f"schedule.steps={SCAN_STEPS[-1]}"]
    return [
        Job(subject, f"lr {rate:g}", [f"data.subject={subject}", f"method.learning_rate={rate}", *steps])
        for subject, rate in product(SUBJECTS, LEARNING_RATES)
    ]


def pair_jobs() -> list[Job]:
    return [
        Job(f"{subject} seed {seed}", f"bnn {bnn}", [f"data.subject={subject}", f"seed={seed}", f"bnn={bnn}"])
        for subject, seed, bnn in product(SUBJECTS, (0, 1), ("off", "on"))
    ]


def rate_jobs() -> list[Job]:
    return [
        Job(method, f"lr {rate:g}", [f"method={method}", f"method.learning_rate={rate}"])
        for method, rate in product(("lora", "oft"), ADAPTER_RATES)
    ]


def method_jobs() -> list[Job]:
    return [
        Job(
            f"{method} {shots} shot", f"bnn {bnn}",
            [f"method={method}", f"method.learning_rate={rate}", f"shots.count={shots}", f"bnn={bnn}"],
        )
        for (method, rate), shots, bnn in product(METHOD_RATES.items(), (1, 4), ("off", "on"))
    ]  # fmt: skip


def control_jobs() -> list[Job]:
    return [Job(f"seed {seed}", arm, [f"seed={seed}", f"bnn={arm}"]) for seed, arm in product((0, 1, 2), ARMS)]


STUDIES = {"scan": scan_jobs, "pairs": pair_jobs, "rates": rate_jobs, "methods": method_jobs, "controls": control_jobs}


PICTURED = ("scan", "pairs")
"""Studies whose runs are kept as pictures too."""


def draw(jobs: list[Job], folder: Path, target: Path) -> None:
    """One picture of a study: a panel a subject (or method, or seed), a line an arm (or learning rate)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = list(dict.fromkeys(job.panel for job in jobs))
    columns = min(3, len(panels))
    figure, axes = plt.subplots(
        -(-len(panels) // columns), columns, figsize=(4.6 * columns, 3.2 * -(-len(panels) // columns)), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    colours = {line: f"C{i}" for i, line in enumerate(dict.fromkeys(job.line for job in jobs))}
    for panel, place in zip(panels, axes.flat, strict=False):
        for job in (job for job in jobs if job.panel == panel and (folder / f"{job.name}-curve.csv").exists()):
            draw_band(place, pd.read_csv(folder / f"{job.name}-curve.csv"), "dino", job.line, colours[job.line])
        place.set(title=panel, xlabel="training step", ylabel="DINO to the training images")
        if place.has_data():
            place.legend(fontsize=7)
    save_figure(figure, target)


def study(name: str, jobs: list[Job], runs: Path, workers: int) -> None:
    """Run what is missing, several at once, and write the table anew after each run."""
    rows: dict[str, dict[str, object]] = {}
    lock = Lock()

    def work(job: Job) -> None:
        folder, record = run(runs / name / job.name, job.overrides)
        keep(folder, RESULTS / name, job.name, name in PICTURED)
        with lock:
            rows[job.name] = summarise(folder, record)
            done = [rows[j.name] for j in jobs if j.name in rows]
            pd.DataFrame(done).to_csv(RESULTS / f"{name}.csv", index=False)
            draw(jobs, RESULTS / name, RESULTS / f"{name}.png")

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, jobs))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--runs", type=Path, default=Path("runs/phenomenon"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    study(args.study, STUDIES[args.study](), args.runs, args.workers)
