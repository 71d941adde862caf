"""Claim by claim: what the paper says, and what the records of a set of results show.

Command:  python -m bayesdiff.claims results/toybox          (part of make paper-tables)

``results/primary.yaml`` has the claims that were registered before their runs; they go to ``results/primary.md``, with those of
``results/replication.yaml``. While runs of theirs are missing the page says how many there are, and nothing else.

``results/claims.yaml`` lists the others, which are exploratory. Each is judged by the study that speaks to it, and they go to
``results/<set>/claims.md`` and between the marks of that set in ``results/README.md``. A claim about a difference *holds*
when the paired difference has the claimed sign and its p-value, corrected over the page (Holm), is at most 0.05; it is
*contradicted* when the sign is the other one. One whose interval ends before the paper's difference *excludes the paper's size*.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from bayesdiff.core.arguments import Parser, path
from bayesdiff.core.errors import UserError, bad_input_in_one_line
from bayesdiff.core.files import write_text
from bayesdiff.core.layout import CONTRASTS, FIGURES, REGISTERED, REGISTERED_PAGE, REMEDIES, REPLICATION
from bayesdiff.core.machine import cores
from bayesdiff.core.output import say
from bayesdiff.recording.archive import Archive, open_archive
from bayesdiff.studies.claims import answer, judge, load_claims, page, write_between, write_page
from bayesdiff.studies.mechanism import load_plan, rows_by_study
from bayesdiff.studies.mechanism_page import write_mechanism
from bayesdiff.studies.one_step_page import write_one_step
from bayesdiff.studies.pages import damaged_lines
from bayesdiff.studies.plan import load_study
from bayesdiff.studies.primary import open_primary
from bayesdiff.studies.primary_figure import draw
from bayesdiff.studies.primary_page import answers
from bayesdiff.studies.primary_page import page as primary_page
from bayesdiff.studies.remedies import write_remedies
from bayesdiff.studies.rows import Row, rows_of
from bayesdiff.studies.timing import row_of


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
        say(line)
    names = dict.fromkeys(claim.study for claim in claims)
    rows = {name: rows_of(load_study(name, arguments.model), archive) for name in names}
    options = f" --model {arguments.model} --results {shlex.quote(str(arguments.results))}"
    findings = [judge(claim, rows[claim.study]) for claim in claims]
    write_page(page(findings, options), arguments.results)
    say(f"{arguments.results}/claims.md")
    orders = _exploratory(arguments.results, archive)
    lines = [*_registered(arguments.results, archive, orders), answer(findings)]
    write_between(arguments.results.parent / "README.md", "answers", arguments.results.name, "\n".join(lines) + "\n")
    return 0


def _exploratory(results: Path, archive: Archive) -> Row | None:
    """The pages of contrasts and of remedies, where their files stand beside the set; returns the plain runs of several orders."""
    contrasts, remedies, orders = results.parent / CONTRASTS, results.parent / REMEDIES, None
    if contrasts.exists():
        plan = load_plan(contrasts)
        rows = rows_by_study(plan, archive)
        say(write_mechanism(plan, rows, results))
        orders = row_of(plan.timings[0], rows[plan.timings[0].study]) if plan.timings else None
    if remedies.exists():
        say(write_remedies(remedies, archive))
    if page := write_one_step(archive):
        say(page)
    return orders


def _registered(results: Path, archive: Archive, orders: Row | None) -> list[str]:
    """Write the page of the registered claims, where there are some beside the set, and return their lines."""
    path = results.parent / REGISTERED
    if not path.exists():
        return []
    again = results.parent / REPLICATION
    primary, replication = open_primary(path, archive), open_primary(again, archive) if again.exists() else None
    target = results.parent / REGISTERED_PAGE
    if not primary.found and target.exists():  # of another set
        say(f"{target}: left as it is; {results} has no run of the study {primary.study.name}")
        return []
    write_text(target, primary_page(primary, replication, orders))
    for written in (target, *draw(primary, results / FIGURES)):
        say(written)
    return [*answers(primary), *(answers(replication) if replication else [])]


if __name__ == "__main__":
    sys.exit(main())
