"""The two pictures of a run: the curve with its verdict, and the grid of samples over steps."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from bayesdiff.core.files import atomic_write
from bayesdiff.core.layout import CURVE_PICTURE, GRID, image_name, images_folder
from bayesdiff.corruption import CorruptionVerdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

GRID_COLUMNS = 12


def save_figure(figure: Figure, *targets: Path) -> None:
    """Write PNG or SVG (by the ending) whole or not at all, the same bytes every time."""
    import matplotlib
    import matplotlib.pyplot as plt

    metadata: dict[str, dict[str, str | None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
    for target in targets:
        kind = target.suffix.lstrip(".") or "png"
        with atomic_write(target) as part, matplotlib.rc_context({"svg.hashsalt": "bayesdiff"}):
            figure.savefig(part, format=kind, dpi=110, metadata=metadata.get(kind))
    plt.close(figure)


def panels(count: int, columns: int, size: tuple[float, float], sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels of ``size`` inches, at most ``columns`` beside each other."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(columns, count)
    rows = -(-count // columns)
    shape = (size[0] * columns, size[1] * rows)
    figure, axes = plt.subplots(rows, columns, figsize=shape, sharey=sharey, squeeze=False, layout="constrained")
    for spare in axes.flat[count:]:
        spare.axis("off")
    return figure, list(axes.flat[:count])


def draw_band(axes: Axes, curve: pd.DataFrame, metric: str, label: str, colour: str) -> None:
    """Mean curve with a 95 % band over images."""
    centre, half = curve[metric], 1.96 * curve[f"{metric}_se"].fillna(0.0)
    axes.plot(curve["step"], centre, marker="o", markersize=3.5, color=colour, label=label)
    axes.fill_between(curve["step"], centre - half, centre + half, color=colour, alpha=0.2, linewidth=0)


def _draw_verdict(axes: Axes, verdict: CorruptionVerdict) -> None:
    """Shade the stage and mark the checkpoint to keep."""
    if verdict.onset_step is not None and verdict.recovery_step is not None:
        axes.axvspan(verdict.onset_step, verdict.recovery_step, color="C3", alpha=0.12, label="corruption stage")
    axes.axvline(verdict.best_step, color="C2", linestyle="--", linewidth=1, label=f"best checkpoint ({verdict.best_step})")


def plot_verdicts(target: Path, curves: list[tuple[str, str, list[int], NDArray[np.float64], CorruptionVerdict]]) -> None:
    """One panel a curve: (name, metric, steps, scores (T, images), verdict)."""
    figure, places = panels(len(curves), 2, (6.5, 3.8))
    for place, (name, metric, steps, scores, verdict) in zip(places, curves, strict=True):
        error = scores.std(1, ddof=1) / np.sqrt(scores.shape[1]) if scores.shape[1] > 1 else np.zeros(len(steps))
        table = pd.DataFrame({"step": steps, metric: scores.mean(1), f"{metric}_se": error})
        draw_band(place, table, metric, metric, "C0")
        _draw_verdict(place, verdict)
        place.set(xlabel="training step", ylabel=metric)
        place.set_title("\n".join(textwrap.wrap(f"{Path(name).name}: {verdict.sentence}", 90)), fontsize=8)
        place.legend(fontsize=7)
    save_figure(figure, target)


def plot_curve(run: Path, curve: pd.DataFrame, verdict: CorruptionVerdict, metric: str, title: str) -> None:
    """``curve.png``: the curve, the stage shaded, samples at first, peak, trough and last checkpoint."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(9, 6.2), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(2.4, 1))
    top, bottom = parts
    axes = top.subplots()
    draw_band(axes, curve, metric, "mean and 95 % band over images", "C0")
    _draw_verdict(axes, verdict)
    axes.set(xlabel="training step", ylabel=f"{metric} similarity to the training images", title=title)
    axes.legend(fontsize=8)
    named = {
        "first": int(curve["step"].iloc[0]),
        "peak": verdict.peak_step,
        "trough": verdict.trough_step,
        "last": int(curve["step"].iloc[-1]),
    }
    shown = {name: step for name, step in named.items() if step is not None}
    for cell, (name, step) in zip(bottom.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        cell.imshow(_strip(images_folder(run, step)))
        cell.set_title(f"{name}: step {step}", fontsize=9)
        cell.axis("off")
    top.suptitle("\n".join(textwrap.wrap(verdict.sentence, 120)), fontsize=8)
    save_figure(figure, run / CURVE_PICTURE)


def _strip(folder: Path, count: int = 2) -> Image.Image:
    """The first images of a checkpoint side by side."""
    images = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))[:count]]
    width, height = images[0].size
    strip = Image.new("RGB", (width * len(images), height))
    for i, image in enumerate(images):
        strip.paste(image, (i * width, 0))
    return strip


def plot_grid(run: Path, steps: list[int], prompts: list[str], photos: list[Image.Image], side: int = 112) -> None:
    """``grid.png``: rows are prompts, columns are steps; the training images stand on top."""
    if len(steps) > GRID_COLUMNS:
        chosen = [steps[round(i * (len(steps) - 1) / (GRID_COLUMNS - 1))] for i in range(GRID_COLUMNS)]
        steps = sorted(set(chosen))
    left, header = 130, 18
    sheet = Image.new("RGB", (left + side * len(steps), header + side * (len(prompts) + 1)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((4, 4), "training images", fill="black")
    for i, photo in enumerate(photos[: len(steps)]):
        sheet.paste(photo.resize((side, side), Image.Resampling.NEAREST), (left + i * side, 0))
    for column, step in enumerate(steps):
        draw.text((left + column * side + 4, side + 3), f"step {step}", fill="black")
    for row, prompt in enumerate(prompts):
        y = header + side * (row + 1)
        draw.multiline_text((4, y + 8), "\n".join(textwrap.wrap(prompt, 19)), fill="black")
        for column, step in enumerate(steps):
            path = images_folder(run, step) / image_name(row, 0)
            if path.exists():
                sheet.paste(Image.open(path).resize((side, side), Image.Resampling.NEAREST), (left + column * side, y))
    with atomic_write(run / GRID) as part:
        sheet.save(part, format="PNG")
