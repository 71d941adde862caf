"""Tables and figures from records.

Every study that has half of its records (``--partial``: any) gets ``tables/<study>.{csv,md,tex}`` and
``figures/<study>.{png,svg}``: the mean at the last checkpoint and its deviation over seeds, as the paper
prints them, and the paired difference from the study's reference arm with its interval and a p-value
corrected over the table (Holm). Cells without records are shown as missing, with the command that fills them.

``--explain STUDY ROW COLUMN`` names the runs a number comes from. Written twice, in any order of
records, the files are the same byte for byte.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayesdiff.config.identity import arm_name
from bayesdiff.core.errors import UserError
from bayesdiff.core.files import atomic_write, write_text
from bayesdiff.core.layout import CURVE, FIGURES, PER_IMAGE, TABLES
from bayesdiff.recording.collect import incomplete, judged, load_records
from bayesdiff.stats import aggregate_as_paper, holm, paired_difference
from bayesdiff.studies.figures import draw_curves, draw_last
from bayesdiff.studies.paper import PAPER_IMAGES, PAPER_SUBJECTS, paper_label, paper_numbers
from bayesdiff.studies.plan import Cell, Study, chosen_studies, compose_cell, join_models, load_study, models_of, study_names
from bayesdiff.studies.rows import (
    METRICS,
    NAMES,
    OF_COST,
    OF_THE_CURVE,
    Row,
    pair_of,
    prompts_of,
    reference_of,
    rows_of,
    scores_of_run,
    values,
)

MISSING, NONE = "missing", "-"
LARGE = 100
"""A mean of this size (seconds) is printed without decimals."""
WORTH_A_TABLE = 0.5
"""Share of a study's runs: runs are shared by studies, and a few of another one's make no table."""


def measures_of(study: Study) -> tuple[str, ...]:
    """What a study's table has, in order."""
    return (*METRICS, *OF_THE_CURVE, *(OF_COST if study.cost else ()))


def paper_of(study: Study, row: Row) -> dict[str, tuple[float, float]]:
    """The paper's numbers for a row, by measure: none beside runs on fewer images than the paper's."""
    images = compose_cell(row.cells[0]).shots.count
    if images is not None and images < PAPER_IMAGES:
        return {}
    model = row.labels.get("model", study.model)
    numbers = {measure: paper_numbers(study.name, row.labels, measure, model) for measure in measures_of(study)}
    return {measure: printed for measure, printed in numbers.items() if printed is not None}


def study_table(study: Study, rows: list[Row]) -> pd.DataFrame:
    """One line a row and measure: mean, deviation over seeds, the paper's numbers, and the difference from the reference."""
    lines, label = [], paper_label(study.model)
    for row in rows:
        reference, paper = reference_of(study, row, rows), paper_of(study, row)
        for measure in measures_of(study):
            scores = values(row, measure)
            if scores is None:
                continue
            line: dict[str, object] = {**row.labels, "metric": NAMES[measure], "runs": len(row.found), "diverged": len(row.diverged)}
            mean, spread = aggregate_as_paper(scores)
            line |= {"mean": mean[0], "sd_over_seeds": spread[0]}
            if measure in paper:
                line |= {f"{label}: mean": paper[measure][0], f"{label}: sd": paper[measure][1]}
            if reference is not None and measure != "bayesian_share":  # which is set, and not a result
                line |= _difference(row, reference, measure)
            lines.append(line)
    table = pd.DataFrame(lines)
    if "p" in table:
        table["p_holm"] = holm(table["p"])
    return table


def _difference(row: Row, reference: Row, measure: str) -> dict[str, object]:
    """The paired difference of two rows; nothing where one of them lacks runs."""
    pair = pair_of(row, reference, lambda found: scores_of_run(found, measure))
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
    columns = [measure for measure in measures_of(study) if NAMES[measure] in measured]
    lines = []
    for row, paper in zip(rows, papers, strict=True):
        mine = table[(table[axes] == pd.Series(row.labels)).all(axis=1)] if len(table) and axes else table
        cells = {str(values_["metric"]): _cell(values_) for values_ in mine.to_dict("records")}
        line: dict[str, str] = {**row.labels, "runs": row.count}
        for measure in columns:
            line[NAMES[measure]] = cells.get(NAMES[measure], MISSING if row.missing else NONE)
            if any(measure in numbers for numbers in papers):
                line[f"{NAMES[measure]} ({label})"] = _mean(*paper[measure], 4) if measure in paper else NONE
        lines.append(line)
    return pd.DataFrame(lines)


def _mean(mean: float, spread: float, digits: int = 3) -> str:
    shown = f"{mean:.3f}" if abs(mean) < LARGE else f"{mean:.0f}"
    return shown if np.isnan(spread) else f"{shown} ({spread:.{digits if abs(mean) < LARGE else 0}f})"


