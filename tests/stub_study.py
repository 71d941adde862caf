"""A study whose runs are tiny scripts instead of trainings: ``python tests/stub_study.py FOLDER WORKERS``."""

from __future__ import annotations

import sys
from pathlib import Path

from bayesdiff.core.files import write_text
from bayesdiff.studies import engine, plan, state

TEXT = "title: t\nexperiment: smoke\ngrid:\n  seed: [0, 1, 2, 3, 4, 5]\n  bnn: ['off', 'on']\nmodels:\n  toybox: {minutes: 1}\n"
RUN = """
import sys, time, json, pathlib
folder, seed, log = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
with log.open("a") as lines:
    lines.write(folder.name + "\\n")
if seed == sys.argv[4]:
    print("some words"); print("bayesdiff: this one fails"); sys.exit(7)
time.sleep(0.1)
folder.mkdir(parents=True, exist_ok=True)
record = {"run_key": folder.name, "status": "completed", "config": {"seed": int(seed)}, "seconds": {"train": 120.0}}
(folder / "scores.csv").write_text("step,prompt,image,metric,reference,value\\n0,0,0,dino,,0.5\\n")
(folder / "record.json").write_text(json.dumps(record))
"""


def prepare(folder: Path, failing: str = "none") -> plan.Study:
    """The stub study with its runs in ``folder``; runs of seed ``failing`` fail."""
    plan.EXPERIMENTS = folder
    write_text(folder / "stub.yaml", TEXT)  # whole or absent: other workers read it

    def run_command(run: state.Planned, root: Path, extra: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-c", RUN, str(run.folder), run.cell.labels["seed"], str(folder / "started"), failing]

    engine.run_command = run_command
    engine.devices = list
    return plan.load_study("stub")


if __name__ == "__main__":
    where = Path(sys.argv[1])
    print(engine.run_study(prepare(where), where / "runs", int(sys.argv[2])))
