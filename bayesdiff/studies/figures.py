"""Figures of a study: curves over training steps, and the last checkpoint over an axis of the grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayesdiff.core import escape
from bayesdiff.recording.plots import MARKS, panels, save_figure
from bayesdiff.stats import aggregate_as_paper
from bayesdiff.studies.measures import LAST, MEASURES, of
from bayesdiff.studies.plan import Study
from bayesdiff.studies.rows import Row, values

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORDS = {
    "bnn": "", "shots.count": "training images:", "data.subject": "", "method": "", "method.learning_rate": "learning rate",
    "method.rank": "rank", "training.batch_size": "batch size", "sampler.guidance_scale": "guidance", "bnn.sigma_init": "first sigma",
    "bnn.kl_weight": "KL weight", "model": "",
}  # fmt: skip
"""Axes of studies in words; an axis of a study of a user's own is shown by its name."""
ARMS = {
    "off": "plain", "on": "Bayesian", "weight_noise": "weight noise", "ema": "weight average", "input_noise": "input noise",
    "lr_decay": "learning-rate decay", "l2_to_pretrained": "L2 to the pretrained weights", "prompt_dropout": "prompt dropout",
}  # fmt: skip
"""Labels of the axis ``bnn`` in words."""
MANY = 100
"""From so many runs on, their lines are pixels in the SVG file too."""
LAST_METRICS = [measure.name for measure in of(LAST) if measure.paper is not None]
"""What is drawn over an axis: the paper's metrics, in the order of a table."""


def curves_of(row: Row, metric: str = "dino") -> pd.DataFrame | None:
    """A column a run (its seed and subject), a row a step that all have; None while runs of the row are missing, as in its table."""
    if row.missing or not row.found:
        return None
    curves = [pd.Series(run.scores.curve[metric], index=run.scores.curve["step"].astype(int), name=run.place) for run in row.found]
    return pd.concat(curves, axis=1, join="inner").sort_index()


def worded(axis: str, label: str) -> str:
    """A label of an axis as a figure says it."""
    return f"{WORDS.get(axis, axis)} {ARMS.get(label, label) if axis == 'bnn' else label}".strip()


def _lines_axis(study: Study, row: Row) -> str:
    """The axis whose labels are lines of one panel: the compared one, else the one that varies along x, else the first."""
    return study.compare[0] if study.compare else study.x or next(iter(row.labels), "")


def draw_curves(study: Study, rows: list[Row], *targets: Path) -> None:
    """DINO over steps: a panel for every row of the other axes; for every arm of the compared one each run, and their mean.

    No band: runs of one subject are not as independent as a band over runs would take them for; intervals are in the table.
    """
    axis = _lines_axis(study, rows[0])
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(", ".join(worded(a, v) for a, v in row.labels.items() if a != axis) or study.title, []).append(row)
    figure, places = panels(len(grouped), 3, (4.6, 3.2), sharey=True)
    for place, (title, members) in zip(places, grouped.items(), strict=True):
        for i, row in enumerate(members):
            _draw_arm(place, worded(axis, row.labels.get(axis, "")), row, i)
        place.set(title=escape.plot(title), xlabel="training step", ylabel="DINO to the training images")
        place.legend(fontsize=7)
    save_figure(figure, *targets)


def _draw_arm(place: Axes, name: str, row: Row, number: int) -> None:
    color, (marker, dashes) = f"C{number}", MARKS[number % len(MARKS)]
    if (curves := curves_of(row)) is None:
        place.plot([], [], color=color, label=f"{escape.plot(name)}: {'missing' if row.missing else 'none'} ({row.count} runs)")
        return
    _draw_runs(place, curves, color)
    of_runs = f"mean of {curves.shape[1]} runs" if curves.shape[1] > 1 else "1 run"
    mean: dict[str, Any] = {"color": color, "linestyle": dashes, "marker": marker, "markersize": 4, "markevery": max(1, len(curves) // 12)}
    place.plot(curves.index, curves.mean(axis=1), linewidth=1.8, label=f"{escape.plot(name)} ({of_runs})", **mean)


def _draw_runs(place: Axes, curves: pd.DataFrame, color: str) -> None:
    """A thin line a run; of very many runs one collection, which takes a tenth of the time."""
    if curves.shape[1] < MANY:
        place.plot(curves.index, curves, color=color, linewidth=0.6, alpha=0.4)
        return
    from matplotlib.collections import LineCollection

    steps = np.broadcast_to(curves.index.to_numpy(), curves.shape[::-1])
    lines = np.stack([steps, curves.to_numpy().T], axis=-1)
    place.add_collection(LineCollection(list(lines), colors=color, linewidths=0.6, alpha=0.4, rasterized=True), autolim=True)


def last_points(rows: list[Row], axis: str, metric: str) -> dict[str, list[tuple[str, float, float]]]:
    """For every row of the other axes: label on ``axis``, mean at the last checkpoint, and its deviation over seeds (nan for one)."""
    lines: dict[str, list[tuple[str, float, float]]] = {}
    for row in rows:
        if (scores := values(row, metric)) is not None:
            mean, spread = aggregate_as_paper(scores)
            name = ", ".join(worded(a, v) for a, v in row.labels.items() if a != axis)
            lines.setdefault(name, []).append((row.labels[axis], float(mean[0]), float(spread[0])))
    return lines


def draw_last(study: Study, rows: list[Row], *targets: Path) -> bool:
    """The last checkpoint over ``study.x``: a panel a metric, a line for every row of the other axes; False without a complete row."""
    drawn = {metric: lines for metric in LAST_METRICS if (lines := last_points(rows, study.x, metric))}
    if not drawn:
        return False
    labels = list(dict.fromkeys(row.labels[study.x] for row in rows))
    figure, places = panels(len(drawn), 3, (4.6, 3.2))
    for place, (metric, lines) in zip(places, drawn.items(), strict=True):
        for i, (name, points) in enumerate(lines.items()):
            at, means, spreads = zip(*[(labels.index(label), mean, spread) for label, mean, spread in points], strict=True)
            marker, dashes = MARKS[i % len(MARKS)]
            drawn_as: dict[str, Any] = {"marker": marker, "linestyle": dashes, "capsize": 2, "color": f"C{i}"}
            place.errorbar(at, means, np.nan_to_num(spreads), label=escape.plot(name) or None, **drawn_as)
        place.set(
            xlabel=escape.plot(WORDS.get(study.x, study.x).strip(" :") or study.x),
            ylabel=f"{MEASURES[metric].label} at the last checkpoint",
            xticks=range(len(labels)),
            xticklabels=[escape.plot(label) for label in labels],
        )
        if any(lines):
            place.legend(fontsize=7)
    save_figure(figure, *targets)
    return True