def _cell(values_: dict[str, Any]) -> str:
    text = _mean(values_["mean"], values_["sd_over_seeds"])
    if "difference" in values_ and not pd.isna(values_["difference"]):
        runs = {"subjects", "seeds"} & set(values_["over"].split())
        p = f", p {values_['p_holm']:.3f}" if not pd.isna(values_["p_holm"]) else "" if runs else ", these runs"
        digits = 3 if abs(values_["mean"]) < LARGE else 0
        interval = "" if pd.isna(values_["low"]) else f" [{values_['low']:+.{digits}f}, {values_['high']:+.{digits}f}]"
        text += f"; {values_['difference']:+.{digits}f}{interval}{p}"
    return text


CAPTION = (
    "Mean (standard deviation over seeds, as the paper prints) at the last checkpoint; *DINO over steps*, *deepest dip* and *flagged* are "
    "of the whole curve: its mean over training time, its deepest fall and return as fitted, and whether that is a stage. Then the "
    "paired difference from the reference arm with its 95 % interval over subjects, seeds, prompts and images, and its p-value "
    "corrected over this table (Holm). *These runs*: one run on each side, so that the interval is over prompts and images alone and "
    "another seed may differ by more. Runs that diverged have no scores: they are counted, and their pairs left out."
)
OF_THE_PAPER = f" The paper's numbers are its own, of {PAPER_SUBJECTS} subjects with all their images, whatever subjects this table has."


def write_study(study: Study, rows: list[Row], results: Path, share: float = 0.0) -> str:
    """Write a study's table and figures and say which; where it has no record, or less than ``share`` of them, say so.

    A table that is there already is written anew, however few records are left of it.
    """
    found, runs = sum(len(row.found) for row in rows), len(study.cells)
    target, name = results / TABLES, file_name(study)
    if not found:
        return ""
    if found < share * runs and not (target / f"{name}.md").exists():
        return f"{study.name}: {found} of {runs} runs, no table yet (--partial)"
    table = study_table(study, rows)
    printed = printed_table(study, rows, table)
    target.mkdir(parents=True, exist_ok=True)
    with atomic_write(target / f"{name}.csv") as part:
        table.to_csv(part, index=False, float_format="%.5f", lineterminator="\n")
    caption = CAPTION + (OF_THE_PAPER if any(paper_label(study.model) in column for column in printed) else "")
    text = f"# {heading(study)}\n\n{caption}\n\n{printed.to_markdown(index=False)}\n{_lacking(study, rows, results)}"
    write_text(target / f"{name}.md", text)
    label = f"tab:{study.name}-{study.model}"
    write_text(target / f"{name}.tex", printed.to_latex(index=False, escape=True, caption=heading(study), label=label))
    figures = results / FIGURES
    draw_curves(study, rows, figures / f"{name}.png", figures / f"{name}.svg")
    if study.x:
        draw_last(study, rows, figures / f"{name}-last.png", figures / f"{name}-last.svg")
    return f"{target / name}.md"


def heading(study: Study) -> str:
    """What a table is of, with the model: numbers of a stand-in must not be taken for those of what it stands in for."""
    of_paper = f" ({study.paper})" if study.paper else ""
    return f"{study.title}{of_paper}, on {'the toybox' if study.model == 'toybox' else study.model.replace('+', ', ')}"


def write_index(results: Path, written: list[tuple[Study, list[Row]]]) -> None:
    """``tables/README.md``: every study of the models that have records, how far it is, and its table or what makes it."""
    lines = []
    for study, rows in written:
        found, name = sum(len(row.found) for row in rows), file_name(study)
        table = f"[{name}.md]({name}.md)" if found and (results / TABLES / f"{name}.md").exists() else "no table yet"
        diverged, missing = (sum(count) for count in zip(*((len(row.diverged), row.missing) for row in rows), strict=True))
        runs = f"{found} of {len(study.cells)}" + (f", {diverged} diverged" if diverged else "")
        lines.append({
            "study": study.name, "model": study.model, "the paper": study.paper or "(a question of ours)", "what": study.title,
            "runs": runs, "table": table, "the rest": " ".join(commands_of(study, results)) if missing else NONE,
        })  # fmt: skip
    caption = "Every study, whether it was run or not; `python -m bayesdiff.tables` writes tables of those that have half of their runs."
    write_text(results / TABLES / "README.md", f"# Studies\n\n{caption}\n\n{pd.DataFrame(lines).to_markdown(index=False)}\n")


def commands_of(study: Study, results: Path) -> list[str]:
    """The commands that make what a study lacks, one a model, in code marks."""
    return [f"`python -m bayesdiff.study {study.name} --model {model} --results {results}`" for model in study.model.split("+")]


def file_name(study: Study) -> str:
    """Of a study's table and figures; one on the toybox has the study's own name."""
    return study.name if study.model == "toybox" else f"{study.name}-{study.model}"


def _lacking(study: Study, rows: list[Row], results: Path) -> str:
    """What is missing, and the commands that make it."""
    lacking = sum(row.missing for row in rows)
    return f"\n{lacking} runs are missing: {', '.join(commands_of(study, results))}\n" if lacking else ""


