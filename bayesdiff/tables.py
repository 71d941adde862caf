"""Tables and figures from records: ``python -m bayesdiff.tables results/toybox`` (``make paper-tables``).

Every study that has half of its records (``--partial``: any) gets ``tables/<study>.{csv,md,tex}`` and
``figures/<study>.{png,svg}``: the mean at the last checkpoint and its deviation over seeds, as the paper
prints them, and the paired difference from the study's reference arm with its interval and a p-value
corrected over the table (Holm). Cells without records are shown as missing, with the command that fills them.

``--explain STUDY ROW COLUMN`` names the runs a number comes from. Written twice, in any order of
records, the files are the same byte for byte.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayesdiff.config import arm_name, run_name
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.corruption.detector import stage_depth
from bayesdiff.corruption.shape import Array
from bayesdiff.errors import UserError, bad_input_in_one_line
from bayesdiff.files import staged, write_text
from bayesdiff.recording.record import RECORDS, RunRecord, load_record
from bayesdiff.stats import aggregate_as_paper, holm, paired_difference
from bayesdiff.studies.collect import IMAGES, image_scores, judged, load_records
from bayesdiff.studies.paper import paper_label, paper_numbers
from bayesdiff.studies.plan import Cell, Study, compose_cell, load_study, models_of, study_names

METRICS = ("dino", "clip_i", "clip_t", "lpips", "clip_iqa", "diversity", "hf_energy")
NAMES = {"dino": "DINO", "clip_i": "CLIP-I", "clip_t": "CLIP-T", "lpips": "LPIPS", "clip_iqa": "CLIP-IQA", "diversity": "diversity",
         "hf_energy": "HF energy", "dino over steps": "DINO over steps", "dip": "deepest dip", "flagged": "flagged"}  # fmt: skip
OF_THE_CURVE = ("dino over steps", "dip", "flagged")
"""What a table says of whole curves, behind the metrics at the last checkpoint."""
SAMPLED_AXES = ("seed", "data.subject")
"""Axes that a row averages over."""
MISSING = "missing"
UNJUDGED = ("too_few_points", "diverged", "broken_sampling")
"""Verdicts that say nothing about a dip."""
WORTH_A_TABLE = 0.5
"""Share of a study's runs: runs are shared by studies, and a few of another one's make no table."""


@dataclass(frozen=True)
class Found:
    """One run of a study that has a record."""

    cell: Cell
    folder: Path
    record: RunRecord

    @cached_property
    def verdict(self) -> CorruptionVerdict:
        """Today's verdict, asked for once."""
        return judged(self.folder, self.record)


@dataclass(frozen=True)
class Row:
    """All runs of one row of a table: the cells that differ in subject and seed alone."""

    labels: dict[str, str]
    cells: tuple[Cell, ...]
    found: tuple[Found, ...]
    diverged: int = 0
    """Runs that ended without a result, and will not have one."""

    @property
    def name(self) -> str:
        return ", ".join(f"{axis} {label}" if axis != "method" else label for axis, label in self.labels.items()) or "all"

    @property
    def complete(self) -> bool:
        return len(self.found) == len(self.cells)


def rows_of(study: Study, results: Path) -> list[Row]:
    """The rows of a study's table, in the order of its grid, with the records there are."""
    grouped: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in study.cells:
        key = tuple((axis, label) for axis, label in cell.labels.items() if axis not in SAMPLED_AXES)
        grouped.setdefault(key, []).append(cell)
    return [_row(dict(key), cells, results) for key, cells in grouped.items()]


def _row(labels: dict[str, str], cells: list[Cell], results: Path) -> Row:
    found, diverged = [], 0
    for cell in cells:
        folder = results / RECORDS / run_name(compose_cell(cell))
        record = load_record(folder)
        if record is not None and record.status == "completed":
            found.append(Found(cell, folder, record))
        diverged += record is not None and record.status == "diverged"
    return Row(labels, tuple(cells), tuple(found), diverged)


