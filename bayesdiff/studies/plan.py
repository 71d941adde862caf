"""A study: the runs that one table or figure of the paper needs, as data.

``experiments/<name>.yaml`` names what it feeds, a base experiment, fixed overrides, a grid of axes, and for
every model what it takes there (subjects, learning rates, the cost of a run). An axis is a list of
values (``seed: [0, 1]``) or a mapping from a label to the overrides it stands for. The product of the axes
is the list of runs; each composes to one configuration, and that names its folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from bayesdiff.config.compose import PACKAGE, compose
from bayesdiff.config.identity import run_name
from bayesdiff.config.schema import Config
from bayesdiff.core.errors import UserError, first_line
from bayesdiff.core.layout import CLAIM_LOCKS, FAILURES, LOCK, RECORDS
from bayesdiff.recording.record import RunRecord, load_record, whole_record

if TYPE_CHECKING:
    pass

_SHIPPED = PACKAGE / "experiments" if (PACKAGE / "experiments").is_dir() else PACKAGE.parent / "experiments"
EXPERIMENTS = Path(os.environ.get("BAYESDIFF_EXPERIMENTS", _SHIPPED))
"""The studies: your own folder by the environment variable; else inside an installed wheel, or beside the package."""
ENDS = {"completed": "done", "diverged": "diverged"}
"""Status in the record of a run that has come to its end, and the state it is in then."""
REQUIRED = {"title", "experiment", "grid", "models"}
KEYS = {"paper", "feeds", "overrides", "compare", "x", "cost"}
"""What a study's file has to have, and what it may have besides."""
STATES = (*ENDS.values(), "running", "stopped", "failed", "missing")


@dataclass(frozen=True)
class Cell:
    """One run of a study: its place in the grid, and the overrides that make it."""

    labels: dict[str, str]
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        return " ".join(f"{axis}={label}" for axis, label in self.labels.items())


@dataclass(frozen=True)
class Study:
    """One study on one model."""

    name: str
    title: str
    paper: str
    """The table or figure of the paper it answers; empty for our own questions."""
    feeds: tuple[str, ...]
    model: str
    minutes: float
    """Of one run, before any record says better."""
    cells: tuple[Cell, ...] = field(repr=False)
    compare: tuple[str, str] | None = None
    """Axis and label of the arm that others are compared to."""
    x: str = ""
    """Axis along which the last checkpoint is drawn; empty for curves over steps alone."""
    cost: bool = False
    """Whether the table has time, memory and the share of Bayesian weights."""


def runs_of(model: str) -> Path:
    """Where the run folders of all studies on a model are, unless a command says otherwise."""
    return Path("runs") / model


def study_names() -> list[str]:
    """Every study there is: files of ``experiments/`` with a grid (``detector_calibration`` has none)."""
    return [path.stem for path in sorted(EXPERIMENTS.glob("*.yaml")) if "\ngrid:" in path.read_text(encoding="utf-8")]


def models_of(name: str) -> list[str]:
    """The models that a study has."""
    return list(_content(name)["models"])


