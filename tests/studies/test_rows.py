"""Rows of records: pairs stay pairs when a run has no result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.recording.archive import Run, open_archive
from bayesdiff.recording.collect import collect
from bayesdiff.recording.record import RunRecord, load_record
from bayesdiff.studies import plan
from bayesdiff.studies.rows import Cells, Found, Row, common_grid, pair_of, prompts_of, reference_of, run_counts, scores_of_run, values
from bayesdiff.studies.rows import rows_of as rows_of_archive
from bayesdiff.studies.tables import study_table
from tests import made_records


def rows_of(study: plan.Study, results: Path) -> list[Row]:
    return rows_of_archive(study, open_archive(results))


pytestmark = pytest.mark.usefixtures("restored_studies")


def _cells(gaps: set[tuple[str, str]], seeds: int = 2, subjects: int = 3) -> Cells:
    """A table whose values tell their place."""
    places = [(str(seed), f"subject {subject}") for seed in range(seeds) for subject in range(subjects)]
    return {place: np.array([10.0 * int(place[0]) + int(place[1][-1])]) for place in places if place not in gaps}


def test_without_gaps_every_run_has_its_place() -> None:
    (table,) = common_grid(_cells(set()))
    assert table[:, :, 0, 0].tolist() == [[0, 1, 2], [10, 11, 12]]


def test_a_gap_costs_its_subject_in_both_arms() -> None:
    here, there = common_grid(_cells({("1", "subject 1")}), _cells(set()))
    assert here[:, :, 0, 0].tolist() == there[:, :, 0, 0].tolist() == [[0, 2], [10, 12]]


def test_a_gap_costs_its_seed_where_that_costs_fewer_runs() -> None:
    (table,) = common_grid(_cells({("1", "subject 0")}, seeds=5, subjects=2))
    assert table[:, :, 0, 0].tolist() == [[0, 1], [20, 21], [30, 31], [40, 41]]


@pytest.mark.parametrize(
    ("gaps", "left"),
    [
        ({("0", "subject 0"), ("1", "subject 0"), ("0", "subject 1")}, [[11, 12], [21, 22]]),
        ({("0", "subject 0"), ("1", "subject 1"), ("2", "subject 2")}, [[10], [20]]),
        ({(str(i), f"subject {j}") for i in range(3) for j in range(3)} - {("2", "subject 0")}, [[20]]),
    ],
)
def test_gaps_cost_a_line_at_a_time(gaps: set[tuple[str, str]], left: list[list[float]]) -> None:
    """Not every seed, nor every subject, that has one."""
    (table,) = common_grid(_cells(gaps, seeds=3, subjects=3))
    assert sorted(table[:, :, 0, 0].ravel().tolist()) == sorted(np.ravel(left).tolist())


def test_arms_without_a_common_run_have_no_pairs() -> None:
    one, other = _cells({("1", "subject 0")}, subjects=1), _cells({("0", "subject 0")}, subjects=1)
    assert all(table.size == 0 for table in common_grid(one, other))


def test_runs_with_other_numbers_of_images_count_by_their_means() -> None:
    """As the shape of an array they were an error that ended every table."""
    two, four = {("0", "a"): np.array([1.0, 3.0])}, {("0", "a"): np.array([0.0, 1.0, 2.0, 9.0])}
    assert [table.tolist() for table in common_grid(two, four)] == [[[[[2.0]]]], [[[[3.0]]]]]
    (table,) = common_grid({**two, ("0", "b"): four["0", "a"]})
    assert table.tolist() == [[[[2.0]], [[3.0]]]]
    assert common_grid(two, two)[0].shape == (1, 1, 1, 2)


def test_an_evaluation_with_fewer_images_is_compared_by_means_and_its_prompts_are_its_own(tmp_path: Path) -> None:
    study = replace(made_records.prepare(tmp_path / "studies"), evaluations=("main", "few"), compare=("evaluation", "main"))
    study = replace(study, cells=study.cells[:1])
    run = made_records.make_run(study.cells[0], tmp_path / "runs")
    few = made_records.evaluate(run, "few", by=0.2)
    scores = pd.read_csv(few / "scores.csv")
    scores[scores["image"] == 0].to_csv(few / "scores.csv", index=False)  # two prompts of one image each
    record = load_record(run)
    assert record is not None
    record.config["evaluations"] = {"few": {"images_per_prompt": 1}}
    record.save(run)
    collect(run, tmp_path / "results")
    main, few_row = rows_of(study, tmp_path / "results")
    assert (prompts_of(main, 4), prompts_of(few_row, 2), prompts_of(main, 1)) == ([0, 0, 1, 1], [0, 1], [0])
    line = study_table(study, [main, few_row]).set_index(["evaluation", "metric"]).loc[("few", "DINO")]
    assert (line["difference"], line["pairs"]) == (pytest.approx(0.2, abs=0.05), 1)
    assert np.isnan(line["low"]), "images of other numbers are no pairs: there is nothing to take an interval over"


def test_a_run_that_diverged_is_counted_and_its_pair_left_out(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    lost = next(cell for cell in study.cells if (cell.labels["method"], cell.labels["bnn"], cell.labels["seed"]) == ("lora", "on", "1"))
    results = made_records.fill(study, tmp_path, tuple(cell for cell in study.cells if cell != lost))
    made_records.fill_one(lost, tmp_path, "diverged")
    *_, off, on = rows_of(study, results)
    assert (on.count, on.missing, on.complete) == ("3/4, 1 diverged", 0, False)
    scores = values(on, "dino")
    assert scores is not None and scores.shape == (2, 1, 1, 4)
    pair = pair_of(on, off, lambda found: scores_of_run(found, "dino"))
    assert pair is not None
    whole = values(off, "dino")
    assert whole is not None and np.array_equal(pair[1], whole[:, 1:])
    assert (pair[0] - pair[1]).mean() == pytest.approx(made_records.EFFECT, abs=0.03)


def test_a_row_that_lacks_runs_has_no_values(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    first, *_ = rows_of(study, made_records.fill(study, tmp_path, study.cells[1:]))
    assert (first.count, first.missing) == ("3/4", 1)
    assert values(first, "dino") is None


def test_cost_is_read_off_the_record(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    found = rows_of(study, made_records.fill(study, tmp_path))[0].found[0]
    assert scores_of_run(found, "train_seconds") == [60.0]
    assert scores_of_run(found, "train_memory") is None  # of the process on a CPU: not what training takes
    assert scores_of_run(found, "bayesian_share") == [0.0]
    record = RunRecord("k", "completed", {}, bayesian={"share": 0.25}, peak_memory_mb={"train": 9.0, "train_gpu": 2_000.0})
    on_gpu = Found(found.cell, Run(found.folder, record, found.run.scores))
    assert scores_of_run(on_gpu, "train_memory") == pytest.approx([2.097152])
    assert scores_of_run(on_gpu, "bayesian_share") == [0.25]
    assert scores_of_run(on_gpu, "train_seconds") is None


def test_a_row_an_evaluation_that_misses_it_where_a_run_has_none(tmp_path: Path) -> None:
    study = replace(made_records.prepare(tmp_path / "studies"), evaluations=("main", "guided"), compare=("evaluation", "main"))
    for cell in study.cells[:8]:
        run = made_records.make_run(cell, tmp_path / "runs")
        if cell != study.cells[0]:
            made_records.evaluate(run, "guided", by=0.05)
        collect(run, tmp_path / "results")
    rows = rows_of(study, tmp_path / "results")
    assert [row.labels["evaluation"] for row in rows[:4]] == ["main", "guided"] * 2
    assert [row.missing for row in rows[:4]] == [0, 1, 0, 0]
    assert run_counts(rows) == (7, 0, len(study.cells) - 7)
    main, guided = values(rows[2], "dino"), values(rows[3], "dino")
    assert main is not None and guided is not None
    assert guided - main == pytest.approx(0.05, abs=1e-4)
    assert reference_of(study, rows[3], rows) == rows[2]
    assert rows[3].found[0].images.columns["dino"].shape == (3, 4)


def set_precision(path: Path, key: str, precision: str) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    record["environment"][key] = precision
    path.write_text(json.dumps(record), encoding="utf-8")


@pytest.mark.parametrize("key", ["sampler_precision", "metrics_precision"])
def test_runs_of_one_subject_in_different_precisions_are_not_compared(tmp_path: Path, key: str) -> None:
    """One of ``auto`` on a GPU beside one of a CPU: both have the same key, and their difference is not the arm's."""
    study = made_records.prepare(tmp_path / "studies")
    results = made_records.fill(study, tmp_path, study.cells)
    path = sorted(results.glob("records/*/record.json"))[-1]
    set_precision(path, key, "fp32")
    rows_of(study, results)
    set_precision(path, key, "bf16")
    with pytest.raises(UserError, match=rf"{path.parent.name}.*{key} is bf16.*|.*{path.parent.name} it is bf16"):
        rows_of(study, results)


def test_another_subject_may_have_run_in_another_precision(tmp_path: Path) -> None:
    """Arms are compared subject by subject, so that a study may be shared between a GPU and a CPU."""
    study = made_records.prepare(tmp_path / "studies")
    results = made_records.fill(study, tmp_path, study.cells)
    subjects = {cell.labels["data.subject"] for cell in study.cells}
    moved = [path for path in results.glob("records/*/record.json") if f"-{min(subjects)}-" in path.parent.name]
    assert 0 < len(moved) < len(study.cells)
    for path in moved:
        set_precision(path, "metrics_precision", "fp16")
    assert sum(len(row.found) for row in rows_of(study, results)) == len(study.cells)