def values(row: Row, metric: str) -> Array | None:
    """Scores (seeds, subjects, 1, images), see ``scores_of_run``; ``dip`` and ``flagged`` have one value a run.

    None where the metric was not measured, or a run of the row is missing.
    """
    return table_of(row, lambda found: scores_of_run(found, metric))


def table_of(row: Row, of_run: Callable[[Found], Array | None]) -> Array | None:
    """What is read off every run, (seeds, subjects, 1, values); None where a run, or its value, is missing."""
    if not row.complete:
        return None
    seeds = list(dict.fromkeys(found.cell.labels.get("seed", "0") for found in row.found))
    subjects = list(dict.fromkeys(found.cell.labels.get("data.subject", "") for found in row.found))
    cells: dict[tuple[str, str], Array | None] = {
        (found.cell.labels.get("seed", "0"), found.cell.labels.get("data.subject", "")): of_run(found) for found in row.found
    }
    table = [[cells.get((seed, subject)) for subject in subjects] for seed in seeds]
    if any(cell is None for line in table for cell in line):
        return None
    return np.array(table, dtype=np.float64)[:, :, None, :]


def scores_of_run(found: Found, metric: str) -> Array | None:
    """A metric's scores (images,) at the last checkpoint, or what the whole curve shows (``OF_THE_CURVE``).

    None where it was not measured or judged, or has values that are not finite.
    """
    if metric in ("dip", "flagged") and found.verdict.kind in UNJUDGED:
        return None
    if metric == "flagged":
        return np.array([float(found.verdict.flagged)])
    if metric == "dip":  # as fitted, whether flagged or not: a verdict's depth is less what noise adds, where it is flagged
        judged_metric = found.record.config["detector"]["metric"]
        return np.array([max(stage_depth(image_scores(found.folder, judged_metric)[1].mean(1)), 0.0)])
    column = "dino" if metric == "dino over steps" else metric
    if column not in pd.read_csv(found.folder / IMAGES, nrows=0).columns:
        return None
    steps, scores = image_scores(found.folder, column)
    if column == metric:
        of_images = scores[-1]
    elif len(steps) > 1:
        of_images = np.trapezoid(scores, steps, axis=0) / (steps[-1] - steps[0])
    else:
        return None
    return np.asarray(of_images) if np.isfinite(of_images).all() else None


def reference_of(study: Study, row: Row, rows: list[Row]) -> Row | None:
    """The row that a row is compared to; None for the reference itself, and in studies without one."""
    if study.compare is None:
        return None
    axis, label = study.compare
    if row.labels.get(axis) == label:
        return None
    wanted = {**row.labels, axis: label}
    return next((other for other in rows if other.labels == wanted), None)


