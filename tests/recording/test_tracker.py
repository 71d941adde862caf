"""Trackers mirror the run folder, go on where it goes on, and never stop it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf
from searched import holding

from bayesdiff.config.identity import as_dict, run_key
from bayesdiff.config.schema import Config
from bayesdiff.core.layout import TRAIN_LOG
from bayesdiff.recording import tracker as module
from bayesdiff.recording.tracker import Jsonl, Tracker
from tests.loopback import Server

SCORES = pd.DataFrame({"step": [0], "prompt": [0], "image": [0], "metric": ["dino"], "reference": ["a.png"], "value": [0.5]})
KEY = "0123456789abcdef" * 2 + "01234567"
"""As long as a real API key."""
TRACK = """
import sys
from pathlib import Path
import pandas as pd
from omegaconf import OmegaConf
from PIL import Image
from bayesdiff.config.compose import resolve
from bayesdiff.recording.tracker import Tracker

folder = Path(sys.argv[1])
images = folder / "images"
images.mkdir()
Image.new("RGB", (8, 8)).save(images / "prompt-00-image-00.png")
tracker = Tracker(resolve(OmegaConf.load(sys.argv[2])), folder, 0)
tracker.train(10, {"loss": 0.5})
tracker.checkpoint(10, {"dino": 0.25}, images)
tracker.finish(pd.DataFrame({"step": [10], "metric": ["dino"], "value": [0.25]}), {"status": "completed"})
print("sinks left:", *(type(sink).__name__ for sink in tracker.sinks))
"""


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / TRAIN_LOG).read_text().splitlines()]


class Fake:
    """A sink that notes what it is given and fails in one place."""

    def __init__(self, fails_in: str):
        self.fails_in, self.calls = fails_in, []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fails_in:
            raise RuntimeError("the service is away")

    def train(self, *_: Any) -> None:
        self._call("train")

    def checkpoint(self, *_: Any) -> None:
        self._call("checkpoint")

    def finish(self, *_: Any) -> None:
        self._call("finish")

    def where(self) -> str:
        return ""


def walk(tracker: Tracker, folder: Path) -> None:
    tracker.train(10, {"loss": 0.5})
    tracker.checkpoint(10, {"dino": 0.5}, folder)
    tracker.train(20, {"loss": 0.25})
    tracker.finish(SCORES, {"status": "completed"})


def test_a_row_is_a_line_with_its_step(tmp_path: Path) -> None:
    log = Jsonl(tmp_path, 0)
    log.train(10, {"loss": 0.1, "grad_norm": 1 / 3})
    log.train(20, {"loss": 1e-9})
    assert rows(tmp_path) == [{"step": 10, "loss": 0.1, "grad_norm": 1 / 3}, {"step": 20, "loss": 1e-9}]


def test_rows_after_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    log = Jsonl(tmp_path, 0)
    for step in (10, 20, 30, 40):
        log.train(step, {"loss": float(step)})
    Jsonl(tmp_path, 20).train(30, {"loss": 0.5})
    assert rows(tmp_path) == [{"step": 10, "loss": 10.0}, {"step": 20, "loss": 20.0}, {"step": 30, "loss": 0.5}]


@pytest.mark.parametrize("torn", ['{"step": 20, "lo', '{"step": 2', "{", '{"st": 1}', ""])
def test_a_torn_last_line_is_dropped(tmp_path: Path, torn: str) -> None:
    (tmp_path / TRAIN_LOG).write_text('{"step": 10, "loss": 1.0}\n' + torn)
    Jsonl(tmp_path, 1000).train(20, {"loss": 0.5})
    assert rows(tmp_path) == [{"step": 10, "loss": 1.0}, {"step": 20, "loss": 0.5}]


def test_a_run_from_the_start_has_an_empty_log(tmp_path: Path) -> None:
    Jsonl(tmp_path, 0).train(10, {"loss": 1.0})
    Jsonl(tmp_path, 0)
    assert rows(tmp_path) == []


def test_without_a_tracker_nothing_is_written(tmp_path: Path, make_config: Callable[..., Config]) -> None:
    walk(Tracker(make_config("tracker=none"), tmp_path, 0), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("place", "calls"), [("train", 1), ("checkpoint", 2), ("finish", 4)])
def test_a_sink_that_fails_is_left_out_with_one_warning(
    tmp_path: Path, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, place: str, calls: int
) -> None:
    fake = Fake(place)
    monkeypatch.setattr(module, "Wandb", lambda *_: fake)
    tracker = Tracker(make_config("tracker=wandb"), tmp_path, 0)
    with pytest.warns(UserWarning, match="tracker Fake failed and is left out: the service is away") as warned:
        walk(tracker, tmp_path)
    assert len(warned) == 1
    assert len(fake.calls) == calls
    assert [row["step"] for row in rows(tmp_path)] == [10, 20]


def test_a_sink_that_does_not_start_is_left_out_with_one_warning(
    tmp_path: Path, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(module, "Wandb", refuse)
    with pytest.warns(UserWarning, match="tracker wandb failed and is left out: no network") as warned:
        walk(Tracker(make_config("tracker=wandb"), tmp_path, 0), tmp_path)
    assert len(warned) == 1
    assert [row["step"] for row in rows(tmp_path)] == [10, 20]


def test_a_stop_by_the_keyboard_is_not_swallowed(
    tmp_path: Path, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    tracker = Tracker(make_config(), tmp_path, 0)
    monkeypatch.setattr(tracker.sinks[0], "train", stop)
    with pytest.raises(KeyboardInterrupt):
        tracker.train(10, {"loss": 0.5})


def has_namespaces() -> bool:
    """Whether a process of its own can have another host name."""
    return shutil.which("unshare") is not None and subprocess.run([*OTHER_HOST, "true"], capture_output=True).returncode == 0


OTHER_HOST = ["unshare", "-Ur", "--uts", "sh", "-c", 'hostname my-very-own-machine; exec "$@"', "sh"]


def test_weights_and_biases_works_offline_and_writes_neither_keys_nor_whose_machine_it_is(
    tmp_path: Path, make_config: Callable[..., Config]
) -> None:
    """By its own client, in a home folder; where the system lets a process be on a host of another name, that name too."""
    home = tmp_path / "home" / "alice"
    run, config = home / "run", tmp_path / "config.yaml"
    run.mkdir(parents=True)
    cfg = make_config("tracker=wandb", f"data.path={home / 'photos'}")
    config.write_text(OmegaConf.to_yaml(OmegaConf.create(as_dict(cfg))))
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    private = {"WANDB_API_KEY": KEY, "HF_TOKEN": "hf_" + "FakeFake" * 4, "USER": "alice-the-user", "LOGNAME": "alice-the-user"}
    env = {**os.environ, **private, "HOME": str(home), "HOSTNAME": "my-very-own-machine", "WANDB_MODE": "offline", "PYTHONPATH": path}
    words = [sys.executable, "-c", TRACK, str(run), str(config), "--token=an-override"]
    words = [*OTHER_HOST, *words] if has_namespaces() else words
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, cwd=home)
    assert done.returncode == 0, done.stderr
    assert "sinks left: Jsonl Wandb" in done.stdout
    (offline,) = (run / "wandb").glob("offline-run-*")
    (log,) = offline.glob("*.wandb")
    assert run_key(cfg) in log.name
    assert len([p for p in run.rglob("*") if p.is_file()]) > 5
    assert holding(run, [*private.values(), str(home), "my-very-own-machine", "an-override"]) == []
    assert "~/photos" in (run / "wandb" / "debug.log").read_text(), "the log is there, and shortened"
    assert KEY not in done.stdout + done.stderr


PART = """
import os, sys
from pathlib import Path
import pandas as pd
from omegaconf import OmegaConf
from PIL import Image
from bayesdiff.config.compose import resolve
from bayesdiff.recording.tracker import Tracker

