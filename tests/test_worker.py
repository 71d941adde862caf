"""Workers that Hydra's launchers start: the same study, done once, with the same tables whoever starts it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bayesdiff import tables
from bayesdiff.studies import plan as planning

ROOT = Path(__file__).resolve().parents[1]
STUDY = """
title: two by two
experiment: smoke
overrides: [schedule.steps=2, "schedule.checkpoints=[0,2]", sampler.steps=2]
compare: {bnn: "off"}
grid:
  bnn: ["off", "on"]
  seed: [0, 1]
models:
  toybox: {minutes: 1}
"""
RAY = [
    "hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.init.include_dashboard=false",
    "+hydra.launcher.ray.remote.max_retries=0",
]  # fmt: skip
LAUNCHERS = {
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit": ["hydra/launcher=submitit_local"],
    "ray": RAY,
}


def launch(folder: Path, launcher: str) -> subprocess.CompletedProcess[str]:
    """Two workers of the study ``square`` in ``folder``."""
    (folder / "studies").mkdir(parents=True)
    (folder / "studies" / "square.yaml").write_text(STUDY.lstrip())
    command = [sys.executable, "-m", "bayesdiff.worker", "-m", "study=square", "worker=1,2", "threads=1", "results=results"]
    env = {**os.environ, "BAYESDIFF_EXPERIMENTS": str(folder / "studies"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run([*command, *LAUNCHERS[launcher]], cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False)


def tables_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    monkeypatch.setattr(planning, "EXPERIMENTS", folder / "studies")
    monkeypatch.chdir(folder)
    assert tables.main(["results"]) == 0
    written = [path for part in ("tables", "figures") for path in (folder / "results" / part).glob("square.*")]
    return {path.name: path.read_bytes() for path in written}


@pytest.mark.slow
def test_every_launcher_gives_the_same_tables_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """joblib and submitit always, Ray where it is installed (extra ``ray``)."""
    found = {}
    for launcher in LAUNCHERS:
        if importlib.util.find_spec(f"hydra_plugins.hydra_{launcher}_launcher") is None:
            continue
        folder = tmp_path / launcher
        done = launch(folder, launcher)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(list((folder / "runs" / "toybox").glob("toybox-*"))) == 4
        assert not (folder / "runs" / "toybox" / "failures").exists()
        found[launcher] = tables_of(folder, monkeypatch)
    assert {"joblib", "submitit"} <= set(found)
    assert len(found["joblib"]) == 5
    for launcher, files in found.items():
        assert files == found["joblib"], launcher


def test_a_worker_says_which_study_it_needs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bayesdiff.worker", "study=nothing"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("bayesdiff: study nothing: unknown; choose one of ")
    assert "Traceback" not in done.stderr
