"""A study: the runs that one table or figure of the paper needs, as data.

``experiments/<name>.yaml`` names what it feeds, a base experiment, fixed overrides, a grid of axes, and for
every model what it takes there (subjects, learning rates, the cost of a run). An axis is a list of
values (``seed: [0, 1]``) or a mapping from a label to the overrides it stands for. The product of the axes
is the list of runs; each composes to one configuration, and that names its folder. ``evaluations: [main, plain]`` reads
each run several times: it multiplies the rows of a table and not the runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from bayesdiff.config.compose import PACKAGE
from bayesdiff.config.derive import derive
from bayesdiff.config.schema import Config
from bayesdiff.config.suggestions import explain
from bayesdiff.config.words import override
from bayesdiff.core.errors import UserError, did_you_mean, shortened
from bayesdiff.core.layout import MAIN
from bayesdiff.studies.study_file import Source, label_of, read_source

_SHIPPED = PACKAGE / "experiments" if (PACKAGE / "experiments").is_dir() else PACKAGE.parent / "experiments"
EXPERIMENTS = Path(os.environ.get("BAYESDIFF_EXPERIMENTS", _SHIPPED))
"""The studies: your own folder by the environment variable; else inside an installed wheel, or beside the package."""
EVALUATION = "evaluation"
"""The axis of rows that ``evaluations:`` makes."""


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
    evaluations: tuple[str, ...] = ()
    """Evaluations that every run is read by, a row each; empty for the run's own alone, without an axis."""
    verdicts: bool = False
    """Whether the page lists every run's verdict."""


def runs_of(model: str) -> Path:
    """Where the run folders of all studies on a model are, unless a command says otherwise."""
    return Path("runs") / model


def study_names() -> list[str]:
    """Every study there is: files of ``experiments/`` with a grid (``detector_calibration`` has none)."""
    return [path.stem for path in sorted(EXPERIMENTS.glob("*.yaml")) if b"\ngrid:" in path.read_bytes()]


def models_of(name: str) -> list[str]:
    """The models that a study has."""
    return list(_source(name).content["models"])


def _source(name: str) -> Source:
    """A study's checked file; raises ``UserError`` for an unknown study, and as ``read_source``."""
    path = EXPERIMENTS / f"{name}.yaml"
    if path not in EXPERIMENTS.glob("*.yaml"):  # which a name with folders, or too long for a file, is not either
        known = study_names()
        raise UserError(f"study {shortened(name)}: unknown{did_you_mean(name, known)}; choose one of {', '.join(known)}")
    return read_source(path)


def load_study(name: str, model: str = "toybox") -> Study:
    """Read ``experiments/<name>.yaml`` for one model.

    Raises:
        UserError: no such study, a model it does not know, or a file that says something wrong, with its line.
    """
    source = _source(name)
    content, models = source.content, source.content["models"]
    if model not in models:
        raise UserError(f"study {name}: has no model {model}{did_you_mean(model, models)}; choose one of {', '.join(models)}")
    scale = models[model]
    grid = {**content["grid"], **scale.get("grid", {})}
    experiment = scale.get("experiment", content["experiment"])
    fixed = [override("+experiment", experiment), override("model", model), *content.get("overrides", []), *scale.get("overrides", [])]
    evaluations = tuple(dict.fromkeys(content.get("evaluations", [])))
    axes = {axis: _labels(values) for axis, values in grid.items()} | ({EVALUATION: list(evaluations)} if evaluations else {})
    return Study(
        name, scale.get("title", content["title"]), content.get("paper", ""), tuple(content.get("feeds", [])), model,
        float(scale["minutes"]), tuple(_cells(grid, fixed)), _compared(content.get("compare"), axes, source),
        _axis(content.get("x", ""), axes, source), bool(content.get("cost", False)), evaluations,
        bool(content.get("verdicts", False)),
    )  # fmt: skip


def join_models(studies: Sequence[Study]) -> Study:
    """One study on several models as one, the model its first axis: Table 2 has three."""
    cells = [replace(cell, labels={"model": study.model, **cell.labels}) for study in studies for cell in study.cells]
    return replace(studies[0], model="+".join(study.model for study in studies), cells=tuple(cells))


