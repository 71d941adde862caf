"""Cells of text as numbers: decimal commas, separators of thousands, percent signs, words for no number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bayesdiff.core.errors import UserError

NO_NUMBER = ("nan", "-nan", "+nan", "none", "null", "n/a", "na", "inf", "-inf", "+inf", "infinity", "-infinity")
"""Words for a score that is not finite."""
_WITH_COMMA = r"[+-]?[\d.,\s']*,[\d.,\s']*(?:[eE][+-]?\d+)?\s*%?"
_COMMA_GROUPS = r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?\s*%?"
_POINT_GROUPS = r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+"
_POINT_DECIMAL = r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?\s*%?"


@dataclass(frozen=True)
class Numerals:
    """How a table writes its numbers."""

    decimal: str = "."
    thousands: str = ""

    @property
    def note(self) -> str:
        """What a person should know of it; empty for plain numbers."""
        if self.decimal == ",":
            return "decimal commas: 0,5 is read as one half"
        return "separators of thousands: 1,000 is read as one thousand" if self.thousands else ""


def numerals_of(table: pd.DataFrame, name: str, separator: str = ",") -> Numerals:
    """How the cells of a table write numbers, judged over the whole table.

    Raises:
        UserError: cells that can be read both ways, or that mix both.
    """
    cells = [column[column.str.contains(",", regex=False)].str.strip() for _, column in table.items()]
    commas = pd.concat([cell[cell.str.fullmatch(_WITH_COMMA)] for cell in cells])
    if commas.empty:
        return Numerals()
    grouped = bool(commas.str.fullmatch(_COMMA_GROUPS).all())
    if _has_point_decimals(table):
        if grouped:
            return Numerals(".", ",")
        odd = commas[~commas.str.fullmatch(_COMMA_GROUPS)].iloc[0]
        raise UserError(f"{name}: decimal points and the decimal comma of {odd!r} in one table; write all numbers in one way")
    if grouped and separator != ",":
        raise UserError(f"{name}: {commas.iloc[0]!r} may have a decimal comma or a separator of thousands; leave out the latter")
    return Numerals(".", ",") if grouped else Numerals(",", ".")


def _has_point_decimals(table: pd.DataFrame) -> bool:
    for _, column in table.items():
        texts = column.str.strip()
        if bool((texts.str.fullmatch(_POINT_DECIMAL) & ~texts.str.fullmatch(_POINT_GROUPS)).any()):
            return True
    return False


def parsed(column: pd.Series, numerals: Numerals) -> pd.Series:
    """Numbers of a column of text as they stand, with NaN for everything else; percent signs on every cell make shares."""
    texts = column.str.strip()
    filled = texts[texts != ""]
    if not filled.str.contains(r"[,%'\s]|\.\d+\.").any() and numerals.decimal == ".":
        return pd.to_numeric(texts, errors="coerce").astype(np.float64)
    percent = len(filled) > 0 and bool(filled.str.endswith("%").all())
    if percent:
        texts = texts.str.removesuffix("%")
    texts = texts.str.replace(r"(?<=\d)[\s'](?=\d{3})", "", regex=True).str.strip()
    if numerals.thousands:
        texts = texts.str.replace(numerals.thousands, "", regex=False)
    numbers = pd.to_numeric(texts.str.replace(numerals.decimal, ".", regex=False), errors="coerce").astype(np.float64)
    return numbers / 100 if percent else numbers


def is_numeric(column: pd.Series, numerals: Numerals) -> bool:
    """Whether half of the filled cells or more are numbers, or all of them words for no number."""
    filled = column[column.str.strip() != ""]
    if filled.empty:
        return False
    numbers = parsed(filled, numerals).notna() | filled.str.strip().str.lower().isin(NO_NUMBER)
    return bool(numbers.mean() >= 0.5)


def numbers(column: pd.Series, numerals: Numerals, name: str) -> pd.Series:
    """A column as floats: an empty cell is missing (NaN); NaN and infinity in words are scores that are not finite (inf).

    Raises:
        UserError: a cell with other text; the message names the row.
    """
    found = parsed(column, numerals)
    texts = column.str.strip()
    odd = found.isna() & (texts != "")
    words = texts[odd].str.lower()
    if not (wrong := words[~words.isin(NO_NUMBER)]).empty:
        row, text = wrong.index[0], texts[wrong.index[0]]
        mixed = "; give all cells of a column a percent sign, or none" if text.endswith("%") else "; correct it, or leave the cell empty"
        raise UserError(f"{name}: row {int(row) + 1} below the header, column {column.name}: {text!r} is no number{mixed}")
    return found.where(~odd, np.inf).replace(-np.inf, np.inf)
