"""Names and keys of the committed runs: what was recorded once must be found again under the same name.

A run's folder ends with a hash of its settings. A new option, a moved default or another way to compose would give
a committed run a new name, and studies would make it anew.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from bayesdiff.config.identity import run_key, run_name
from bayesdiff.config.schema import Config
from bayesdiff.recording.record import RunRecord, repeat_command
from bayesdiff.studies.plan import Cell, compose_cell, load_study, models_of, study_names

ROOT = Path(__file__).resolve().parents[2]
RECORDS = sorted((ROOT / "results" / "toybox" / "records").iterdir())
MADE_BEFORE = {"c59d85469070": "5718c25611b1", "e959fac38c12": "40f833cade27"}
"""Keys of two records whose command composes to another run today: they were made before a setting was added."""
PINNED = json.loads(Path(__file__).with_name("run_names.json").read_text(encoding="utf-8"))
"""A digest of the run names of every study and model; of studies with hundreds of runs, of every 40th."""


@pytest.mark.parametrize("folder", RECORDS, ids=lambda folder: folder.name)
def test_the_command_of_a_committed_run_gives_its_name(folder: Path) -> None:
    """By the name that its experiment has today."""
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    command = repeat_command(RunRecord(record["run_key"], record["status"], record["config"], record["command"]))
    words = [word for word in shlex.split(command)[3:] if not word.startswith("paths.")]
    cfg = compose_cell(Cell({}, tuple(words)))
    key = folder.name.rpartition("-")[2]
    assert record["run_key"] == key
    assert run_key(cfg) == MADE_BEFORE.get(key, key)
    assert run_name(cfg) == folder.name.replace(key, run_key(cfg))


@cache
def seedless(words: tuple[str, ...]) -> Config:
    return compose_cell(Cell({}, words))


def composed(words: tuple[str, ...]) -> Config:
    """The configuration of a command; commands that differ in their seed alone are composed once, which is most of the time."""
    seeds = [word.removeprefix("seed=") for word in words if word.startswith("seed=")]
    cfg = seedless(tuple(word for word in words if not word.startswith("seed=")))
    return replace(cfg, seed=int(seeds[-1])) if seeds else cfg


@pytest.mark.parametrize("seed", [0, 7])
def test_a_seed_that_is_replaced_is_a_seed_that_is_composed(seed: int) -> None:
    words = (*load_study("table_1").cells[0].overrides, f"seed={seed}")
    assert composed(words) == compose_cell(Cell({}, words))


def names_digest(study: str, model: str) -> str:
    cells = load_study(study, model).cells
    chosen = cells[:: 40 if len(cells) > 100 else 1]
    return hashlib.sha256("\n".join(run_name(composed(cell.overrides)) for cell in chosen).encode()).hexdigest()[:16]


@pytest.mark.parametrize("study", study_names())
def test_runs_of_the_shipped_studies_keep_their_names(study: str) -> None:
    models = [model for model in models_of(study) if f"{study} {model}" in PINNED]
    assert {f"{study} {model}": names_digest(study, model) for model in models} == {
        key: digest for key, digest in PINNED.items() if key.split()[0] == study
    }
