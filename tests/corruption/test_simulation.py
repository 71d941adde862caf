"""The calibration study: its curves are what they are called, and its counting is right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, norm

from bayesdiff.core.errors import UserError
from bayesdiff.corruption.power import SHOULDER, stage_curve
from bayesdiff.corruption.shape import stage_strength
from bayesdiff.corruption.simulation import (
    FAMILIES,
    NULL_SHAPES,
    NoiseLevel,
    Study,
    covariance,
    most_power,
    simulate,
    upper_bound,
)
from bayesdiff.corruption.simulation_levels import null_cells
from bayesdiff.studies import calibration
from bayesdiff.studies.calibration import calibrate, load_study, measured_noise, write

LEVEL = NoiseLevel(level=0.2, image=0.1, checkpoint=0.05, image_correlation=0.0)


@pytest.mark.parametrize("name", NULL_SHAPES)
@pytest.mark.parametrize("count", [6, 12, 40])
def test_curves_without_a_stage_have_one_mode(name: str, count: int) -> None:
    assert stage_strength(NULL_SHAPES[name](count)) <= 1e-12


@pytest.mark.parametrize("count", [12, 20, 40])
@pytest.mark.parametrize("width", [0.2, 0.35, 0.45])
def test_a_stage_has_the_depth_and_about_the_width_it_is_called_by(count: int, width: float) -> None:
    curve = stage_curve(count, 0.2, width)
    assert curve.min() == pytest.approx(0.35)
    low = curve[2:] <= SHOULDER - 0.2 + 1e-9
    assert low.sum() == pytest.approx(width * (count - 1), abs=1.5)
    assert (curve[int(0.88 * count) :] == SHOULDER).all()


@pytest.mark.parametrize("family", ["", "correlated", "strongly correlated", "heavy tails", "uneven images"])
def test_noise_has_the_size_it_is_called_by(family: str) -> None:
    tables = np.stack([simulate(np.zeros(20), 8, LEVEL, np.random.default_rng(s), family, 0.5) for s in range(400)])
    levels = tables.mean(1)
    assert levels.std() == pytest.approx(np.sqrt(0.2**2 + (0.1**2 + 0.05**2) / 20), rel=0.15)
    shared = tables.mean(2) - tables.mean((1, 2))[:, None]
    if family in ("", "heavy tails"):
        assert shared.std() == pytest.approx(np.sqrt(0.05**2 + 0.1**2 / 8) * np.sqrt(19 / 20), rel=0.1)
    if family.endswith("correlated"):
        assert (shared[:, 1:] * shared[:, :-1]).mean() > 0.3 * 0.05**2


def test_the_bound_is_clopper_and_pearson_s() -> None:
    for flags, repeats in ((0, 100), (7, 200), (200, 200)):
        expected = binomtest(flags, repeats, alternative="less").proportion_ci(0.95, "exact").high
        assert upper_bound(flags, repeats) == pytest.approx(expected)


def test_no_test_can_find_more_than_the_bound_says() -> None:
    """For a fall and return of one known shape, independent noise and a null that pools it, the bound is the z-test's."""
    mean, size = np.array([1.0, 1.0, 0.4, 0.4, 1.0, 1.0]), 0.3
    closest = np.array([1.0, 1.0, 0.7, 0.7, 0.7, 0.7])  # pooled with the side behind (or before)
    expected = norm.cdf(np.linalg.norm(mean - closest) / size - norm.ppf(0.95))
    assert most_power(mean, size**2 * np.eye(6), 0.05) == pytest.approx(expected, abs=1e-3)
    assert most_power(mean, 1e-6 * np.eye(6), 0.05) == pytest.approx(1.0)


@pytest.mark.parametrize("curve", [NULL_SHAPES[name](12) for name in NULL_SHAPES])
def test_a_curve_with_one_mode_cannot_be_found_more_often_than_by_chance(curve: np.ndarray) -> None:
    assert most_power(curve, 0.01 * np.eye(12), 0.05) == pytest.approx(0.05, abs=1e-3)


def test_thecovariance_is_that_of_simulated_curves() -> None:
    noise = NoiseLevel(level=0.1, image=0.1, checkpoint=0.05, image_correlation=0.5)
    curves = np.stack([simulate(np.zeros(5), 4, noise, np.random.default_rng(s)).mean(1) for s in range(20_000)])
    assert np.abs(np.cov(curves.T) - covariance(5, 4, noise)).max() < 3e-4


