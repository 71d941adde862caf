"""A scheduler takes a job away: submitit's signal saves the step, the job is requeued, and the run ends as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from submitit.core.job_environment import SignalHandler
from submitit.core.utils import DelayedSubmission, JobPaths, UncompletedJobError
from tiny import BNN_ON, Make

from bayesdiff.core.layout import RESUME, TRAIN_LOG, steps_in
from bayesdiff.runs import experiment
from bayesdiff.runs.experiment import run_experiment
from tests.soak.verdict import differing

ROOT = Path(__file__).resolve().parents[2]
STEPS = ["schedule.steps=300", "schedule.checkpoints=[0,300]", "schedule.log_every=1", "schedule.keep=all"]
STUDY = "title: one\nexperiment: smoke\ngrid:\n  seed: [0]\nmodels:\n  toybox: {{minutes: 1, overrides: {words}}}\n"


def job_process(folder: Path) -> int | None:
    """The process of submitit's job whose files are below ``folder``."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode(errors="replace")
        except OSError:  # it has ended
            continue
        if "submitit.core._submit" in words and str(folder) in words:
            return int(entry.parent.name)
    return None


def rows(runs: Path) -> int:
    return sum(len(log.read_bytes().splitlines()) for log in runs.glob(f"*/{TRAIN_LOG}"))


def preempted(command: list[str], folder: Path, runs: Path, **more: str) -> str:
    """Start a command that waits for its job, send the job submitit's signal once it trains; all words of the job."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 300
    while process.poll() is None and rows(runs) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    job = job_process(folder)
    assert job is not None, process.communicate()[0]
    os.kill(job, signal.SIGUSR2)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return "".join(path.read_text() for path in sorted(folder.rglob("*_log.*")))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the job's process is looked for in /proc")
@pytest.mark.parametrize("by", ["the job", "a worker's subprocess"])
def test_a_run_whose_job_is_requeued_ends_as_if_it_had_not_been(make_config: Make, tiny_smoke: list[str], tmp_path: Path, by: str) -> None:
    words = [*tiny_smoke[1:-1], *STEPS, BNN_ON]
    whole, _ = run_experiment(make_config(tiny_smoke[0], *words, f"paths.runs={tmp_path / 'whole'}"))
    runs, launcher = tmp_path / "runs", ["hydra/launcher=submitit_local", f"hydra.sweep.dir={tmp_path / 'jobs'}"]
    if by == "the job":
        said = preempted([sys.executable, "-m", "bayesdiff.run", "-m", tiny_smoke[0], *words, tiny_smoke[-1], *launcher], tmp_path, runs)
    else:
        (tmp_path / "studies").mkdir()
        (tmp_path / "studies" / "one.yaml").write_text(STUDY.format(words=json.dumps(words)))
        command = [sys.executable, "-m", "bayesdiff.worker", "-m", "study=one", f"runs={runs}", *launcher]
        said = preempted(command, tmp_path, runs, BAYESDIFF_EXPERIMENTS=str(tmp_path / "studies"))
        said += "".join(path.read_text() for path in (runs / "logs").glob("*"))
    (run,) = runs.glob("toybox-*")
    assert "Requeued job" in said
    assert "Resuming from step " in said and "Resuming from step 0 " not in said
    assert differing(run, whole) == []
    assert not (run / RESUME).exists()


class Again:
    """A job that can be requeued, as the plugin's are."""

    def __call__(self) -> None: ...

    def checkpoint(self) -> DelayedSubmission:
        return DelayedSubmission(Again())


@pytest.mark.parametrize(
    ("minutes", "timeouts", "end", "left"),
    [(600, 0, SystemExit, [0]), (1, 1, SystemExit, [0]), (1, 0, UncompletedJobError, [])],
    ids=["preempted", "timed out", "timed out too often"],
)
def test_a_time_out_saves_the_step_as_a_preemption_does(
    make_config: Make, tiny_smoke: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    minutes: int, timeouts: int, end: type[BaseException], left: list[int],
) -> None:  # fmt: skip
    """submitit's own handler: it requeues a job that timed out only so often (``max_num_timeout``, 0 by default), and else gives it up."""
    words = ["schedule.steps=4", "schedule.checkpoints=[0,4]", "schedule.log_every=1", "schedule.keep=all"]
    whole, _ = run_experiment(make_config(*tiny_smoke, *words, f"paths.runs={tmp_path / 'whole'}"))
    requeued: list[int] = []
    (tmp_path / "jobs").mkdir()
    job = DelayedSubmission(Again())
    job.set_timeout(minutes, timeouts)
    environment = SimpleNamespace(global_rank=0, _requeue=requeued.append)
    handler = SignalHandler(environment, JobPaths(tmp_path / "jobs", job_id="1"), job)  # type: ignore[arg-type]
    real = experiment.Tracker.train

    def told(self: experiment.Tracker, step: int, row: dict[str, float]) -> None:
        real(self, step, row)
        if step == 2:
            signal.raise_signal(signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, handler.checkpoint_and_try_requeue)
    try:
        with monkeypatch.context() as patch, pytest.raises(end):
            patch.setattr(experiment.Tracker, "train", told)
            run_experiment(make_config(*tiny_smoke, *words))
    finally:
        signal.signal(signal.SIGUSR2, before)
    (run,) = (tmp_path / "runs").glob("toybox-*")
    assert (requeued, steps_in(run / RESUME)) == (left, [0, 2])
    _, record = run_experiment(make_config(*tiny_smoke, *words))
    assert record.status == "completed"
    assert differing(run, whole) == []


def test_a_handler_that_comes_back_lets_the_run_go_on(make_config: Make, tiny_smoke: list[str], tmp_path: Path) -> None:
    words = ["schedule.steps=4", "schedule.checkpoints=[0,4]", "schedule.log_every=1", "schedule.keep=all"]
    whole, _ = run_experiment(make_config(*tiny_smoke, *words, f"paths.runs={tmp_path / 'whole'}"))
    saved: list[list[str]] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: saved.append(sorted(p.name for p in tmp_path.glob(f"runs/*/{RESUME}/*"))))
    try:
        with pytest.MonkeyPatch.context() as patch:
            real = experiment.Tracker.train

            def told(self: experiment.Tracker, step: int, row: dict[str, float]) -> None:
                real(self, step, row)
                if step == 2:
                    signal.raise_signal(signal.SIGUSR1)

            patch.setattr(experiment.Tracker, "train", told)
            run, record = run_experiment(make_config(*tiny_smoke, *words))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (record.status, saved) == ("completed", [["step-000000", "step-000002"]])
    assert differing(run, whole) == []


def test_every_slurm_command_of_the_docs_says_how_long_a_worker_may_take() -> None:
    """The plugin's own limit is an hour, which ends every worker of a study in its middle."""
    root = Path(__file__).resolve().parents[2]
    lines = [line for page in (root / "README.md", *(root / "docs").glob("*.md")) for line in page.read_text().splitlines()]
    commands = [line for line in lines if "launcher=submitit_slurm" in line and "python -m" in line]
    assert commands
    assert all("hydra.launcher.timeout_min=" in command for command in commands)
    assert any("max_num_timeout" in line for line in lines)
