"""Every name of a file or folder in a run folder, a folder of runs, and a result set.

RUN/config.yaml record.json train.jsonl probes.csv scores.csv curve.csv curve.png grid.png report.html images/step-000100/
    checkpoints/step-000100/ resume/step-000100/ draws.csv draws/step-000100/
    evaluations/NAME/{scores.csv,curve.csv,curve.png,grid.png,images/}
RUNS/RUN … .claims/ failures/ logs/ cache/
results/SET/records/RUN/{record.json,curve.csv,images.csv,probes.csv,one_step.csv,grid.png,evaluations/NAME/{curve.csv,images.csv}}
    tables/ figures/ mechanism/ one_step/ claims.md remedies.md site/ .cache/
results/primary.yaml primary.md    the registered claims, and their page; replication.yaml, mechanism.yaml, remedies.yaml
"""

from __future__ import annotations

from pathlib import Path

RECORD, CONFIG, LOCK = "record.json", "config.yaml", ".lock"
TRAIN_LOG, PROBES, ONE_STEP = "train.jsonl", "probes.csv", "one_step.csv"
SCORES, CURVE = "scores.csv", "curve.csv"
CURVE_PICTURE, GRID = "curve.png", "grid.png"
REPORT = "report.html"
"""The page of a run, in its folder."""
SAMPLES, EVALUATIONS = "images", "evaluations"
MAIN = "main"
"""The evaluation that a run makes itself, in its own folder; others lie below ``evaluations/``."""
DRAWS, DRAWN = "draws.csv", "draws"
CHECKPOINTS, RESUME, MANIFEST, RHO = "checkpoints", "resume", "manifest.json", "rho.safetensors"

CLAIM_LOCKS, FAILURES, LOGS = ".claims", "failures", "logs"
"""In a folder of runs: who works on which, what failed and how, and the words of every run."""

RECORDS, PER_IMAGE = "records", "images.csv"
"""In a result set: the collected records, a folder a run; and in each the scores, a row a checkpoint and image."""
TABLES, FIGURES, CLAIMS, SITE = "tables", "figures", "claims.md", "site"
MECHANISM, CONTRASTS = "mechanism", "mechanism.yaml"
"""The page and figures of the contrasts that take the stage apart, and their file beside the result sets."""
ONE_STEP_PAGE = "one_step"
"""The page and figure of one denoising step, from the ``one_step.csv`` of records."""
REMEDIES, REMEDIES_PAGE = "remedies.yaml", "remedies.md"
"""What to try against grain: the list beside the result sets, and the page in one."""
REGISTERED, REGISTERED_PAGE = "primary.yaml", "primary.md"
"""Beside the result sets: the claims that were written down before their runs, and their page."""
REPLICATION = "replication.yaml"
"""The same claims on other runs, also written down before them; a section of that page."""
CACHE = ".cache"
"""Below a result set: what was computed from its files. It may be removed at any time."""


def step_folder(root: Path, step: int) -> Path:
    """The folder of one training step below ``root``."""
    return root / f"step-{step:06d}"


def steps_in(root: Path) -> list[int]:
    """Steps of the complete folders below ``root``, increasing: those that have their manifest."""
    found = root.glob("step-*") if root.is_dir() else []
    return sorted(int(p.name.removeprefix("step-")) for p in found if p.name[5:].isdecimal() and (p / MANIFEST).exists())


def images_folder(run: Path, step: int) -> Path:
    """Where a run, or one of its evaluations, keeps the samples of a step."""
    return step_folder(run / SAMPLES, step)


def image_name(prompt: int, index: int) -> str:
    """The file of one sample: numbers of its prompt and of its initial noise."""
    return f"prompt-{prompt:02d}-image-{index:02d}.png"