def _axis(axis: str, axes: dict[str, list[str]], source: Source) -> str:
    if axis and axis not in axes:
        raise source.error(("x",), f"{axis} is not in the grid{did_you_mean(axis, axes)}; choose one of {', '.join(axes)}")
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


def _compared(compare: Any, axes: dict[str, list[str]], source: Source) -> tuple[str, str] | None:
    if compare is None:
        return None
    if len(compare) != 1:
        raise source.error(("compare",), f"compare is {compare}; give one axis and its label, such as bnn: off")
    ((axis, value),) = compare.items()
    if label_of(value) not in axes.get(axis, []):
        raise source.error(("compare", axis), f"{axis} {label_of(value)} is not in the grid; choose one of {_there_are(axes)}")
    return axis, label_of(value)


def _there_are(axes: dict[str, list[str]]) -> str:
    return shortened(", ".join(f"{axis}: {label}" for axis, labels in axes.items() for label in labels))


def _cells(grid: dict[str, Any], fixed: list[str]) -> Iterator[Cell]:
    axes = [[(axis, label, overrides) for label, overrides in _choices(axis, values)] for axis, values in grid.items()]
    for chosen in product(*axes):
        own = [word for _, _, overrides in chosen for word in overrides]
        yield Cell({axis: label for axis, label, _ in chosen}, (*fixed, *own))


def _choices(axis: str, values: Any) -> list[tuple[str, list[str]]]:
    """Labels and overrides of an axis."""
    if isinstance(values, dict):
        return [(label, [words] if isinstance(words, str) else list(words)) for label, words in values.items()]
    return [(label_of(value), [override(axis, value)]) for value in values]


def _labels(values: Any) -> list[str]:
    return list(values) if isinstance(values, dict) else [label_of(value) for value in values]


def _as_labelled(word: str, labels: Sequence[str]) -> str:
    """The label that a word means: 2e-4 is the label 0.0002, as the study's file itself may write it."""
    return word if word in labels else next((label for label in labels if _number(label) == _number(word)), word)


def _number(word: str) -> float | str:
    try:
        return float(word)
    except ValueError:
        return word


def narrowed(study: Study, chosen: Sequence[str]) -> Study:
    """The cells of a study whose axes have the labels of ``axis=label`` words; several words of one axis mean any of their labels.

    Raises:
        UserError: an axis that the study does not have, or a label that its axis does not have.
    """
    axes = {axis: list(dict.fromkeys(cell.labels[axis] for cell in study.cells)) for axis in study.cells[0].labels}
    wanted: dict[str, set[str]] = {}
    for axis, _, word in (words.partition("=") for words in chosen):
        wanted.setdefault(axis, set()).add(_as_labelled(word, axes.get(axis, [])))
    if unknown := [axis for axis in wanted if axis not in axes]:
        raise UserError(f"study {study.name}: no axis {', '.join(unknown)}; give AXIS=LABEL with one of {', '.join(axes)}")
    cells = tuple(cell for cell in study.cells if all(cell.labels[axis] in labels for axis, labels in wanted.items()))
    if missing := [axis for axis, labels in wanted.items() if not labels <= set(axes[axis])]:
        there = "; ".join(f"choose {axis} from {shortened(', '.join(axes[axis]))}" for axis in missing)
        raise UserError(f"study {study.name}: no run with {', '.join(chosen)}; {there}")
    return replace(study, cells=cells)


def compose_cell(cell: Cell, extra: tuple[str, ...] = ()) -> Config:
    """The validated configuration of a run, equal to what the command of record composes.

    Raises:
        UserError: overrides that do not compose.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        return derive((*cell.overrides, *extra))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{shortened(cell.name)}: {explain(error)}; correct the study") from error


def evaluations_of(study: Study) -> tuple[str, ...]:
    """The evaluations that rows are made of; the run's own where a study names none."""
    return study.evaluations or (MAIN,)
