"""A log with a row a step, thinned to some dozens of checkpoints.

The rows after step 0 are cut into windows of equally many neighbouring rows, and a checkpoint is the mean of a window. Four reasons:

- *Nothing is invented.* Means over neighbouring windows of a curve that rises and then falls rise and then fall, wherever the
  windows lie: the window with the top lies above one of its neighbours at least. So a curve without a stage has none afterwards.
- *Noise stays alike.* The detector takes the noise of a curve's means for the same at all checkpoints; equally many rows make it so,
  where windows of equal length in steps would not. In a log with a row a step both are the same.
- *The base model stays apart.* Step 0 is the model before training, so that no window has it: a checkpoint to keep is trained.
- *Little is hidden.* Every row counts. What a window cannot show is a stage of about its own length, and the note names that length.

Rows inside a window are **not** handed on as images. Neighbouring steps share most of their weights, and many trainers log running
means, so that the scatter inside a window understates how much its mean would differ in another run. The roughness of the
thinned curve has that noise, and the detector reads it off there. Images that a table has as columns stay columns.

Noise that lasts longer than a window looks like a stage, and the verdict measures how long it lasts on the thinned curve itself
(``corruption.timescale``). In 80 simulated logs each (6,000 rows, windows of 100, autoregressive noise, half of them with a decline) it
flagged none where noise lasts 0, 20, 100, 200 or 500 rows. The correlation of rows with each other is no better guide: beside a curve
through the means it looks shorter than it is, and 60 to 95 % were flagged with it where noise lasts 100 rows or more.
So the reading keeps its rows (``unthinned``), and no level reads them.
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

CLEAR = 2.0
"""Deviations of a row beyond which step 0 is told from a checkpoint."""


def thinned(reading: Reading) -> Reading:
    """The reading with at most ``MOST`` checkpoints where it has more than ``WHOLE``, each the mean of a window of rows.

    Its step is that of the window's middle row. A window's score is not finite where half of its rows or more are not. Step 0 is the
    base model and stays as it is, beside the windows.
    """
    count = len(reading.steps)
    if count <= WHOLE:
        return reading
    windows = _windows(count, reading.steps[0] == 0)
    middle = [int(rows[len(rows) // 2]) for rows in windows]
    columns = {name: _means(scores, windows) for name, scores in reading.columns.items()}
    steps = np.array(reading.steps, dtype=np.int64)
    length = int(np.median(np.diff(steps[middle])))
    most = max(len(rows) for rows in windows)
    apart = "step 0 as it is, and " if reading.steps[0] == 0 else ""
    note = (
        f"{count:,} rows thinned to {len(windows)} checkpoints: {apart}means of {most} neighbouring rows, each shown at its middle step; a "
        f"stage shorter than {GUARANTEE * length:,} steps may not show, and noise that lasts longer than {length:,} is called slow, and no "
        "stage"
    )
    rows = Unthinned(steps, reading.columns[reading.metric].mean(1))
    notes = (*reading.notes, note, *_gaps(reading))
    return replace(reading, steps=tuple(steps[middle].tolist()), columns=columns, notes=notes, unthinned=rows)


def _windows(count: int, with_base: bool) -> list[NDArray[np.int64]]:
    """Neighbouring rows in equal parts, at most ``MOST`` of them; the first row alone where it is the base model."""
    alone = int(with_base)
    size = -(-(count - alone) // (MOST - alone))
    parts = np.array_split(np.arange(alone, count), (count - alone) // size)
    return [np.arange(alone), *parts] if with_base else parts


def without_unclear_base(reading: Reading) -> Reading:
    """A thinned reading without step 0 where that row's own noise may make it, or where the rows after it say the same.

    Step 0 is one row and the others are means of many. In a noisy log it may lie above the best checkpoint by chance, or so far above
    the first window that the curve seems to fall. So it stays where it is told from both, by the deviation of rows inside windows.
    The reading has scores that are better when higher.
    """
    if reading.unthinned is None or reading.steps[0] != 0:
        return reading
    rows, curve = reading.unthinned.scores, reading.columns[reading.metric].mean(1)
    parts = [rows[part][np.isfinite(rows[part])] for part in _windows(len(rows), True)[1:]]
    scatter = float(np.median([part.std(ddof=1) for part in parts if len(part) > 1] or [0.0]))
    trained = curve[1:][np.isfinite(curve[1:])]
    if not trained.size or min(abs(trained.max() - curve[0]), abs(trained[0] - curve[0])) > CLEAR * scatter:
        return reading
    note = f"step 0, the base model, is left out: single rows scatter by {scatter:.3g}, too much to compare one with means of many"
    columns = {name: scores[1:] for name, scores in reading.columns.items()}
    return replace(reading, steps=reading.steps[1:], columns=columns, notes=(*reading.notes, note))


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
