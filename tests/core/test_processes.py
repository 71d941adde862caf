"""Several processes share one run and compute what one process computes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from bayesdiff import run
from bayesdiff.config.schema import Config
from bayesdiff.core.errors import UserError
from bayesdiff.core.processes import all_reduce, broadcast, check_shares, gather, is_main_process, share
from bayesdiff.diffusion.pipeline import choose_device
from bayesdiff.runs.experiment import run_experiment
from tests.soak.world import fork, wait

SHARED = (
    "bnn=on", "training.gradient_accumulation_steps=2", "schedule.steps=4", "schedule.checkpoints=[0,4]",
    "sampler.sample_weights=1", "device=cpu",
)  # fmt: skip


def as_process(monkeypatch: pytest.MonkeyPatch, index: int, count: int) -> None:
    for name, value in {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count}.items():
        monkeypatch.setenv(name, str(value))


def launched(runs: Path, smoke: list[str]) -> Path:
    """The run folder of ``SHARED``, run by two processes that torch's launcher starts."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *launcher, "-m", "bayesdiff.run", *smoke[:-1], *SHARED, f"paths.runs={runs}"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # the launcher gives it to several processes, and to one all cores
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=one_thread)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = [path for path in runs.iterdir() if path.is_dir()]
    return folder


def forked(runs: Path, smoke: list[str]) -> Path:
    """The same by two forks of this process, which have what the launcher gives and need not load torch again."""

    def as_one(index: int) -> int | None:
        os.environ.update(RANK=str(index), LOCAL_RANK=str(index), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        sys.argv = ["bayesdiff", *smoke[:-1], *SHARED, f"paths.runs={runs}"]
        return run.main()

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    runs.mkdir()
    with (runs.parent / "said").open("w") as words:
        started = [fork(partial(as_one, index), words) for index in range(2)]
    assert [wait(pid) for pid in started] == [0, 0], (runs.parent / "said").read_text()[-3000:]
    (folder,) = [path for path in runs.iterdir() if path.name != "cache"]
    return folder


def test_alone_there_is_nothing_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "8")  # a cluster's own variable, without a launcher behind it
    total = torch.tensor([1.0, 2.0])
    all_reduce([total])
    assert total.tolist() == [1.0, 2.0]
    assert (share([1, 2, 3]), gather([4]), broadcast(5), is_main_process()) == ([1, 2, 3], [4], 5, True)


def test_shares_cover_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for index in range(3):
        as_process(monkeypatch, index, 3)
        assert is_main_process() == (index == 0)
        found += share(range(8))
    assert sorted(found) == list(range(8))


def test_micro_batches_that_cannot_be_divided_are_refused(monkeypatch: pytest.MonkeyPatch, make_config: Callable[..., Config]) -> None:
    steps = make_config("training.gradient_accumulation_steps=3").training.gradient_accumulation_steps
    check_shares(steps)
    as_process(monkeypatch, 0, 2)
    with pytest.raises(UserError, match=r"gradient_accumulation_steps=3: 2 processes .* a multiple of 2"):
        check_shares(steps)


def test_processes_take_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    as_process(monkeypatch, 1, 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    assert [choose_device(name) for name in ("auto", "cuda", "cpu")] == [torch.device("cuda:1")] * 2 + [torch.device("cpu")]
    with pytest.raises(UserError, match="use device=auto"):
        choose_device("cuda:0")
    as_process(monkeypatch, 2, 3)
    with pytest.raises(UserError, match="2 CUDA device"):
        choose_device("auto")


def test_several_runs_at_once_are_refused(tmp_path: Path, smoke: list[str]) -> None:
    """A process that goes on to the next run alone would add its gradients to another run's."""
    command = [sys.executable, "-m", "bayesdiff.run", "-m", *smoke[:-1], f"paths.runs={tmp_path}", "seed=0,1"]
    group = {**os.environ, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=group)
    assert done.returncode == 2
    assert "--multirun: several processes share one run" in done.stderr
    assert list(tmp_path.glob("toybox*")) == []


@pytest.mark.parametrize("started", [forked, pytest.param(launched, marks=pytest.mark.slow)])
def test_two_processes_compute_what_one_computes(
    tmp_path: Path, tiny_smoke: list[str], make_config: Callable[..., Config], started: Callable[[Path, list[str]], Path]
) -> None:
    alone, _ = run_experiment(make_config(*tiny_smoke[:-1], *SHARED, f"paths.runs={tmp_path / 'alone'}"))
    together = started(tmp_path / "together", tiny_smoke)
    assert alone.name == together.name  # the number of processes is no setting of a run
    for name in ("scores.csv", "draws.csv"):
        pd.testing.assert_frame_equal(pd.read_csv(alone / name), pd.read_csv(together / name), rtol=0, atol=2e-3)
    step = Path("checkpoints/step-000004")
    for file in (step / "rho.safetensors", next((alone / step).rglob("diffusion_pytorch_model*.safetensors")).relative_to(alone)):
        one, two = load_file(alone / file), load_file(together / file)
        # a step of Adam has the size of the learning rate, however small the gradient whose sign rounding decides
        gaps = torch.cat([(one[name].float() - two[name].float()).abs().flatten() for name in one])
        assert float(gaps.mean()) < 1e-6, file
    records = [json.loads((folder / "record.json").read_text()) for folder in (alone, together)]
    assert [record["environment"]["processes"] for record in records] == [1, 2]
    assert [record["status"] for record in records] == ["completed"] * 2
    assert records[0]["verdict"]["kind"] == records[1]["verdict"]["kind"]
