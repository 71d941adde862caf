"""Studies as Weights & Biases sweeps.

A sweep's grid is the study's, by labels; each agent's run is one cell, done by the study's own engine, so that
a cell is claimed, done once and recorded whoever asks for it:

    wandb sweep sweeps/table_1.yaml        then, on any machine:  wandb agent SWEEP_ID
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bayesdiff.studies.plan import Study

SWEEPS = Path("sweeps")
TRACKED = ("tracker=wandb", "tracker.mode=online")
"""Overrides of every run of a sweep: the group alone stays offline, and the sweep's page would show nothing."""


def sweep_of(study: Study) -> dict[str, Any]:
    """The configuration of a grid sweep over a study's axes."""
    axes = {axis: list(dict.fromkeys(cell.labels[axis] for cell in study.cells)) for axis in study.cells[0].labels}
    engine = ["${env}", "${interpreter}", "-m", "bayesdiff.study", study.name, "--model", study.model, *TRACKED]
    return {
        "program": "bayesdiff/study.py",
        "method": "grid",
        "parameters": {axis: {"values": labels} for axis, labels in axes.items()},
        "command": [*engine, "--only", "${args_no_hyphens}"],
    }


def file_of(study: Study) -> str:
    """A sweep's file: of the toybox the study's name, of another model with the model behind it."""
    return f"{study.name}.yaml" if study.model == "toybox" else f"{study.name}-{study.model}.yaml"


def sweep_text(study: Study, folder: Path = SWEEPS) -> str:
    """The YAML file, with its command, cost and outcome."""
    import yaml

    hours, place = len(study.cells) * study.minutes / 60, "thread" if study.model == "toybox" else "GPU"
    head = (
        f"# {study.title} as a sweep; made by `python -m bayesdiff.sweep` from experiments/{study.name}.yaml.\n"
        f"#\n# Command:  wandb sweep {(folder / file_of(study)).as_posix()}        then, on any machine:  wandb agent SWEEP_ID\n"
        f"# Cost:     {len(study.cells)} runs of about {study.minutes:.0f} minutes on a {place}, {hours:.1f} hours in all\n"
        "# Expected: every run once, whichever agent takes it; the same records as `python -m bayesdiff.study "
        f"{study.name} --model {study.model}`\n"
    )
    return head + str(yaml.safe_dump(sweep_of(study), sort_keys=False, width=120))