def runs_table(results: Path) -> pd.DataFrame:
    """A line a record: what it was, how its curve went, today's verdict and its cost."""
    lines = []
    for folder, record in load_records(results):
        config = record.config
        verdict = judged(folder, record).to_dict() if (folder / PER_IMAGE).exists() else {}
        line: dict[str, object] = {
            "run": folder.name, "status": record.status, "method": config["method"]["name"], "arm": arm_name(config["bnn"]),
            "learning_rate": config["method"]["learning_rate"], "subject": config["data"]["subject"], "shots": config["shots"]["count"],
            "seed": config["seed"], "steps": config["schedule"]["steps"], "kind": verdict.get("kind"), "p_value": verdict.get("p_value"),
        }  # fmt: skip
        line |= {f"{name}_step": verdict.get(f"{name}_step") for name in ("peak", "onset", "trough", "recovery", "best")}
        if (folder / CURVE).exists():
            line |= curve_shape(pd.read_csv(folder / CURVE))
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
    (results / TABLES).mkdir(parents=True, exist_ok=True)
    with atomic_write(results / TABLES / "runs.csv") as part:
        table.to_csv(part, index=False, float_format="%.4g", lineterminator="\n")
    caption = "DINO of every run, (step) in brackets; the deepest fall from anything reached before, and how much of it came back."
    if len(table):
        text = printed_runs(table).to_markdown(index=False)
        write_text(results / TABLES / "runs.md", f"# All runs\n\n{caption}\n\n{text}\n")


def explain(study: Study, results: Path, row_name: str, column: str) -> str:
    """The runs behind one number, with each run's own mean; then those behind the difference beside it, and its pairs.

    Raises:
        UserError: a row or column that the study's table does not have.
    """
    rows = rows_of(study, results)
    measure = next((m for m, name in NAMES.items() if column in (m, name)), None)
    row = next((row for row in rows if row.name == row_name), None)
    if row is None or measure is None:
        named = "; ".join(row.name for row in rows)
        raise UserError(
            f"{study.name}: no row {row_name!r} or column {column!r}; rows: {named}; columns: {', '.join(NAMES)}; the paper's are its own"
        )
    lines = _runs_behind(study, row, measure, results)
    if (reference := reference_of(study, row, rows)) is not None:
        pair = pair_of(row, reference, lambda found: scores_of_run(found, measure))
        pairs = 0 if pair is None else pair[0][..., 0].size
        lines += [f"difference from: {reference.name}, {pairs} pairs", *_runs_behind(study, reference, measure, results)]
    return "\n".join(lines)


def _runs_behind(study: Study, row: Row, measure: str, results: Path) -> list[str]:
    """A line a run of a row: its own mean and where it is, or the command that makes it."""
    lines = []
    for cell in row.cells:
        own = next((found for found in row.found if found.cell == cell), None)
        if own is None:
            lines.append(f"{'diverged' if cell in row.diverged else MISSING}  {cell.name}: {_command(study, cell, results)}")
            continue
        scores = scores_of_run(own, measure)
        lines.append(f"{NONE if scores is None else f'{scores.mean():.5f}'}  {cell.name}  run key {own.record.run_key}  {own.folder}")
    return lines


def _command(study: Study, cell: Cell, results: Path) -> str:
    """Of one run of a study, so that its record comes where tables look."""
    model = cell.labels.get("model", study.model)
    chosen = [f"{axis}={label}" for axis, label in cell.labels.items() if axis != "model"]
    words = ["--model", model, "--results", str(results), "--only", *chosen]
    return f"python -m bayesdiff.study {study.name} {shlex.join(words)}"


def studies_in(results: Path, model: str | None = None) -> list[Study]:
    """Studies of the models that have records, one study a model; then, of a study with several models, all of them in one.

    Raises:
        UserError: a ``model`` that no study has.
    """
    if model is not None:
        return chosen_studies((), model)
    models = sorted({record.config["model"]["name"] for _, record in load_records(results)})
    studies = []
    for name in study_names():
        present = [load_study(name, each) for each in models if each in models_of(name)]
        studies += [*present, *([join_models(present)] if len(present) > 1 else [])]
    return studies


def write_all(results: Path, model: str | None, share: float) -> None:
    """Tables and figures of every study, saying which, and what of the records is in none."""
    if left := incomplete(results):
        print(f"{len(left)} records are not whole and left out: {', '.join(left)}")
    write_runs(results)
    written = [(study, rows_of(study, results)) for study in studies_in(results, model)]
    for study, rows in written:
        if said := write_study(study, rows, results, share):
            print(said)
    if model is not None:  # the index and what is in no study are of all models
        return
    write_index(results, written)
    completed = {folder for folder, record in load_records(results) if record.status == "completed"}
    others = completed - {found.folder for _, rows in written for row in rows for found in row.found}
    if others:
        print(f"{len(others)} records are of no study; {results}/tables/runs.md has them")
