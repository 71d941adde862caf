"""What to try first against grain: a table of remedies with what each was measured to change, from records alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from bayesdiff.config.structured import read_entries
from bayesdiff.core.files import write_text
from bayesdiff.core.layout import MAIN, REMEDIES_PAGE
from bayesdiff.recording.archive import Archive
from bayesdiff.studies.contrasts import GRAIN, along_steps, curve_of, estimate, in_window, read_row, row_named
from bayesdiff.studies.plan import EVALUATION, load_study
from bayesdiff.studies.rows import Found, Row, rows_of

MIDDLE = (250, 900)
"""Steps of the grain, as ``results/primary.yaml`` has its middle."""
BESIDE = {"DINO": "dino", "CLIP-I": "clip_i", "CLIP-T": "clip_t", "diversity": "diversity"}
AT_THE_END = "grain at the end"
NOT_MEASURED = "not measured yet"
LACKING = "not measured"
"""By runs that have all ended: with one image a prompt there is no diversity."""
EXPLAINED = (
    "Made by `make paper-tables` from `results/remedies.yaml` and the records, all of the toybox. A number is the mean paired difference "
    "over subjects with its 95 % interval: of grain in steps 250 to 900 and at the last checkpoint, of DINO, CLIP-I, CLIP-T and diversity "
    "over the steps. What lowers grain in the middle and not at the end delays it. *No training*: "
    "another look at the same training, which keeps averaged weights beside its own. Nothing is corrected for the number of remedies. "
    "What Bayesian weights cost in time is in `results/README.md`: the runs of this table shared machines. On your own model, compare "
    "two runs with `bayesdiff compare`, or read samples that you have with `bayesdiff judge`."
)


@dataclass
class Remedy:
    """Something to try, and the rows of a study that measure it."""

    try_: str
    how: str
    study: str
    row: dict[str, str]
    against: dict[str, str]


def load_remedies(path: Path) -> list[Remedy]:
    """Read the list; raises ``UserError`` for entries that lack a key or have another."""
    return read_entries(path, Remedy, "remedies", "give remedies as results/remedies.yaml has them", renamed={"try": "try_"})


def remedies_table(remedies: Sequence[Remedy], archive: Archive) -> pd.DataFrame:
    """A line a remedy; what has no runs says so."""
    rows = {name: _rows(name, remedies, archive) for name in dict.fromkeys(one.study for one in remedies)}
    return pd.DataFrame([_line(one, rows[one.study]) for one in remedies])


def _rows(name: str, remedies: Sequence[Remedy], archive: Archive) -> list[Row]:
    """The rows of a study; with those of the evaluations that remedies name, where its runs have them and its table does not."""
    study = load_study(name)
    named = [labels[EVALUATION] for one in remedies if one.study == name for labels in (one.row, one.against) if EVALUATION in labels]
    if named and not study.evaluations:
        study = replace(study, evaluations=tuple(dict.fromkeys([MAIN, *named])))
    return rows_of(study, archive)


def _line(remedy: Remedy, rows: Sequence[Row]) -> dict[str, str]:
    evaluated = {EVALUATION: MAIN} if EVALUATION in rows[0].labels else {}
    row, against = (row_named(rows, evaluated | labels, remedy.try_) for labels in (remedy.row, remedy.against))
    line = {"try": remedy.try_, "how": f"`{remedy.how}`", "needs": "no training" if row.cells == against.cells else "a new run"}
    if row.missing or against.missing:
        runs = f"{len(row.found) + len(against.found)} of {len(row.cells) + len(against.cells)} runs"
        return {**line, "subjects": "-", "grain": f"{NOT_MEASURED} ({runs})", **dict.fromkeys((AT_THE_END, *BESIDE), NOT_MEASURED)}
    readers = {"grain": in_window(GRAIN, MIDDLE), AT_THE_END: _last_grain, **{label: along_steps(name) for label, name in BESIDE.items()}}
    found = {label: estimate(read_row(row, reader), read_row(against, reader)) for label, reader in readers.items()}
    subjects = "-" if (grain := found["grain"]) is None else str(len(grain.subjects))
    return {**line, "subjects": subjects, **{label: LACKING if one is None else one.text for label, one in found.items()}}


def _last_grain(found: Found) -> float | None:
    return None if (curve := curve_of(found, GRAIN)) is None else float(curve[1][-1])


def write_remedies(path: Path, archive: Archive) -> Path:
    """Write ``remedies.md`` of a result set; returns it."""
    table = remedies_table(load_remedies(path), archive)
    page = archive.results / REMEDIES_PAGE
    write_text(page, f"# What to try first\n\n{EXPLAINED}\n\n{table.to_markdown(index=False)}\n")
    return page
