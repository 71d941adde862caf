"""The first look: three small runs on the toybox, what they showed, and a page to look at.

Command:  python -m bayesdiff.demo [--runs runs/demo]     (make demo)

It fine-tunes one subject plainly, with Bayesian weights, and with the empty prompt in a share of the rows. Every run is sampled
at guidance 7.5, at guidance 1, and with averaged weights. Stopped, it goes on where it was by the same command.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from bayesdiff.core import escape
from bayesdiff.core.arguments import Parser, path
from bayesdiff.core.errors import ExitCode, UserError, bad_input_in_one_line
from bayesdiff.core.layout import REPORT
from bayesdiff.core.machine import cores
from bayesdiff.core.signals import resumable
from bayesdiff.studies.checks import check_extra, check_runs
from bayesdiff.studies.engine import run_study
from bayesdiff.studies.plan import load_study
from bayesdiff.studies.show import estimate_minutes
from bayesdiff.studies.state import Planned, plan

NAME, PICTURE = "demo", "first_look.png"


def _parser() -> Parser:
    parser = Parser(NAME, __doc__)
    parser.add_argument("overrides", nargs="*", help="added to every run, such as data.subject=toy_dog")
    parser.add_argument("--runs", type=path, default=Path("runs/demo"), help="folder of run folders (default: runs/demo)")
    parser.add_argument("--workers", type=int, help="runs at once (default: all three, which share the cores)")
    return parser


def _show(planned: list[Planned], root: Path, console: Console) -> None:
    """The table, the sentences, and the page of the runs beside each other."""
    from bayesdiff.reporting.first_look import draw_first_look
    from bayesdiff.reporting.pages import write_runs
    from bayesdiff.reporting.traces import arms_of
    from bayesdiff.studies.first_look import looks_of, sentences_of, table_of

    looks = [look for run in planned for look in looks_of(run.folder)]
    if not looks:
        return
    console.print(table_of(looks, max(run.work.steps for run in planned if run.work)))
    for sentence in sentences_of(looks):
        console.print(escape.plain(sentence), markup=False, highlight=False, soft_wrap=True)
    arms = [arms_of(run.folder) for run in planned if run.ended is not None]
    page = write_runs([arm for of_run in arms for arm in of_run[:2]], root / REPORT)
    picture = draw_first_look([arm for of_run in arms for arm in of_run], root / PICTURE)
    seen = f"{root / PICTURE}, and at {page}" if picture else str(page)
    said = f"Look at {seen}: the samples of every step beside each other."
    console.print(escape.plain(said), markup=False, highlight=False, soft_wrap=True)


@bad_input_in_one_line
def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_intermixed_args(argv)
    return resumable(lambda: _work(arguments))


def _work(arguments: argparse.Namespace) -> int:
    """Do the runs that are missing, then show all of them."""
    study, root, extra = load_study(NAME, "toybox"), arguments.runs, tuple(arguments.overrides)
    workers = len(study.cells) if arguments.workers is None else arguments.workers
    if workers < 1:
        raise UserError(f"--workers {workers}: give 1 or more")
    check_extra(extra)
    check_runs(root, write=True)
    planned = plan(study, root, extra)
    left = sum(run.ended is None for run in planned)
    minutes = estimate_minutes(study, planned) * left / min(workers, cores(), max(left, 1))
    print(f"{len(planned)} runs, {left} to do: about {minutes:.0f} minutes with {workers} at once. A line a minute follows.", flush=True)
    found = run_study(study, root, workers, extra)
    _show(plan(study, root, extra), root, Console(emoji=False, width=None if Console().is_terminal else 140))
    return ExitCode.DONE if set(found) <= {"done"} else ExitCode.FAILED


if __name__ == "__main__":
    sys.exit(main())
