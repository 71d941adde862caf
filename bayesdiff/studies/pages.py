"""The files that tables are written to: CSV, Markdown and LaTeX of a study, the index, all runs, and what is behind a number.

Every study that has half of its records (``--partial``: any) gets ``tables/<study>.{csv,md,tex}`` and
``figures/<study>.{png,svg}``. Cells without records are shown as missing, with the command that fills them. Written
twice, in any order of records, the files are the same byte for byte.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from bayesdiff.core import escape
from bayesdiff.core.errors import UserError
from bayesdiff.core.files import atomic_write, write_text
from bayesdiff.core.layout import FIGURES, TABLES
from bayesdiff.core.output import say
from bayesdiff.recording.archive import Archive
from bayesdiff.studies.figures import draw_curves, draw_last
from bayesdiff.studies.latex import latex_tables
from bayesdiff.studies.measures import COST, CURVE, LAST, Measure, named, of
from bayesdiff.studies.paper import PAPER_SUBJECTS, paper_label
from bayesdiff.studies.plan import Cell, Study, chosen_studies, join_models, load_study, models_of, study_names
from bayesdiff.studies.rows import Row, cells_of, common_places, pair_of, read, reference_of, rows_of, run_counts
from bayesdiff.studies.tables import MISSING, NONE, printed_runs, printed_table, runs_table, study_table
from bayesdiff.studies.verdicts import SUBJECT, verdicts_line, verdicts_table

WORTH_A_TABLE = 0.5
"""Share of a study's runs: runs are shared by studies, and a few of another one's make no table."""

CAPTION = (
    "Mean (standard deviation over seeds, as the paper prints) at the last checkpoint; *DINO over steps*, *deepest dip* and *flagged* are "
    "of the whole curve: its mean over training time, its deepest fall and return as fitted, and whether that is a stage. Then the "
    "paired difference from the reference arm with its 95 % t interval over subjects (of one subject: over seeds), and its p-value "
    "corrected over this table (Holm). *These runs*: one run on each side, so that the interval is over prompts and images alone and "
    "another seed may differ by more. Runs that diverged have no scores: they are counted, and their pairs left out."
)
OF_THE_PAPER = f" The paper's numbers are its own, of {PAPER_SUBJECTS} subjects with all their images, whatever subjects this table has."


def write_study(study: Study, rows: list[Row], results: Path, share: float = 0.0) -> str:
    """Write a study's table and figures and say which; where it has no record, or less than ``share`` of them, say so.

    A table that is there already is written anew, however few records are left of it.
    """
    (found, _, _), runs = run_counts(rows), len(study.cells)
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
    title, body = escape.markdown_cell(heading(study)), in_markdown(printed, rows[0].labels)
    text = f"# {title}\n\n{caption}\n\n{body}\n{_verdicts(study, rows)}{_lacking(study, rows, results)}"
    write_text(target / f"{name}.md", text)
    label = f"tab:{study.name}-{study.model}"
    write_text(target / f"{name}.tex", latex_tables(printed, len(rows[0].labels) + 1, heading(study), label))
    figures = results / FIGURES
    draw_curves(study, rows, figures / f"{name}.png", figures / f"{name}.svg")
    if study.x:
        draw_last(study, rows, figures / f"{name}-last.png", figures / f"{name}-last.svg")
    return f"{target / name}.md"


def _verdicts(study: Study, rows: list[Row]) -> str:
    if not study.verdicts:
        return ""
    return f"\n## Every run's verdict\n\n{verdicts_line(rows)}\n\n{in_markdown(verdicts_table(rows), (*rows[0].labels, SUBJECT))}\n"


def in_markdown(table: pd.DataFrame, texts: Iterable[str]) -> str:
    """A table in Markdown, whose columns ``texts`` hold a user's words."""
    told = table.assign(
        **{name: [escape.markdown_cell(cell) if isinstance(cell, str) else cell for cell in table[name]] for name in texts if name in table}
    )
    return str(told.rename(columns=escape.markdown_cell).to_markdown(index=False))


def heading(study: Study) -> str:
    """What a table is of, with the model: numbers of a stand-in must not be taken for those of what it stands in for."""
    of_paper = f" ({study.paper})" if study.paper else ""
    return f"{study.title}{of_paper}, on {'the toybox' if study.model == 'toybox' else study.model.replace('+', ', ')}"


def write_index(results: Path, written: list[tuple[Study, list[Row]]]) -> None:
    """``tables/README.md``: every study of the models that have records, how far it is, and its table or what makes it."""
    lines = []
    for study, rows in written:
        (found, diverged, missing), name = run_counts(rows), file_name(study)
        table = f"[{name}.md]({name}.md)" if found and (results / TABLES / f"{name}.md").exists() else "no table yet"
        runs = f"{found} of {len(study.cells)}" + (f", {diverged} diverged" if diverged else "")
        lines.append({
            "study": study.name, "model": study.model, "the paper": study.paper or "(a question of ours)", "what": study.title,
            "runs": runs, "table": table, "the rest": " ".join(commands_of(study, results)) if missing else NONE,
        })  # fmt: skip
    caption = "Every study, whether it was run or not; `python -m bayesdiff.tables` writes tables of those that have half of their runs."
    write_text(results / TABLES / "README.md", f"# Studies\n\n{caption}\n\n{in_markdown(pd.DataFrame(lines), ('the paper', 'what'))}\n")


