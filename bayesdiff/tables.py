"""Tables and figures from records: ``python -m bayesdiff.tables results/toybox`` (``make paper-tables``).

Every study that has half of its records (``--partial``: any) gets ``tables/<study>.{csv,md,tex}`` and
``figures/<study>.{png,svg}``: the mean at the last checkpoint and its deviation over seeds, as the paper
prints them, and the paired difference from the study's reference arm with its interval and a p-value
corrected over the table (Holm). Cells without records are shown as missing, with the command that fills them.

``--explain STUDY ROW COLUMN`` names the runs a number comes from. Written twice, in any order of
records, the files are the same byte for byte.
"""

from __future__ import annotations

import sys

from bayesdiff.core.arguments import Parser, path
from bayesdiff.core.errors import bad_input_in_one_line
from bayesdiff.core.machine import cores
from bayesdiff.recording.archive import open_archive
from bayesdiff.studies.pages import WORTH_A_TABLE, explain, write_all
from bayesdiff.studies.plan import join_models, load_study


@bad_input_in_one_line
def main(argv: list[str] | None = None) -> int:
    parser = Parser("tables", __doc__)
    parser.add_argument("results", type=path, help="a set of results, such as results/toybox")
    parser.add_argument(
        "--model", help="whose studies (default: every model that has records; with --explain the toybox, sd14+sd15 for both)"
    )
    parser.add_argument("--partial", action="store_true", help="also tables of studies that have less than half of their runs")
    parser.add_argument("--explain", nargs=3, metavar=("STUDY", "ROW", "COLUMN"), help="the runs behind one number")
    arguments = parser.parse_args(argv)
    archive = open_archive(arguments.results, cores())
    if arguments.explain:
        name, row, column = arguments.explain
        models = [load_study(name, model) for model in (arguments.model or "toybox").split("+")]
        print(explain(models[0] if len(models) == 1 else join_models(models), archive, row, column))
        return 0
    write_all(archive, arguments.model, 0.0 if arguments.partial else WORTH_A_TABLE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