def prompts_of(row: Row, images: int) -> list[int]:
    """(images,) number of each image's prompt; one for a run's single value."""
    each = int(row.found[0].record.config["sampler"]["images_per_prompt"])
    return [i // each for i in range(images)] if images > 1 else [0]


def study_table(study: Study, rows: list[Row]) -> pd.DataFrame:
    """One line a row and metric: mean, deviation over seeds, the paper's numbers, and the difference from the reference."""
    lines, label = [], paper_label(study.model)
    for row in rows:
        reference = reference_of(study, row, rows)
        for metric in (*METRICS, *OF_THE_CURVE):
            scores = values(row, metric)
            if scores is None:
                continue
            line: dict[str, object] = {**row.labels, "metric": NAMES[metric], "runs": len(row.found)}
            mean, spread = aggregate_as_paper(scores)
            line |= {"mean": mean[0], "sd_over_seeds": spread[0]}
            if (printed := paper_numbers(study.name, row.labels, metric, study.model)) is not None:
                line |= {f"{label}: mean": printed[0], f"{label}: sd": printed[1]}
            if reference is not None and (other := values(reference, metric)) is not None:
                line |= _difference(scores, other, prompts_of(row, scores.shape[3]))
            lines.append(line)
    table = pd.DataFrame(lines)
    if "p" in table:
        table["p_holm"] = holm(table["p"])
    return table


def _difference(scores: Array, reference: Array, prompts: list[int]) -> dict[str, object]:
    result = paired_difference(scores, reference, prompts=prompts)
    p = result.p_value[0] if result.of_runs else np.nan
    low, high = (result.low[0], result.high[0]) if result.levels else (np.nan, np.nan)
    return {"difference": result.mean[0], "low": low, "high": high, "p": p, "over": " ".join(result.levels)}


def printed_table(study: Study, rows: list[Row], table: pd.DataFrame) -> pd.DataFrame:
    """The table as people read it: a line a row, a column a metric; missing rows say so."""
    axes, label = list(rows[0].labels), paper_label(study.model)
    lines = []
    for row in rows:
        line: dict[str, str] = dict(row.labels)
        line["runs"] = f"{len(row.found)}/{len(row.cells)}"
        mine = table[(table[axes] == pd.Series(row.labels)).all(axis=1)] if len(table) and axes else table
        for values_ in mine.to_dict("records"):
            line[str(values_["metric"])] = _cell(values_)
            if f"{label}: mean" in values_ and not pd.isna(values_[f"{label}: mean"]):
                line[f"{values_['metric']} ({label})"] = _mean(values_[f"{label}: mean"], values_[f"{label}: sd"], 4)
        lines.append(line)
    return pd.DataFrame(lines).fillna(MISSING)


def _mean(mean: float, spread: float, digits: int = 3) -> str:
    return f"{mean:.3f}" if np.isnan(spread) else f"{mean:.3f} ({spread:.{digits}f})"


def _cell(values_: dict[str, Any]) -> str:
    text = _mean(values_["mean"], values_["sd_over_seeds"])
    if "difference" in values_ and not pd.isna(values_["difference"]):
        p = ", these runs" if pd.isna(values_["p_holm"]) else f", p {values_['p_holm']:.3f}"
        interval = "" if pd.isna(values_["low"]) else f" [{values_['low']:+.3f}, {values_['high']:+.3f}]"
        text += f"; {values_['difference']:+.3f}{interval}{p}"
    return text


CAPTION = (
    "Mean (standard deviation over seeds, as the paper prints) at the last checkpoint; *DINO over steps*, *deepest dip* and *flagged* are "
    "of the whole curve: its mean over training time, its deepest fall and return as fitted, and whether that is a stage. Then the "
    "paired difference from the reference arm with its 95 % interval over subjects, seeds, prompts and images, and its p-value "
    "corrected over this table (Holm). *These runs*: one run on each side, so that the interval is over prompts and images alone and "
    "another seed may differ by more."
)


def write_study(study: Study, results: Path, share: float = 0.0) -> str:
    """Write a study's table and figure and say which; where it has no record, or less than ``share`` of them, say so."""
    rows = rows_of(study, results)
    found, runs = sum(len(row.found) for row in rows), len(study.cells)
    if not found:
        return ""
    if found < share * runs:
        return f"{study.name}: {found} of {runs} runs, no table yet (--partial)"
    table = study_table(study, rows)
    printed = printed_table(study, rows, table)
    target = results / "tables"
    target.mkdir(parents=True, exist_ok=True)
    with staged(target / f"{study.name}.csv") as part:
        table.to_csv(part, index=False, float_format="%.5f", lineterminator="\n")
    lacking = sum(len(row.cells) - len(row.found) for row in rows)
    note = (
        f"\n{lacking} runs are missing: `python -m bayesdiff.study {study.name} --model {study.model} --results {results}`\n"
        if lacking
        else ""
    )
    heading = f"# {study.title}{f' ({study.paper})' if study.paper else ''}\n\n{CAPTION}\n\n"
    write_text(target / f"{study.name}.md", heading + printed.to_markdown(index=False) + "\n" + note)
    write_text(target / f"{study.name}.tex", printed.to_latex(index=False, escape=True, caption=study.title, label=f"tab:{study.name}"))
    draw_study(study, rows, results / "figures")
    return f"{target / study.name}.md"


def runs_table(results: Path) -> pd.DataFrame:
    """A line a record: what it was, how its curve went, today's verdict and its cost."""
    lines = []
    for folder, record in load_records(results):
        config = record.config
        verdict = judged(folder, record).to_dict() if (folder / IMAGES).exists() else {}
        line: dict[str, object] = {
            "run": folder.name, "status": record.status, "method": config["method"]["name"], "arm": arm_name(config["bnn"]),
            "learning_rate": config["method"]["learning_rate"], "subject": config["data"]["subject"], "shots": config["shots"]["count"],
            "seed": config["seed"], "steps": config["schedule"]["steps"], "kind": verdict.get("kind"), "p_value": verdict.get("p_value"),
        }  # fmt: skip
        line |= {f"{name}_step": verdict.get(f"{name}_step") for name in ("peak", "onset", "trough", "recovery", "best")}
        if (folder / "curve.csv").exists():
            line |= curve_shape(pd.read_csv(folder / "curve.csv"))
        lines.append({**line, "minutes": sum(record.seconds.values()) / 60, "memory_mb": max(record.peak_memory_mb.values(), default=0.0)})
    return pd.DataFrame(lines)


def curve_shape(curve: pd.DataFrame, metric: str = "dino") -> dict[str, float]:
    """Rise, deepest fall from an earlier peak, and the share of it that came back, read off the means (no test)."""
    means, steps = curve[metric].to_numpy(), curve["step"].to_numpy()
    trough = int((np.maximum.accumulate(means) - means).argmax())
    peak = int(means[: trough + 1].argmax())
    fall = float(means[peak] - means[trough])
    back = float(means[trough:].max() - means[trough]) / fall if fall > 0 else 0.0
    return {
        "first": float(means[0]), "highest_before": float(means[peak]), "at": float(steps[peak]), "lowest_after": float(means[trough]),
        "at_step": float(steps[trough]), "fall": fall, "share_recovered": back, "last": float(means[-1]),
        "clip_t_last": float(curve["clip_t"].iloc[-1]),
    }  # fmt: skip


def printed_runs(table: pd.DataFrame) -> pd.DataFrame:
    """The table of runs as people read it: how each curve went, and what the verdict says."""
    ordered = table.sort_values(["method", "arm", "learning_rate", "subject", "shots", "seed", "run"])
    lines = []
    for row in ordered.to_dict("records"):
        line = {name: row[name] for name in ("method", "arm", "subject", "shots", "seed", "steps")} | {
            "learning rate": f"{row['learning_rate']:g}"
        }
        if not pd.isna(row.get("first", np.nan)):
            line |= {
                "first": f"{row['first']:.2f}", "highest before": f"{row['highest_before']:.2f} ({row['at']:.0f})",
                "lowest after": f"{row['lowest_after']:.2f} ({row['at_step']:.0f})", "deepest fall": f"{row['fall']:.2f}",
                "won back": f"{row['share_recovered']:.0%}", "last": f"{row['last']:.2f}", "CLIP-T last": f"{row['clip_t_last']:.2f}",
            }  # fmt: skip
        judged_ = "" if pd.isna(row["p_value"]) else f" (p {row['p_value']:.2f})"
        lines.append(
            {**line, "verdict": f"{row['status'] if pd.isna(row['kind']) else row['kind']}{judged_}", "minutes": f"{row['minutes']:.0f}"}
        )
    return pd.DataFrame(lines).fillna("-")


def write_runs(results: Path) -> None:
    """``tables/runs.csv``, and ``tables/runs.md`` for people."""
    table = runs_table(results)
    (results / "tables").mkdir(parents=True, exist_ok=True)
    with staged(results / "tables" / "runs.csv") as part:
        table.to_csv(part, index=False, float_format="%.4g", lineterminator="\n")
    caption = "DINO of every run, (step) in brackets; the deepest fall from anything reached before, and how much of it came back."
    if len(table):
        text = printed_runs(table).to_markdown(index=False)
        write_text(results / "tables" / "runs.md", f"# All runs\n\n{caption}\n\n{text}\n")


def mean_curve(row: Row, metric: str = "dino") -> pd.DataFrame | None:
    """Mean over runs at every step and its standard error over runs (over images for a single run)."""
    curves = [pd.read_csv(found.folder / "curve.csv").set_index("step") for found in row.found]
    if not curves:
        return None
    joined = pd.concat([curve[metric] for curve in curves], axis=1, join="inner").sort_index(axis=0)
    error = joined.std(axis=1, ddof=1) / np.sqrt(joined.shape[1]) if joined.shape[1] > 1 else curves[0][f"{metric}_se"]
    return pd.DataFrame({"step": joined.index, metric: joined.mean(axis=1).to_numpy(), f"{metric}_se": error.to_numpy()})


def draw_study(study: Study, rows: list[Row], target: Path) -> None:
    """DINO over steps: a panel for every row of the other axes, a line for every arm of the compared one."""
    from bayesdiff.recording.plots import draw_band, panels, save_figure

    axis = study.compare[0] if study.compare else next(iter(rows[0].labels), "")
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(", ".join(f"{a} {v}" for a, v in row.labels.items() if a != axis) or study.title, []).append(row)
    figure, places = panels(len(grouped), 3, (4.6, 3.2), sharey=True)
    for place, (title, members) in zip(places, grouped.items(), strict=True):
        for i, row in enumerate(members):
            if (curve := mean_curve(row)) is not None:
                label = f"{axis} {row.labels.get(axis, '')} ({len(row.found)} of {len(row.cells)} runs)"
                draw_band(place, curve, "dino", label, f"C{i}")
        place.set(title=title, xlabel="training step", ylabel="DINO to the training images")
        if place.has_data():
            place.legend(fontsize=7)
    target.mkdir(parents=True, exist_ok=True)
    save_figure(figure, target / f"{study.name}.png", target / f"{study.name}.svg")


def explain(study: Study, results: Path, row_name: str, column: str) -> str:
    """The runs behind one number, with each run's own mean."""
    rows = rows_of(study, results)
    metric = next((m for m, name in NAMES.items() if column in (m, name)), None)
    row = next((row for row in rows if row.name == row_name), None)
    if row is None or metric is None:
        named = "; ".join(row.name for row in rows)
        raise UserError(f"{study.name}: no row {row_name!r} or column {column!r}; rows: {named}; columns: {', '.join(NAMES)}")
    lines = []
    for cell in row.cells:
        own = next((found for found in row.found if found.cell == cell), None)
        if own is None:
            lines.append(f"{MISSING}  {cell.name}: python -m bayesdiff.run {shlex.join(cell.overrides)}")
            continue
        scores = scores_of_run(own, metric)
        lines.append(f"{'-' if scores is None else f'{scores.mean():.5f}'}  {cell.name}  run key {own.record.run_key}  {own.folder}")
    return "\n".join(lines)


@bad_input_in_one_line
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m bayesdiff.tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="a set of results, such as results/toybox")
    parser.add_argument("--model", default="toybox", help="whose studies (default: toybox)")
    parser.add_argument("--partial", action="store_true", help="also tables of studies that have less than half of their runs")
    parser.add_argument("--explain", nargs=3, metavar=("STUDY", "ROW", "COLUMN"), help="the runs behind one number")
    arguments = parser.parse_args(argv)
    if not (arguments.results / RECORDS).is_dir():
        raise UserError(f"{arguments.results}: no {RECORDS}/; run a study with --results {arguments.results}")
    if arguments.explain:
        name, row, column = arguments.explain
        print(explain(load_study(name, arguments.model), arguments.results, row, column))
        return 0
    write_runs(arguments.results)
    for name in study_names():
        if arguments.model in models_of(name):
            share = 0.0 if arguments.partial else WORTH_A_TABLE
            if said := write_study(load_study(name, arguments.model), arguments.results, share):
                print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
