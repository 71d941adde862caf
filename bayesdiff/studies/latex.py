"""A study's table for LaTeX: cells in lines, and as many columns beside each other as a page has room for."""

from __future__ import annotations

import re

import pandas as pd

from bayesdiff.core import escape

ROOM = 100
"""Characters of a line at ``\\footnotesize`` between the margins of an article: 6.5 inches, about 4 points each, less the gaps."""
GAP = 3
"""Characters that the gap between two columns takes."""
_PARTS = re.compile(r"; |(?<=\]), ")
"""Where a cell breaks into lines: before its difference, and behind its interval."""


def latex_tables(table: pd.DataFrame, repeated: int, caption: str, label: str) -> str:
    """A table, or several where one would run over the margin; the first ``repeated`` columns stand in each of them.

    Args:
        table: text cells; a column that alone is wider than a page stands by itself.
        caption, label: of the first part; the others are called continued.
    """
    parts, labels = columns_of(table, repeated), set(table.columns[:repeated])
    written = []
    for i, names in enumerate(parts):
        more = f" (continued, {i + 1} of {len(parts)})" if i else ""
        shown = pd.DataFrame({escape.latex(name): [_cell(value, name in labels) for value in table[name]] for name in names})
        of_part = f"{label}-{i + 1}" if i else label
        text = shown.to_latex(index=False, escape=False, caption=escape.latex_caption(caption) + more, label=of_part)
        written.append(text.replace(r"\begin{tabular}", "\\footnotesize\n\\begin{tabular}", 1))
    return "\n".join(written)


def columns_of(table: pd.DataFrame, repeated: int) -> list[list[str]]:
    """The columns of each part."""
    names = [str(name) for name in table.columns]
    head, others = names[:repeated], names[repeated:]
    room = ROOM - sum(_width(table, name, label=True) for name in head)
    parts: list[list[str]] = [[]]
    for name in others:
        if parts[-1] and sum(_width(table, one) for one in [*parts[-1], name]) > room:
            parts.append([])
        parts[-1].append(name)
    return [[*head, *part] for part in parts]


def _lines(value: object, label: bool) -> list[str]:
    """A label is a user's own text: no mark in it breaks it."""
    return [str(value)] if label else [part for part in _PARTS.split(str(value)) if part] or [""]


def _width(table: pd.DataFrame, name: str, label: bool = False) -> int:
    return GAP + max([len(name), *(len(line) for value in table[name] for line in _lines(value, label))])


def _cell(value: object, label: bool) -> str:
    lines = [escape.latex(line) for line in _lines(value, label)]
    return lines[0] if len(lines) == 1 else r"\shortstack[l]{" + r"\\ ".join(lines) + "}"
