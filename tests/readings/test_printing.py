"""What a person reads of a verdict, and a program."""

from __future__ import annotations

import io
import json

import numpy as np
from rich.console import Console

from bayesdiff.readings import Reading, judge
from bayesdiff.readings.printing import as_json, decimals, print_verdict
from tests.corruption.test_detector import CLEAR, TWELVE


def said(reading: Reading, full: bool = True) -> str:
    file = io.StringIO()
    verdict, shown = judge(reading)
    print_verdict(Console(file=file, width=100), verdict, shown, full)
    return file.getvalue()


def test_the_sentence_stands_first_and_the_table_only_where_it_is_asked_for() -> None:
    reading = Reading("[a] curve", tuple(TWELVE), {"dino": CLEAR}, "dino", notes=("one [b] thing",))
    lines = said(reading).splitlines()
    assert lines[0].startswith("[a] curve: Keep step 2000; step 1500 may be as good. Avoid steps 200 to 1000 ")
    assert lines[1] == "  note: one [b] thing"
    assert sum("│" in line for line in lines) == len(TWELVE)
    assert "│" not in said(reading, full=False)


def test_of_too_few_checkpoints_none_is_said_to_be_one_to_keep() -> None:
    shown = said(Reading("x", (0, 100, 200, 300, 400), {"dino": np.array([[0.2], [0.4], [0.5], [0.6], [0.65]])}, "dino"))
    assert "5 checkpoints are too few" in shown and "keep" not in shown and "highest" in shown.splitlines()[-2]


def test_a_checkpoint_that_is_not_finite_is_never_one_to_keep() -> None:
    scores = CLEAR.copy()
    scores[-2:] = np.inf
    row = [line for line in said(Reading("x", tuple(TWELVE), {"dino": scores}, "dino")).splitlines() if f"│ {TWELVE[-1]} " in line]
    assert "not finite" in row[0]
    assert "keep" not in row[0]
    nothing = said(Reading("x", tuple(TWELVE), {"dino": np.full((12, 2), np.inf)}, "dino"))
    assert "keep" not in nothing


def test_small_scores_are_shown_with_three_figures() -> None:
    """A KID or a squared error of thousandths was printed as -0.003 or -0.000 at every checkpoint."""
    kid = 0.002 + 0.0005 * np.cos(np.arange(12.0))[:, None]
    rows = [line for line in said(Reading("x", tuple(TWELVE), {"kid": kid}, "kid")).splitlines() if "│" in line]
    assert "-0.00250" in rows[0] and "-0.00227" in rows[1]
    assert [decimals(np.array([size])) for size in (0.0, 0.5, 30.0, 0.1, 0.04, 2e-4, np.inf)] == [3, 3, 3, 3, 4, 6, 3]


def test_json_has_every_stretch_that_is_not_to_be_kept() -> None:
    """Level 1's run in the middle, and the fall at the end that no level calls a run."""
    steps = np.arange(0, 1200, 100)
    level = np.array([0.3, 0.6, 0.8, 0.8, 0.4, 0.4, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8])
    scores = level[:, None] + 0.02 * np.random.default_rng(0).standard_normal((12, 8))
    found = as_json(*judge(Reading("x", tuple(steps.tolist()), {"dino": scores}, "dino")))
    assert found["steps_to_avoid"] == [[400, 500]] == [list(run) for run in found["avoid"]]
    short, lost = steps[:9], np.repeat([0.8, 0.1], [4, 5])[:, None] + 0.02 * np.random.default_rng(0).standard_normal((9, 8))
    found = as_json(*judge(Reading("x", tuple(short.tolist()), {"dino": lost}, "dino")))
    assert found["steps_to_avoid"] == [[400, 800]] and not found["avoid"]


def test_json_has_no_number_that_json_lacks() -> None:
    verdict, shown = judge(Reading("x", tuple(TWELVE), {"dino": np.full((12, 1), np.inf)}, "dino"))
    found = json.loads(json.dumps(as_json(verdict, shown), allow_nan=False))
    assert (found["source"], found["metric"], found["steps"]) == ("x", "dino", list(TWELVE))
