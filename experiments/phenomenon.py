"""Where does the corruption stage appear on the toybox? A scan, then paired curves.

Command:  python experiments/phenomenon.py scan       learning rates on three development subjects
          python experiments/phenomenon.py pairs      BNN off and on, three subjects, two seeds
Cost:     12 runs each, about 5 minutes a run on 2 CPU cores: --workers (one a core, one thread each) is
          faster than one run on all cores; resumable, give the same command again
Expected: results/toybox/phenomenon/{scan,pairs}.csv and the grids; what was seen is in the README there

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

from bayesdiff.config import arm_name
from bayesdiff.record import RunRecord, load_record

RESULTS = Path(__file__).resolve().parents[1] / "results" / "toybox" / "phenomenon"
SUBJECTS = ("toy_backpack", "toy_dog", "toy_robot")
LEARNING_RATES = (1e-4, 3e-4, 5e-4, 1e-3)
SCAN_STEPS = (0, 50, 100, 150, 200, 300, 400, 500, 700, 1000, 1300, 1600, 2000, 2500, 3000)
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
    """One run of a study: its name here, and what it overrides."""

    name: str
    picture: str
    overrides: list[str]


def run(root: Path, overrides: list[str]) -> tuple[Path, RunRecord]:
    """One run by the command of record into ``root``; found done if it is."""
    command = [sys.executable, "-m", "bayesdiff.run", "+experiment=corruption_curve", f"paths.runs={root}", *overrides]
    print("$", *command[1:], flush=True)
    code = subprocess.run(command, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
    if code not in (0, 3):
        raise SystemExit(f"the run in {root} failed with exit code {code}")
    folder = next(path.parent for path in root.glob("*/record.json"))
    record = load_record(folder)
    assert record is not None
    return folder, record


def summarise(folder: Path, record: RunRecord) -> dict[str, object]:
    curve = pd.read_csv(folder / "curve.csv")
    verdict = record.verdict or {}
    shape = asdict(shape_of(curve["step"].to_numpy(), curve["dino"].to_numpy()))
    row: dict[str, object] = {
        "subject": record.config["data"]["subject"], "seed": record.config["seed"], "arm": arm_name(record.config["bnn"]),
        "learning_rate": record.config["method"]["learning_rate"], "status": record.status,
        **{key: round(value, 4) if isinstance(value, float) else value for key, value in shape.items()},
        "flagged": verdict.get("flagged"), "onset_step": verdict.get("onset_step"), "recovery_step": verdict.get("recovery_step"),
        "best_step": verdict.get("best_step"), "seconds": round(sum(record.seconds.values())), "run_key": record.run_key,
    }  # fmt: skip
    return row


def keep(folder: Path, target: Path, name: str) -> None:
    """Copy the small results of a run: curve, and the two pictures."""
    target.mkdir(parents=True, exist_ok=True)
    for source in ("curve.csv", "curve.png", "grid.png"):
        shutil.copyfile(folder / source, target / f"{name}-{source}")


def scan_jobs() -> list[Job]:
    steps = f"schedule.checkpoints=[{','.join(map(str, SCAN_STEPS))}]"
    return [
        Job(
            f"scan-{subject}-{rate:g}", f"{subject}-{rate:g}",
            [f"data.subject={subject}", f"method.learning_rate={rate}", steps, f"schedule.steps={SCAN_STEPS[-1]}"],
        )
        for subject, rate in product(SUBJECTS, LEARNING_RATES)
    ]  # fmt: skip


def pair_jobs() -> list[Job]:
    return [
        Job(f"pairs-{subject}-{seed}-{bnn}", f"{subject}-seed{seed}-bnn_{bnn}", [f"data.subject={subject}", f"seed={seed}", f"bnn={bnn}"])
        for subject, seed, bnn in product(SUBJECTS, (0, 1), ("off", "on"))
    ]


def study(name: str, jobs: list[Job], runs: Path, workers: int) -> None:
    """Run what is missing, several at once, and write the table anew after each run."""
    rows: dict[str, dict[str, object]] = {}
    lock = Lock()

    def work(job: Job) -> None:
        folder, record = run(runs / job.name, job.overrides)
        keep(folder, RESULTS / name, job.picture)
        with lock:
            rows[job.name] = summarise(folder, record)
            done = [rows[j.name] for j in jobs if j.name in rows]
            pd.DataFrame(done).to_csv(RESULTS / f"{name}.csv", index=False)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, jobs))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("scan", "pairs"))
    parser.add_argument("--runs", type=Path, default=Path("runs/phenomenon"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    study(args.study, {"scan": scan_jobs, "pairs": pair_jobs}[args.study](), args.runs, args.workers)
