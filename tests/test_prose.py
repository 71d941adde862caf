"""Pages are written in short sentences; the count itself is tested on made pages."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest

from tests.prose import PAGES, lengths, ninetieth, sentences

ALL = (12, 22)
"""Median and ninetieth percentile, in words, that sentences of all pages together may have."""
PAGE = (16, 24)
"""The same for each page."""


def test_sentences_of_all_pages_are_short() -> None:
    counts = [count for page in PAGES for count in lengths(page.read_text())]
    assert len(counts) > 100
    assert median(counts) <= ALL[0]
    assert ninetieth(counts) <= ALL[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_sentences_of_each_page_are_short(page: Path) -> None:
    counts = lengths(page.read_text())
    assert (median(counts) <= PAGE[0], ninetieth(counts) <= PAGE[1]) == (True, True)


MADE = """# A heading. It is not counted.

One two three. Four five (see [six seven](there.md), eq. 8)! `code with. many words` is
one word: Yes.

| a table | is not. counted |
|---|---|

![a picture. no](x.png)

- a bullet without an end
- **Another bullet.** With two sentences.

```sh
code is not. Counted
```
"""


def test_what_is_counted() -> None:
    assert sentences(MADE) == [
        "One two three.", "Four five (see six seven, eq. 8)!", "Code is one word:", "Yes.",
        "a bullet without an end", "**Another bullet.", "With two sentences.",
    ]  # fmt: skip
    assert lengths(MADE) == [3, 7, 4, 1, 5, 2, 3]


def test_the_ninetieth_is_not_exceeded_by_nine_of_ten() -> None:
    assert ninetieth(list(range(1, 11))) == 9
    assert ninetieth([5]) == 5
    assert ninetieth([1] * 9 + [50] * 2) == 50
