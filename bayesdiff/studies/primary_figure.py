"""Figures of the registered study: every subject of an arm in one picture, and the arms beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bayesdiff.core import escape
from bayesdiff.core.layout import MAIN
from bayesdiff.recording.plots import panels, save_figure
from bayesdiff.stats.paired import mean_over_runs
from bayesdiff.studies.contrasts import GRAIN, Curve, curve_of
from bayesdiff.studies.primary import Primary
from bayesdiff.studies.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURES = {GRAIN: "grain: high-frequency energy\nover the photograph's", "dino": "DINO to the\ntraining photograph"}
LINES = {
    MAIN: ("guidance 7.5", "C3", "-"), "ema": ("guidance 7.5, averaged weights", "C1", "--"),
    "guidance_1": ("guidance 1", "C0", "-"), "ema_guidance_1": ("guidance 1, averaged weights", "C9", "--"),
}  # fmt: skip
"""Evaluation -> label, colour and dash."""
MEANS = {
    ("off", MAIN): ("plain, guidance 7.5", "C3", "-"), ("on", MAIN): ("Bayesian weights, guidance 7.5", "C2", ":"),
    ("prompt_dropout", MAIN): ("empty prompt in 30 %, guidance 7.5", "C4", "--"), ("off", "guidance_1"): ("plain, guidance 1", "C0", "-."),
}  # fmt: skip
"""Arm and evaluation -> label, colour and dash of a mean over subjects."""


def draw(primary: Primary, folder: Path, name: str = "primary") -> list[Path]:
    """``NAME-ARM-subjects.png`` of every arm that has runs: grain and DINO over steps, a panel a subject, a line an evaluation.

    ``NAME-means.png`` has the means over subjects, once all runs have ended.
    """
    written = []
    if primary.complete:
        written.append(folder / f"{name}-means.png")
        _draw_means(primary, written[-1])
    for arm in dict.fromkeys(row.labels["bnn"] for row in primary.rows):
        rows = [row for row in primary.rows if row.labels["bnn"] == arm]
        if any(row.found for row in rows):
            written.append(folder / f"{name}-{arm}-subjects.png")
            _draw_arm(primary, rows, written[-1])
    return written


def _draw_means(primary: Primary, target: Path) -> None:
    figure, places = panels(len(MEASURES), 2, (4.6, 3.4))
    for place, (measure, label) in zip(places, MEASURES.items(), strict=True):
        for row in primary.rows:
            shown = MEANS.get((row.labels["bnn"], row.labels["evaluation"]))
            curves = [curve for run in row.found if shown and (curve := curve_of(run, measure)) is not None]
            if shown and curves:
                _draw_mean(place, curves, *shown)
        place.set(xlabel="training step", ylabel=label)
        _shade(place, primary)
    places[0].axhline(1.0, color="black", linewidth=0.5, linestyle=":")
    places[1].legend(fontsize=7)
    save_figure(figure, target)


def _draw_mean(place: Axes, curves: Sequence[Curve], label: str, colour: str, dash: str) -> None:
    """The mean over subjects, and its 95 % interval at each step by itself."""
    found = mean_over_runs(np.stack([one[1] for one in curves]))
    place.plot(curves[0][0], found.mean, dash, color=colour, label=label)
    place.fill_between(curves[0][0], found.low, found.high, color=colour, alpha=0.15, linewidth=0)


def _draw_arm(primary: Primary, rows: Sequence[Row], target: Path) -> None:
    subjects = list(dict.fromkeys(cell.labels["data.subject"] for cell in primary.study.cells))
    columns = min(4, len(subjects))
    blank = -len(subjects) % columns
    figure, places = panels(2 * (len(subjects) + blank), columns, (3.2, 2.3))
    for block, measure in enumerate(MEASURES):
        for i, subject in enumerate([*subjects, *[""] * blank]):
            place = places[block * (len(subjects) + blank) + i]
            if not subject:
                place.axis("off")
                continue
            _draw_subject(place, rows, subject, measure)
            place.set(title=escape.plot(subject), ylabel=MEASURES[measure] if i % columns == 0 else "")
            _shade(place, primary)
    places[0].legend(fontsize=6)
    for place in places[-columns:]:
        place.set_xlabel("training step")
    save_figure(figure, target)


def _draw_subject(place: Axes, rows: Sequence[Row], subject: str, measure: str) -> None:
    """A line an evaluation; a run that is missing has no line, and is said to be missing."""
    drawn = False
    for row in rows:
        label, colour, dash = LINES.get(row.labels["evaluation"], (row.labels["evaluation"], "0.5", ":"))
        for steps, values in _curves(row, subject, measure):
            place.plot(steps, values, dash, color=colour, linewidth=1.1, label=escape.plot(label))
            drawn = True
    if measure == GRAIN:
        place.axhline(1.0, color="black", linewidth=0.5, linestyle=":")
    if not drawn:
        place.text(0.5, 0.5, "no run yet", transform=place.transAxes, ha="center", va="center")


def _curves(row: Row, subject: str, measure: str) -> list[Curve]:
    found = [curve_of(run, measure) for run in row.found if run.place[1] == subject]
    return [(np.asarray(one[0]), one[1]) for one in found if one is not None]


def _shade(place: Axes, primary: Primary) -> None:
    """The windows of the registered file."""
    for first, last in primary.registered.windows.values():
        place.axvspan(first, last, color="0.5", alpha=0.08, linewidth=0)
