"""The two pictures of a run: the curve with its verdict, and the grid of samples over steps.

Texts that a user gave go through ``escape.plot``. Pictures are never shown with grain that they do not have (``shown``).
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from bayesdiff.core import escape
from bayesdiff.core.files import atomic_write
from bayesdiff.core.layout import CURVE_PICTURE, GRID, PROBES, image_name, images_folder
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.scoring.curve import half_band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

GRID_COLUMNS = 12
LEFT, HEADER = 130, 18
"""Of the grid, in pixels: the width of the prompts, the height of the line of steps."""
STRIP = 2
"""Images of a checkpoint that ``curve.png`` shows, of its first prompts."""
MARKS: tuple[tuple[str, Any], ...] = (
    ("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."), ("v", (0, (5, 1, 1, 1))), ("P", (0, (3, 2))), ("X", (0, (1, 1))), ("*", (0, (6, 2))),
)  # fmt: skip
"""Marker and dashes of line 0, 1, …: what tells lines apart without colour."""
AXIS_LABELS = {
    "dino": "DINO similarity to the training images", "clip_i": "CLIP-I similarity to the training images",
    "clip_t": "CLIP-T similarity to the prompt", "clip_t_with_token": "CLIP-T similarity to the prompt with the identifier",
    "clip_t_without_token": "CLIP-T similarity to the prompt without the identifier", "hf_energy": "high-frequency energy",
    "hf_relative": "high-frequency energy over the photographs'", "colour_distance": "distance of the mean colour",
    "band_fine": "contrast at periods of 2 to 4 pixels", "band_middle": "contrast at periods of 4 to 16 pixels",
    "failed": "share of failed images", "diversity": "DINO distance between images of a prompt",
    "lpips": "LPIPS distance between images of a prompt", "clip_iqa": "CLIP-IQA quality",
}  # fmt: skip
"""What a metric says, for an axis; a metric of a user's own is shown by its name."""
PROBED = {
    "loss on the training image": ("loss", "loss_empty"), "squared gap of the two predictions": ("gap",),
    "loss over the pretrained model's": ("loss_ratio",),
}  # fmt: skip
"""Panels of the probes, and the columns of ``probes.csv`` in each."""
PROBE_LABELS = {"loss": "instance prompt", "loss_empty": "empty prompt", "gap": "gap", "loss_ratio": "ratio"}


def axis_label(metric: str) -> str:
    """A metric in words, ready for matplotlib."""
    return AXIS_LABELS.get(metric) or escape.plot(metric)


def shown(image: Image.Image, side: int) -> Image.Image:
    """A square picture at about ``side`` pixels: shrunk by a Lanczos filter, or enlarged by a whole number of times.

    A picture that is shrunk by leaving pixels out shows grain that it does not have; enlarged, every pixel keeps its own square.
    """
    width = image.width
    if width > side:
        return image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    size = width * max(1, round(side / width))
    return image.convert("RGB").resize((size, size), Image.Resampling.NEAREST)


def settle(figure: Figure) -> None:
    """Lay a figure out now, for every file that is written of it: a layout takes longer than a drawing."""
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)
    figure.set_layout_engine(None)  # "none" would draw the figure once more for every file


