"""The committed public curves: each can be read, and all but the one with three checkpoints can be judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bayesdiff.readings import Naming, judge, read
from bayesdiff.readings.judging import CANNOT_BE_JUDGED

CURVES = Path(__file__).parents[2] / "results" / "curves"


def test_the_31_curves_of_peft_s_benchmark_can_be_judged() -> None:
    readings = read(str(CURVES / "peft_image_gen.csv"), Naming(run="run"))
    assert len(readings) == 31
    kinds = {reading.name: judge(reading)[0].kind for reading in readings}
    assert [name for name, kind in kinds.items() if kind in CANNOT_BE_JUDGED] == [
        f"{CURVES / 'peft_image_gen.csv'} [full-finetuning/flux2-klein-default]"
    ]
    assert {reading.steps for reading in readings} == {(100, 200, 300), tuple(range(100, 701, 100))}
    assert all(((scores := r.columns["dino_similarity"]) > 0).all() and (scores < 1).all() for r in readings)


@pytest.mark.parametrize("name", ["paper_figure_1_dreambooth", "paper_figure_1_bnn"])
def test_the_paper_s_figure_can_be_judged(name: str) -> None:
    (reading,) = read(str(CURVES / f"{name}.csv"), Naming())
    verdict, _ = judge(reading)
    assert verdict.kind not in CANNOT_BE_JUDGED
    assert np.isfinite(verdict.p_value)
    assert len(verdict.labels) == len(reading.steps) > 30
