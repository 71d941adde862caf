"""Where a run reports to. The run folder is the truth; trackers mirror it and never stop training."""

from __future__ import annotations

import json
import logging
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bayesdiff.config.identity import arm_name, as_dict, run_key, run_name
from bayesdiff.config.schema import Backend, Config, TrackerMode
from bayesdiff.core.errors import first_line
from bayesdiff.core.files import write_text
from bayesdiff.core.layout import CURVE, EVALUATIONS, MAIN, TRAIN_LOG, images_folder
from bayesdiff.core.output import say
from bayesdiff.core.privacy import public
from bayesdiff.recording.sinks import Mlflow, TensorBoard, Trackio, shown, space_of

if TYPE_CHECKING:
    import pandas as pd

TRACKED_KEYS = ("cfg", "run_key")
"""Keys of a run's configuration in Weights & Biases."""


PRIVATE: dict[str, Any] = {
    "x_disable_meta": True, "x_disable_machine_info": True, "disable_git": True, "disable_code": True, "save_code": False,
    "x_save_requirements": False, "host": "", "username": "", "email": "",
}  # fmt: skip
"""Settings of Weights & Biases without which it keeps host, user, folders, the remote of git and the words of the command."""


def _in_public(record: logging.LogRecord) -> bool:
    """A line of W&B's ``debug.log``, which names folders, without secrets and home folder."""
    record.msg, record.args = public(record.getMessage()), ()
    return True


def without_echo(arguments: list[str]) -> list[str]:
    """Leave out what a sweep's agent hands back of a run that it takes up again: the tracker's own copy of the settings."""
    if "WANDB_SWEEP_ID" not in os.environ:
        return arguments
    return [argument for argument in arguments if argument.partition("=")[0] not in TRACKED_KEYS]


class Sink(Protocol):
    """One place that training rows, checkpoint rows and the end of a run are written to."""

    def train(self, step: int, row: dict[str, float]) -> None: ...
    def checkpoint(self, step: int, row: dict[str, float], images: Path, evaluation: str) -> None: ...
    def finish(self, scores: pd.DataFrame, summary: dict[str, Any]) -> None: ...
    def where(self) -> str:
        """How to look at what was written, or how to sync it; empty where there is nothing to say."""


