"""Cells as numbers: every way to write one, and the ways that can be read both ways."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.readings.numerals import Numerals, is_numeric, numbers, numerals_of, parsed


def table(*rows: str) -> pd.DataFrame:
    return pd.DataFrame([row.split("|") for row in rows], columns=["step", "dino"], dtype=str)


@pytest.mark.parametrize(
    ("rows", "separator", "expected"),
    [
        (["0|0.1", "1000|0.25"], ",", Numerals()),
        (["0|0,1", "1000|0,25"], ";", Numerals(",", ".")),
        (["0|0,1", "1000|0,25"], ",", Numerals(",", ".")),
        (["1.000|0,123", "2.000|1,5"], ";", Numerals(",", ".")),
        (["1,000|0.123", "2,000|0.5"], ",", Numerals(".", ",")),
        (["1,000|57", "2,000|60"], ",", Numerals(".", ",")),
        (["1,000|0.5", "12,000|.75"], ";", Numerals(".", ",")),
        (["0|0,182", "25|0,275"], ";", Numerals(",", ".")),
        (["0|a, b", "1|c, d"], ",", Numerals()),
    ],
)
def test_a_table_shows_how_it_writes_numbers(rows: list[str], separator: str, expected: Numerals) -> None:
    assert numerals_of(table(*rows), "x", separator) == expected


@pytest.mark.parametrize(("rows", "message"), [(["1,234|57", "2,345|60"], "may have"), (["0,5|0.25", "1|0.5"], "decimal points and")])
def test_what_can_be_read_both_ways_is_refused(rows: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        numerals_of(table(*rows), "x", ";")


@pytest.mark.parametrize(
    ("cells", "numerals", "expected"),
    [
        (["0.5", "1e-3", " 2 ", "", "x"], Numerals(), [0.5, 1e-3, 2, np.nan, np.nan]),
        (["1.234,5", "0,25"], Numerals(",", "."), [1234.5, 0.25]),
        (["1,234.5", "250"], Numerals(".", ","), [1234.5, 250]),
        (["18.2%", "57 %", ""], Numerals(), [0.182, 0.57, np.nan]),
        (["1 000", "12'000", "1\u00a0500"], Numerals(), [1000, 12000, 1500]),
        (["18%", "0.3"], Numerals(), [np.nan, 0.3]),
    ],
)
def test_cells_are_read(cells: list[str], numerals: Numerals, expected: list[float]) -> None:
    assert parsed(pd.Series(cells, dtype=str), numerals).to_numpy() == pytest.approx(expected, nan_ok=True)


def test_missing_is_not_the_same_as_not_finite() -> None:
    found = numbers(pd.Series(["0.1", "", "nan", "-inf", "None"], name="dino", dtype=str), Numerals(), "x")
    assert found.iloc[:2].to_numpy() == pytest.approx([0.1, np.nan], nan_ok=True)
    assert np.isposinf(found.iloc[2:]).all()


@pytest.mark.parametrize(("cell", "message"), [("good", "row 2 below the header, column dino: 'good'"), ("18%", "give all cells")])
def test_a_cell_that_is_no_number_is_named(cell: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        numbers(pd.Series(["0.1", cell, "0.3"], name="dino", dtype=str), Numerals(), "x")


def test_a_column_is_numeric_by_its_majority() -> None:
    assert is_numeric(pd.Series(["1", "2", "x"], dtype=str), Numerals())
    assert is_numeric(pd.Series(["nan", "nan"], dtype=str), Numerals())
    assert not is_numeric(pd.Series(["1", "x", "y"], dtype=str), Numerals())
    assert not is_numeric(pd.Series(["", ""], dtype=str), Numerals())
