"""Is there a corruption stage in this curve? ``python -m bayesdiff.verdict FILE.csv [FILE …]``.

A source is a run folder; a table in CSV, JSON, JSON lines or Parquet (wide: a column of steps and one or more of scores; long: a
row a step and image; a chart exported from Weights & Biases or TensorBoard); a TensorBoard event file or a folder of them; an
offline run of Weights & Biases; wandb:ENTITY/PROJECT/RUN; or - for standard input.

Exit codes:
   0  no stage in any curve
  10  a stage in at least one curve
  11  at least one curve cannot be judged (too few checkpoints, or scores that are not finite), and none has a stage
   2  at least one source is bad input; the others are judged and printed all the same
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bayesdiff.core.arguments import Parser, path
from bayesdiff.core.errors import UserError, bad_input_in_one_line, complain, first_line
from bayesdiff.core.files import check_picture
from bayesdiff.readings import Naming, Options, judge, read
from bayesdiff.readings.judging import Judged, check_options, exit_code_of
from bayesdiff.readings.printing import as_json, print_verdict


def _parser() -> Parser:
    parser = Parser("verdict", __doc__)
    add = parser.add_argument
    add("sources", nargs="+", metavar="SOURCE", help="run folder, table, log, wandb:ENTITY/PROJECT/RUN, or -")
    add("--step", help="column of training steps (default: found by its name)")
    add("--metric", metavar="NAME", help="the metric to judge: a column, a metric of a long table, or one of a run folder (default: dino)")
    add("--value", action="append", default=[], help="column of scores; give it again for every image")
    add("--run", help="column that tells several runs of one table apart")
    better = parser.add_mutually_exclusive_group()
    better.add_argument("--higher-is-better", dest="higher", action="store_const", const=True, help="of a metric whose name does not say")
    better.add_argument("--lower-is-better", dest="higher", action="store_const", const=False, help="of a metric whose name does not say")
    add("--alpha", type=float, default=0.05, help="error rate over the whole curve (default: 0.05)")
    add("--min-depth", type=float, help="smallest depth of a stage (default: 0.03 of a similarity, 3 in percent; else 3 %% of the range)")
    add("--checkpoint-noise", type=float, help="noise between checkpoints, measured elsewhere; of a bare curve all the noise of its means")
    add("--sampled-prompts", action="store_true", help="run folders: prompts are a sample of all prompts")
    add("--seed", type=int, default=0, help="of the resampling (default: 0)")
    add("--json", action="store_true", help="print a list of verdicts instead of words")
    add("--plot", type=path, metavar="FILE.png", help="draw the curves with their stages")
    return parser


def _plot(target: Path, judged: Sequence[Judged]) -> None:
    from bayesdiff.recording.plots import plot_verdicts

    plot_verdicts(target, [(r.name, r.metric, list(r.steps), r.columns[r.metric], v) for v, r in judged])


def _judge_all(arguments: argparse.Namespace) -> tuple[list[Judged], bool]:
    """All curves that can be read, and whether a source is bad input: it costs itself alone, and a line on stderr."""
    naming = Naming(arguments.step, tuple(arguments.value), arguments.metric, arguments.run)
    options = Options(
        arguments.higher, arguments.alpha, arguments.min_depth, arguments.checkpoint_noise, arguments.sampled_prompts, arguments.seed
    )
    check_options(options)
    judged, bad = [], False
    for source in arguments.sources:
        try:
            judged += [judge(reading, options) for reading in read(source, naming)]
        except (UserError, ValueError, OSError) as error:
            bad = True
            complain(error if isinstance(error, UserError) else first_line(error))
    return judged, bad


@bad_input_in_one_line
def main(argv: list[str] | None = None) -> int:
    """Judge every source; the exit code says what was found."""
    arguments = _parser().parse_args(argv)
    if arguments.plot is not None:
        check_picture(arguments.plot, "--plot")
    judged, bad = _judge_all(arguments)
    try:
        if arguments.plot is not None and judged:
            _plot(arguments.plot, judged)
    except (UserError, ValueError, OSError) as error:
        complain(f"--plot {arguments.plot}: {first_line(error)}")
        bad = True
    if arguments.json:
        print(json.dumps([as_json(*one) for one in judged], indent=1))
    console = Console(emoji=False, width=None if Console().is_terminal else 100)
    for verdict, reading in judged if not arguments.json else ():
        print_verdict(console, verdict, reading, full=len(judged) == 1)
    return exit_code_of(judged, bad)


if __name__ == "__main__":
    sys.exit(main())
