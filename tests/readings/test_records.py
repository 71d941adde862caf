"""JSON, JSON lines and Parquet become the same table of text cells as CSV would."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pandas as pd
import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.readings.records import json_table, parquet_table

ROWS = [{"step": 0, "dino": 0.1}, {"step": 10, "dino": None}, {"step": 20, "dino": float("nan"), "more": "a"}]
CELLS = {"step": ["0", "10", "20"], "dino": ["0.1", "", "nan"], "more": ["", "", "a"]}
SMALL = {"step": ["0", "10"], "dino": ["0.1", "0.2"]}


def test_rows_columns_and_lines_are_one_table() -> None:
    assert json_table(json.dumps(ROWS), "x")[0].to_dict("list") == CELLS
    assert json_table("\n".join(json.dumps(row) for row in ROWS), "x")[0].to_dict("list") == CELLS
    columns = {"step": [0, 10], "dino": [0.1, 0.2]}
    assert json_table(json.dumps(columns), "x")[0].to_dict("list") == SMALL
    assert json_table('{"0": {"dino": 0.1}, "10": {"dino": 0.2}}', "x")[0].to_dict("list") == SMALL


def test_a_table_inside_a_report_is_found_and_said() -> None:
    trainer = {"epoch": 2.0, "global_step": 20, "best_metric": None, "log_history": [{"step": 0, "dino": 0.1}, {"step": 10, "dino": 0.2}]}
    table, notes = json_table(json.dumps({"state": trainer}), "x")
    assert table.to_dict("list") == SMALL
    assert notes == ["table read from state.log_history"]


def test_objects_are_flattened_and_lists_are_images() -> None:
    rows = [{"step": s, "eval": {"dino": [0.1, 0.2]}} for s in (0, 10)]
    assert json_table(json.dumps(rows), "x")[0].to_dict("list") == {
        "step": ["0", "10"],
        "eval/dino_0": ["0.1", "0.1"],
        "eval/dino_1": ["0.2", "0.2"],
    }


REFUSED: list[tuple[Any, str]] = [
    ({"loss": 1}, "JSON without a table of steps"),
    ([1, 2], "JSON without a table of steps"),
    ({"a": [{"step": 0}, {"step": 1}], "b": [{"step": 0}, {"step": 1}]}, r"several tables of steps \(a, b\)"),
]


@pytest.mark.parametrize(("content", "message"), REFUSED)
def test_json_without_one_table_is_refused(content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        json_table(json.dumps(content), "x")


@pytest.mark.parametrize("text", [
    '{"step": 0}\n{"step": ', '[{"step": 0,', "{step: 0}", '[{"step": 0, "dino": 0.1, "dino": 0.2}]', '{"step": 0}\n{"step": 5, "step": 6}',
])  # fmt: skip
def test_broken_json_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(UserError, match=r"line \d is no JSON"):
        json_table(text, "x")


def test_json_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(UserError, match="nested too deeply"):
        json_table("[" * 100_000 + "]" * 100_000, "x")


def test_parquet() -> None:
    file = BytesIO()
    pd.DataFrame({"step": [0, 10], "dino": [0.1, 0.2]}).to_parquet(file)
    assert parquet_table(file.getvalue(), "x").to_dict("list") == SMALL
    with pytest.raises(UserError, match="no whole Parquet file"):
        parquet_table(file.getvalue()[:-20], "x")