def _content(name: str) -> dict[str, Any]:
    """A study's file as it stands; raises ``UserError`` for an unknown study or key."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    path = EXPERIMENTS / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"study {name}: unknown; choose one of {', '.join(study_names())}")
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is no mapping; docs/extending.md has a study of one's own")
    if unknown := set(content) - (KEYS | REQUIRED):
        raise UserError(f"{path}: unknown key {', '.join(sorted(unknown))}; a study has {', '.join(sorted(KEYS | REQUIRED))}")
    if lacking := REQUIRED - set(content):
        raise UserError(f"{path}: lacks {', '.join(sorted(lacking))}; docs/extending.md has a study of one's own")
    for key in ("grid", "models"):
        if not isinstance(content[key], dict) or not content[key]:
            raise UserError(f"{path}: {key} is no mapping; docs/extending.md has a study of one's own")
    return content


def load_study(name: str, model: str = "toybox") -> Study:
    """Read ``experiments/<name>.yaml`` for one model.

    Raises:
        UserError: no such study, a model it does not know, or keys it should not have.
    """
    path, content = EXPERIMENTS / f"{name}.yaml", _content(name)
    models = content["models"]
    if model not in models:
        raise UserError(f"study {name}: has no model {model}; choose one of {', '.join(models)}")
    scale = models[model] if isinstance(models[model], dict) else {}
    if unknown := set(scale) - (own := {"minutes", "title", "experiment", "overrides", "grid"}):
        raise UserError(f"{path}: models.{model} has the unknown key {', '.join(sorted(unknown))}; it takes {', '.join(sorted(own))}")
    if not isinstance(scale.get("minutes"), int | float):
        raise UserError(f"{path}: models.{model} lacks minutes: of one run, a number")
    grid = {**content["grid"], **scale.get("grid", {})}
    experiment = scale.get("experiment", content["experiment"])
    fixed = [f"+experiment={experiment}", f"model={model}", *content.get("overrides", []), *scale.get("overrides", [])]
    return Study(
        name, scale.get("title", content["title"]), content.get("paper", ""), tuple(content.get("feeds", [])), model,
        float(scale["minutes"]), tuple(_cells(grid, fixed)), _compared(content.get("compare"), grid, path),
        _axis(content.get("x", ""), grid, path), bool(content.get("cost", False)),
    )  # fmt: skip


def join_models(studies: Sequence[Study]) -> Study:
    """One study on several models as one, the model its first axis: Table 2 has three."""
    cells = [replace(cell, labels={"model": study.model, **cell.labels}) for study in studies for cell in study.cells]
    return replace(studies[0], model="+".join(study.model for study in studies), cells=tuple(cells))


def _axis(axis: str, grid: dict[str, Any], path: Path) -> str:
    if axis and axis not in grid:
        raise UserError(f"{path}: x names {axis}, which is not in the grid")
    return axis


def chosen_studies(names: Sequence[str], model: str) -> list[Study]:
    """The named studies on one model; without names, every study that has the model.

    Raises:
        UserError: a named study that is unknown or has no such model; without names, a model that no study has.
    """
    if names:
        return [load_study(name, model) for name in names]
    models = {name: models_of(name) for name in study_names()}
    if not (having := [name for name in models if model in models[name]]):
        there = sorted({one for of_study in models.values() for one in of_study})
        raise UserError(f"model {model}: no study has it; choose one of {', '.join(there)}")
    return [load_study(name, model) for name in having]


def _compared(compare: dict[str, str] | None, grid: dict[str, Any], path: Path) -> tuple[str, str] | None:
    if compare is None:
        return None
    if not isinstance(compare, dict) or len(compare) != 1:
        raise UserError(f"{path}: compare is {compare}; give one axis and its label, such as bnn: off")
    ((axis, label),) = compare.items()
    if axis not in grid or str(label) not in [str(value) for value in grid[axis]]:
        raise UserError(f"{path}: compare names {axis} {label}, which is not in the grid")
    return axis, str(label)


def _cells(grid: dict[str, Any], fixed: list[str]) -> Iterator[Cell]:
    axes = [[(axis, label, overrides) for label, overrides in _choices(axis, values)] for axis, values in grid.items()]
    for chosen in product(*axes):
        own = [override for _, _, overrides in chosen for override in overrides]
        yield Cell({axis: label for axis, label, _ in chosen}, (*fixed, *own))


def _choices(axis: str, values: Any) -> list[tuple[str, list[str]]]:
    """Labels and overrides of an axis."""
    if isinstance(values, dict):
        return [(str(label), [o] if isinstance(o, str) else list(o)) for label, o in values.items()]
    if isinstance(values, list) and values:
        return [(str(value), [f"{axis}={value}"]) for value in values]
    raise UserError(f"grid.{axis}: give a list of values, or a mapping from labels to overrides")


def narrowed(study: Study, chosen: Sequence[str]) -> Study:
    """The cells of a study whose axes have the labels of ``axis=label`` words.

    Raises:
        UserError: an axis that the study does not have, or a label that its axis does not have.
    """
    wanted = [(axis, label) for word in chosen for axis, _, label in [word.partition("=")]]
    axes = {axis: list(dict.fromkeys(cell.labels[axis] for cell in study.cells)) for axis in study.cells[0].labels}
    if unknown := [axis for axis, _ in wanted if axis not in axes]:
        raise UserError(f"study {study.name}: no axis {', '.join(unknown)}; it has {', '.join(axes)}")
    cells = tuple(cell for cell in study.cells if all(cell.labels[axis] == label for axis, label in wanted))
    if not cells:
        raise UserError(f"study {study.name}: no run with {', '.join(chosen)}; there are {axes}")
    return replace(study, cells=cells)


@lru_cache(maxsize=8192)
def _composed(overrides: tuple[str, ...]) -> Config:
    return compose(overrides)


def compose_cell(cell: Cell, extra: tuple[str, ...] = ()) -> Config:
    """The validated configuration of a run, as the command of record composes it.

    Raises:
        UserError: overrides that do not compose.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        return _composed((*cell.overrides, *extra))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{cell.name}: {first_line(error)}") from error


@dataclass(frozen=True)
class Planned:
    """One run of a study and where it stands."""

    cell: Cell
    folder: Path
    state: str
    """One of ``STATES``: running is held by a process now, stopped was left unfinished and goes on."""
    ended: RunRecord | None = field(default=None, repr=False)
    """Its record, once it has come to its end."""


def is_held(lock: Path) -> bool:
    """Whether a living process holds a lock file; the lock of a dead one is free."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def claim_file(root: Path, folder: Path) -> Path:
    return root / CLAIM_LOCKS / f"{folder.name}.lock"


def failure_file(root: Path, folder: Path) -> Path:
    return root / FAILURES / f"{folder.name}.json"


def end_of(folder: Path, results: Path | None = None) -> RunRecord | None:
    """The record of a run that has come to its end, from its folder or, collected, from ``results``; else None."""
    record = load_record(folder)
    if record is not None and record.status in ENDS:
        return record
    return None if results is None else whole_record(results / RECORDS / folder.name)


def state_of(root: Path, folder: Path) -> str:
    """Where a run that has not come to its end stands, from its locks and its failure note."""
    if is_held(folder / LOCK) or is_held(claim_file(root, folder)):
        return "running"
    if failure_file(root, folder).exists():
        return "failed"
    return "stopped" if load_record(folder) is not None else "missing"


def plan(study: Study, root: Path, extra: tuple[str, ...] = (), results: Path | None = None) -> list[Planned]:
    """Every run of a study below ``root``; one whose record is among ``results`` is done, wherever it was done.

    Raises:
        UserError: a run does not compose, or two are the same.
    """
    planned: dict[Path, Planned] = {}
    for cell in study.cells:
        folder = root / run_name(compose_cell(cell, extra))
        if folder in planned:
            raise UserError(f"study {study.name}: {cell.name} is the same run as {planned[folder].cell.name}; an axis changes nothing")
        record = end_of(folder, results)
        planned[folder] = Planned(cell, folder, ENDS[record.status] if record else state_of(root, folder), record)
    return list(planned.values())
