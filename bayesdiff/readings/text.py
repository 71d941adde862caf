"""Bytes of a text table as a frame of text cells: encodings, separators, comments, headers."""

from __future__ import annotations

import codecs
import csv
import re
import warnings
from io import StringIO

import pandas as pd

from bayesdiff.core.errors import UserError

SEPARATORS = ",;\t"
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
_LIKELY = ["cp1252", "utf_16_le", "utf_16_be"]
"""What a table without a mark is tried as when it is not UTF-8; ``cp1252`` holds all letters of Latin-1."""
_NUMERIC = re.compile(r"[+-]?[\d.,]+(e[+-]?\d+)?%?", re.IGNORECASE)


def decoded(data: bytes, name: str) -> tuple[str, list[str]]:
    """Text of a file, and a note where its encoding had to be detected; raises ``UserError`` for what is no text."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return _strictly(data, encoding, name), []
    if b"\0" not in data:
        try:
            return data.decode("utf-8"), []
        except UnicodeDecodeError:
            pass
    from charset_normalizer import from_bytes

    best = from_bytes(data, cp_isolation=_LIKELY).best()
    if best is None or any(ord(c) < 32 and c not in "\t\n\r\f" for c in str(best)):
        raise UserError(f"{name}: no text; save the table as CSV in UTF-8, or as JSON or Parquet")
    return str(best), [f"text is not UTF-8 and read as {best.encoding}"]


def _strictly(data: bytes, encoding: str, name: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: its first bytes promise {encoding}, and byte {error.start} is none; save it as CSV in UTF-8") from error


def csv_table(text: str, name: str) -> tuple[pd.DataFrame, str]:
    """A table of text cells and its separator; an empty cell stays empty. Lines that begin with ``#`` are comments.

    Raises:
        UserError: no header, no rows, one column alone, or rows longer than the header.
    """
    lines = _without_comments(text)
    if not lines:
        raise UserError(f"{name}: no CSV table (the file is empty); give a header line and a row a checkpoint")
    separator = max(SEPARATORS, key=lines[0].count)
    if separator not in lines[0]:
        separator = r"\s+"
    lines = _checked(lines, separator, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row that is longer than the header would lose cells
            table = pd.read_csv(StringIO("\n".join(lines)), dtype=str, keep_default_na=False, sep=separator, index_col=False)
    except (ValueError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise UserError(f"{name}: no CSV table ({str(error).splitlines()[0]}); check quotes and separators there") from error
    return table.fillna(""), separator


def _without_comments(text: str) -> list[str]:
    """Lines that are no comments; a last comment that names as many columns as the first row has is its header (numpy.savetxt)."""
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    kept = [line for line in lines if not line.lstrip().startswith("#")]
    if not kept or len(kept) == len(lines):
        return kept
    above = lines[: lines.index(kept[0])]
    cells = _cells(kept[0])
    header = above[-1].lstrip("# ") if above else ""
    if all(_NUMERIC.fullmatch(cell) for cell in cells) and len(_cells(header)) == len(cells):
        return [header, *kept]
    return kept


def _cells(line: str) -> list[str]:
    separator = max(SEPARATORS, key=line.count)
    cells = next(csv.reader([line], delimiter=separator)) if separator in line else line.split()
    return [cell.strip() for cell in cells]


def _checked(lines: list[str], separator: str, name: str) -> list[str]:
    """Lines with a header above them, and without separators at their ends where rows have more of those than the header."""
    header = _cells(lines[0])
    if len(header) > 1 and all(_NUMERIC.fullmatch(cell) for cell in header):
        raise UserError(f"{name}: the first line is numbers; put a header line such as 'step,dino' above it")
    row = next(csv.reader(lines[1:2], delimiter=separator), []) if len(separator) == 1 else []
    if len(row) <= len(header):
        return lines
    if any(cell.strip() for cell in row[len(header) :]):
        hint = "; decimal commas need another separator, as ';', or quotes" if separator == "," else ""
        raise UserError(f"{name}: rows have {len(row)} cells, and the header {len(header)}{hint}")
    return [line.rstrip(separator) for line in lines]
