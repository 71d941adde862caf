"""Studies as Weights & Biases sweeps: ``python -m bayesdiff.sweep STUDY`` writes ``sweeps/<study>.yaml`` anew; ``--all``, of every study.

A sweep's grid is the study's, by labels; each agent's run is one cell, done by the study's own engine, so that
a cell is claimed, done once and recorded whoever asks for it:

    wandb sweep sweeps/table_1.yaml        then, on any machine:  wandb agent SWEEP_ID
"""

from __future__ import annotations

import sys

from bayesdiff.core.arguments import Parser, path
from bayesdiff.core.errors import UserError, bad_input_in_one_line
from bayesdiff.core.files import check_target, write_text
from bayesdiff.studies.plan import chosen_studies
from bayesdiff.studies.sweeps import SWEEPS, file_of, sweep_text


@bad_input_in_one_line
def main(argv: list[str] | None = None) -> int:
    parser = Parser("sweep", __doc__)
    parser.add_argument("names", nargs="*", help="studies")
    parser.add_argument("--all", action="store_true", help="every study that has the model")
    parser.add_argument("--output", type=path, default=SWEEPS)
    parser.add_argument("--model", default="toybox", help="a study's model; others than the toybox are named in the file")
    arguments = parser.parse_args(argv)
    studies = chosen_studies(arguments.names, arguments.model)
    if arguments.all == bool(arguments.names):
        there = ", ".join(study.name for study in chosen_studies((), arguments.model))
        raise UserError(f"sweep: name the studies to write, or give --all alone; there are {there}")
    check_target(arguments.output / file_of(studies[0]), "--output")
    for study in studies:
        write_text(arguments.output / file_of(study), sweep_text(study, arguments.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
