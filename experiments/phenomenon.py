"""Where does the corruption stage appear on the toybox? A scan, then paired curves.

Command:  python experiments/phenomenon.py scan       learning rates on three development subjects
          python experiments/phenomenon.py pairs      BNN off and on, three subjects, two seeds
Cost:     about 5 minutes a run on 2 CPU cores (12 runs each); resumable, give the same command again
Expected: results/toybox/phenomenon/{scan,pairs}.csv and the grids; what was seen is in the README there

Every run goes through the command of record, so that any row can be made again alone.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

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


def run(runs: Path, name: str, overrides: list[str]) -> tuple[Path, RunRecord]:
    """One run by the command of record into ``runs/name``; found done if it is."""
    root = runs / name
    command = [sys.executable, "-m", "bayesdiff.run", "+experiment=corruption_curve", f"paths.runs={root}", *overrides]
    print("$", *command[1:], flush=True)
    code = subprocess.run(command, check=False).returncode
    if code not in (0, 3):
        raise SystemExit(f"the run {name} failed with exit code {code}")
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


def scan(runs: Path) -> None:
    rows = []
    for subject, rate in product(SUBJECTS, LEARNING_RATES):
        steps = f"schedule.checkpoints=[{','.join(map(str, SCAN_STEPS))}]"
        name = f"scan-{subject}-{rate:g}"
        overrides = [f"data.subject={subject}", f"method.learning_rate={rate}", steps, f"schedule.steps={SCAN_STEPS[-1]}"]
        folder, record = run(runs, name, overrides)
        rows.append(summarise(folder, record))
        keep(folder, RESULTS / "scan", f"{subject}-{rate:g}")
        pd.DataFrame(rows).to_csv(RESULTS / "scan.csv", index=False)


def pairs(runs: Path) -> None:
    rows = []
    for subject, seed, bnn in product(SUBJECTS, (0, 1), ("off", "on")):
        folder, record = run(runs, f"pairs-{subject}-{seed}-{bnn}", [f"data.subject={subject}", f"seed={seed}", f"bnn={bnn}"])
        rows.append(summarise(folder, record))
        keep(folder, RESULTS / "pairs", f"{subject}-seed{seed}-bnn_{bnn}")
        pd.DataFrame(rows).to_csv(RESULTS / "pairs.csv", index=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("scan", "pairs"))
    parser.add_argument("--runs", type=Path, default=Path("runs/phenomenon"))
    args = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    {"scan": scan, "pairs": pairs}[args.study](args.runs)
