"""What a reader hands over: one curve that can be judged, and the words that say which column is which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesdiff.corruption.shape import Array


@dataclass(frozen=True)
class Unthinned:
    """A log before it was thinned: its neighbouring rows show how long noise lasts, which the thinned curve cannot."""

    steps: NDArray[np.int64]
    """(N,) increasing."""
    scores: Array
    """(N,) mean over images, not finite where a row has none; in the metric's own units and direction."""


@dataclass(frozen=True)
class Reading:
    """One curve that can be judged."""

    name: str
    steps: tuple[int, ...]
    columns: dict[str, Array]
    """(T, images) scores by metric, in the metric's own units."""
    metric: str
    ceiling: float | None = None
    photo_hf: float | None = None
    """Mean ``hf_energy`` of the training photographs, where it is known: grain is told relative to it."""
    notes: tuple[str, ...] = ()
    """What a reader guessed, sorted, converted, thinned or left out."""
    images: tuple[tuple[int, int], ...] = ()
    """(prompt, number) of the columns, where they are known."""
    own: bool = False
    """This package scored the images, so that its own table of directions holds."""
    higher_is_better: bool | None = None
    """What the record of a run says of a custom metric; else what the name of a file or a group of columns says."""
    unthinned: Unthinned | None = None
    """The rows of a log that was thinned."""


@dataclass(frozen=True)
class Naming:
    """Which columns of a table mean what; None leaves it to the reader."""

    step: str | None = None
    values: tuple[str, ...] = ()
    metric: str | None = None
    run: str | None = None


def shown(names: Sequence[str], most: int = 12) -> str:
    """Names for a message of one line, cut after ``most``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
