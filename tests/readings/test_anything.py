"""Whatever a file holds, a reader gives curves that can be judged, or one line that names the file."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesdiff.core.errors import UserError
from bayesdiff.readings import Naming, Options, judge
from bayesdiff.readings.sources import read_bytes

WORDS = st.sampled_from(
    [
        "step",
        "Step",
        "epoch",
        "dino",
        "clip_score",
        "loss",
        "image",
        "file",
        "metric",
        "value",
        "a - dino",
        "a - dino__MIN",
        "img_1",
        "",
        "é",
    ]
)
CELLS = st.one_of(
    st.integers(-3, 3_000).map(str), st.floats(0, 1).map(lambda v: f"{v:.3f}"), st.floats().map(str),
    st.sampled_from(["", "nan", "12%", "0,5", "1,000", "1.000,5", "checkpoint-100", "a.png", '"', "#", "1 000", "-inf"]),
)  # fmt: skip


def check(data: bytes) -> None:
    """No exception but one line; scores and steps that fit each other."""
    try:
        readings = read_bytes(data, "FILE", Naming())
        for reading in readings:
            scores = reading.columns[reading.metric]
            assert scores.shape[0] == len(reading.steps) > 0
            assert not np.isnan(scores).any()
            assert (np.diff(reading.steps) > 0).all()
            judge(reading, Options(higher_is_better=True))
    except UserError as error:
        assert str(error).startswith("FILE")
        assert "\n" not in str(error)
    except ValueError as error:  # of the detector, on steps beyond its range
        assert "steps must be" in str(error)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    check(data)


@settings(max_examples=120, deadline=None)
@given(header=st.lists(WORDS, min_size=1, max_size=4), rows=st.lists(st.lists(CELLS, min_size=1, max_size=5), max_size=8),
       separator=st.sampled_from(",;\t "), encoding=st.sampled_from(["utf-8", "latin-1", "utf-16"]))  # fmt: skip
def test_any_table(header: list[str], rows: list[list[str]], separator: str, encoding: str) -> None:
    check("\n".join(separator.join(row) for row in [header, *rows]).encode(encoding))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 100), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORDS | st.sampled_from(["0", "10"]), inner, max_size=4)),
    max_leaves=20,
)


@settings(max_examples=120, deadline=None)
@given(content=JSON, rows=st.lists(st.dictionaries(WORDS, st.integers(0, 50) | st.floats(0, 1), max_size=4), max_size=8))
def test_any_json(content: Any, rows: list[dict[str, float]]) -> None:
    check(json.dumps(content).encode())
    check(json.dumps({"log": rows, "more": content}).encode())
    check("\n".join(json.dumps(row) for row in rows).encode())
