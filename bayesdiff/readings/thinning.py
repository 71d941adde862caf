"""A log with a row a step, thinned to some dozens of checkpoints.

The rows are cut into windows of equally many neighbouring rows, and a checkpoint is the mean of a window. Three reasons:

- *Nothing is invented.* Means over neighbouring windows of a curve that rises and then falls rise and then fall, wherever the
  windows lie: the window with the top lies above one of its neighbours at least. So a curve without a stage has none afterwards.
- *Noise stays alike.* The detector takes the noise of a curve's means for the same at all checkpoints; equally many rows make it so,
  where windows of equal length in steps would not. In a log with a row a step both are the same.
- *Little is hidden.* Every row counts. What a window cannot show is a stage of about its own length, and the note names that length.

Rows inside a window are **not** handed on as images. Neighbouring steps share most of their weights, and many trainers log running
means, so that the scatter inside a window understates how much its mean would differ in another run. The roughness of the
thinned curve has that noise, and the detector reads it off there. Images that a table has as columns stay columns.

Noise that lasts longer than a window looks like a stage, and the verdict measures how long it lasts on the thinned curve itself
(``corruption.timescale``). In 80 simulated logs each (6,000 rows, windows of 100, autoregressive noise, half of them with a decline) it
flagged one where noise lasts 100 rows, and none where it lasts 0, 20, 200 or 500. The correlation of rows with each other is no better
guide: beside a curve through the means it looks shorter than it is, and 60 to 95 % were flagged with it where noise lasts 100 rows or
more. So the reading keeps its rows (``unthinned``), and no level reads them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bayesdiff.corruption.shape import Array
from bayesdiff.readings.reading import Reading, Unthinned

WHOLE = 120
"""Checkpoints up to which a curve is judged as it stands."""
MOST = 60
"""Checkpoints that a longer one is thinned to, at most."""
GUARANTEE = 3
"""Windows that a stage has to last to cover two whole ones wherever it begins: a single low checkpoint is no stage."""


def thinned(reading: Reading) -> Reading:
    """The reading with at most ``MOST`` checkpoints where it has more than ``WHOLE``, each the mean of a window of rows.

    Its step is that of the window's middle row. A window's score is not finite where half of its rows or more are not.
    """
    count = len(reading.steps)
    if count <= WHOLE:
        return reading
    windows = np.array_split(np.arange(count), count // -(-count // MOST))
    middle = [int(rows[len(rows) // 2]) for rows in windows]
    columns = {name: _means(scores, windows) for name, scores in reading.columns.items()}
    steps = np.array(reading.steps, dtype=np.int64)
    length = int(np.median(np.diff(steps[middle])))
    most = max(len(rows) for rows in windows)
    note = (
        f"{count:,} rows thinned to {len(windows)} checkpoints: means of {most} neighbouring rows, each shown at its middle step; a stage "
        f"shorter than {GUARANTEE * length:,} steps may not show, and noise that lasts longer than {length:,} is called slow, and no stage"
    )
    rows = Unthinned(steps, reading.columns[reading.metric].mean(1))
    notes = (*reading.notes, note, *_gaps(reading))
    return replace(reading, steps=tuple(steps[middle].tolist()), columns=columns, notes=notes, unthinned=rows)


def _means(scores: Array, windows: list[NDArray[np.int64]]) -> Array:
    """Means of the finite rows of (T, images) over windows, (windows, images); infinite where half of the rows or more are not finite."""
    finite = np.isfinite(scores)
    filled = np.where(finite, scores, 0.0)
    means = []
    for rows in windows:
        known = finite[rows].sum(0)
        means.append(np.where(2 * known > len(rows), filled[rows].sum(0) / np.maximum(known, 1), np.inf))
    return np.array(means)


def _gaps(reading: Reading) -> tuple[str, ...]:
    """A note on rows that are not finite."""
    bad = int((~np.isfinite(reading.columns[reading.metric]).all(axis=1)).sum())
    return (f"{bad:,} rows with a score that is not finite count for nothing in their window's mean",) if bad else ()
