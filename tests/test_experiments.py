"""The scripts in ``experiments/``: what they read off a curve."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny import Make

from bayesdiff.config import CONF, run_key
from bayesdiff.record import RunRecord


@pytest.fixture(scope="module")
def phenomenon() -> ModuleType:
    spec = importlib.util.spec_from_file_location("phenomenon", CONF.parent / "experiments" / "phenomenon.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["phenomenon"] = module
    spec.loader.exec_module(module)
    return module


def test_the_deepest_fall_and_what_came_back(phenomenon: ModuleType) -> None:
    shape = phenomenon.shape_of(np.arange(6) * 10, np.array([0.2, 0.8, 0.5, 0.4, 0.6, 0.75]))
    assert (shape.start, shape.peak_step, shape.peak, shape.trough_step, shape.trough) == (0.2, 10, 0.8, 30, 0.4)
    assert shape.fall == pytest.approx(0.4)
    assert shape.checkpoints_down == 3
    assert shape.recovered == pytest.approx(0.35 / 0.4)


RUNS = {"scan": 12, "pairs": 12, "rates": 8, "methods": 12, "controls": 24}


@pytest.mark.parametrize("study", RUNS)
def test_every_job_of_a_study_composes_and_is_another_run(phenomenon: ModuleType, make_config: Make, study: str) -> None:
    jobs = phenomenon.STUDIES[study]()
    keys = {run_key(make_config("+experiment=corruption_curve", *job.overrides)) for job in jobs}
    assert len(keys) == len({job.name for job in jobs}) == len(jobs) == RUNS[study]
    assert set(phenomenon.STUDIES) == set(RUNS)


def test_a_study_keeps_tables_and_pictures_in_the_order_of_its_jobs(
    phenomenon: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(root: Path, overrides: list[str]) -> tuple[Path, RunRecord]:
        root.mkdir(parents=True)
        curve = {"step": [0, 10, 20], "dino": [0.1, 0.8, 0.6], "dino_se": [0.01, 0.01, 0.02], "clip_t": [0.5, 0.4, 0.3]}
        pd.DataFrame(curve).to_csv(root / "curve.csv", index=False)
        for picture in ("curve.png", "grid.png"):
            Image.new("RGB", (8, 8), "red").save(root / picture)
        bnn, method = {"kind": "off", "sigma": "per_weight"}, {"learning_rate": 1e-4, "name": "lora"}
        config = {"data": {"subject": root.name}, "seed": 0, "bnn": bnn, "method": method, "shots": {"count": 1}}
        return root, RunRecord("key", "completed", config)

    monkeypatch.setattr(phenomenon, "run", made)
    monkeypatch.setattr(phenomenon, "RESULTS", tmp_path / "results")
    jobs = [phenomenon.Job(panel, line, []) for panel, line in (("b", "off"), ("b", "on"), ("a c", "off"))]
    phenomenon.study("scan", jobs, tmp_path / "runs", workers=2)
    table = pd.read_csv(tmp_path / "results" / "scan.csv")
    assert table["subject"].tolist() == ["b-off", "b-on", "a_c-off"]
    assert table["fall"].tolist() == pytest.approx([0.2] * 3)
    assert (table["last"].tolist(), table["clip_t_last"].tolist()) == ([0.6] * 3, [0.3] * 3)
    assert {p.name for p in (tmp_path / "results" / "scan").iterdir()} == {
        f"{job.name}-{kind}" for job in jobs for kind in ("curve.csv", "curve.png", "grid.png")
    }
    with Image.open(tmp_path / "results" / "scan.png") as picture:
        picture.load()


def test_a_curve_that_only_rises_has_no_fall(phenomenon: ModuleType) -> None:
    shape = phenomenon.shape_of(np.arange(4), np.array([0.1, 0.2, 0.3, 0.4]))
    assert (shape.fall, shape.checkpoints_down, shape.recovered) == (0.0, 0, 0.0)
