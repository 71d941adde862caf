"""Run what a study is missing: ``python -m bayesdiff.study NAME [--dry-run] [--workers N]``.

Any number of these may work on one study at once, on one machine or on several that share a folder: a
run is claimed before it starts, by a lock that dies with its process, and done once. A run that fails
is noted with its error and does not stop the rest; give the same command again to try it once more.

Exit code: 0 when every run has its end or is at work elsewhere, 1 when runs failed or are damaged, 2 for bad input, 130 or 143 when
this command was stopped, 143 also when one of its runs was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from bayesdiff.config.prompts import image_count
from bayesdiff.core.arguments import Parser, path
from bayesdiff.core.errors import ExitCode, UserError, bad_input_in_one_line
from bayesdiff.core.signals import resumable
from bayesdiff.corruption.planning import power_sentence
from bayesdiff.recording.tracker import without_echo
from bayesdiff.studies.checks import check_extra, check_results, check_runs
from bayesdiff.studies.engine import run_study
from bayesdiff.studies.plan import compose_cell, load_study, narrowed, runs_of, study_names
from bayesdiff.studies.show import print_plan, recorded_in
from bayesdiff.studies.state import DAMAGED, plan


@bad_input_in_one_line
def main(argv: list[str] | None = None) -> int:
    parser = Parser("study", __doc__, epilog=f"studies: {', '.join(study_names())}")
    parser.add_argument("name", help="a file of experiments/, without its ending")
    parser.add_argument("overrides", nargs="*", help="added to every run, such as schedule.keep=best")
    parser.add_argument("--model", default="toybox", help="toybox (default), sd15, …: what the study has")
    parser.add_argument("--runs", type=path, help="folder of run folders (default: runs/MODEL)")
    parser.add_argument("--results", type=path, help="collect each run's small files here (results/toybox); runs it has are done")
    parser.add_argument("--workers", type=int, default=1, help="runs at once; with several GPUs each takes one")
    parser.add_argument("--only", nargs="+", default=[], metavar="AXIS=LABEL", help="only runs with these labels (any of one axis)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--all", action="store_true", help="with --dry-run: list every run")
    arguments = parser.parse_intermixed_args(argv)
    return resumable(lambda: _work(arguments))


def _work(arguments: argparse.Namespace) -> int:
    """Print the plan, or do what is missing and print how many runs ended how."""
    root, extra = arguments.runs or runs_of(arguments.model), tuple(arguments.overrides)
    if arguments.workers < 1:
        raise UserError(f"--workers {arguments.workers}: give 1 or more")
    check_extra(extra)
    check_runs(root, write=not arguments.dry_run)
    check_results(arguments.results, write=not arguments.dry_run)
    study = narrowed(load_study(arguments.name, arguments.model), without_echo(arguments.only))
    if arguments.dry_run:
        planned = plan(study, root, extra, arguments.results)
        print_plan(study, planned, arguments.workers, Console(emoji=False, width=None if Console().is_terminal else 140), arguments.all)
        if arguments.results is None and (said := recorded_in(planned, Path("results") / arguments.model)):
            print(said)
        cfg = compose_cell(study.cells[0], extra)
        print(power_sentence(cfg.schedule.checkpoints, image_count(cfg.sampler.prompts, cfg.sampler.images_per_prompt)))
        return ExitCode.DONE
    found = run_study(study, root, arguments.workers, extra, arguments.results)
    print(", ".join(f"{number} {state}" for state, number in found.items()))
    if found.get("failed") or found.get(DAMAGED):
        return ExitCode.FAILED
    return ExitCode.TERMINATED if found.get("stopped") else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
