"""TensorBoard, MLflow and Trackio as places that a run reports to (``tracker``), each by its own client."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bayesdiff.config.identity import as_dict, run_key, run_name
from bayesdiff.config.schema import Config
from bayesdiff.core.layout import MAIN
from bayesdiff.core.privacy import public

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 16
"""Samples of a checkpoint that a tracker is given."""
TENSORBOARD, MLFLOW = "tensorboard", "mlflow"
"""Below a run folder."""


def space_of(evaluation: str) -> str:
    """What stands before the names of an evaluation's metrics."""
    return "eval" if evaluation == MAIN else f"eval/{evaluation}"


def shown(images: Path) -> list[Path]:
    """The samples that a tracker is given, in order."""
    return sorted(images.glob("*.png"))[:SHOWN]


def _lines(summary: dict[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in summary.items())


def _wait_for_the_next_second(folder: Path) -> None:
    """TensorBoard reads event files by name, which holds the second of their start, then the host and numbers unpadded (9 after 10)."""
    newest = max(
        (int(found[1]) for path in folder.glob("events.out.*") if (found := re.search(r"tfevents\.(\d+)\.", path.name))), default=0
    )
    if 0 <= (ahead := newest + 1 - time.time()) <= 1:  # further ahead, the clock was set back: waiting would not mend that
        time.sleep(ahead)


@contextmanager
def _nameless_host() -> Iterator[None]:
    """TensorBoard puts the host's name into the names of its files, and has no setting against it; the run's lock keeps hosts apart."""
    from tensorboard.summary.writer import event_file_writer as module

    real = module.socket
    module.socket = SimpleNamespace(gethostname=lambda: "host")
    try:
        yield
    finally:
        module.socket = real


class TensorBoard:
    """Event files in ``tensorboard/`` of the run folder; rows after the resumed step are purged there."""

    def __init__(self, cfg: Config, folder: Path, resumed_at: int):
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder / TENSORBOARD
        again = self.folder.exists()
        _wait_for_the_next_second(self.folder)
        with _nameless_host():
            self.writer: Any = SummaryWriter(str(self.folder), purge_step=resumed_at + 1 if again else None)
        if not again:
            self.writer.add_text("run", f"{run_name(cfg)} ({run_key(cfg)})", 0)

    def train(self, step: int, row: dict[str, float]) -> None:
        for name, value in row.items():
            self.writer.add_scalar(f"train/{name}", value, step)

    def checkpoint(self, step: int, row: dict[str, float], images: Path, evaluation: str) -> None:
        space = space_of(evaluation)
        for name, value in row.items():
            self.writer.add_scalar(f"{space}/{name}", value, step)
        for path in shown(images):
            self.writer.add_image(f"{space}/samples/{path.stem}", np.asarray(Image.open(path).convert("RGB")), step, dataformats="HWC")
        self.writer.flush()  # a run that is killed has its checkpoints

    def finish(self, scores: pd.DataFrame, summary: dict[str, Any]) -> None:
        self.writer.add_text("verdict", _lines(summary), int(scores["step"].max()) if len(scores) else 0)
        self.writer.close()

    def where(self) -> str:
        return f"TensorBoard: tensorboard --logdir {self.folder.parent.parent}"


class Mlflow:
    """MLflow: the server of ``MLFLOW_TRACKING_URI``, else a database in ``mlflow/`` of the run folder; a resumed run goes on there."""

    def __init__(self, cfg: Config, folder: Path):
        from mlflow import MlflowClient
        from mlflow.entities import RunStatus

        self.local = "" if os.environ.get("MLFLOW_TRACKING_URI") else f"sqlite:///{(folder / MLFLOW / 'mlflow.db').absolute()}"
        if self.local:
            (folder / MLFLOW).mkdir(exist_ok=True)
        self.client = MlflowClient(tracking_uri=self.local or None)
        place = str((folder / MLFLOW / "artifacts").absolute()) if self.local else None
        experiment = self._experiment(cfg.tracker.project, place)
        earlier = self.client.search_runs([experiment], f"tags.run_key = '{run_key(cfg)}'", max_results=1)
        if earlier:
            self.run_id: str = earlier[0].info.run_id
            self.client.update_run(self.run_id, status=RunStatus.to_string(RunStatus.RUNNING))
        else:
            self.run_id = self.client.create_run(experiment, tags={"run_key": run_key(cfg)}, run_name=run_name(cfg)).info.run_id
            self.client.log_dict(self.run_id, public(as_dict(cfg)), "config.json")

    def _experiment(self, project: str, place: str | None) -> str:
        """The id of the project's experiment; of several workers that begin on a new server one makes it."""
        from mlflow.exceptions import MlflowException

        if (found := self.client.get_experiment_by_name(project)) is None:
            try:
                return str(self.client.create_experiment(project, artifact_location=place))
            except MlflowException:
                if (found := self.client.get_experiment_by_name(project)) is None:
                    raise
        return str(found.experiment_id)

    def _log(self, step: int, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.run_id, metrics=[Metric(name, float(value), now, step) for name, value in values.items()])

    def train(self, step: int, row: dict[str, float]) -> None:
        self._log(step, {f"train/{name}": value for name, value in row.items()})

    def checkpoint(self, step: int, row: dict[str, float], images: Path, evaluation: str) -> None:
        space = space_of(evaluation)
        self._log(step, {f"{space}/{name}": value for name, value in row.items()})
        for path in shown(images):
            self.client.log_artifact(self.run_id, str(path), f"{space}/step-{step:06d}")

    def finish(self, scores: pd.DataFrame, summary: dict[str, Any]) -> None:
        self.client.log_text(self.run_id, scores.to_csv(index=False), "scores.csv")
        self.client.log_dict(self.run_id, summary, "verdict.json")
        self.client.set_terminated(self.run_id)

    def where(self) -> str:
        return f"MLflow: mlflow ui --backend-store-uri {self.local}" if self.local else ""


class Trackio:
    """Trackio: its local store (``TRACKIO_DIR``), or the Space of ``TRACKIO_SPACE_ID``; a resumed run goes on there."""

    def __init__(self, cfg: Config, folder: Path):
        import trackio

        self.project = cfg.tracker.project
        with redirect_stdout(StringIO()):  # it says how to look at the run in several lines; ``where`` does in one
            self.run = trackio.init(
                project=self.project, name=run_name(cfg), resume="allow", config={"cfg": public(as_dict(cfg)), "run_key": run_key(cfg)},
                embed=False, auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip

    def train(self, step: int, row: dict[str, float]) -> None:
        self.run.log({f"train/{name}": value for name, value in row.items()}, step=step)

    def checkpoint(self, step: int, row: dict[str, float], images: Path, evaluation: str) -> None:
        import trackio

        space = space_of(evaluation)
        pictures = {f"{space}/samples/{path.stem}": trackio.Image(str(path), caption=path.stem) for path in shown(images)}
        self.run.log({**{f"{space}/{name}": value for name, value in row.items()}, **pictures}, step=step)

    def finish(self, scores: pd.DataFrame, summary: dict[str, Any]) -> None:
        import trackio

        self.run.log({"scores": trackio.Table(dataframe=scores), "verdict": trackio.Markdown(_lines(summary))})
        with redirect_stdout(StringIO()):
            trackio.finish()

    def where(self) -> str:
        return f'Trackio: trackio show --project "{self.project}"'
