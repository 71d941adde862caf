"""The page of one denoising step: the means of runs, the steps they share, what the paper says beside what was seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesdiff.recording.archive import open_archive
from bayesdiff.recording.columns import Damaged
from bayesdiff.studies.one_step_page import write_one_step
from tests import made_records

pytestmark = pytest.mark.usefixtures("restored_studies")
LEVELS = np.array([1.0, 0.5, 0.1])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    study = made_records.prepare(tmp_path / "studies")
    return made_records.fill(study, tmp_path, study.cells[:3])


def folders(results: Path) -> list[Path]:
    return sorted((results / "records").iterdir())


def made(folder: Path, shift: float, steps: list[int]) -> None:
    table = {"step": steps, "error_0": LEVELS + shift, "sigma_1": [1.0, 4.0, 2.0], "patch_gain": [0.1, 0.8, 0.9], "g_100": 0.0}
    pd.DataFrame(table).to_csv(folder / "one_step.csv", index=False)


def test_without_a_table_there_is_no_page(results: Path) -> None:
    assert write_one_step(open_archive(results)) is None
    assert not (results / "one_step").exists()


def test_means_with_intervals_over_runs_at_the_steps_they_share(results: Path) -> None:
    for i, folder in enumerate(folders(results)):
        made(folder, 0.1 * (i - 1), [0, 100, 200 + 100 * (i == 2)])
    page = write_one_step(open_archive(results))
    assert page == results / "one_step" / "README.md"
    text = page.read_text()
    assert text.startswith("# One denoising step, 3 runs")
    half = 4.302653 * 0.1 / np.sqrt(3)  # t of 2 degrees of freedom
    assert f"|    100 | 0.500 ({0.5 - half:.3f} to {0.5 + half:.3f})" in text
    assert "|    200 |" not in text
    assert (page.parent / "one_step.png").stat().st_size > 1000


def test_each_figure_has_the_paper_s_words_and_what_was_seen(results: Path) -> None:
    made(folders(results)[0], 0.0, [0, 100, 200])
    page = write_one_step(open_archive(results))
    assert page is not None
    text = page.read_text()
    assert "Here 1.000 at step 0 and 0.100 at step 200, at most 0.500 at step 100." in text
    assert "Here 1.000 at step 0 and 2.000 at step 200, at most 4.000 at step 100." in text
    assert "Here 0.100 at step 0 and 0.900 at step 200." in text
    assert "1.118" in text


def test_a_damaged_table_is_named_with_the_remedy(results: Path) -> None:
    (folder := folders(results)[0]).joinpath("one_step.csv").write_text("step,other\n1,2\n")
    with pytest.raises(Damaged, match=rf"{folder.name}/one_step\.csv: no table of one step .*python -m bayesdiff\.runs\.one_step RUN"):
        write_one_step(open_archive(results))
