"""The picture of the demo: grain over steps, and the same sample at a few steps in each arm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image

from bayesdiff.config.identity import arm_name
from bayesdiff.core.layout import MAIN
from bayesdiff.recording.plots import MARKS, save_figure, shown
from bayesdiff.reporting.traces import Trace
from bayesdiff.studies.first_look import ARMS, EVALUATED, MIDDLE

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

GRAIN = "hf_relative"
SHARES = (0.0, 0.06, 0.18, 0.35, 0.6, 1.0)
"""Of the training: where samples are shown, at the nearest checkpoint."""
SIDE = 128


def chosen(traces: Sequence[Trace]) -> list[Trace]:
    """Every arm as the paper samples it, and the first one at guidance 1 as well; only those with grain and samples."""
    plain = [one for one in traces if one.evaluation == MAIN or (one.evaluation == "guidance_1" and _arm(one) == "plain")]
    return [one for one in plain if GRAIN in one.columns and one.files]


def _arm(trace: Trace) -> str:
    return arm_name(trace.record.config["bnn"]) if trace.record is not None else trace.name


def _label(trace: Trace) -> str:
    return f"{ARMS.get(_arm(trace), _arm(trace))}, {EVALUATED.get(trace.evaluation, trace.evaluation)}"


def draw_first_look(traces: Sequence[Trace], target: Path) -> bool:
    """Write the picture; False where there is nothing to show."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    if not (found := chosen(traces)):
        return False
    figure = plt.figure(figsize=(10, 3.6 + 1.15 * len(found)), layout="constrained")
    top, below = cast("list[SubFigure]", figure.subfigures(2, 1, height_ratios=(3.6, 1.15 * len(found))))
    _draw_grain(top, found)
    _draw_samples(below, found)
    save_figure(figure, target)
    return True


def _draw_grain(figure: SubFigure, traces: Sequence[Trace]) -> None:
    axes = figure.subplots()
    for number, trace in enumerate(traces):
        marker, dashes = MARKS[number]
        axes.plot(trace.steps, trace.columns[GRAIN].mean(1), linestyle=dashes, marker=marker, markersize=4, label=_label(trace))
    axes.axhline(1.0, color="black", linewidth=0.8, label="the photograph")
    first, last = (share * max(traces[0].steps) for share in MIDDLE)
    axes.axvspan(first, last, color="black", alpha=0.06, linewidth=0)
    axes.set(xlabel="training step", ylabel="grain (high-frequency energy,\nmultiple of the photograph's)")
    axes.legend(fontsize=8, ncols=2)


def _draw_samples(figure: SubFigure, traces: Sequence[Trace]) -> None:
    """A row an arm; the photograph stands behind the first."""
    steps = _steps(traces[0])
    grid = figure.subplots(len(traces), len(steps) + 2, squeeze=False, gridspec_kw={"wspace": 0.02, "hspace": 0.02})
    place = min(traces[0].files[steps[-1]])
    for axes in grid.flat:
        axes.axis("off")
    for row, trace in zip(grid, traces, strict=True):
        row[0].text(0.0, 0.5, _label(trace).replace(", ", ",\n"), fontsize=8, va="center")
        for axes, step in zip(row[1:-1], steps, strict=True):
            if place in trace.files.get(step, {}):
                with Image.open(trace.files[step][place]) as image:
                    axes.imshow(np.asarray(shown(image, SIDE)))
    for axes, step in zip(grid[0][1:-1], steps, strict=True):
        axes.set_title(f"step {step}", fontsize=8)
    if traces[0].photos:
        grid[0][-1].imshow(np.asarray(shown(traces[0].photos[0], SIDE)))
        grid[0][-1].set_title("photograph", fontsize=8)


def _steps(trace: Trace) -> list[int]:
    """The checkpoints nearest to ``SHARES`` that have samples, each once."""
    there, last = np.array(sorted(trace.files)), max(trace.files)
    return list(dict.fromkeys(int(there[np.abs(there - share * last).argmin()]) for share in SHARES))