folder, start = Path(sys.argv[1]), int(sys.argv[3])
tracker = Tracker(resolve(OmegaConf.load(sys.argv[2])), folder, start)
for step in (start + 10, start + 20):
    (images := folder / "images" / f"step-{step:06d}").mkdir(parents=True)
    Image.new("RGB", (8, 8), (step, 0, 0)).save(images / "prompt-00-image-00.png")
    tracker.train(step, {"loss": 1 / step})
    curve = folder / "curve.csv"
    before = pd.read_csv(curve) if curve.exists() else pd.DataFrame()
    pd.concat([before, pd.DataFrame({"step": [step], "dino": [step / 100]})]).to_csv(curve, index=False)
    tracker.checkpoint(step, {"dino": step / 100}, images)
if start:
    tracker.finish(pd.DataFrame({"step": [step], "metric": ["dino"], "value": [0.25]}), {"status": "completed"})
"""
"""Two checkpoints of a run from a step on; a part that does not start anew ends it."""


def test_an_offline_run_that_was_resumed_is_whole_in_its_last_folder_and_says_how_to_sync_it(
    tmp_path: Path, make_config: Callable[..., Config]
) -> None:
    from bayesdiff.readings.wandb_runs import offline_files, offline_table

    run, config = tmp_path / "run", tmp_path / "config.yaml"
    run.mkdir()
    config.write_text(OmegaConf.to_yaml(OmegaConf.create(as_dict(make_config("tracker=wandb")))))
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "WANDB_MODE": "offline", "PYTHONPATH": path}
    said = []
    for start in ("0", "20"):
        words = [sys.executable, "-c", PART, str(run), str(config), start]
        said.append(subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=True).stdout)
    files = offline_files(run)
    assert len(files) == 2
    table, _, _ = offline_table(files[-1])
    numbers = {name: [float(value) for value in column if value] for name, column in table.items()}
    assert numbers["train/step"] == numbers["eval/step"] == [10, 20, 30, 40]
    assert numbers["train/loss"] == pytest.approx([1 / 10, 1 / 20, 1 / 30, 1 / 40])
    assert numbers["eval/dino"] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert len(list(files[-1].parent.rglob("*.png"))) == 4, "of every checkpoint its samples"
    (line,) = [line for line in said[1].splitlines() if line.startswith("Weights & Biases: ")]
    assert synced(line.removeprefix("Weights & Biases: ").split(), tmp_path, env) == ([10, 20, 30, 40], [0.1, 0.2, 0.3, 0.4])


def synced(command: list[str], folder: Path, env: dict[str, str]) -> tuple[list[int], list[float]]:
    """Steps and scores that a server on the loop-back interface has after the command that the run named."""
    server = Server()
    places = {f"WANDB_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "CACHE", "DATA")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    there = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "WANDB_ENTITY": "local", "WANDB_ERROR_REPORTING": "false", "PATH": path}
    online = {name: value for name, value in env.items() if name != "WANDB_MODE"}
    try:
        subprocess.run(command, env={**online, **places, **there}, cwd=folder, capture_output=True, timeout=120, check=True)
    finally:
        server.close()
    (run,) = server.runs.values()
    rows = [row for row in run["history"] if "eval/dino" in row]
    return [row["eval/step"] for row in rows], [row["eval/dino"] for row in rows]


def test_a_run_that_is_made_anew_is_not_written_behind_the_one_before(
    tmp_path: Path, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder was removed; its id is the same, and the service still has the other's rows."""
    import wandb

    asked: list[str | None] = []

    def init(**settings: Any) -> None:
        asked.append(settings["resume"])
        raise RuntimeError("no service here")

    monkeypatch.setattr(wandb, "init", init)
    for resumed_at in (0, 20):
        with pytest.warns(UserWarning, match="no service here"):
            Tracker(make_config("tracker=wandb", "tracker.mode=online"), tmp_path, resumed_at)
    assert asked == [None, "allow"]


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_a_run_that_resumes_at_step_0_gives_that_checkpoint_again_and_a_new_run_nothing(
    tmp_path: Path, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    fakes = [Fake("nowhere"), Fake("nowhere")]
    for fake, found in zip(fakes, (False, True), strict=True):
        monkeypatch.setattr(module, "Wandb", lambda *_, fake=fake: fake)
        if found:
            pd.DataFrame({"step": [0], "dino": [0.5]}).to_csv(tmp_path / "curve.csv", index=False)
        Tracker(make_config("tracker=wandb", f"tracker.mode={mode}"), tmp_path, 0)
    assert [fake.calls for fake in fakes] == [[], ["checkpoint"]]


def test_what_a_sweeps_agent_hands_back_is_left_out_under_an_agent_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["bnn=on", "cfg={'seed': 0}", "run_key=abc", "seed=0"]
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    assert module.without_echo(words) == words
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    assert module.without_echo(words) == ["bnn=on", "seed=0"]


def test_a_tracker_that_fails_is_a_line_for_the_record(
    tmp_path: Path, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(module, "Wandb", lambda *_: Fake("checkpoint"))
    tracker = Tracker(make_config("tracker=wandb"), tmp_path, 0, lines.append)
    with pytest.warns(UserWarning, match="the service is away"):
        walk(tracker, tmp_path)
    assert lines == ["tracker Fake failed and is left out: the service is away"]
