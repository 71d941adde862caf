"""A probe's curve is that of the weights which its evaluation shows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bayesdiff.studies.contrasts import curve_of

EVALUATIONS = {
    "slow": {"weights": "ema", "ema_decay": 0.9}, "usual": {"weights": "ema"}, "raw": {"weights": "trained"},
    "gone": {"weights": "ema", "ema_decay": 0.5},
}  # fmt: skip
DECAYS = """step,weights,ema_decay,timestep,loss
0,kept,,900.0,1.0
0,trained,,900.0,2.0
0,ema,0.9,900.0,3.0
0,ema,0.99,900.0,4.0
"""
WITHOUT = """step,weights,timestep,loss
0,kept,900.0,1.0
0,trained,900.0,2.0
0,ema,900.0,3.0
"""


def value(folder: Path, evaluation: str) -> float | None:
    found: Any = SimpleNamespace(folder=folder, evaluation=evaluation, record=SimpleNamespace(config={"evaluations": EVALUATIONS}))
    curve = curve_of(found, "loss at 0.9")
    return None if curve is None else float(curve[1][0])


@pytest.mark.parametrize(
    ("evaluation", "expected"), [("main", 1.0), ("raw", 2.0), ("slow", 3.0), ("usual", 4.0), ("gone", None)]
)  # fmt: skip
def test_averages_of_several_decays_are_told_apart(tmp_path: Path, evaluation: str, expected: float | None) -> None:
    (tmp_path / "probes.csv").write_text(DECAYS)
    assert value(tmp_path, evaluation) == expected


@pytest.mark.parametrize(("evaluation", "expected"), [("main", 1.0), ("raw", 2.0), ("slow", 3.0), ("usual", 3.0)])
def test_a_table_without_decays_has_averages_of_one(tmp_path: Path, evaluation: str, expected: float) -> None:
    (tmp_path / "probes.csv").write_text(WITHOUT)
    assert value(tmp_path, evaluation) == expected