SMALL = Study(
    checkpoints=[6, 12],
    covered=[12],
    images=[4],
    depths=[0.2],
    widths=[0.35],
    repeats=2,
    most_repeats=2,
    resamples=100,
    level_repeats=1,
    difference_repeats=50,
    workers=1,
)
Tables = dict[str, pd.DataFrame]


def at(folder: Path) -> Study:
    """The small study with its tables in a folder, and no real runs."""
    return replace(SMALL, output=str(folder), runs="tests/no-such-*.csv")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tables, Path]:
    """All tables of the small study, and the folder that rows are kept in as they come."""
    folder = tmp_path_factory.mktemp("whole")
    return calibrate(at(folder)), folder


@pytest.fixture(autouse=True, scope="module")
def _few_levels() -> Iterator[None]:
    """Every sixteenth cell of the null levels: each takes as long as a row of the other tables all together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "null_cells", lambda sizes: null_cells(sizes)[::16])
        yield


def test_a_study_is_a_function_of_its_settings(whole: tuple[Tables, Path], tmp_path: Path) -> None:
    first, again = whole[0], calibrate(at(tmp_path / "again"), ["false_flags", "power"])
    for name in again:
        pd.testing.assert_frame_equal(first[name], again[name])
    assert set(first["false_flags"]["family"]) == set(FAMILIES)
    assert set(first["power"]["checkpoints"]) == {12}
    assert set(first["power"]["runs"]) == {1, 4, 8}
    assert (first["power"]["found_known_noise"].isna() == (first["power"]["runs"] > 1)).all()
    rates = first["false_flags"]
    assert (rates["rate"] <= rates["upper_95"]).all()
    write(first, at(tmp_path / "out"))
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "false_flags.csv",
        "power.csv",
        "coverage.csv",
        "level_false_flags.csv",
        "level_power.csv",
        "difference_coverage.csv",
        "noise.csv",
        "calibration.png",
    }


def test_the_tables_of_levels_go_on_where_they_stopped(whole: tuple[Tables, Path], tmp_path: Path) -> None:
    tables, folder = whole
    for part in folder.glob("level_*.partial"):
        shutil.copy(part, tmp_path)
    kept = tmp_path / "level_power.jsonl.partial"
    lines = kept.read_text().splitlines()
    made = json.loads(lines[0])
    made[1]["L1"] = 0.123
    kept.write_text("\n".join([json.dumps(made), *lines[1:-2]]) + "\n")
    again = calibrate(at(tmp_path), ["levels"])
    assert again["level_power"]["L1"][0] == 0.123  # a row that was kept
    pd.testing.assert_frame_equal(again["level_power"][1:], tables["level_power"][1:])
    pd.testing.assert_frame_equal(again["level_false_flags"], tables["level_false_flags"])
    write(again, at(tmp_path))
    assert not list(tmp_path.glob("*.partial"))


def test_one_part_alone_is_as_in_the_whole_and_leaves_the_others_be(whole: tuple[Tables, Path], tmp_path: Path) -> None:
    (part,) = calibrate(at(tmp_path), ["power"]).items()
    assert part[0] == "power"
    pd.testing.assert_frame_equal(part[1], whole[0]["power"])
    (tmp_path / "false_flags.csv").write_text("kept")
    write(dict([part]), at(tmp_path))
    assert {p.name for p in tmp_path.iterdir()} == {"false_flags.csv", "power.csv", "noise.csv"}
    assert (tmp_path / "false_flags.csv").read_text() == "kept"


def test_the_noise_of_real_runs_is_read_off_their_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scores = simulate(np.full(110, 0.6), 16, LEVEL, np.random.default_rng(1))
    table = pd.DataFrame(scores, columns=[f"dino_{i}" for i in range(16)])
    table.insert(0, "step", np.arange(110) * 10)
    (tmp_path / "a").mkdir()
    table.to_csv("a/images.csv", index=False)
    row = measured_noise("*/images.csv").iloc[0]
    assert row["run"] == "a"
    assert row["image"] == pytest.approx(0.1, rel=0.15)
    assert row["checkpoint"] == pytest.approx(0.05, rel=0.2)
    assert row["image_correlation"] < 0.1


def test_the_study_that_is_shipped_loads() -> None:
    study = load_study(Path("experiments/detector_calibration.yaml"))
    assert (study.checkpoints, study.images) == ([6, 8, 12, 20, 40], [1, 4, 16, 100])


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("repeat: 3\n")
    with pytest.raises(UserError, match="repeat"):
        load_study(path)
    with pytest.raises(UserError, match="none"):
        load_study(tmp_path / "none.yaml")
