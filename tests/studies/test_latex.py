"""Tables for LaTeX fit a page, lose no column, and read no text as a command."""

from __future__ import annotations

import re

import pandas as pd

from bayesdiff.studies.latex import GAP, ROOM, columns_of, latex_tables

CELL = "0.838 (0.084); +0.072 [-0.252, +0.460], p 1.000"


def wide(columns: int) -> pd.DataFrame:
    return pd.DataFrame([{"bnn": "weight_noise", "runs": "3/3", **{f"measure {i}": CELL for i in range(columns)}}] * 2)


def test_no_part_is_wider_than_a_page_and_every_column_is_in_one() -> None:
    parts = columns_of(wide(11), 2)
    assert all(part[:2] == ["bnn", "runs"] for part in parts)
    assert [name for part in parts for name in part[2:]] == [f"measure {i}" for i in range(11)]
    text = latex_tables(wide(11), 2, "a table", "tab:x")
    assert text.count(r"\begin{table}") == len(parts) > 1
    for row in re.findall(r"^.*shortstack.*\\\\$", text, re.MULTILINE):
        cells = [[re.sub(r"\\shortstack\[l\]|[{}\\]", "", line) for line in cell.split("\\\\ ")] for cell in row.split(" & ")]
        assert sum(GAP + max(map(len, lines)) for lines in cells) <= ROOM + GAP * len(cells)


def test_a_cell_breaks_before_its_difference_and_behind_its_interval() -> None:
    text = latex_tables(wide(1), 2, "a table", "tab:x")
    assert r"\shortstack[l]{0.838 (0.084)\\ +0.072 {[}{-}0.252, +0.460{]}\\ p 1.000}" in text


def test_captions_heads_and_cells_are_text() -> None:
    text = latex_tables(pd.DataFrame({"a_b": ["50 % & $x$"], "runs": ["1"]}), 1, r"100 % of {x} \input{y}", "tab:x")
    assert r"100 \% of \{x\} \textbackslash{}input\{y\}" in text
    assert r"a\_b" in text
    assert r"50 \% \& \$x\$" in text


def test_a_table_that_fits_is_one() -> None:
    assert latex_tables(pd.DataFrame({"a": ["x"], "runs": ["1"]}), 1, "c", "tab:x").count(r"\begin{table}") == 1
