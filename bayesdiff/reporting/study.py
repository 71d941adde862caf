"""The page of a study: arms by subjects, paired differences with their intervals, and every run behind a click."""

from __future__ import annotations

import json
import shlex
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from bayesdiff.core import escape
from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import GRID, MAIN
from bayesdiff.recording.archive import Archive
from bayesdiff.reporting import charts
from bayesdiff.reporting.contrasts import UNUSED, settings
from bayesdiff.reporting.pages import (
    KINDS,
    MOST_ARMS,
    PHASES,
    arm_data,
    commands,
    memory_words,
    metrics_of,
    numbers,
    render,
    stores_of,
    table_of,
    time_words,
    write_page,
)  # fmt: skip
from bayesdiff.reporting.pictures import BUDGET
from bayesdiff.reporting.traces import Trace
from bayesdiff.scoring.metrics import in_order
from bayesdiff.studies.figures import ARMS, curves_of, worded
from bayesdiff.studies.measures import MEASURES, p_text
from bayesdiff.studies.pages import commands_of, heading
from bayesdiff.studies.plan import EVALUATION, Study
from bayesdiff.studies.rows import Found, Row, rows_of, run_counts
from bayesdiff.studies.tables import printed_table, study_table

if TYPE_CHECKING:
    from bayesdiff.recording.record import RunRecord

SYMBOLS = {"good": "●", "plain": "○", "warn": "▲", "bad": "◆"}
"""What a tone of a verdict looks like without colour."""
GRID_QUALITIES = ((None, 1.0), (85, 1.0), (75, 0.75), (70, 0.5), (60, 0.33))
"""WebP quality and scale of the grids of samples, the best first; None keeps the file's own bytes."""
ROOM = 12_500_000
"""Bytes that the grids and scores of a page may take together, so that all of it stays below 15 MB."""
FIDELITY = "dino"
AXES = {
    "bnn": "arm", "shots.count": "training images", "data.subject": "subject", "method.learning_rate": "learning rate",
    "method.rank": "rank", "training.batch_size": "batch size", "sampler.guidance_scale": "guidance", "bnn.sigma_init": "first sigma",
    "bnn.kl_weight": "KL weight",
}  # fmt: skip
"""What a column of the table is called; an axis of a study of a user's own is shown by its name."""
LEVEL = 0.05
"""Of p-values, corrected over the table."""
BANDS = 3
"""Most curves that have bands: those of more hide each other."""


def write_study_page(study: Study, archive: Archive, target: Path, back: str = "") -> Path:
    """Write the page of a study; ``back`` is the address of an index. Raises ``UserError`` where it has no record."""
    return write_page(target, study_page(study, archive, back))


def study_page(study: Study, archive: Archive, back: str = "", budget: int = BUDGET) -> str:
    """The page of a study, from the records of an archive. Raises ``UserError`` where it has none."""
    rows = rows_of(study, archive)
    found = [one for row in rows for one in row.found]
    if not found:
        raise UserError(f"{study.name}: no record in {archive.results}; make some with {commands_of(study, archive.results)[0].strip('`')}")
    table = study_table(study, rows)
    unique = list({(one.folder.name, one.evaluation): one for one in found}.values())
    arms = [_arm(one) for one in unique]
    differences, metrics = _differences(rows, table)
    subjects, groups = _subjects(found), _groups(study, rows)
    scores = stores_of(arms)
    left = min(budget, ROOM - round(1.5 * len(json.dumps(scores))))  # the tables of scores take about half as much again
    grids = grid_uris([arm.grid if arm.evaluation == MAIN else None for arm in arms], left)
    data = {
        "kind": "study", "metric": next(iter(differences), ""), "metrics": _with_units(metrics, arms), "differences": differences,
        "arms": [arm_data(arm) for arm in arms], "groups": groups,
        "charts": {size: charts.curve_chart(size) for size in sorted({1, *(len(group["rows"]) for group in groups)})},
        "forest": charts.forest_chart(max(map(len, differences.values()))) if differences else None,
    }  # fmt: skip
    return render(
        "study.html", heading(study), data, answer=answer_of(study, rows, table), back=back, groups=groups, subjects=subjects,
        grid_rows=[_line(row, arms, subjects) for row in rows], metrics=metrics, kinds=_legend(arms),
        reference=worded(*study.compare) if study.compare else "", printed=_printed(study, rows, table),
        groups_of_runs=_runs(rows, arms, grids), settings=settings_of(rows), costs=costs_of(rows),
        commands=_commands(study, archive.results), absent=_absent(study, rows, archive.results),
        stores=scores | {f"grid-{i}": uri for i, uri in enumerate(grids) if uri},
    )  # fmt: skip


