"""TensorBoard, MLflow and Trackio by their own clients, on a local store: what a run reports is there, also after a resume."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from searched import holding

from bayesdiff.config.identity import run_key
from bayesdiff.config.schema import Config
from bayesdiff.recording.tracker import Tracker

SCORES = pd.DataFrame({"step": [40], "prompt": [0], "image": [0], "metric": ["dino"], "reference": ["a.png"], "value": [0.5]})

HOST = "my-very-own-machine"
Walk = Callable[[str], tuple[Config, Path, str]]


def stretch(cfg: Config, run: Path, start: int, steps: tuple[int, ...]) -> Tracker:
    """A run from a step on: a training row and a checkpoint with its samples at each of ``steps``."""
    tracker = Tracker(cfg, run, start)
    for step in steps:
        (images := run / "images" / f"step-{step:06d}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (step, 0, 0)).save(images / "prompt-00-image-00.png")
        tracker.train(step, {"loss": 1 / step})
        tracker.checkpoint(step, {"dino": step / 100}, images)
        tracker.checkpoint(step, {"dino": step / 200}, images, "free")
    return tracker


@pytest.fixture
def walked(tmp_path: Path, make_config: Callable[..., Config], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Walk:
    """A run that was killed behind step 30, resumed at step 20 and finished; returns what it said at its end.

    Its photographs are below the user's home, and nothing that is written names that or the host.
    """

    def walk(name: str) -> tuple[Config, Path, str]:
        (home := tmp_path / "home" / "alice").mkdir(parents=True)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setattr(socket, "gethostname", lambda: HOST)
        cfg, run = make_config(f"tracker={name}", "tracker.project=own", f"data.path={home / 'photos'}"), tmp_path / "run"
        run.mkdir()
        stretch(cfg, run, 0, (10, 20, 30))
        tracker = stretch(cfg, run, 20, (30, 40))
        assert [type(sink).__name__.lower() for sink in tracker.sinks] == ["jsonl", name]
        tracker.finish(SCORES, {"status": "completed", "best_step": 40})
        assert len(tracker.sinks) == 2, "no sink failed"
        assert holding(run, [HOST, str(home)]) == []
        return cfg, run, capsys.readouterr().out

    return walk


def test_tensorboard(walked: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="the extra tensorboard is not installed"
    )
    from tensorboard.summary.writer import event_file_writer

    # The second file's number sorts before the first's: read in that order, the resumed steps would come first and twice.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(9))
    _, run, said = walked("tensorboard")
    found = accumulators.EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    for tag, scale in (("eval/dino", 100), ("eval/free/dino", 200)):
        assert [(event.step, event.value) for event in found.Scalars(tag)] == [
            (step, pytest.approx(step / scale)) for step in (10, 20, 30, 40)
        ], "rows behind the resumed step are there once"
    assert [event.step for event in found.Scalars("train/loss")] == [10, 20, 30, 40]
    assert {event.step for event in found.Images("eval/samples/prompt-00-image-00")} == {10, 20, 30, 40}
    (verdict,) = found.Tensors("verdict/text_summary")
    assert b"best_step: 40" in verdict.tensor_proto.string_val[0]
    assert f"tensorboard --logdir {run.parent}" in said


def test_mlflow(walked: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    pytest.importorskip("alembic", reason="the extra mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    cfg, run, said = walked("mlflow")
    uri = f"sqlite:///{run / 'mlflow' / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    (found,) = client.search_runs([client.get_experiment_by_name("own").experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.tags["run_key"] == run_key(cfg)
    history = client.get_metric_history(found.info.run_id, "eval/dino")
    assert {(one.step, one.value) for one in history} == {(10, 0.1), (20, 0.2), (30, 0.3), (40, 0.4)}
    assert {one.step for one in client.get_metric_history(found.info.run_id, "train/loss")} == {10, 20, 30, 40}
    names = {one.path for one in client.list_artifacts(found.info.run_id)}
    assert names == {"config.json", "scores.csv", "verdict.json", "eval"}
    assert {one.path for one in client.list_artifacts(found.info.run_id, "eval/step-000040")} == {"eval/step-000040/prompt-00-image-00.png"}
    assert f"mlflow ui --backend-store-uri {uri}" in said


def test_trackio(walked: Walk, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
    pytest.importorskip("trackio", reason="the extra trackio is not installed")
    from trackio.sqlite_storage import SQLiteStorage

    cfg, _, said = walked("trackio")
    (name,) = SQLiteStorage.get_runs("own")
    assert name.endswith(run_key(cfg))
    rows = SQLiteStorage.get_logs("own", name)
    assert {row["step"]: row["eval/dino"] for row in rows if "eval/dino" in row} == {10: 0.1, 20: 0.2, 30: 0.3, 40: 0.4}
    assert {row["step"] for row in rows if "train/loss" in row} == {10, 20, 30, 40}
    assert all("eval/samples/prompt-00-image-00" in row for row in rows if "eval/dino" in row)
    assert said == 'Trackio: trackio show --project "own"\n'


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "trackio"])
def test_a_tracker_that_is_not_installed_is_left_out_with_its_name(
    tmp_path: Path, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import sys

    for module in ("torch.utils.tensorboard", "mlflow", "trackio"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.warns(UserWarning, match=f"tracker {name} failed and is left out: .*{name}"):
        tracker = Tracker(make_config(f"tracker={name}"), tmp_path, 0)
    assert [type(sink).__name__ for sink in tracker.sinks] == ["Jsonl"]


def test_workers_that_begin_on_a_new_mlflow_server_share_its_experiment(
    tmp_path: Path, make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both look for it before either has made it."""
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    pytest.importorskip("alembic", reason="the extra mlflow is not installed")
    monkeypatch.chdir(tmp_path)  # where a server without a setting of its own has its artifacts
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'server.db'}")
    looked: list[str] = []
    found = mlflow.MlflowClient.get_experiment_by_name

    def too_early(client: Any, name: str) -> Any:
        looked.append(name)
        return found(client, name) if len(looked) > 2 else None

    monkeypatch.setattr(mlflow.MlflowClient, "get_experiment_by_name", too_early)
    for seed in (0, 1):
        (run := tmp_path / str(seed)).mkdir()
        tracker = Tracker(make_config("tracker=mlflow", "tracker.project=own", f"seed={seed}"), run, 0)
        assert [type(sink).__name__ for sink in tracker.sinks] == ["Jsonl", "Mlflow"]
    client = mlflow.MlflowClient()
    assert len(client.search_runs([found(client, "own").experiment_id])) == 2
