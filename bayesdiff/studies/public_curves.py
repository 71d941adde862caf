"""What the verdict says of curves that others made: ``results/curves``.

Command:  python -m bayesdiff.studies.public_curves results/curves      (make curves)

Reads every CSV file there, and writes ``verdicts.csv``, ``verdicts.png`` and the table of ``README.md``. For every curve it has what a
naive rule says (a fall of ``NAIVE`` and a return of as much), what the verdict says, and how deep a stage would have to be for a curve with
these checkpoints and this noise to show it.
"""

from __future__ import annotations

import argparse
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayesdiff.core.errors import UserError
from bayesdiff.core.files import atomic_write, write_text
from bayesdiff.core.seeds import derive
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.corruption.detector import MIN_POINTS, decide
from bayesdiff.corruption.power import stage_curve
from bayesdiff.readings import Naming, Reading, judge, read

Judged = tuple[CorruptionVerdict, Reading]
NAIVE = 0.03
"""Fall and return that the naive rule asks for: the verdict's smallest depth, without its test."""
POWER, TRIES, WIDTH = 0.8, 40, 0.35
RATIOS = tuple(float(ratio) for ratio in np.geomspace(2, 100, 16).round(1))
"""Depths that are tried, in units of the noise between checkpoints."""
SOURCES = (("peft_image_gen.csv", "run"), ("paper_figure_1_dreambooth.csv", None), ("paper_figure_1_bnn.csv", None))
BEGIN, END = "<!-- made by make curves -->", "<!-- end -->"


def naive_fall(curve: np.ndarray) -> float:
    """Of a curve (T,), the deepest fall from an earlier checkpoint with a return to a later one: the smaller of the two.

    It is 0 for a curve that never comes back.
    """
    inner = range(1, len(curve) - 1)
    return max([0.0, *(float(min(curve[:i].max(), curve[i + 1 :].max()) - curve[i]) for i in inner)])


@cache
def detectable_ratio(steps: tuple[int, ...], known: bool) -> float:
    """Depth of a stage in units of the noise between checkpoints that bare curves at these steps show in ``POWER`` of tries.

    The stage is ``WIDTH`` of the checkpoints wide, in the middle, and the noise is white. Infinite where none of ``RATIOS`` is.

    Args:
        known: the noise was measured elsewhere, by other seeds; else the curve's own roughness has to show it.
    """
    if len(steps) < MIN_POINTS or _found(steps, RATIOS[-1], known) < POWER:
        return float("inf")
    low, high = 0, len(RATIOS) - 1  # the last one is found, and power grows with depth
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _found(steps, RATIOS[middle], known) >= POWER else (middle + 1, high)
    return RATIOS[high]


def _found(steps: tuple[int, ...], ratio: float, known: bool) -> float:
    mean, found = stage_curve(len(steps), 1.0, WIDTH), 0
    for repeat in range(TRIES):
        noise = np.random.default_rng(derive(repeat, "public curves", len(steps))).standard_normal(len(steps)) / ratio
        size = 1 / ratio if known else None
        found += decide(
            steps, mean + noise, min_depth=0.0, seed=repeat, checkpoint_noise=size, correlation_time=0.0 if known else None
        ).stage
    return found / TRIES


def judged(folder: Path) -> list[Judged]:
    """Every curve of the folder with its verdict, in the order of the files."""
    return [judge(reading) for name, run in SOURCES for reading in read(str(folder / name), Naming(run=run))]


def row_of(one: Judged) -> dict[str, Any]:
    """A curve's line: the naive rule, the verdict, and what could be seen."""
    verdict, reading = one
    curve, steps = reading.columns[reading.metric].mean(1), tuple(int(step) for step in reading.steps)
    fall, noise = naive_fall(curve), verdict.checkpoint_noise
    alone, known = (detectable_ratio(steps, known) * noise if noise > 0 else float("nan") for known in (False, True))
    return {
        "curve": named(reading), "checkpoints": len(curve), "fall": fall, "naive": "corrupted" if fall >= NAIVE else "none",
        "verdict": verdict.kind, "p": verdict.p_value if len(curve) >= MIN_POINTS else float("nan"), "depth": verdict.depth,
        "level_3": verdict.level_3, "noise": noise, "seen_alone": alone, "seen_known": known, "keep": verdict.best_step,
    }  # fmt: skip