def _arm(found: Found) -> Trace:
    """A run of a study as an arm; its samples are in its grid alone."""
    images, record, name = found.images, found.record, _run_name(found)
    columns = {name: images.columns[name] for name in in_order(set(images.columns))}
    grid = found.folder / GRID
    return Trace(
        name, str(record.config["detector"]["metric"]), tuple(images.steps.tolist()), columns, images.places, found.verdict, record,
        _label(found), found.evaluation, ceilings=record.real_to_real, grid=grid if grid.exists() else None,
    )  # fmt: skip


def _run_name(found: Found) -> str:
    return found.folder.name if found.evaluation == MAIN else f"{found.folder.name}/{found.evaluation}"


def _label(found: Found) -> str:
    """A run in words: what the study varies, as far as it is one value a run."""
    words = [worded(axis, label) for axis, label in found.cell.labels.items()]
    return ", ".join([*words, *([found.evaluation] if found.evaluation != MAIN else [])]) or "all"


def _with_units(metrics: list[dict[str, Any]], arms: Sequence[Trace]) -> list[dict[str, Any]]:
    """What differences are of, then the metrics of the runs' own curves."""
    there = {metric["name"] for metric in metrics}
    return metrics + [metric for metric in metrics_of(arms) if metric["name"] not in there]


def _differences(rows: Sequence[Row], table: pd.DataFrame) -> tuple[dict[str, list[dict[str, Any]]], list[dict[str, Any]]]:
    """Name of a measure -> its differences from the reference, a line a row; and the measures that have any."""
    if "difference" not in table:
        return {}, []
    found: dict[str, list[dict[str, Any]]] = {}
    metrics = []
    for measure in MEASURES.values():
        lines = table[(table["metric"] == measure.label) & table["difference"].notna()]
        told = [_difference(row, lines) for row in rows]
        if kept := [line for line in told if line is not None]:
            found[measure.name] = kept
            better = f"{measure.unit}; {measure.direction} is better" if measure.direction != "neither" else measure.unit
            metrics.append({"name": measure.name, "label": measure.label, "unit": better})
    return found, metrics


def _difference(row: Row, lines: pd.DataFrame) -> dict[str, Any] | None:
    """The difference of one row; None for one without."""
    mine = _of_row(row, lines)
    if not len(mine):
        return None
    line = mine.iloc[0]
    low, high, p = (None if pd.isna(line[name]) else float(line[name]) for name in ("low", "high", "p_holm"))
    of_runs = bool({"seeds", "subjects"} & set(str(line["over"]).split()))
    interval = f", 95 % interval {low:+.3f} to {high:+.3f}" if low is not None and high is not None else ""
    sure = f", p {p_text(p, 3, '= ')}" if p is not None else "" if of_runs else ", these runs alone"
    said = f"{line['difference']:+.3f}{interval}{sure}"
    return {"name": _name(row), "mean": float(line["difference"]), "low": low, "high": high, "p": p, "said": said, "of_runs": of_runs}


def _name(row: Row) -> str:
    """A row in words."""
    return escape.plain(", ".join(worded(axis, label) for axis, label in row.labels.items()) or "all")


def answer_of(study: Study, rows: Sequence[Row], table: pd.DataFrame) -> dict[str, Any]:
    """One sentence on the differences, one on the verdicts, and how whole the study is."""
    found = [one for row in rows for one in row.found]
    own_last = sorted(found, key=lambda one: one.evaluation == MAIN)  # of several evaluations a run's own counts
    runs = list({one.folder.name: one for one in own_last}.values())
    verdicts = [one.verdict for one in runs if one.verdict is not None]
    stages, avoid = sum(verdict.flagged for verdict in verdicts), sum(bool(verdict.avoid) for verdict in verdicts)
    cells = len({cell.name for row in rows for cell in row.cells})
    diverged = len({cell.name for row in rows for cell in row.diverged})
    missing = max(cells - len(runs) - diverged, 0)
    whole = f"{len(runs)} of {cells} runs have a record" + (f", {diverged} diverged" if diverged else "")
    first, more = _compared(study, rows, table)
    told = f"A corruption stage is told in {stages} of {len(verdicts)} runs; {avoid} have checkpoints to avoid."
    return {"first": first, "rest": f"{more} {told}".strip(), "whole": f"{whole}.", "missing": missing}


