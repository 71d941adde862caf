"""Offline runs of Weights & Biases, written by the client itself; the file's format is its own, so that this test guards it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.readings import Naming, read
from bayesdiff.readings.wandb_runs import offline_files, offline_table, resumed

ROWS = 1_200
"""Enough for several blocks of 32 KiB, and for records that lie across their borders."""


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import wandb

    folder = tmp_path_factory.mktemp("offline")
    settings = wandb.Settings(console="off", x_disable_stats=True, silent=True, x_disable_machine_info=True)
    run = wandb.init(project="p", name="my run", mode="offline", dir=folder, settings=settings)
    for i in range(ROWS):
        more = {"image": wandb.Image(np.zeros((2, 2, 3), np.uint8)), "text": "a" * 50} if i % 100 == 0 else {}
        run.log({"step": 10 * i, "eval/dino": float("nan") if i == 5 else i / 7, "nested": {"loss": -i}, "on": True, **more})
    run.finish()
    wandb.teardown()  # the file is whole when the process behind the client has ended
    return folder


def test_every_value_that_was_logged_is_read(offline: Path) -> None:
    (file,) = offline_files(offline)
    table, name, notes = offline_table(file)
    assert (name, notes, len(table)) == ("my run", [], ROWS)
    assert file.stat().st_size > 3 * 32_768
    assert [int(c) for c in table["step"]] == list(range(0, 10 * ROWS, 10))
    assert [float(c) for i, c in enumerate(table["eval/dino"]) if i != 5] == [i / 7 for i in range(ROWS) if i != 5]
    assert table["eval/dino"][5] == "nan"
    assert [int(c) for c in table["nested.loss"]] == [-i for i in range(ROWS)]
    assert set(table.columns) == {"step", "eval/dino", "nested.loss", "_step", "_runtime", "_timestamp"}


def test_a_folder_of_offline_runs_is_a_source(offline: Path) -> None:
    (reading,) = read(str(offline), Naming())
    assert reading.name.endswith(".wandb [my run]")
    assert reading.metric == "eval/dino"
    assert reading.steps[-1] > 10 * (ROWS - 30)


def test_a_file_that_is_still_written_is_read_up_to_its_end(offline: Path, tmp_path: Path) -> None:
    (file,) = offline_files(offline)
    part = tmp_path / "run-x.wandb"
    shutil.copy(file, part)
    part.write_bytes(file.read_bytes()[:70_001])
    table, _, (note,) = offline_table(part)
    assert 100 < len(table) < ROWS
    assert note == f"the file lacks the run's end: the {len(table):,} rows so far are read"


def rows(**cells: str) -> pd.DataFrame:
    return pd.DataFrame({name: text.split(",") for name, text in cells.items()}, dtype=str)


def test_files_of_a_run_that_was_resumed_offline_are_joined_by_their_own_steps() -> None:
    first = rows(_step="0,1,2,3", step="0,10,,20", dino=".1,.2,,.3", loss=",,5,")
    second = rows(_step="0,1", step="20,30", dino=".4,.5")
    whole = resumed([first, second])
    assert whole is not None
    assert whole.to_dict("list") == {
        "step": ["0", "10", "", "20", "30"],
        "dino": [".1", ".2", "", ".4", ".5"],
        "loss": ["", "", "5", "", ""],
    }
    assert resumed([first.drop(columns="step"), second]) is None
    assert resumed([first]) is first


def test_a_folder_with_two_files_of_one_run_has_one_curve(offline: Path, tmp_path: Path) -> None:
    (file,) = offline_files(offline)
    for name in ("offline-run-1", "offline-run-2"):
        (tmp_path / name).mkdir()
        shutil.copy(file, tmp_path / name)
    (reading,) = read(str(tmp_path), Naming())
    assert reading.notes[0] == "the run was resumed offline: 2 files joined by their steps"
    assert reading.unthinned is not None
    assert len(reading.unthinned.steps) == ROWS - 1


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run-x.wandb").write_bytes(b"something else")
    with pytest.raises(UserError, match="no file of an offline run; give the run-ID"):
        read(str(tmp_path / "run-x.wandb"), Naming())
    (tmp_path / "run-x.wandb").write_bytes(b":W&B\x24\xbe\x00")
    with pytest.raises(UserError, match="no numbers logged"):
        read(str(tmp_path), Naming())
