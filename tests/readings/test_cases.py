"""Tables as people have them: each is read, or refused in one line that names the remedy. The outcome of every file is spelled out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bayesdiff.core.errors import ExitCode
from bayesdiff.readings import Naming, read
from bayesdiff.verdict import main

CASES = Path(__file__).parent / "cases"
STEPS = (0, 25, 50, 75, 100, 150, 200, 250, 300, 350, 400, 500, 600, 750, 1000, 1250, 1500, 1750, 2000, 2250)
CURVE = (
    0.1822, 0.2747, 0.3966, 0.4577, 0.5697, 0.7071, 0.7004, 0.7584, 0.6870, 0.5460, 0.5392, 0.3057, 0.3449, 0.4048, 0.5608, 0.7009,
    0.7530, 0.6963, 0.7520, 0.7389,
)  # fmt: skip
JUDGED = {
    "comments.csv": (STEPS, ExitCode.FOUND, ()),
    "curve.json": (STEPS, ExitCode.FOUND, ()),
    "epochs.csv": (tuple(range(1, 21)), ExitCode.FOUND, ("no column of steps: epochs stand for them",)),
    "european.csv": (STEPS, ExitCode.FOUND, ("decimal commas: 0,5 is read as one half",)),
    "percent_sign.csv": (STEPS, ExitCode.FOUND, ("percent signs: 57 % is read as 0.57",)),
    "thousands.csv": (STEPS, ExitCode.FOUND, ("separators of thousands: 1,000 is read as one thousand",)),
    "utf16.csv": (STEPS, ExitCode.FOUND, ()),
    "wandb_export_epoch.csv": (
        tuple(range(0, 500, 25)), ExitCode.FOUND, ("no column of steps: epochs stand for them, 100 steps an epoch",),
    ),
    "somenan.csv": (
        tuple(s for s in STEPS if s not in (150, 200)), ExitCode.FOUND,
        ("1 of 20 rows have no score and are left out", "scores are not finite at step 150, and finite later: left out as not measured"),
    ),
    "four.csv": (STEPS[:4], ExitCode.NOT_JUDGED, ()),
    "allnan.csv": (STEPS, ExitCode.NOT_JUDGED, ()),
    "loss.csv": (STEPS, ExitCode.FOUND, ("column loss taken as the fidelity",)),
    "long.jsonl": (STEPS[:3], ExitCode.NOT_JUDGED, ("8 of 16 images lack some checkpoints and are left out",)),
    "long_filename.csv": (STEPS[:4], ExitCode.NOT_JUDGED, ("5 of 16 images lack some checkpoints and are left out",)),
    "long_checkpoint_file.csv": (
        STEPS[:4], ExitCode.NOT_JUDGED,
        ("column checkpoint: 'checkpoint-0' is read as step 0", "5 of 16 images lack some checkpoints and are left out"),
    ),
}  # fmt: skip
"""Steps, exit code and notes of the files that are read as they are."""
ASKED = {
    "several.csv": (
        "which of these is the fidelity? give --metric NAME, one of clip_score (higher is better), fid (lower is better), lpips (lower is "
        "better)",
        ["--metric", "lpips"],
    ),
    "latin1.csv": (
        "is a higher ähnlichkeit better? its name does not say; give --higher-is-better or --lower-is-better, or another column with "
        "--metric NAME",
        ["--higher-is-better"],
    ),
    "tensorboard_export.csv": (
        "is a higher Value better? its name does not say; give --higher-is-better or --lower-is-better, or another column with --metric "
        "NAME",
        ["--higher-is-better"],
    ),
}
"""The line that refuses a file, and what it asks for."""


def test_every_case_has_an_outcome() -> None:
    assert {path.name for path in CASES.iterdir()} == set(JUDGED) | set(ASKED)


@pytest.mark.parametrize("name", JUDGED)
def test_a_table_that_is_read(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    steps, code, notes = JUDGED[name]
    (reading,) = read(str(CASES / name), Naming())
    assert reading.steps == steps
    assert reading.notes == notes
    assert main([str(CASES / name), "--json"]) == code
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", [n for n, (_, code, _) in JUDGED.items() if code == ExitCode.FOUND])
def test_scores_of_a_table_that_is_read(name: str) -> None:
    (reading,) = read(str(CASES / name), Naming())
    expected = [v for s, v in zip(STEPS, CURVE, strict=True) if name != "somenan.csv" or s in reading.steps]
    scores = 1 - reading.columns["loss"] if name == "loss.csv" else reading.columns[reading.metric]
    assert scores[:, 0] == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(("name", "images"), [("long.jsonl", 8), ("long_filename.csv", 11), ("long_checkpoint_file.csv", 11)])
def test_images_of_a_long_table_pair_over_checkpoints(name: str, images: int) -> None:
    (reading,) = read(str(CASES / name), Naming())
    scores = reading.columns["dino"]
    assert scores.shape == (len(reading.steps), images)
    assert scores[0, 0] == pytest.approx(0.213537, abs=1e-6)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", ASKED)
def test_a_table_that_is_asked_about(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    message, remedy = ASKED[name]
    assert main([str(CASES / name)]) == ExitCode.BAD_INPUT
    assert capsys.readouterr().err == f"bayesdiff: {CASES / name}: {message}\n"
    assert main([str(CASES / name), *remedy, "--json"]) in (0, ExitCode.FOUND)
