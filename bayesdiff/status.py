"""Where a study stands: ``python -m bayesdiff.status NAME [NAME …]``; without a name, every study that has the model."""

from __future__ import annotations

import sys

from rich.console import Console

from bayesdiff.core.arguments import Parser, path
from bayesdiff.core.errors import ExitCode, bad_input_in_one_line
from bayesdiff.studies.checks import check_results, check_runs
from bayesdiff.studies.plan import chosen_studies, runs_of
from bayesdiff.studies.show import print_states
from bayesdiff.studies.state import plan


@bad_input_in_one_line
def main(argv: list[str] | None = None) -> int:
    parser = Parser("status", __doc__)
    parser.add_argument("names", nargs="*", help="studies; none for all that have the model")
    parser.add_argument("--model", default="toybox", help="toybox (default), sd15, …: what the studies have")
    parser.add_argument("--runs", type=path, help="folder of run folders (default: runs/MODEL)")
    parser.add_argument("--results", type=path, help="runs whose records are here (such as results/toybox) are done")
    arguments = parser.parse_args(argv)
    root = arguments.runs or runs_of(arguments.model)
    check_runs(root)
    check_results(arguments.results)
    console = Console(emoji=False, width=None if Console().is_terminal else 120)
    studies = {study.name: plan(study, root, results=arguments.results) for study in chosen_studies(arguments.names, arguments.model)}
    print_states(studies, root, console)
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
