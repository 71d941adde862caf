"""Overlay the curves of several runs: ``python -m bayesdiff.compare RUN RUN … [--plot FILE]``.

The first run is the reference. A difference at a checkpoint is the mean over images that both runs
sampled (same prompt, same noise), with its 95 % interval over prompts and images; it says nothing about
other seeds or subjects.
"""

from __future__ import annotations

import sys

from bayesdiff.core.arguments import Parser, path
from bayesdiff.core.errors import bad_input_in_one_line
from bayesdiff.core.files import check_picture
from bayesdiff.core.output import say
from bayesdiff.recording.pairs import plot_comparison, print_comparison


@bad_input_in_one_line
def main(arguments: list[str] | None = None) -> int:
    parser = Parser("compare", __doc__)
    parser.add_argument("runs", nargs="+", type=path, metavar="RUN", help="run folders, or records of results/; the first is the reference")
    parser.add_argument("--metric", default="dino", metavar="NAME", help="a column of curve.csv (default: dino)")
    parser.add_argument("--plot", type=path, metavar="FILE", help="write the overlaid curves to a PNG")
    args = parser.parse_args(arguments)
    if args.plot:
        check_picture(args.plot, "--plot")
    print_comparison(args.runs, args.metric)
    if args.plot:
        plot_comparison(args.runs, args.metric, args.plot)
        say(f"wrote {args.plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
