"""SIGTERM and SIGHUP: the step is finished and saved, and the run goes on as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tiny import BNN_ON, Make

from bayesdiff import run
from bayesdiff.arms.protocol import Arm
from bayesdiff.config.schema import Config
from bayesdiff.core.errors import ExitCode
from bayesdiff.core.layout import RESUME, TRAIN_LOG, steps_in
from bayesdiff.core.signals import Terminated, heeded
from bayesdiff.runs import experiment
from bayesdiff.runs.experiment import run_experiment
from tests.soak.world import fork, wait

ROOT = Path(__file__).resolve().parents[2]
STEPS = ["schedule.steps=8", "schedule.checkpoints=[0,8]", "schedule.log_every=1", "schedule.keep=all"]
ENDLESS = ["schedule.steps=100000", "schedule.checkpoints=[0,100000]", "schedule.log_every=1"]


def only_run(runs: Path) -> Path:
    (folder,) = [path for path in runs.iterdir() if path.name != "cache"]
    return folder


def rows(runs: Path) -> int:
    return sum(len(log.read_bytes().splitlines()) for log in runs.glob(f"*/{TRAIN_LOG}"))


def content(path: Path) -> object:
    """A file's bytes, of tensors those alone: the order of a header's entries is by chance."""
    if path.suffix != ".safetensors":
        return path.read_bytes()
    return {name: (value.dtype, value.shape, value.numpy().tobytes()) for name, value in load_file(path).items()}


def check_saved(runs: Path, out: str) -> None:
    folder = only_run(runs)
    last = json.loads((folder / TRAIN_LOG).read_text().splitlines()[-1])["step"]
    assert steps_in(folder / RESUME) == [0, last]
    assert out.splitlines()[-1] == f"Step {last} is saved in {folder}"


def said_by(name: str) -> str:
    return f"\nStopped by {name}. Give the same command again to resume.\n"


def test_a_signal_lets_the_step_end_and_be_saved(tiny_smoke: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    call = [sys.executable, "-m", "bayesdiff.run", *tiny_smoke, *ENDLESS]
    process = subprocess.Popen(call, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while process.poll() is None and rows(tmp_path / "runs") < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (ExitCode.TERMINATED, said_by("SIGTERM"))
    check_saved(tmp_path / "runs", out)


def hears_sighup() -> None:
    """Also where the tests themselves run under nohup, which a fork would inherit."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_so_does_the_end_of_a_terminal(smoke: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a fork of this process, which has loaded what takes a command seconds."""
    monkeypatch.setattr(sys, "argv", ["bayesdiff", *smoke, *ENDLESS])
    with (tmp_path / "said").open("w") as words:
        pid = fork(run.main, words, hears_sighup)
    deadline, ended = time.monotonic() + 300, 0
    while not ended and rows(tmp_path / "runs") < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
        ended = os.waitpid(pid, os.WNOHANG)[0]
    os.kill(pid, signal.SIGHUP)
    code, said = wait(pid), (tmp_path / "said").read_text()
    assert (code, said.endswith(said_by("SIGHUP"))) == (ExitCode.TERMINATED, True), said
    check_saved(tmp_path / "runs", said.removesuffix(said_by("SIGHUP")))


def stopped_in(config: Config, owner: type, name: str, when: Callable[..., bool]) -> None:
    """SIGTERM at the end of a method, the first time that its arguments are such."""
    real, sent = getattr(owner, name), list[str]()

    def told(*given: Any) -> None:
        real(*given)
        if not sent and when(*given):
            sent.append(name)
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Terminated, match="SIGTERM"), heeded():
        patch.setattr(owner, name, told)
        run_experiment(config)


def check_ends_alike(whole: Path, stopped: Path, config: Config) -> None:
    resumed, record = run_experiment(config)
    assert (resumed, record.status) == (stopped, "completed")
    names = [str(path.relative_to(whole)) for path in whole.rglob("*") if path.suffix in (".csv", ".jsonl", ".safetensors", ".png")]
    assert len(names) > 8
    assert [name for name in names if content(whole / name) != content(resumed / name)] == []
    assert not (resumed / RESUME).exists()


@pytest.mark.parametrize("words", [[BNN_ON], ["method=lora", "bnn=ema"]])
def test_a_run_that_was_terminated_ends_as_if_it_had_not(make_config: Make, smoke: list[str], tmp_path: Path, words: list[str]) -> None:
    whole, _ = run_experiment(make_config(*smoke, *STEPS, *words, f"paths.runs={tmp_path / 'whole'}"))
    config = make_config(*smoke, *STEPS, *words)
    stopped_in(config, experiment.Tracker, "train", lambda tracker, step, row: step == 5)
    stopped = only_run(tmp_path / "runs")
    assert steps_in(stopped / RESUME) == [0, 5]
    check_ends_alike(whole, stopped, config)


def test_a_signal_behind_the_last_step_of_an_interval_keeps_it(make_config: Make, tiny_smoke: list[str], tmp_path: Path) -> None:
    """No report comes any more that would look whether one waits."""
    whole, _ = run_experiment(make_config(*tiny_smoke, *STEPS, f"paths.runs={tmp_path / 'whole'}"))
    config = make_config(*tiny_smoke, *STEPS)
    stopped_in(config, Arm, "after_training", lambda arm: True)
    stopped = only_run(tmp_path / "runs")
    assert steps_in(stopped / RESUME) == [0, 8]
    check_ends_alike(whole, stopped, config)