def named(reading: Reading) -> str:
    """A curve's short name: the run of a table, or the file."""
    table, bracket, run = reading.name.partition(" [")
    return run.rstrip("]").replace("/flux2-klein", "") if bracket else Path(table).stem


def table_text(rows: pd.DataFrame) -> str:
    """The table of the page, in Markdown."""
    shown = pd.DataFrame({
        "curve": rows["curve"], "checkpoints": rows["checkpoints"], "falls and returns by": rows["fall"].map("{:.3f}".format),
        "naive rule": rows["naive"], "verdict": rows["verdict"].str.replace("_", " "), "p": [_number(p) for p in rows["p"]],
        "noise": rows["noise"].map("{:.3f}".format), "seen from depth": [_number(value) for value in rows["seen_alone"]],
        "with known noise": [_number(value) for value in rows["seen_known"]], "keep": rows["keep"],
    })  # fmt: skip
    return str(shown.to_markdown(index=False))


def _number(value: float) -> str:
    if np.isnan(value):
        return "—"
    return "no depth" if np.isinf(value) else f"{value:.2f}" if value >= 0.01 else f"{value:.3f}"


def summary(rows: pd.DataFrame) -> str:
    """What the table says in a few sentences."""
    short = rows[rows["checkpoints"] < 10]
    naive, ours = int((short["naive"] == "corrupted").sum()), int((short["verdict"] == "corruption").sum())
    few, known = int((short["verdict"] == "too_few_points").sum()), short["seen_known"][np.isfinite(short["seen_known"])]
    alone = "none of these curves shows a stage by itself, however deep" if np.isinf(short["seen_alone"].dropna()).all() else (
        f"the median curve shows a stage from a depth of {short['seen_alone'].median():.2f} on"
    )  # fmt: skip
    return (
        f"The naive rule (a fall of {NAIVE} and a return of as much) calls {naive} of peft's {len(short)} curves corrupted. The verdict "
        f"calls {ours}, and {few} too short. In 80 % of tries {alone}: a curve of seven points does not show its own noise. With the noise "
        f"known from other seeds, the median curve would show a stage from a depth of {known.median():.2f} on.\n\n"
        "So *none* means here that nothing could be seen, and not that nothing was there. Where a curve has a stage, its corners count as "
        "noise, and it would be seen at a smaller depth than the table says."
    )


def draw(curves: list[Judged], rows: pd.DataFrame, target: Path) -> None:
    """All curves in small panels: a red frame where the naive rule sees corruption, a shaded stage where the verdict does."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from bayesdiff.recording.plots import save_figure

    columns = 7
    figure, axes = plt.subplots(-(-len(curves) // columns), columns, figsize=(16, 11), layout="constrained")
    for axis in axes.ravel()[len(curves) :]:
        axis.axis("off")
    for axis, (verdict, reading), row in zip(axes.ravel(), curves, rows.to_dict("records"), strict=False):
        axis.plot(reading.steps, reading.columns[reading.metric].mean(1), marker=".", color="black", linewidth=1)
        if verdict.flagged and verdict.onset_step is not None and verdict.recovery_step is not None:
            axis.axvspan(verdict.onset_step, verdict.recovery_step, color="tab:red", alpha=0.2)
        naive = row["naive"] == "corrupted"
        axis.set_title(f"{row['curve']}\nnaive: {row['naive']}; verdict: {row['verdict'].replace('_', ' ')}", fontsize=6)
        for spine in axis.spines.values():
            spine.set_color("tab:red" if naive else "grey")
        axis.tick_params(labelsize=6)
    save_figure(figure, target)


def with_table(page: str, text: str) -> str:
    """The page with what stands between its two marks replaced; raises ``UserError`` where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"README.md: has no lines {BEGIN} and {END}; add them where the table belongs")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bayesdiff.studies.public_curves", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder
    curves = judged(folder)
    rows = pd.DataFrame([row_of(one) for one in curves])
    with atomic_write(folder / "verdicts.csv") as part:
        rows.to_csv(part, index=False, float_format="%.4f", lineterminator="\n")
    rows = pd.read_csv(folder / "verdicts.csv")
    draw(curves, rows, folder / "verdicts.png")
    page = folder / "README.md"
    write_text(page, with_table(page.read_text(encoding="utf-8"), f"{summary(rows)}\n\n{table_text(rows)}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
