"""A site of a result set: an index, and one page a study. Each is one file; only the index and its pages link to each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bayesdiff.core.errors import UserError
from bayesdiff.recording.archive import Archive
from bayesdiff.reporting.pages import render, write_page
from bayesdiff.reporting.study import answer_of, study_page
from bayesdiff.studies.pages import commands_of, damaged_lines, file_name, heading, studies_in
from bayesdiff.studies.plan import Study
from bayesdiff.studies.rows import Row, rows_of
from bayesdiff.studies.tables import study_table

INDEX = "index.html"


def write_site(archive: Archive, target: Path) -> list[Path]:
    """Write the index and a page for every study that has a record; the files, the index first.

    Raises:
        UserError: no study has a record, or a place that cannot be written to.
    """
    entries, written = [], []
    for study in studies_in(archive):
        rows = rows_of(study, archive)
        if any(row.found for row in rows):
            name = f"{file_name(study)}.html"
            written.append(write_page(target / name, study_page(study, archive, INDEX)))
            entries.append(_entry(study, rows, name, archive.results))
        else:
            entries.append(_entry(study, rows, "", archive.results))
    if not written:
        raise UserError(f"{archive.results}: no study has a record; make some with bayesdiff study NAME --results {archive.results}")
    index = render(
        "index.html", f"Results: {archive.results.name}", {"kind": "index"}, entries=entries, runs=len(archive.runs),
        damaged=damaged_lines(archive),
    )  # fmt: skip
    return [write_page(target / INDEX, index), *written]


def _entry(study: Study, rows: list[Row], page: str, results: Path) -> dict[str, Any]:
    """What the index says of a study; ``page`` is empty for one without a record."""
    found = {"title": heading(study), "name": study.name, "page": page, "runs": len(study.cells)}
    if not page:
        return found | {"command": commands_of(study, results)[0].strip("`")}
    return found | {"answer": answer_of(study, rows, study_table(study, rows))}
