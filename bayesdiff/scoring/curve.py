"""From per-image scores to a curve: one row a checkpoint, mean and standard error over images."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesdiff.core.errors import UserError, first_line
from bayesdiff.core.files import read_file
from bayesdiff.core.layout import SCORES
from bayesdiff.scoring.metrics import COLUMNS, SIMILARITIES, in_order

NUMBERED = ("step", "prompt", "image")
"""Columns that say which image a row is of."""


def read_scores(run: Path) -> pd.DataFrame:
    """Read ``scores.csv`` of a run folder with every digit; an empty value is NaN.

    Raises:
        FileNotFoundError: there is none.
        UserError: it is no table of scores, a row stands twice, or a step, prompt or image is no whole number from 0 on; a score that
            no run writes (``no_score``), or a checkpoint that lacks images.
    """
    path = run / SCORES
    try:
        table = pd.read_csv(BytesIO(read_file(path)), keep_default_na=False, na_values={"value": [""]}, float_precision="round_trip")
        table = table.astype({"step": np.float64, "prompt": np.float64, "image": np.float64, "value": np.float64})
        table = _whole(_numbered(table))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no table of scores ({first_line(error)}); copy it again, or repeat the run") from error
    twice = table.duplicated([name for name in COLUMNS if name != "value"])
    if twice.any():
        raise UserError(f"{path}: line {int(twice.argmax()) + 2} scores an image a second time; copy it again, or repeat the run")
    return table


def _numbered(table: pd.DataFrame) -> pd.DataFrame:
    """The table with whole numbers where a row says which image it is of; raises ``ValueError`` with the line of one that is none."""
    for name in NUMBERED:
        if (wrong := ~is_count(table[name].to_numpy())).any():
            at = int(wrong.argmax())
            raise ValueError(f"line {at + 2}: {name} {table[name].iloc[at]:g} is no whole number from 0 on")
    return table.astype(dict.fromkeys(NUMBERED, np.int64))


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    """The table, where every row is a score and every checkpoint has all images; raises ``ValueError`` that names the first gap."""
    values, similar = table["value"].to_numpy(), table["metric"].isin(SIMILARITIES).to_numpy()
    if (wrong := no_score(values, similar)).any():
        at = int(wrong.argmax())
        raise ValueError(f"line {at + 2}: {table['metric'].iloc[at]} is {said(values[at])}")
    if gap := _gap(table):
        raise ValueError(gap)
    return table


def _gap(table: pd.DataFrame) -> str:
    """The first checkpoint and metric that lack images which other checkpoints have, in words; empty where none does.

    A metric may begin at a later checkpoint: a newer version that resumed the run has more. A similarity may not.
    """
    counts = table.groupby(["step", "metric"]).size().unstack("metric", fill_value=0).sort_index()
    own = table.drop_duplicates(["metric", "reference", "prompt", "image"]).groupby("metric").size()
    for metric in counts.columns:
        rows = counts[metric]
        rows = rows if metric in SIMILARITIES else rows[rows.gt(0).idxmax() :]
        if (short := rows < own[metric]).any():
            step = int(short.idxmax())
            return f"step {step} has {rows[step]} of {own[metric]} scores of {metric}"
    fidelity, every = table[table["metric"] == SIMILARITIES[0]], ["prompt", "image"]
    lacking = len(table.drop_duplicates(every)) - len(fidelity.drop_duplicates(every))
    return f"{lacking} images have no score of {SIMILARITIES[0]}" if lacking else ""


COSINE = 1.01
"""No cosine is larger, also in the arithmetic of half precision."""
LARGEST = 1e100
"""No score is larger: means of squares stay finite."""


def no_score(values: NDArray[np.float64], similar: ArrayLike) -> NDArray[np.bool_]:
    """Which of some numbers (…) no run writes as a score, (…) of truth values.

    ``similar``, a truth value or (…) of them, says where they are similarities, which every image has, and which are cosines. Any other
    metric may have no number (NaN), and none is infinite.
    """
    return np.where(similar, ~(np.abs(values) <= COSINE), np.abs(values) > LARGEST)


def said(value: float) -> str:
    """A number that is no score, in words."""
    return "no number" if np.isnan(value) else f"{value:g}, which no image can have"


def is_count(numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of some numbers (…) are whole, from 0 on, and small enough to be one (below 2⁵³): (…) of truth values."""
    return np.asarray(np.isfinite(numbers) & (numbers >= 0) & (numbers < 2.0**53) & (numbers == np.round(numbers)))


def per_image(scores: pd.DataFrame) -> pd.DataFrame:
    """Average over references: rows are (step, prompt, image), columns are metrics."""
    return scores.pivot_table(index=["step", "prompt", "image"], columns="metric", values="value", aggfunc="mean")


def curve_table(scores: pd.DataFrame) -> pd.DataFrame:
    """One row a checkpoint: ``step``, ``images``, and each metric's mean and standard error ``<metric>_se`` (std / sqrt(n)).

    A custom metric may give no number for an image. It is then NaN at that checkpoint, because a mean of the other images would
    hide the gap.
    """
    wide = per_image(scores)
    grouped = wide.groupby(level="step")
    table = pd.DataFrame({"images": grouped.size()})
    for metric in in_order(set(wide.columns)):
        table[metric] = grouped[metric].mean()
        table[f"{metric}_se"] = grouped[metric].std(ddof=1) / np.sqrt(table["images"])
    for step, metric in scores.loc[scores["value"].isna(), ["step", "metric"]].itertuples(index=False):
        table.loc[step, [metric, f"{metric}_se"]] = np.nan
    return table.reset_index()


def half_band(error: ArrayLike, images: ArrayLike) -> NDArray[np.float64]:
    """Half of the 95 % interval (T,) of means with standard errors (T,) over so many images: Student's t; 0 for one image.

    With four images it is 3.18 errors wide and not 1.96, with which it would hold the mean in 86 % of cases.
    """
    from scipy.special import stdtrit

    count = np.asarray(images, dtype=np.float64)
    wide = np.where(count > 1, stdtrit(np.maximum(count - 1, 1), 0.975), 0.0)
    return np.asarray(wide * np.where(count > 1, np.asarray(error, dtype=np.float64), 0.0))


def image_matrix(wide: pd.DataFrame, metric: str) -> tuple[list[int], NDArray[np.float64]]:
    """Steps (T,) and scores (T, images) of one metric of a ``per_image`` table, columns paired by (prompt, image)."""
    matrix = wide[metric].unstack(["prompt", "image"]).sort_index()
    return [int(s) for s in matrix.index], matrix.to_numpy(dtype=np.float64)


def image_columns(wide: pd.DataFrame) -> tuple[list[int], dict[str, NDArray[np.float64]], list[tuple[int, int]]]:
    """Steps (T,), a (T, images) matrix for each metric that all images have, and each image's (prompt, number).

    The result omits a metric that some images lack, such as the diversity of a prompt's only image. It keeps the three
    similarities, because a gap in them means divergence.
    """
    found = {str(name): image_matrix(wide, name) for name in in_order(set(wide.columns))}
    whole = {name: matrix for name, (_, matrix) in found.items() if name in SIMILARITIES or np.isfinite(matrix).all()}
    images = sorted({(int(prompt), int(image)) for _, prompt, image in wide.index})
    return found[SIMILARITIES[0]][0], whole, images


def score_columns(scores: pd.DataFrame) -> tuple[list[int], dict[str, NDArray[np.float64]], list[tuple[int, int]]]:
    """``image_columns`` of a table of scores: steps (T,), scores (T, images) by metric, and (prompt, number) of the images."""
    return image_columns(per_image(scores))
