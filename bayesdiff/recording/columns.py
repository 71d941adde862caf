"""Collected CSV files as columns of numbers, without a data frame: a tenth of the time, and what is damaged says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bayesdiff.core.errors import UserError
from bayesdiff.scoring.curve import is_count, no_score, said
from bayesdiff.scoring.metrics import SIMILARITIES

Array = NDArray[np.float64]


class Damaged(UserError):
    """A record that cannot be read; the message has the folder's file, what is wrong, and the remedy."""


@dataclass(frozen=True)
class Images:
    """Scores of every image at every checkpoint, as columns."""

    steps: NDArray[np.int64]
    """(T,) increasing."""
    places: tuple[tuple[int, int], ...]
    """(images,) prompt and number of each image, increasing."""
    columns: dict[str, Array]
    """Metric -> (T, images); NaN where an image has no such score."""


def parse_table(content: bytes, path: Path) -> dict[str, Array]:
    """A CSV file of numbers as columns (rows,); an empty cell is NaN.

    Raises:
        Damaged: no rows, lines of another length than the head, or a cell that is no number.
    """
    try:
        head, *lines = content.decode("utf-8").splitlines()
        names = head.split(",")
        if len(set(names)) != len(names):
            raise ValueError
        if not lines or any(line.count(",") != len(names) - 1 for line in lines):
            raise ValueError
        cells = ",".join(lines).split(",")
        numbers = np.fromiter((float(cell) if cell else np.nan for cell in cells), np.float64, len(cells))
    except ValueError as error:
        raise Damaged(f"{path}: not a table of numbers; copy it again, or collect its run again") from error
    return dict(zip(names, numbers.reshape(-1, len(names)).T.copy(), strict=True))


def _check_scores(columns: dict[str, Array], path: Path) -> None:
    """Raises ``Damaged`` for the first line with a score that no run writes."""
    for name, values in columns.items():
        if (wrong := no_score(values, name in SIMILARITIES)).any():
            at = int(wrong.argmax())
            raise Damaged(f"{path}: line {at + 2}: {name} is {said(values[at])}; copy it again, or collect its run again")


def parse_images(content: bytes, path: Path) -> Images:
    """``images.csv`` as columns.

    Raises:
        Damaged: not a table of numbers, not one row a checkpoint and image, a score that no run writes, or no fidelity.
    """
    table = parse_table(content, path)
    if not {"step", "prompt", "image", SIMILARITIES[0]} <= set(table):
        raise Damaged(f"{path}: has no columns step, prompt, image and {SIMILARITIES[0]}; collect its run again")
    keys = np.stack([table.pop(name) for name in ("step", "prompt", "image")])
    if not is_count(keys).all():
        raise Damaged(f"{path}: a step, prompt or image is no whole number from 0 on; collect its run again")
    steps, row = np.unique(keys[0].astype(np.int64), return_inverse=True)
    places, column = np.unique(keys[1:].astype(np.int64), axis=1, return_inverse=True)
    at = row * places.shape[1] + column.ravel()
    if len(np.unique(at)) != len(at):
        raise Damaged(f"{path}: has an image twice; collect its run again")
    if lacking := len(steps) * places.shape[1] - len(at):
        raise Damaged(f"{path}: lacks {lacking} images that other checkpoints have; copy it again, or collect its run again")
    _check_scores(table, path)
    columns = {}
    for name, values in table.items():
        matrix = np.full(len(steps) * places.shape[1], np.nan)
        matrix[at] = values
        columns[name] = matrix.reshape(len(steps), -1)
    return Images(steps, tuple((int(p), int(i)) for p, i in places.T), columns)


def parse_curve(content: bytes, path: Path) -> dict[str, Array]:
    """``curve.csv`` as columns (T,); raises ``Damaged``, also for one without the columns that tables read."""
    curve = parse_table(content, path)
    if not {"step", SIMILARITIES[0]} <= set(curve):
        raise Damaged(f"{path}: has no columns step and {SIMILARITIES[0]}; collect its run again")
    _check_scores({name: values for name, values in curve.items() if name not in ("step", "images")}, path)
    steps = curve["step"]
    if not is_count(steps).all() or not (np.diff(steps) > 0).all():
        raise Damaged(f"{path}: its steps are not increasing whole numbers from 0 on; collect its run again")
    return curve


ROUNDED = 1e-4
"""How far a collected mean may lie from the mean of collected scores: both have five digits."""


def check_curve(curve: dict[str, Array], images: Images, path: Path) -> None:
    """Raises ``Damaged`` for a ``curve.csv``, columns (T,), that is not the mean of the scores beside it: of other checkpoints or runs."""
    if curve["step"].tolist() != images.steps.tolist():
        raise Damaged(f"{path}: has other checkpoints than the scores of images beside it; collect its run again")
    for name in SIMILARITIES:
        if name in curve and name in images.columns and np.abs(curve[name] - images.columns[name].mean(1)).max() > ROUNDED:
            raise Damaged(f"{path}: {name} is not the mean of the scores of images beside it; collect its run again")