class Jsonl:
    """``train.jsonl``: one row every ``log_every`` steps; rows after the resumed step are dropped."""

    def __init__(self, folder: Path, resumed_at: int):
        self.path = folder / TRAIN_LOG
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        kept = [line for line in lines if _step_of(line) <= resumed_at]
        write_text(self.path, "".join(f"{line}\n" for line in kept))

    def train(self, step: int, row: dict[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as log:
            finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
            log.write(json.dumps({"step": step, **finite}, allow_nan=False) + "\n")

    def checkpoint(self, step: int, row: dict[str, float], images: Path, evaluation: str) -> None:
        """Checkpoint rows are ``curve.csv``'s."""

    def finish(self, scores: pd.DataFrame, summary: dict[str, Any]) -> None:
        """Nothing to close."""

    def where(self) -> str:
        return ""


def _step_of(line: str) -> float:
    """Step of a log line; a torn last line (killed while writing) counts as after everything."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


class Wandb:
    """Weights & Biases, offline or online, one run here to one run there (id: the run key, or what a sweep's agent gave).

    A run that begins at step 0 is written over what the service has of its id: one that is made anew is not the end of the one before.
    """

    def __init__(self, cfg: Config, folder: Path, resumed_at: int):
        import wandb

        log = logging.getLogger("wandb")
        log.addFilter(_in_public)  # of what is said until there is a file; a filter is added once
        known = {name: value for name, value in PRIVATE.items() if name in wandb.Settings.model_fields}
        self.run = wandb.init(
            project=cfg.tracker.project, entity=cfg.tracker.entity, mode=cfg.tracker.mode.value, dir=str(folder),
            id=os.environ.get("WANDB_RUN_ID", run_key(cfg)), resume="allow" if resumed_at else None, name=run_name(cfg), job_type="train",
            group=f"{cfg.experiment_name}-{cfg.data.subject}", tags=[cfg.method.name, arm_name(vars(cfg.bnn))],
            config=dict(zip(TRACKED_KEYS, (public(as_dict(cfg)), run_key(cfg)), strict=True)), reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, **known),
        )  # fmt: skip
        for handler in log.handlers:
            handler.addFilter(_in_public)
        self._drop_links()
        for space in ("train", "eval"):
            self.run.define_metric(f"{space}/step")
            self.run.define_metric(f"{space}/*", step_metric=f"{space}/step")

    def train(self, step: int, row: dict[str, float]) -> None:
        self.run.log({"train/step": step, **{f"train/{k}": v for k, v in row.items()}})

    def checkpoint(self, step: int, row: dict[str, float], images: Path, evaluation: str) -> None:
        import wandb

        space = space_of(evaluation)
        samples = [wandb.Image(str(path), caption=path.stem) for path in shown(images)]
        self.run.log({"eval/step": step, **{f"{space}/{k}": v for k, v in row.items()}, f"{space}/samples": samples})

    def finish(self, scores: pd.DataFrame, summary: dict[str, Any]) -> None:
        import wandb

        table: Any = wandb.Table(dataframe=scores)
        table.bind_to_run(self.run, "scores", self.run.step)  # a file of the run: as an artifact it would lie below the user's home
        self.run.log({"scores": table})
        self.run.summary.update(summary)
        self.run.finish()
        self._drop_links()

    def _drop_links(self) -> None:
        """A link to the client's own log in the user's cache names the home folder, and leads nowhere on another machine."""
        for path in (Path(self.run.dir).parent / "logs").glob("*"):
            if path.is_symlink():
                path.unlink()

    def where(self) -> str:
        """Of an offline run that was resumed the last folder alone is whole."""
        return f"Weights & Biases: wandb sync {Path(self.run.dir).parent}" if self.run.offline else ""


def replay(sink: Sink, folder: Path, resumed_at: int) -> None:
    """Give a sink that begins anew what a run had written before it was resumed: training rows and checkpoint rows, by step."""
    rows = [json.loads(line) for line in (folder / TRAIN_LOG).read_text(encoding="utf-8").splitlines()]
    places = {MAIN: folder} | {place.name: place for place in sorted((folder / EVALUATIONS).glob("*"))}
    curves = {name: _curve_rows(place, resumed_at) for name, place in places.items()}
    for step in sorted({row["step"] for row in rows} | {step for curve in curves.values() for step in curve}):
        for row in rows:
            if row["step"] == step:
                sink.train(step, {name: math.nan if value is None else value for name, value in row.items() if name != "step"})
        for name, curve in curves.items():
            if step in curve:
                sink.checkpoint(step, curve[step], images_folder(places[name], step), name)


def _curve_rows(place: Path, until: int) -> dict[int, dict[str, float]]:
    """Step -> a checkpoint's row of ``curve.csv``, as it was reported."""
    import pandas as pd

    if not (place / CURVE).exists():
        return {}
    table = pd.read_csv(place / CURVE, float_precision="round_trip")
    rows = table[table["step"] <= until].to_dict("records")
    return {int(row["step"]): {str(name): float(value) for name, value in row.items() if name != "step"} for row in rows}


def _wandb(cfg: Config, folder: Path, resumed_at: int) -> Sink:
    """Online, the service has what came before a resumed step; a run that is written anew there or offline is to be whole.

    One that resumes at step 0 has that checkpoint behind it; a new one has nothing to give again.
    """
    sink = Wandb(cfg, folder, resumed_at)
    if not resumed_at or cfg.tracker.mode is TrackerMode.offline:
        replay(sink, folder, resumed_at)
    return sink


OPENED: dict[Backend, Callable[[Config, Path, int], Sink]] = {
    Backend.wandb: _wandb,
    Backend.tensorboard: TensorBoard,
    Backend.mlflow: lambda cfg, folder, _: Mlflow(cfg, folder),
    Backend.trackio: lambda cfg, folder, _: Trackio(cfg, folder),
}
"""What reports to more than the run folder."""


class Tracker:
    """All sinks of a run; one that fails is warned about once and left out from then on.

    Args:
        note: is given the line that says so, for the run's record.
    """

    def __init__(self, cfg: Config, folder: Path, resumed_at: int, note: Callable[[str], None] = lambda line: None):
        self.sinks: list[Sink] = []
        self._note = note
        if cfg.tracker.name is not Backend.none:
            self._guard("jsonl", lambda: self.sinks.append(Jsonl(folder, resumed_at)))
        if cfg.tracker.name in OPENED:
            self._guard(cfg.tracker.name.value, lambda: self.sinks.append(OPENED[cfg.tracker.name](cfg, folder, resumed_at)))

    def _guard(self, name: str, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:  # whatever a tracker raises, training goes on
            if isinstance(error, OSError) and name.lower() == "jsonl":
                raise  # the log is a table of the run: with a row missing it would be another one
            line = f"tracker {name} failed and is left out: {first_line(error)}"
            self._note(line)
            warnings.warn(line, stacklevel=2)
            return False
        return True

    def _each(self, action: Callable[[Sink], None]) -> None:
        self.sinks = [s for s in self.sinks if self._guard(type(s).__name__, lambda sink=s: action(sink))]  # type: ignore[misc]

    @property
    def reads_pictures(self) -> bool:
        """Whether a sink reads a checkpoint's pictures from its folder: they have to be there when it is told of it."""
        return any(not isinstance(sink, Jsonl) for sink in self.sinks)

    def train(self, step: int, row: dict[str, float]) -> None:
        self._each(lambda sink: sink.train(step, row))

    def checkpoint(self, step: int, row: dict[str, float], images: Path, evaluation: str = MAIN) -> None:
        """One evaluation's row of a checkpoint."""
        self._each(lambda sink: sink.checkpoint(step, row, images, evaluation))

    def finish(self, scores: pd.DataFrame, summary: dict[str, Any]) -> None:
        """Close every sink, and say where to look at the run or how to sync it."""
        self._each(lambda sink: sink.finish(scores, summary))
        self._each(lambda sink: _say(sink.where()))


def _say(line: str) -> None:
    if line:
        say(line)