def commands_of(study: Study, results: Path) -> list[str]:
    """The commands that make what a study lacks, one a model, in code marks."""
    words = ([study.name, "--model", model, "--results", str(results)] for model in study.model.split("+"))
    return [escape.markdown_code(f"python -m bayesdiff.study {shlex.join(each)}") for each in words]


def file_name(study: Study) -> str:
    """Of a study's table and figures; one on the toybox has the study's own name."""
    return study.name if study.model == "toybox" else f"{study.name}-{study.model}"


def _lacking(study: Study, rows: list[Row], results: Path) -> str:
    """What is missing, and the commands that make it."""
    _, _, lacking = run_counts(rows)
    return f"\n{lacking} runs are missing: {', '.join(commands_of(study, results))}\n" if lacking else ""


def write_runs(archive: Archive) -> None:
    """``tables/runs.csv``, and ``tables/runs.md`` for people."""
    table, results = runs_table(archive), archive.results
    (results / TABLES).mkdir(parents=True, exist_ok=True)
    with atomic_write(results / TABLES / "runs.csv") as part:
        table.to_csv(part, index=False, float_format="%.4g", lineterminator="\n")
    caption = "DINO of every run, (step) in brackets; the deepest fall from anything reached before, and how much of it came back."
    if len(table):
        text = in_markdown(printed_runs(table), ("subject", "arm", "method"))
        write_text(results / TABLES / "runs.md", f"# All runs\n\n{caption}\n\n{text}\n")


def explain(study: Study, archive: Archive, row_name: str, column: str) -> str:
    """The runs behind one number, with each run's own mean; then those behind the difference beside it, and its pairs.

    Raises:
        UserError: a row or column that the study's table does not have.
    """
    rows, measure, results = rows_of(study, archive), named(column), archive.results
    row = next((row for row in rows if row.name == row_name), None)
    if row is None or measure is None:
        there, columns = "; ".join(row.name for row in rows), ", ".join(measure.name for measure in of(LAST, CURVE, COST))
        raise UserError(
            f"{study.name}: no row {row_name!r} or column {column!r}; give one of the rows {there}; and of the columns {columns}"
        )
    lines = _runs_behind(study, row, measure, results)
    if (reference := reference_of(study, row, rows)) is not None:
        pair = pair_of(row, reference, lambda found: read(found, measure))
        pairs = 0 if pair is None else pair[0][..., 0].size
        lines += [f"difference from: {reference.name}, {pairs} pairs", *_runs_behind(study, reference, measure, results)]
    return "\n".join(lines)


def _runs_behind(study: Study, row: Row, measure: Measure, results: Path) -> list[str]:
    """A line a run of a row: its own mean and where it is, or the command that makes it."""
    seeds, subjects = common_places(cells_of(row, lambda found: read(found, measure)) or {})
    lines = []
    for cell in row.cells:
        own = next((found for found in row.found if found.cell == cell), None)
        if own is None:
            lines.append(f"{'diverged' if cell in row.diverged else MISSING}  {cell.name}: {_command(study, cell, results)}")
            continue
        scores, (seed, subject) = read(own, measure), own.place
        without = "" if not seeds or (seed in seeds and subject in subjects) else "  left out, as a run of its subject or seed diverged"
        lines.append(
            f"{NONE if scores is None else f'{scores.mean():.5f}'}  {cell.name}  run key {own.record.run_key}  {own.folder}{without}"
        )
    return lines


def _command(study: Study, cell: Cell, results: Path) -> str:
    """Of one run of a study, so that its record comes where tables look."""
    model = cell.labels.get("model", study.model)
    chosen = [f"{axis}={label}" for axis, label in cell.labels.items() if axis != "model"]
    words = ["--model", model, "--results", str(results), "--only", *chosen]
    return f"python -m bayesdiff.study {study.name} {shlex.join(words)}"


def studies_in(archive: Archive, model: str | None = None) -> list[Study]:
    """Studies of the models that have records, one study a model; then, of a study with several models, all of them in one.

    Raises:
        UserError: a ``model`` that no study has.
    """
    if model is not None:
        return chosen_studies((), model)
    models = sorted({str(run.record.config["model"]["name"]) for run in archive.runs.values()})
    studies = []
    for name in study_names():
        present = [load_study(name, each) for each in models if each in models_of(name)]
        studies += [*present, *([join_models(present)] if len(present) > 1 else [])]
    return studies


def damaged_lines(archive: Archive) -> list[str]:
    """What is said of records that cannot be read: each with the remedy."""
    if not archive.damaged:
        return []
    return [f"{len(archive.damaged)} records are not whole and left out:", *(f"  {said}" for said in archive.damaged.values())]


def write_all(archive: Archive, model: str | None, share: float) -> None:
    """Tables and figures of every study, saying which, and what of the records is in none."""
    for line in damaged_lines(archive):
        say(line)
    written = [(study, rows_of(study, archive)) for study in studies_in(archive, model)]
    write_runs(archive)
    for study, rows in written:
        if said := write_study(study, rows, archive.results, share):
            say(said)
    if model is not None:  # the index and what is in no study are of all models
        return
    write_index(archive.results, written)
    completed = {name for name, run in archive.runs.items() if run.record.status == "completed"}
    others = completed - {found.folder.name for _, rows in written for row in rows for found in row.found}
    if others:
        say(f"{len(others)} records are of no study; {archive.results}/tables/runs.md has them")
