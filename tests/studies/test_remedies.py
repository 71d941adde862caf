"""What to try first comes from records, and says so where there are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bayesdiff.core.errors import UserError
from bayesdiff.recording.archive import Archive, open_archive
from bayesdiff.studies.plan import Cell, load_study
from bayesdiff.studies.remedies import NOT_MEASURED, load_remedies, remedies_table
from tests.made_records import made_curves

FILE = Path(__file__).resolve().parents[2] / "results" / "remedies.yaml"


def test_a_remedy_without_runs_is_not_measured_yet() -> None:
    remedies = load_remedies(FILE)
    table = remedies_table(remedies, Archive(Path("nowhere"), {}, {}))
    assert len(table) == len(remedies) >= 6
    assert table["grain"].str.startswith(NOT_MEASURED).all() and (table["DINO"] == NOT_MEASURED).all()


def test_a_remedy_with_runs_has_its_difference(tmp_path: Path) -> None:
    study = load_study("mechanism_arms")
    kept = tuple(cell for cell in study.cells if cell.labels["arm"] in ("plain", "empty prompt 10 %"))
    results = made_curves(study, tmp_path, lambda cell, steps, rng: np.full(len(steps), 1.2 - 0.2 * (cell.labels["arm"] != "plain")), kept)
    table = remedies_table(load_remedies(FILE), open_archive(results)).set_index("try")
    line = table.loc["drop the prompt in 10 % of the steps"]
    assert line["grain"].startswith("-0.200") and line["DINO"].startswith("+0.000") and line["subjects"] == "8"


def test_what_only_delays_grain_is_told_from_what_removes_it(tmp_path: Path) -> None:
    study = load_study("mechanism_arms")
    kept = tuple(cell for cell in study.cells if cell.labels["arm"] in ("plain", "prior preservation"))

    def late(cell: Cell, steps: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float64]:
        return np.where(steps > (300 if cell.labels["arm"] == "plain" else 900), 1.2, 0.9)

    table = remedies_table(load_remedies(FILE), open_archive(made_curves(study, tmp_path, late, kept))).set_index("try")
    line = table.loc["prior preservation"]
    assert line["grain"].startswith("-0.2") and line["grain at the end"].startswith("+0.000")
    assert line["CLIP-I"] == "not measured"


def test_another_look_at_the_same_runs_is_a_remedy_too(tmp_path: Path) -> None:
    """The runs of the registered study are sampled at guidance 1 as well, which its own table does not show."""
    study = load_study("primary")
    kept = tuple(cell for cell in study.cells if cell.labels["bnn"] != "prompt_dropout")
    grain = {"off": 1.2, "on": 1.1}
    results = made_curves(
        study, tmp_path, lambda cell, steps, rng: np.full(len(steps), grain[cell.labels["bnn"]]), kept, ("guidance_1", "ema")
    )
    table = remedies_table(load_remedies(FILE), open_archive(results)).set_index("try")
    assert table.loc["Bayesian weights", "grain"].startswith("-0.100")
    assert table.loc["sample at guidance 1", "grain"].startswith("+0.000")
    assert table.loc["average the weights", "DINO"].startswith("+0.000")
    assert table.loc["sample at guidance 3", "grain"].startswith(NOT_MEASURED)
    assert table.loc[["sample at guidance 1", "Bayesian weights"], "needs"].tolist() == ["no training", "a new run"]


@pytest.mark.parametrize("text", ["a: 1", "- {try: x}", "- x"])
def test_a_list_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.yaml").write_text(text + "\n")
    with pytest.raises(UserError, match="give remedies as"):
        load_remedies(tmp_path / "list.yaml")
