"""Workers that Hydra's launchers start: the same study, done once, with the same tables whoever starts it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from bayesdiff import tables, worker
from bayesdiff.config.compose import CONF
from bayesdiff.core.machine import cores
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


def launch(folder: Path, launcher: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Two workers of the study ``square`` in ``folder``."""
    (folder / "studies").mkdir(parents=True)
    (folder / "studies" / "square.yaml").write_text(STUDY.lstrip())
    command = [sys.executable, "-m", "bayesdiff.worker", "-m", "study=square", "worker=1,2", "results=results", *words]
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    own = {"BAYESDIFF_EXPERIMENTS": str(folder / "studies"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    env = {**inherited, **own, "TMPDIR": str(folder), **more}
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
        folder = tmp_path / f"{launcher} (copy) [zoë] it's"  # as people name folders
        done = launch(folder, launcher, "threads=1")
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(list((folder / "runs" / "toybox").glob("toybox-*"))) == 4
        assert not (folder / "runs" / "toybox" / "failures").exists()
        found[launcher] = tables_of(folder, monkeypatch)
    assert {"joblib", "submitit"} <= set(found)
    assert len(found["joblib"]) == 5
    for launcher, files in found.items():
        assert files == found["joblib"], launcher


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "words", "gpus"), [("joblib", [], {3, 4}), ("submitit", ["hydra.launcher.gpus_per_node=2"], {0, 1})])
def test_the_workers_of_a_launcher_spread_over_the_gpus_and_share_the_cores(
    tmp_path: Path, launcher: str, words: list[str], gpus: set[int]
) -> None:
    """Two GPUs by name (the runs themselves are on the CPU); each run measures what it was given.

    submitit hides all GPUs from a local job but the first ``gpus_per_node``.
    """
    (tmp_path / launcher).mkdir()
    (tmp_path / launcher / "given.py").write_text(
        "import os\ndef gpu(image): return float(os.environ['CUDA_VISIBLE_DEVICES'])\n"
        "def threads(image): return float(os.environ['OMP_NUM_THREADS'])\n"
    )
    measured = "overrides=['metrics.extra=[given.gpu,given.threads]','device=cpu']"
    done = launch(tmp_path / launcher, launcher, measured, *words, CUDA_VISIBLE_DEVICES="3,4")
    assert done.returncode == 0, done.stdout + done.stderr
    curves = [pd.read_csv(path) for path in (tmp_path / launcher / "runs" / "toybox").glob("toybox-*/curve.csv")]
    assert len(curves) == 4
    assert {gpu for curve in curves for gpu in curve["gpu"]} == gpus
    assert {threads for curve in curves for threads in curve["threads"]} == {max(cores() // 2, 1)}


SHARES = {
    "joblib, as many as workers": (["worker=range(1,5)", "hydra/launcher=joblib"], "2"),
    "joblib, two of four at once": (["worker=range(1,5)", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], "4"),
    "joblib, n_jobs beyond the workers": (["worker=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=8"], "4"),
    "submitit on this machine": (["worker=1,2", "hydra/launcher=submitit_local"], "4"),
    "more workers than cores": (["worker=range(0,20)", "hydra/launcher=submitit_local"], "1"),
    "a Slurm job has its own": (["worker=1,2", "hydra/launcher=submitit_slurm"], None),
    "one after the other": (["worker=1,2"], None),
}


@pytest.mark.parametrize(("words", "threads"), SHARES.values(), ids=SHARES)
def test_the_cores_are_shared_by_the_workers_that_run_at_once(
    monkeypatch: pytest.MonkeyPatch, words: list[str], threads: str | None
) -> None:
    monkeypatch.setattr(worker, "cores", lambda: 8)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = GlobalHydra.instance().config_loader().load_configuration("worker", ["study=table_1", *words], RunMode.MULTIRUN)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    worker.ShareCores().on_multirun_start(config)
    assert os.environ["OMP_NUM_THREADS"] == "3", "what was set stays"
    monkeypatch.delenv("OMP_NUM_THREADS")
    worker.ShareCores().on_multirun_start(config)
    assert os.environ.get("OMP_NUM_THREADS") == threads


def test_a_worker_says_which_study_it_needs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bayesdiff.worker", "study=nothing"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("bayesdiff: study nothing: unknown; choose one of ")
    assert "Traceback" not in done.stderr


def test_a_worker_whose_runs_failed_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise worker.RunsFailed("2 runs failed; runs/toybox/logs has what they said")

    monkeypatch.setattr(worker, "work", work)
    monkeypatch.setattr(sys, "argv", ["worker"])
    assert worker.main() == 1
    assert capsys.readouterr().err == "bayesdiff: 2 runs failed; runs/toybox/logs has what they said\n"


def test_a_worker_names_the_folder_of_what_failed_and_not_another_model_s(tmp_path: Path) -> None:
    """Nor those of other folders or overrides, which ``status`` would look at in vain."""
    (tmp_path / "bad.yaml").write_text(STUDY.replace("seed: [0, 1]", "seed: [0]").replace('["off", "on"]', '["off"]').lstrip())
    words = ["study=bad", "runs=mine", "overrides=['data=folder','data.path=none','data.class_noun=dog']"]
    env = {**os.environ, "BAYESDIFF_EXPERIMENTS": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "bayesdiff.worker", *words]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"bayesdiff: 1 runs failed, are damaged or were stopped; {tmp_path}/mine/failures and {tmp_path}/mine/logs have what they said"
    )
    assert "failed    bnn=off seed=0: bayesdiff: " in done.stdout
