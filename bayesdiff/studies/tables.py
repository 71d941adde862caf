"""The numbers of a study's table, and of the table of all runs: from rows of records to data frames.

The mean at the last checkpoint and its deviation over seeds, as the paper prints them, and the paired difference from
the study's reference arm with its interval and a p-value corrected over the table (Holm). ``pages`` writes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bayesdiff.config.identity import arm_name
from bayesdiff.core.layout import MAIN
from bayesdiff.recording.archive import Archive, Run
from bayesdiff.stats import aggregate_as_paper, holm, paired_difference
from bayesdiff.studies.measures import COST, CURVE, LAST, Measure, curve_shape, of, p_text
from bayesdiff.studies.paper import PAPER_IMAGES, paper_label, paper_numbers
from bayesdiff.studies.plan import Study, compose_cell
from bayesdiff.studies.rows import Row, pair_of, prompts_of, read, reference_of, values

MISSING, NONE = "missing", "-"
LARGE = 100
"""A mean of this size (seconds) is printed without decimals."""


def measures_of(study: Study) -> list[Measure]:
    """What a study's table has, in order."""
    return of(LAST, CURVE, *([COST] if study.cost else []))


def paper_of(study: Study, row: Row) -> dict[str, tuple[float, float]]:
    """The paper's numbers for a row, by measure: none beside runs on fewer images than the paper's."""
    images = compose_cell(row.cells[0]).shots.count
    if images is not None and images < PAPER_IMAGES:
        return {}
    model = row.labels.get("model", study.model)
    numbers = {measure.name: paper_numbers(study.name, row.labels, measure.name, model) for measure in measures_of(study)}
    return {name: printed for name, printed in numbers.items() if printed is not None}


def study_table(study: Study, rows: list[Row]) -> pd.DataFrame:
    """One line a row and measure: mean, deviation over seeds, the paper's numbers, and the difference from the reference."""
    lines = [line for row in rows for line in _lines_of(study, row, rows)]
    table = pd.DataFrame(lines)
    if "p" in table:
        table["p_holm"] = holm(table["p"])
    return table


def _lines_of(study: Study, row: Row, rows: list[Row]) -> list[dict[str, object]]:
    """The lines of one row of a study, one a measure that all of its runs have."""
    lines, label = [], paper_label(study.model)
    reference, paper = reference_of(study, row, rows), paper_of(study, row)
    for measure in measures_of(study):
        scores = values(row, measure.name)
        if scores is None:
            continue
        line: dict[str, object] = {**row.labels, "metric": measure.label, "runs": scores[..., 0].size, "diverged": len(row.diverged)}
        mean, spread = aggregate_as_paper(scores)
        line |= {"mean": mean[0], "sd_over_seeds": spread[0]}
        if measure.name in paper:
            line |= {f"{label}: mean": paper[measure.name][0], f"{label}: sd": paper[measure.name][1]}
        if reference is not None and measure.tested:
            line |= _difference(row, reference, measure)
        lines.append(line)
    return lines


def _difference(row: Row, reference: Row, measure: Measure) -> dict[str, object]:
    """The paired difference of two rows; nothing where one of them lacks runs."""
    pair = pair_of(row, reference, lambda found: read(found, measure))
    if pair is None:
        return {}
    result = paired_difference(*pair, prompts=prompts_of(row, pair[0].shape[3]))
    p = result.p_value[0] if result.of_runs else np.nan
    low, high = (result.low[0], result.high[0]) if result.levels else (np.nan, np.nan)
    return {"difference": result.mean[0], "low": low, "high": high, "p": p, "over": " ".join(result.levels), "pairs": pair[0][..., 0].size}


def printed_table(study: Study, rows: list[Row], table: pd.DataFrame) -> pd.DataFrame:
    """The table as people read it: a line a row, a column a measure, the paper's beside it; missing rows say so."""
    axes, label = list(rows[0].labels), paper_label(study.model)
    papers = [paper_of(study, row) for row in rows]
    measured = set(table["metric"]) if len(table) else set()
    columns = [measure for measure in measures_of(study) if measure.label in measured]
    mine: dict[tuple[object, ...], dict[str, str]] = {}
    for entry in table.to_dict("records"):
        mine.setdefault(tuple(entry[axis] for axis in axes), {})[str(entry["metric"])] = _cell(entry)
    lines = []
    for row, paper in zip(rows, papers, strict=True):
        cells = mine.get(tuple(row.labels.values()), {})
        line: dict[str, str] = {**row.labels, "runs": row.count}
        for measure in columns:
            line[measure.label] = cells.get(measure.label, MISSING if row.missing else NONE)
            if any(measure.name in numbers for numbers in papers):
                line[f"{measure.label} ({label})"] = _mean(*paper[measure.name], 4) if measure.name in paper else NONE
        lines.append(line)
    return pd.DataFrame(lines)


