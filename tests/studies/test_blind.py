"""Judgements by eye: what the rater saw, and the agreement that the page states."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bayesdiff.studies.blind import candidates, drawn, is_bad, kappa, label_at, main, sheets

ROOT = Path(__file__).resolve().parents[2]
RECORDS, BLIND = ROOT / "results/toybox/records", ROOT / "results/toybox/phenomenon/blind"


def test_kappa_is_cohens() -> None:
    one = ["yes"] * 25 + ["no"] * 25
    other = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert kappa(one, other) == pytest.approx(0.4)  # agreement .7 where chance gives .5


def test_the_rater_saw_a_random_choice_and_judged_all_of_it() -> None:
    key, judged = pd.read_csv(BLIND / "key.csv"), pd.read_csv(BLIND / "judgements.csv")
    pd.testing.assert_frame_equal(key, drawn(RECORDS))
    assert sorted(judged["id"]) == sorted(key["id"]) == list(range(1, 81))
    assert len(candidates(RECORDS)) > 300
    assert len(key.drop_duplicates(["run", "step"])) == 80


def test_the_sheets_are_the_committed_ones() -> None:
    page = sheets(RECORDS, pd.read_csv(BLIND / "key.csv")[:20])[0]
    kept = Image.open(BLIND / "sheet-1.png").convert("RGB")
    assert page.size == kept.size
    assert np.abs(np.asarray(page, dtype=float) - np.asarray(kept, dtype=float)).mean() < 6  # kept in 256 colours


def test_a_copy_is_no_damage() -> None:
    assert is_bad(pd.Series(["fine", "copying", "blur"])) == ["fine", "fine", "bad"]


@pytest.mark.slow
def test_the_page_follows_from_the_judgements(tmp_path: Path) -> None:
    results = tmp_path / "toybox"
    (results / "phenomenon/blind").mkdir(parents=True)
    for name in ("key.csv", "judgements.csv"):
        (results / "phenomenon/blind" / name).write_bytes((BLIND / name).read_bytes())
    (results / "records").symlink_to(RECORDS)
    assert main([str(results)]) == 0
    assert (results / "phenomenon/blind/agreement.md").read_text() == (BLIND / "agreement.md").read_text()


def test_a_label_is_that_of_the_run_to_avoid() -> None:
    from bayesdiff.corruption import detect_corruption

    verdict = detect_corruption(range(10), np.linspace(0, 1, 10))
    assert label_at(verdict, 3) == "fine"
