"""What a person sees of studies: the plan of one, and where several stand."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bayesdiff.core import escape
from bayesdiff.core.layout import RECORD, RECORDS
from bayesdiff.studies.plan import Study
from bayesdiff.studies.state import STATES, Planned, failure_said, summary

MOST, FEW = 30, 3
"""Runs, and damaged records, that a plan lists, unless all are asked for."""


def estimate_minutes(study: Study, planned: Sequence[Planned]) -> float:
    """Minutes of one run: the median of the study's own finished runs, else what the study says."""
    spent = [sum(run.ended.seconds.values()) / 60 for run in planned if run.ended is not None and run.ended.seconds]
    return statistics.median(spent) if spent else study.minutes


def print_plan(study: Study, planned: Sequence[Planned], workers: int, console: Console, every: bool = False) -> None:
    """What the rest will take, then what a study consists of; the first ``MOST`` runs unless ``every`` one is asked for."""
    left = [run for run in planned if run.ended is None]
    minutes = estimate_minutes(study, planned)
    console.print(
        f"{len(planned)} runs, {len(planned) - len(left)} done, {len(left)} left; about {minutes:.0f} minutes a run, "
        f"{len(left) * minutes / workers / 60:.1f} hours with {workers} worker(s)", highlight=False,
    )  # fmt: skip
    fed = f", for {', '.join(study.feeds)}" if study.feeds else ""
    table = Table("run", "state", "folder", title=Text(escape.plain(f"{study.name}: {study.title}{fed}")))
    shown = planned if every else sorted(planned, key=lambda run: run.ended is not None)[:MOST]
    for run in shown:
        table.add_row(
            Text(escape.plain(run.cell.name), overflow="ellipsis", no_wrap=True),
            run.state,
            Text(escape.plain(run.folder.name), no_wrap=True),
        )
    console.print(table)
    noted = [run for run in planned if run.note]
    for run in noted if every else noted[:FEW]:
        console.print(escape.plain(f"damaged  {run.cell.name}: {run.note}"), markup=False, highlight=False, soft_wrap=True)
    if len(shown) < len(planned):
        console.print(f"… and {len(planned) - len(shown)} more: --all lists every run", highlight=False)


def recorded_in(planned: Sequence[Planned], results: Path) -> str:
    """What to add to a command so that runs with records in a result set are done; empty where it has none of those that are left."""
    held = sum(run.ended is None and (results / RECORDS / run.folder.name / RECORD).is_file() for run in planned)
    return f"{held} of the runs left have records in {results}: they are done with --results {shlex.quote(str(results))}" if held else ""


def print_states(studies: Mapping[str, Sequence[Planned]], root: Path, console: Console) -> None:
    """A line a study with its runs by state, then what failed or is damaged."""
    table = Table("study", "runs", *STATES)
    for name, planned in studies.items():
        table.add_row(Text(name), str(len(planned)), *[str(number) for number in summary(planned).values()])
    console.print(table)
    for planned in studies.values():
        print_trouble(planned, root, console)


def print_trouble(planned: Sequence[Planned], root: Path, console: Console) -> None:
    """What failed or is damaged, a line each."""
    for run in planned:
        if (said := trouble(run, root)) is not None:
            console.print(escape.plain(said), markup=False, highlight=False)


def trouble(run: Planned, root: Path) -> str | None:
    """One line for a run that failed or whose record is damaged: what it was, and what it said last."""
    if run.note:
        return f"damaged  {run.cell.name}: {run.note}"
    return f"failed  {run.cell.name}: {failure_said(root, run.folder)}" if run.state == "failed" else None
