"""A run whose checkpoints are written behind its back: it trains on meanwhile, publishes in order, and ends as one that waits."""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tiny import BNN_ON, Make

from bayesdiff.core import background, files
from bayesdiff.core.background import Action, Writer
from bayesdiff.core.errors import UserError
from bayesdiff.core.files import STAGING
from bayesdiff.core.layout import CHECKPOINTS, MANIFEST, RESUME, TRAIN_LOG, steps_in
from bayesdiff.recording import seals
from bayesdiff.runs import bench, checkpoints
from bayesdiff.runs.experiment import Tracker, run_experiment

WORDS = ["schedule.steps=6", "schedule.checkpoints=[0,2,6]", "schedule.log_every=1", "schedule.keep=all", BNN_ON]


class AtOnce(Writer):
    """Does everything where it is given: the run waits, as it did before there was a writer."""

    def submit(self, action: Action) -> None:
        action()


def content(path: Path) -> Any:
    if path.suffix != ".safetensors":
        return path.read_bytes()
    return {name: value.numpy().tobytes() for name, value in load_file(path).items()}


def differing(a: Path, b: Path) -> list[str]:
    """Tables, pictures and tensors that are not the same."""
    found = [
        {p.relative_to(run): content(p) for p in run.rglob("*") if p.suffix in (".csv", ".jsonl", ".safetensors", ".png")} for run in (a, b)
    ]
    assert len(found[0]) > 12
    return [str(name) for name in found[0].keys() | found[1].keys() if found[0].get(name) != found[1].get(name)]


def only_run(runs: Path) -> Path:
    (folder,) = [path for path in runs.iterdir() if path.name != "cache"]
    return folder


@contextmanager
def patched(owner: Any, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, around(getattr(owner, name)))
        yield


Bench = bench.Bench


@contextmanager
def written_by(kind: type[Writer]) -> Iterator[None]:
    """Runs that begin within the block have such a writer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "Bench", lambda *given: Bench(*given, writer=kind()))
        yield


@pytest.fixture
def waiting(make_config: Make, smoke: list[str], tmp_path: Path) -> Path:
    """The run as a program makes it that waits for every file."""
    with written_by(AtOnce):
        return run_experiment(make_config(*smoke, *WORDS, f"paths.runs={tmp_path / 'waiting'}"))[0]


def published(made: list[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Notes what is renamed to its place."""

    def around(own: Callable[..., Any]) -> Callable[..., Any]:
        def replace(part: Path, target: Path) -> None:
            own(part, target)
            if STAGING not in str(target.parent):  # files of a folder that is still beside its place count with it
                made.append("/".join(target.parts[-2:]))

        return replace

    return around


def test_a_run_ends_as_one_that_waits_and_publishes_in_its_order(make_config: Make, smoke: list[str], tmp_path: Path) -> None:
    orders, folders = [], []
    for kind in (Writer, AtOnce):
        made: list[str] = []
        with written_by(kind), patched(files, "_replace", published(made)):
            folders.append(run_experiment(make_config(*smoke, *WORDS, f"paths.runs={tmp_path / kind.__name__}"))[0])
        orders.append([name for name in made if kind.__name__ not in name])
    assert differing(*folders) == []
    assert orders[0] == orders[1]
    first = orders[0].index("checkpoints/step-000002")
    assert orders[0][first : first + 2] == ["checkpoints/step-000002", "resume/step-000002"]
    assert {"images/step-000002", "step-000002/manifest.json"} <= set(orders[0][first:])


def slow_save(told: threading.Event) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Tensors of step 2 are written only once training has gone on."""

    def around(own: Callable[..., Any]) -> Callable[..., Any]:
        def save(tensors: Any, path: Path, metadata: Any) -> None:
            if "step-000002" in str(path):
                assert told.wait(60), "training never went on"
            own(tensors, path, metadata)

        return save

    return around


def noted(told: threading.Event, at: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def around(own: Callable[..., Any]) -> Callable[..., Any]:
        def train(self: Tracker, step: int, row: dict[str, float]) -> None:
            own(self, step, row)
            if step == at:
                told.set()

        return train

    return around


def test_training_goes_on_while_a_checkpoint_is_written(waiting: Path, make_config: Make, smoke: list[str]) -> None:
    """Step 4 is trained before any tensor of step 2 is written; both are as they would have been."""
    told = threading.Event()
    with patched(background, "_save", slow_save(told)), patched(Tracker, "train", noted(told, 4)):
        folder, record = run_experiment(make_config(*smoke, *WORDS))
    assert record.status == "completed"
    assert differing(folder, waiting) == []


def test_a_seal_counts_the_log_as_it_was(waiting: Path, make_config: Make, smoke: list[str], tmp_path: Path) -> None:
    """A run that dies with rows of later steps in its log resumes at the checkpoint, and no row is doubled."""
    told, sealed = threading.Event(), list[Any]()

    def dies(own: Callable[..., Any]) -> Callable[..., Any]:
        def train(self: Tracker, step: int, row: dict[str, float]) -> None:
            own(self, step, row)
            if step == 5:
                for state in steps_in(only_run(tmp_path / "runs") / RESUME):
                    manifest = only_run(tmp_path / "runs") / RESUME / f"step-{state:06d}" / MANIFEST
                    sealed.append(json.loads(manifest.read_text())[seals.TABLES][TRAIN_LOG][0])
                raise KeyboardInterrupt

        return train

    with (
        patched(background, "_save", slow_save(told)), patched(Tracker, "train", noted(told, 4)), patched(Tracker, "train", dies),
        pytest.raises(KeyboardInterrupt),
    ):  # fmt: skip
        run_experiment(make_config(*smoke, *WORDS))
    stopped = only_run(tmp_path / "runs")
    assert steps_in(stopped / CHECKPOINTS) == [0, 2], "what was being written is written to its end"
    log = (stopped / TRAIN_LOG).read_bytes()
    (size, _) = json.loads((stopped / RESUME / "step-000002" / MANIFEST).read_text())[seals.TABLES][TRAIN_LOG]
    assert [json.loads(line)["step"] for line in log[:size].splitlines()] == [1, 2]
    assert len(log.splitlines()) == 5
    resumed, _ = run_experiment(make_config(*smoke, *WORDS))
    assert differing(resumed, waiting) == []


def test_a_failed_writer_ends_the_run_at_the_next_step_in_one_line(make_config: Make, smoke: list[str], tmp_path: Path) -> None:
    failed, steps = threading.Event(), list[int]()

    def full(own: Callable[..., Any]) -> Callable[..., Any]:
        def seal(run: Path, step: int, *rest: Any) -> None:
            if step == 2:
                failed.set()
                raise OSError(errno.ENOSPC, "No space left on device", str(run / MANIFEST))
            own(run, step, *rest)

        return seal

    def noting(own: Callable[..., Any]) -> Callable[..., Any]:
        def train(self: Tracker, step: int, row: dict[str, float]) -> None:
            steps.append(step)
            own(self, step, row)
            if step > 2:
                assert failed.wait(60)
                time.sleep(0.05)

        return train

    said = r"no disk space left for .*manifest.json \(No space left on device\): free some, then give"
    with patched(checkpoints, "seal", full), patched(Tracker, "train", noting), pytest.raises(UserError, match=said):
        run_experiment(make_config(*smoke, *WORDS))
    assert max(steps) <= 3
    stopped = only_run(tmp_path / "runs")
    assert steps_in(stopped / CHECKPOINTS) == [0, 2]
    assert run_experiment(make_config(*smoke, *WORDS))[1].status == "completed"