def _compared(study: Study, rows: Sequence[Row], table: pd.DataFrame) -> tuple[str, str]:
    """What the differences in fidelity at the last checkpoint say, and what limits it."""
    told = _differences(rows, table)[0].get(FIDELITY, [])
    if study.compare is None:
        return _extremes(rows, table), "No arm of this study is the reference of others."
    if not told:
        return "This study has no pairs of arms to compare yet.", ""
    against = escape.plain(worded(*study.compare))
    if len(told) == 1:
        return f"{told[0]['name']} against {against}: DINO at the last checkpoint differs by {told[0]['said']}.", ""
    alone = sum(not line["of_runs"] for line in told)
    said = f"{alone} of the rows {'have' if alone > 1 else 'has'} one run on each side: another seed may differ by more." if alone else ""
    higher = sum(line["low"] is not None and line["low"] > 0 for line in told)
    lower = sum(line["high"] is not None and line["high"] < 0 for line in told)
    counts = f"higher in {higher} of {len(told)} rows, lower in {lower}, and not told apart in {len(told) - higher - lower}"
    corrected = [line["p"] for line in told if line["p"] is not None]
    left = sum(p <= LEVEL for p in corrected)
    if higher + lower and corrected and not left:
        first = f"Against {against}, no difference in DINO at the last checkpoint outlasts the correction for all comparisons of the table."
        return first, f"One by one, DINO is {counts}. {said}".strip()
    more = f"{left} of these differences outlast the correction for all comparisons of the table. " if left else ""
    return f"Against {against}, DINO at the last checkpoint is {counts}.", f"{more}{said}".strip()


def _extremes(rows: Sequence[Row], table: pd.DataFrame) -> str:
    """Which row ends with the highest fidelity, and which with the lowest."""
    lines = table[table["metric"] == MEASURES[FIDELITY].label] if len(table) else table
    means = {_name(row): float(mine.iloc[0]["mean"]) for row in rows if len(mine := _of_row(row, lines))}
    if len(means) < 2:
        return "This study has too few arms with a record to compare yet."
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    return f"DINO at the last checkpoint is highest with {high} ({means[high]:.2f}), and lowest with {low} ({means[low]:.2f})."


def _of_row(row: Row, lines: pd.DataFrame) -> pd.DataFrame:
    """The lines of a table that belong to a row."""
    return (
        lines[np.logical_and.reduce([lines[axis] == label for axis, label in row.labels.items()])] if row.labels and len(lines) else lines
    )


def _subjects(found: Sequence[Found]) -> list[str]:
    return list(dict.fromkeys(escape.plain(one.record.config["data"]["subject"]) for one in found))


def _line(row: Row, arms: Sequence[Trace], subjects: Sequence[str]) -> dict[str, Any]:
    """A row of the table of arms by subjects: a link a run, with its last score and its verdict."""
    places = {arm.name: i for i, arm in enumerate(arms)}
    cells: dict[str, list[dict[str, Any]]] = {subject: [] for subject in subjects}
    for one in row.found:
        name = _run_name(one)
        last = one.scores.last.get(FIDELITY)
        kind, tone = _kind(arms[places[name]])
        cells[escape.plain(one.record.config["data"]["subject"])].append({
            "run": places[name], "seed": one.record.config["seed"], "score": "–" if last is None else f"{last.mean():.2f}", "kind": kind,
            "tone": tone, "symbol": SYMBOLS[tone],
        })  # fmt: skip
    return {"name": _name(row), "count": row.count, "cells": [cells[subject] for subject in subjects]}


def _kind(arm: Trace) -> tuple[str, str]:
    return KINDS.get(arm.verdict.kind, (arm.verdict.kind, "plain")) if arm.verdict is not None else ("Not judged", "plain")