def plain_powers(axes: Axes) -> None:
    """A vertical scale of powers whose labels are plain numbers: formulas take longer than the whole rest of a picture."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(Plain(labelOnlyBase=False))
    axes.yaxis.set_minor_formatter(Plain(labelOnlyBase=False))


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


def draw_band(axes: Axes, curve: pd.DataFrame, metric: str, label: str, number: int = 0) -> None:
    """Mean curve with a 95 % band over images; ``number`` gives it colour, marker and dashes of its own."""
    colour, (marker, dashes) = f"C{number}", MARKS[number % len(MARKS)]
    centre, half = curve[metric], half_band(curve[f"{metric}_se"].fillna(0.0), curve["images"])
    axes.plot(curve["step"], centre, linestyle=dashes, marker=marker, markersize=3.5, color=colour, label=escape.plot(label))
    axes.fill_between(curve["step"], centre - half, centre + half, color=colour, alpha=0.2, linewidth=0)


def kept_step(verdict: CorruptionVerdict) -> int | None:
    """The checkpoint to keep; None where none is better than the base model."""
    return verdict.best_step if verdict.better_than_base else None


def _draw_verdict(axes: Axes, verdict: CorruptionVerdict, steps: Sequence[int], values: Sequence[float]) -> None:
    """Hatch what is to be avoided, shade the stage; mark peak, trough and the checkpoint to keep on ``values`` at ``steps``."""
    for i, (first, last) in enumerate([*verdict.avoid, *verdict.grainy]):
        axes.axvspan(first, last, facecolor="none", edgecolor="C3", alpha=0.35, hatch="//", label="" if i else "to avoid")
    if verdict.flagged and verdict.onset_step is not None and verdict.recovery_step is not None:
        axes.axvspan(verdict.onset_step, verdict.recovery_step, color="C3", alpha=0.12, label="corruption stage")
    height = dict(zip(steps, values, strict=True))
    kept = kept_step(verdict)
    marked = {verdict.peak_step: ("peak", "^", "C1"), verdict.trough_step: ("trough", "v", "C3")}
    if kept is not None:
        word = "peak, and checkpoint to keep" if kept == verdict.peak_step else "checkpoint to keep"
        marked[kept] = (word, "*", "C2")
    for step, (word, marker, colour) in marked.items():
        if step is not None and step in height:
            size = 13 if marker == "*" else 8
            axes.plot([step], [height[step]], marker, markersize=size, color=colour, zorder=3, label=f"{word} (step {step})")


def _wrapped(text: str, width: int) -> str:
    """A text in lines of at most ``width`` characters, ready for matplotlib."""
    return "\n".join(escape.plot(line) for line in textwrap.wrap(escape.plain(text), width))


def plot_verdicts(target: Path, curves: list[tuple[str, str, list[int], NDArray[np.float64], CorruptionVerdict]]) -> None:
    """One panel a curve: (name, metric, steps, scores (T, images), verdict)."""
    figure, places = panels(len(curves), 2, (6.5, 3.8))
    for place, (name, metric, steps, scores, verdict) in zip(places, curves, strict=True):
        error = scores.std(1, ddof=1) / np.sqrt(scores.shape[1]) if scores.shape[1] > 1 else np.zeros(len(steps))
        table = pd.DataFrame({"step": steps, "images": scores.shape[1], "value": scores.mean(1), "value_se": error})
        draw_band(place, table, "value", metric)
        _draw_verdict(place, verdict, steps, list(scores.mean(1)))
        place.set(xlabel="training step", ylabel=escape.plot(metric))
        place.set_title(_wrapped(f"{Path(name).name}: {verdict.sentence}", 90), fontsize=8)
        place.legend(fontsize=7)
    save_figure(figure, target)


def plot_curve(
    run: Path, curve: pd.DataFrame, verdict: CorruptionVerdict, metric: str, title: str, photos: Sequence[Image.Image] = ()
) -> None:
    """``curve.png`` and ``curve.svg``: the curve with its verdict, and below it the probes, the training images and what came of them.

    Shown are samples at the first and last checkpoint, at peak and trough, and of the checkpoint to keep.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    probes = read_probes(run)
    heights = (2.4, 1.2, 1) if probes is not None else (2.4, 1)
    figure = plt.figure(figsize=(9, 6.2 + 2 * (probes is not None)), layout="constrained")
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
    top, *below, bottom = parts
    axes = top.subplots()
    draw_band(axes, curve, metric, "mean and 95 % band over images")
    _draw_verdict(axes, verdict, [int(s) for s in curve["step"]], list(curve[metric]))
    axes.set(xlabel="training step", ylabel=axis_label(metric), title=_wrapped(title, 100))
    axes.legend(fontsize=8)
    if probes is not None:
        _draw_probes(below[0].subplots(1, len(PROBED)), probes)
    if cells := _cells(run, curve, verdict, photos):
        for cell, (name, picture) in zip(bottom.subplots(1, len(cells), squeeze=False)[0], cells, strict=True):
            cell.imshow(picture)
            cell.set_title(name, fontsize=8)
            cell.axis("off")
    top.suptitle(_wrapped(verdict.sentence, 120), fontsize=8)
    settle(figure)
    save_figure(figure, run / CURVE_PICTURE, (run / CURVE_PICTURE).with_suffix(".svg"))


def read_probes(run: Path) -> pd.DataFrame | None:
    """Means over timesteps of ``probes.csv``, a row a checkpoint and kind of weights; None where a run has no such table.

    Averages of several decays are kinds of their own, such as ``ema 0.9``.
    """
    try:
        table = pd.read_csv(run / PROBES)
        if "ema_decay" in table:
            table["weights"] += [f" {decay:g}" if decay == decay else "" for decay in table["ema_decay"]]
        return table.groupby(["weights", "step"], sort=False)[[name for names in PROBED.values() for name in names]].mean().reset_index()
    except (OSError, ValueError, KeyError):
        return None


