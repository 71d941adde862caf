"""Where a study stands: ``python -m bayesdiff.status NAME [NAME …]``; without a name, every study that has the model."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bayesdiff.core.errors import bad_input_in_one_line
from bayesdiff.studies.plan import STATES, Planned, chosen_studies, failure_file, plan, runs_of


def summary(planned: list[Planned]) -> dict[str, int]:
    """How many runs are in each state."""
    states = [run.state for run in planned]
    return {state: states.count(state) for state in STATES}


def print_failures(console: Console, root: Path, planned: list[Planned]) -> None:
    """One line a failed run: what it was, and what it said last."""
    for run in planned:
        if run.state == "failed":
            said = json.loads(failure_file(root, run.folder).read_text(encoding="utf-8"))
            console.print(f"failed  {run.cell.name}: {said['error']} (exit code {said['exit_code']}, {root / 'logs'})", highlight=False)


@bad_input_in_one_line
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bayesdiff.status", description=__doc__)
    parser.add_argument("names", nargs="*", help="studies; none for all that have the model")
    parser.add_argument("--model", default="toybox", help="toybox (default), sd15, …: what the studies have")
    parser.add_argument("--runs", type=Path, help="folder of run folders (default: runs/MODEL)")
    parser.add_argument("--results", type=Path, help="runs whose records are here (such as results/toybox) are done")
    arguments = parser.parse_args(argv)
    root = arguments.runs or runs_of(arguments.model)
    console = Console(width=None if Console().is_terminal else 120)
    table = Table("study", "runs", *STATES)
    studies = {study.name: plan(study, root, results=arguments.results) for study in chosen_studies(arguments.names, arguments.model)}
    for name, planned in studies.items():
        table.add_row(name, str(len(planned)), *[str(number) for number in summary(planned).values()])
    console.print(table)
    for planned in studies.values():
        print_failures(console, root, planned)
    return 0


if __name__ == "__main__":
    sys.exit(main())