def _legend(arms: Sequence[Trace]) -> list[tuple[str, str, str]]:
    """(symbol, tone, kinds of verdicts) that the table has."""
    kinds: dict[str, list[str]] = {}
    for kind, tone in dict.fromkeys(_kind(arm) for arm in arms):
        kinds.setdefault(tone, []).append(kind)
    return [(SYMBOLS[tone], tone, ", ".join(kinds[tone])) for tone in SYMBOLS if tone in kinds]


def _groups(study: Study, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A chart for every row of the other axes; where it has more arms than marks, several, each with the first arm in it."""
    axis = study.compare[0] if study.compare else study.x or next(iter(rows[0].labels), "")
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        others = ", ".join(worded(name, label) for name, label in row.labels.items() if name != axis)
        if (line := _mean_line(row, axis)) is not None:
            grouped.setdefault(others, []).append(line)
    found: list[dict[str, Any]] = []
    for title, (first, *others_of) in grouped.items():
        starts = range(0, max(len(others_of), 1), MOST_ARMS - 1)
        for number, start in enumerate(starts, 1):
            lines = [first, *others_of[start : start + MOST_ARMS - 1]]
            shown = lines if len(lines) <= BANDS else [_without_band(line) for line in lines]
            part = f"{number} of {len(starts)}" if len(starts) > 1 else ""
            found.append({"title": escape.plain(", ".join(filter(None, (title, part)))), "rows": shown, "bands": len(lines) <= BANDS})
    return found


def _mean_line(row: Row, axis: str) -> dict[str, Any] | None:
    """The mean curve of a row's runs, from the lowest to the highest of them; None while runs are missing."""
    curves = curves_of(row, FIDELITY)
    if curves is None or curves.empty:
        return None
    count = curves.shape[1]
    label = worded(axis, row.labels.get(axis, "")) or "all"
    return {
        "label": escape.plain(f"{label} ({count} run{'s' if count > 1 else ''})"), "steps": [int(step) for step in curves.index],
        "curves": {FIDELITY: {way: numbers(of(axis=1)) for way, of in (("mean", curves.mean), ("low", curves.min), ("high", curves.max))}},
        "stages": [], "keep": None, "avoid": [], "stage": None, "ceilings": {},
    }  # fmt: skip


def _without_band(line: dict[str, Any]) -> dict[str, Any]:
    mean = line["curves"][FIDELITY]["mean"]
    return line | {"curves": {FIDELITY: {"mean": mean, "low": mean, "high": mean}}}


def _printed(study: Study, rows: list[Row], table: pd.DataFrame) -> dict[str, Any]:
    """The table as ``tables/`` has it."""
    if not len(table):
        return {"heads": [], "rows": []}
    printed = printed_table(study, rows, table)
    if "bnn" in rows[0].labels:
        printed["bnn"] = [ARMS.get(label, label) for label in printed["bnn"]]
    return {
        "heads": [AXES.get(str(name), str(name)) for name in printed.columns],
        "rows": [[str(value) for value in row] for row in printed.itertuples(index=False)],
    }


def _runs(rows: Sequence[Row], arms: Sequence[Trace], grids: Sequence[str]) -> list[dict[str, Any]]:
    """The runs of every row, each once: sentence, scores, the command, and whether it has a grid of samples."""
    places, seen = {arm.name: i for i, arm in enumerate(arms)}, set[int]()
    found = []
    for row in rows:
        own = {place: _within(row, one) for one in row.found if (place := places[_run_name(one)]) not in seen}
        seen.update(own)
        found.append({"name": _name(row), "runs": [_run(place, arms[place], bool(grids[place]), short) for place, short in own.items()]})
    return [group for group in found if group["runs"]]


def _within(row: Row, found: Found) -> str:
    """What tells a run from the others of its row."""
    others = [worded(axis, label) for axis, label in found.cell.labels.items() if axis not in row.labels]
    return escape.plain(", ".join(others)) or "the run"


def _run(place: int, arm: Trace, grid: bool, short: str) -> dict[str, Any]:
    kind, tone = _kind(arm)
    return {
        "place": place, "short": short, "label": escape.plain(arm.label),
        "name": escape.plain(arm.name), "grid": grid, "commands": commands(arm),
        "sentence": escape.plain(arm.verdict.sentence) if arm.verdict else "", "badge": kind, "tone": tone, "symbol": SYMBOLS[tone],
        "table": table_of(arm, metrics_of([arm])),
    }  # fmt: skip


def settings_of(rows: Sequence[Row]) -> dict[str, Any]:
    """The settings in which the rows of a study differ: heads, and a line a row. What varies within a row (seed, subject) is left out."""
    found = [(_name(row), _settings(row)) for row in rows if row.found]
    keys = [key for key in dict.fromkeys(key for _, one in found for key in one) if all(len(one.get(key, "1")) == 1 for _, one in found)]
    told = {key: [next(iter(one.get(key, {UNUSED}))) for _, one in found] for key in keys}
    shown = {key: values for key, values in told.items() if len(set(values) - {UNUSED}) > 1}
    return {"heads": list(shown), "rows": [(name, [values[i] for values in shown.values()]) for i, (name, _) in enumerate(found)]}


def _settings(row: Row) -> dict[str, set[str]]:
    """Setting -> its values over the runs of a row."""
    found: dict[str, set[str]] = {}
    for one in row.found:
        for key, value in {**settings(one.record.config), EVALUATION: one.evaluation}.items():
            found.setdefault(key, set()).add(value)
    return found


def costs_of(rows: Sequence[Row]) -> dict[str, Any]:
    """What a run of each row cost on average: heads by phase, and a line a row; and what all runs took together."""
    of_rows = {_name(row): list({one.folder: one.record for one in row.found}.values()) for row in rows if row.found}
    records = {id(record): record for found in of_rows.values() for record in found}.values()
    phases = [phase for phase in PHASES if any(phase in record.seconds for record in records)]
    on_gpu = any(key.endswith("_gpu") for record in records for key in record.peak_memory_mb)
    heads = [*(PHASES[phase] for phase in phases), "all", "memory", *(["GPU memory"] if on_gpu else [])]
    lines = [(name, _cost(found, phases, on_gpu)) for name, found in of_rows.items()]
    whole = time_words(sum(sum(record.seconds.values()) for record in records))
    return {"heads": heads, "rows": lines if phases else [], "whole": whole}


def _cost(records: Sequence[RunRecord], phases: Sequence[str], on_gpu: bool) -> list[str]:
    """Mean seconds of some runs by phase and of all phases, and their highest memory."""
    spent = [float(np.mean([record.seconds.get(phase, 0.0) for record in records])) for phase in phases]
    peaks = {f"{i} {key}": value for i, record in enumerate(records) for key, value in record.peak_memory_mb.items()}
    memory = [memory_words(peaks, gpu=gpu) for gpu in (False, *([True] if on_gpu else []))]
    return [*map(time_words, [*spent, sum(spent)]), *memory]


def _commands(study: Study, results: Path) -> list[tuple[str, str]]:
    """(what for, command line) to make a study, and its tables."""
    made = [("Make the runs that are missing", command.strip("`")) for command in commands_of(study, results)]
    shown = f"bayesdiff report {shlex.quote(study.name)} --results {shlex.quote(str(results))} --model {shlex.quote(study.model)}"
    return [*made, ("Write this page", shown)]


def grid_uris(paths: Sequence[Path | None], budget: int) -> list[str]:
    """The grids of samples as data URIs, as good as fits into ``budget`` bytes; empty where there is none."""
    there = [path for path in paths if path is not None]
    for quality, scale in GRID_QUALITIES:
        few = there[:: max(1, len(there) // 6)][:6]
        size = sum(len(_grid(path, quality, scale)) for path in few) / max(len(few), 1)
        if size * len(there) <= budget or (quality, scale) == GRID_QUALITIES[-1]:
            return ["" if path is None else _grid(path, quality, scale) for path in paths]
    return []


def _grid(path: Path, quality: int | None, scale: float) -> str:
    if quality is None:
        return f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}"
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    image.save(buffer := BytesIO(), "WEBP", quality=quality, method=3)
    return f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode()}"


def _absent(study: Study, rows: Sequence[Row], results: Path) -> list[str]:
    lines = [
        "Single samples and training images: a committed record has the scores of every image, and a grid of some samples in 128 colours."
    ]
    _, diverged, missing = run_counts(rows)
    if missing:
        lines.append(f"{missing} runs that are not made yet: {', '.join(command.strip('`') for command in commands_of(study, results))}")
    if diverged:
        lines.append(f"Curves of {diverged} runs that diverged.")
    return lines