def _draw_probes(places: Sequence[Axes], probes: pd.DataFrame) -> None:
    """A panel a group of ``PROBED``: the weights that are kept as lines, averaged ones dashed; on a scale of powers."""
    for place, (title, names) in zip(places, PROBED.items(), strict=True):
        for i, name in enumerate(names):
            for weights, rows in probes.groupby("weights", sort=False):
                dash, of = ("-", "") if weights == "kept" else ("--", f", {weights}")
                look: dict[str, Any] = {"color": f"C{i}", "linewidth": 1, "marker": MARKS[i][0], "markersize": 3}
                place.plot(rows["step"], rows[name], dash, label=escape.plot(f"{PROBE_LABELS[name]}{of}"), **look)
        plain_powers(place)
        place.set_xlabel("training step", fontsize=8)
        place.set_title(title, fontsize=8)
        place.tick_params(which="both", labelsize=7)
        place.legend(fontsize=6)


def _cells(run: Path, curve: pd.DataFrame, verdict: CorruptionVerdict, photos: Sequence[Image.Image]) -> list[tuple[str, Image.Image]]:
    """The training images, then the named steps in their order; a step that has several names is shown once."""
    steps = [int(s) for s in curve["step"]]
    roles = {"first": steps[0], "peak": verdict.peak_step, "trough": verdict.trough_step, "to keep": kept_step(verdict), "last": steps[-1]}
    named: dict[int, list[str]] = {}
    for role, step in roles.items():
        if step is not None:
            named.setdefault(step, []).append(role)
    more = f" ({min(STRIP, len(photos))} of {len(photos)})" if len(photos) > STRIP else ""
    found = [(f"training images{more}", _strip(photos[:STRIP]))]
    for step in sorted(named):
        paths = sorted(images_folder(run, step).glob("*.png"))[:STRIP]
        found.append((f"{', '.join(named[step])}\nstep {step}", _strip([Image.open(path) for path in paths])))
    return [(name, picture) for name, picture in found if picture is not None]


def _strip(images: Sequence[Image.Image], side: int = 192) -> Image.Image | None:
    """Pictures side by side, each as ``shown``; None without one."""
    tiles = [shown(image, side) for image in images]
    if not tiles:
        return None
    strip = Image.new("RGB", (sum(tile.width for tile in tiles), max(tile.height for tile in tiles)), "white")
    for i, tile in enumerate(tiles):
        strip.paste(tile, (sum(t.width for t in tiles[:i]), 0))
    return strip


def grid_steps(steps: Sequence[int], kept: int | None = None) -> list[int]:
    """At most ``GRID_COLUMNS`` of the steps, evenly chosen: the ends are among them, and the checkpoint to keep."""
    if len(steps) <= GRID_COLUMNS:
        return list(steps)
    chosen = sorted({steps[round(i * (len(steps) - 1) / (GRID_COLUMNS - 1))] for i in range(GRID_COLUMNS)})
    if kept is not None and kept in steps and kept not in chosen:
        there = kept
        nearest = min(chosen[1:-1], key=lambda step: abs(step - there))
        chosen[chosen.index(nearest)] = kept
    return sorted(chosen)


def plot_grid(run: Path, steps: list[int], prompts: list[str], photos: list[Image.Image], side: int = 160, kept: int | None = None) -> None:
    """``grid.png``: rows are prompts, columns are steps; all training images stand on top, ``kept`` is the checkpoint to keep."""
    steps = grid_steps(steps, kept)
    samples = {
        (row, column): shown(Image.open(path), side)
        for row in range(len(prompts))
        for column, step in enumerate(steps)
        if (path := images_folder(run, step) / image_name(row, 0)).exists()
    }
    tiles = [shown(photo, side) for photo in photos]
    size = max((tile.width for tile in [*samples.values(), *tiles]), default=side)
    columns = max(len(steps), min(GRID_COLUMNS, len(tiles)))
    top = size * math.ceil(len(tiles) / columns)
    sheet = Image.new("RGB", (LEFT + size * columns, top + HEADER + size * len(prompts)), "white")
    draw = ImageDraw.Draw(sheet)
    if tiles:
        draw.text((4, 4), f"{len(tiles)} training image{'s' if len(tiles) > 1 else ''}", fill="black")
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (LEFT + i % columns * size, i // columns * size))
    for column, step in enumerate(steps):
        draw.text((LEFT + column * size + 4, top + 3), f"step {step}{', to keep' if step == kept else ''}", fill="black")
    for row, prompt in enumerate(prompts):
        _draw_prompt(draw, prompt, top + HEADER + row * size, size)
    for (row, column), tile in samples.items():
        sheet.paste(tile, (LEFT + column * size, top + HEADER + row * size))
    with atomic_write(run / GRID) as part:
        sheet.save(part, format="PNG")


def _draw_prompt(draw: ImageDraw.ImageDraw, prompt: str, y: int, height: int) -> None:
    """A prompt left of its row, cut where the row ends."""
    lines = textwrap.wrap(escape.plain(prompt), 19, max_lines=max(1, (height - 8) // 15), placeholder=" …")
    draw.multiline_text((4, y + 8), "\n".join(lines), fill="black")
