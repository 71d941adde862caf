"""Claim by claim: what the paper says, and what the records of a set of results show.

Command:  python -m bayesdiff.claims results/toybox          (part of make paper-tables)

``results/claims.yaml`` lists the claims; each is judged by the study that speaks to it, and the page goes
to ``results/<set>/claims.md`` and between the marks of that set in ``results/README.md``. A claim about a
difference *holds* when the paired difference has the claimed sign and its p-value, corrected over the page
(Holm), is at most 0.05; it is *contradicted* when the sign is the other one; everything else is *not
decided*, and the page says how large a difference these runs would have found in spite of the correction.
"""

from __future__ import annotations

import shlex
import sys

from bayesdiff.core.arguments import Parser, path
from bayesdiff.core.errors import UserError, bad_input_in_one_line
from bayesdiff.core.machine import cores
from bayesdiff.recording.archive import open_archive
from bayesdiff.studies.claims import judge, load_claims, page, write_page
from bayesdiff.studies.pages import damaged_lines
from bayesdiff.studies.plan import load_study
from bayesdiff.studies.rows import rows_of


@bad_input_in_one_line
def main(argv: list[str] | None = None) -> int:
    parser = Parser("claims", __doc__)
    parser.add_argument("results", type=path, help="a set of results, such as results/toybox")
    parser.add_argument("--model", default="toybox", help="whose studies (default: toybox)")
    parser.add_argument("--claims", type=path, help="the list (default: claims.yaml beside the set)")
    arguments = parser.parse_args(argv)
    if arguments.model != "toybox" and not arguments.claims:
        raise UserError(f"--model {arguments.model}: claims.yaml names rows of the toybox's studies; give a list of your own with --claims")
    if not arguments.results.is_dir():
        raise UserError(f"{arguments.results}: no such folder; give a result set, such as results/toybox")
    claims = load_claims(arguments.claims or arguments.results.parent / "claims.yaml")
    archive = open_archive(arguments.results, cores())
    for line in damaged_lines(archive):
        print(line)
    names = dict.fromkeys(claim.study for claim in claims)
    rows = {name: rows_of(load_study(name, arguments.model), archive) for name in names}
    options = f" --model {arguments.model} --results {shlex.quote(str(arguments.results))}"
    write_page(page([judge(claim, rows[claim.study]) for claim in claims], options), arguments.results)
    print(f"{arguments.results}/claims.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
