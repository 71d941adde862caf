"""Every run's verdict in a table; and the positive control, whose stage the verdict finds in single runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bayesdiff.recording.archive import open_archive
from bayesdiff.studies import plan as planning
from bayesdiff.studies.pages import write_study
from bayesdiff.studies.rows import Row, rows_of
from bayesdiff.studies.verdicts import verdicts_line, verdicts_table
from tests import made_records

ROOT = Path(__file__).resolve().parents[2]
STRETCH = (250, 256)
"""The six steps at thirty times the rate, between these checkpoints."""
BACK = 360
"""By here every run is back, by the committed curves."""

pytestmark = pytest.mark.usefixtures("restored_studies")


@pytest.fixture(scope="module")
def control() -> list[Row]:
    return rows_of(planning.load_study("positive_control"), open_archive(ROOT / "results" / "toybox"))


def test_all_three_levels_find_a_stage_of_known_cause_in_fifteen_of_sixteen_single_runs(control: list[Row]) -> None:
    (row,) = control
    verdicts = [run.verdict for run in row.found]
    assert (len(verdicts), row.complete) == (16, True)
    found = [v for v in verdicts if v is not None and v.avoid and v.avoid[0][0] == STRETCH[1] and v.avoid_kinds and v.flagged]
    assert len(found) >= 15
    for verdict in found:
        assert verdict.avoid[-1][1] <= BACK, "what came back is not called bad"
        assert not set(verdict.best_steps) & {256, 262}
        assert verdict.onset_step == STRETCH[1]


def test_a_line_a_run_with_what_each_level_says(control: list[Row]) -> None:
    table = verdicts_table(control).set_index("subject")
    assert len(table) == 16
    for run in control[0].found:
        verdict, line = run.verdict, table.loc[run.place[1]]
        assert verdict is not None
        first, last = verdict.avoid[0]
        assert line["1: steps to avoid, and 2: their kind"].startswith(f"{first} to {last} ({verdict.avoid_kinds[0].replace('_', ' ')})")
        assert line["3: stage"] == f"{verdict.depth:.2f} deep, {verdict.onset_step} to {verdict.recovery_step}"
        assert line["keep"] == verdict.best_step
    said = verdicts_line(control)
    assert said.startswith("Of 16 curves, each of one run: 16 have steps to avoid")
    assert said.endswith("and 16 a stage (level 3).")


def test_a_run_without_anything_to_avoid_has_a_line_too(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    rows = rows_of(study, open_archive(made_records.fill(study, tmp_path)))
    table = verdicts_table(rows)
    assert len(table) == 16
    assert set(table["1: steps to avoid, and 2: their kind"]) == set(table["3: stage"]) == {"-"}
    assert verdicts_line(rows).endswith(
        "0 have steps to avoid (level 1), 0 of them a kind for the first of these steps (level 2), and 0 a stage (level 3)."
    )


def test_no_checkpoint_is_to_keep_where_none_is_better_than_the_base_model(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    rows = rows_of(study, open_archive(made_records.fill(study, tmp_path, study.cells[:1])))
    (run,) = rows[0].found
    assert run.verdict is not None
    run.run.scores["main"] = replace(run.scores, verdict=replace(run.verdict, better_than_base=False))
    assert list(verdicts_table(rows)["keep"]) == ["-"]


def test_the_page_has_it_where_the_study_asks_for_it(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    results = made_records.fill(study, tmp_path)
    rows = rows_of(study, open_archive(results))
    for asked in (False, True):
        page = Path(write_study(replace(study, verdicts=asked), rows, results)).read_text()
        assert (verdicts_line(rows) in page) == asked
