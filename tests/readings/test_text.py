"""Bytes of text tables: encodings, comments, headers, and rows that do not fit."""

from __future__ import annotations

import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.readings.text import csv_table, decoded

TEXT = "step,Ähnlichkeit\n0,0.1\n10,0.2\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"])
def test_encodings_are_found(encoding: str) -> None:
    text, notes = decoded(TEXT.encode(encoding), "x")
    assert text == TEXT
    assert bool(notes) == (encoding in ("utf-16-le", "utf-16-be", "latin-1", "cp1252"))


@pytest.mark.parametrize("data", [bytes(range(256)) * 4, b"\x00\x01\x02\x03" * 50, b"\xff\xfe\x00"])
def test_what_is_no_text_is_refused(data: bytes) -> None:
    with pytest.raises(UserError, match=r"save (the table|it) as CSV in UTF-8"):
        decoded(data, "x")


@pytest.mark.parametrize(
    "text",
    [
        "# by me\nstep,dino\n0,0.1\n10,0.2\n",
        "step,dino\r\n0,0.1\r\n# in between\r\n10,0.2\r\n",
        "# step,dino\n0,0.1\n10,0.2\n",  # numpy.savetxt
        "\n\nstep;dino\n0;0.1\n10;0.2",
        "step\tdino\n0\t0.1\n10\t0.2\n",
        "step dino\n0 0.1\n10   0.2\n",
        "step,dino\n0,0.1,\n10,0.2,\n",
    ],
)
def test_a_table_is_found_in_its_text(text: str) -> None:
    table, _ = csv_table(text, "x")
    assert table.to_dict("list") == {"step": ["0", "10"], "dino": ["0.1", "0.2"]}


def test_a_number_sign_inside_a_cell_is_no_comment() -> None:
    table, _ = csv_table("step,img #1,img #2\n0,0.1,0.2\n", "x")
    assert list(table.columns) == ["step", "img #1", "img #2"]


REFUSED = {
    "": "the file is empty",
    "# nothing\n": "the file is empty",
    "0,0.1\n10,0.2\n": "put a header line such as 'step,dino' above it",
    "step,dino\n0,0,1822\n": "rows have 3 cells, and the header 2; decimal commas need another separator",
    "step,dino\n0,0.1\n10,0.2,0.3\n": "no CSV table",
}


@pytest.mark.parametrize("text", REFUSED)
def test_text_without_a_table_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=REFUSED[text]):
        csv_table(text, "x")