def _mean(mean: float, spread: float, digits: int = 3) -> str:
    shown = f"{mean:.3f}" if abs(mean) < LARGE else f"{mean:.0f}"
    return shown if np.isnan(spread) else f"{shown} ({spread:.{digits if abs(mean) < LARGE else 0}f})"


def _cell(line: dict[Any, Any]) -> str:
    text = _mean(line["mean"], line["sd_over_seeds"])
    if "difference" in line and not pd.isna(line["difference"]):
        runs = {"subjects", "seeds"} & set(line["over"].split())
        p = f", p {p_text(line['p_holm'], 3)}" if not pd.isna(line["p_holm"]) else "" if runs else ", these runs"
        digits = 3 if abs(line["mean"]) < LARGE else 0
        interval = "" if pd.isna(line["low"]) else f" [{line['low']:+.{digits}f}, {line['high']:+.{digits}f}]"
        text += f"; {line['difference']:+.{digits}f}{interval}{p}"
    return text


def runs_table(archive: Archive) -> pd.DataFrame:
    """A line a record: what it was, how its curve went, today's verdict and its cost."""
    return pd.DataFrame([_line_of(run) for run in archive.runs.values()])


def _line_of(run: Run) -> dict[str, object]:
    record, config = run.record, run.record.config
    scores = run.scores.get(MAIN)
    verdict = scores.verdict if scores is not None else None
    line: dict[str, object] = {
        "run": run.folder.name, "status": record.status, "method": config["method"]["name"], "arm": arm_name(config["bnn"]),
        "learning_rate": config["method"]["learning_rate"], "subject": config["data"]["subject"], "shots": config["shots"]["count"],
        "seed": config["seed"], "steps": config["schedule"]["steps"], "kind": getattr(verdict, "kind", None),
        "p_value": getattr(verdict, "p_value", None),
    }  # fmt: skip
    line |= {f"{name}_step": getattr(verdict, f"{name}_step", None) for name in ("peak", "onset", "trough", "recovery", "best")}
    if scores is not None:
        line |= curve_shape(scores.curve)
    return {**line, "minutes": sum(record.seconds.values()) / 60, "memory_mb": max(record.peak_memory_mb.values(), default=0.0)}


def printed_runs(table: pd.DataFrame) -> pd.DataFrame:
    """The table of runs as people read it: how each curve went, and what the verdict says."""
    ordered = table.sort_values(["method", "arm", "learning_rate", "subject", "shots", "seed", "run"])
    return pd.DataFrame([_printed_run(row) for row in ordered.to_dict("records")]).fillna(NONE)


def _printed_run(row: dict[Any, Any]) -> dict[str, object]:
    line = {name: row[name] for name in ("method", "arm", "subject", "shots", "seed", "steps")}
    line |= {"learning rate": f"{row['learning_rate']:g}"}
    if not pd.isna(row.get("first", np.nan)):
        line |= {
            "first": f"{row['first']:.2f}", "highest before": f"{row['highest_before']:.2f} ({row['at']:.0f})",
            "lowest after": f"{row['lowest_after']:.2f} ({row['at_step']:.0f})", "deepest fall": f"{row['fall']:.2f}",
            "won back": f"{row['share_recovered']:.0%}", "last": f"{row['last']:.2f}", "CLIP-T last": f"{row['clip_t_last']:.2f}",
        }  # fmt: skip
    p_value = "" if pd.isna(row["p_value"]) else f" (p {row['p_value']:.2f})"
    verdict = f"{row['status'] if pd.isna(row['kind']) else row['kind']}{p_value}"
    return {**line, "verdict": verdict, "minutes": f"{row['minutes']:.0f}"}
