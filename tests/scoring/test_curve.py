"""From per-image scores to means, standard errors and the detector's matrix, against hand values."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.scoring.curve import curve_table, half_band, image_matrix, per_image, read_scores
from bayesdiff.scoring.metrics import COLUMNS, METRICS


def table(dino: dict[tuple[int, int, int], list[float]]) -> pd.DataFrame:
    """Scores with the given DINO values, one a reference, and zeros for every other metric."""
    rows = []
    for (step, prompt, image), cosines in dino.items():
        rows += [(step, prompt, image, "dino", f"{r}.png", value) for r, value in enumerate(cosines)]
        rows += [(step, prompt, image, metric, "", 0.0) for metric in METRICS if metric != "dino"]
    return pd.DataFrame(rows, columns=list(COLUMNS))


SCORES = table(
    {
        (0, 0, 0): [0.1, 0.3],
        (0, 0, 1): [0.4, 0.4],
        (0, 1, 0): [0.6, 1.0],
        (50, 0, 0): [0.5, 0.7],
        (50, 0, 1): [0.9, 0.7],
        (50, 1, 0): [0.7, 0.7],
    }
)


def test_references_are_averaged_before_images() -> None:
    assert per_image(SCORES)["dino"].tolist() == pytest.approx([0.2, 0.4, 0.8, 0.6, 0.8, 0.7])


def test_an_image_counts_once_whatever_its_references() -> None:
    uneven = table({(0, 0, 0): [1.0, 1.0, 1.0, 1.0], (0, 0, 1): [0.0]})
    assert curve_table(uneven)["dino"].item() == pytest.approx(0.5)


def test_means_and_standard_errors_are_the_hand_values() -> None:
    curve = curve_table(SCORES)
    assert curve["step"].tolist() == [0, 50]
    assert curve["images"].tolist() == [3, 3]
    assert curve["dino"].tolist() == pytest.approx([1.4 / 3, 0.7])
    first = np.sqrt(((0.2 - 1.4 / 3) ** 2 + (0.4 - 1.4 / 3) ** 2 + (0.8 - 1.4 / 3) ** 2) / 2 / 3)
    assert curve["dino_se"].tolist() == pytest.approx([first, 0.1 / np.sqrt(3)])


def test_every_metric_has_its_mean_and_error() -> None:
    assert list(curve_table(SCORES).columns) == ["step", "images", *[c for metric in METRICS for c in (metric, f"{metric}_se")]]


def test_the_share_of_failed_images_is_a_curve() -> None:
    scores = SCORES.copy()
    scores.loc[(scores["step"] == 50) & (scores["metric"] == "failed") & (scores["prompt"] == 1), "value"] = 1.0
    assert curve_table(scores)["failed"].tolist() == pytest.approx([0, 1 / 3])


def test_the_matrix_pairs_columns_over_checkpoints_whatever_the_order_of_rows() -> None:
    shuffled = SCORES.sample(frac=1, random_state=3)
    steps, matrix = image_matrix(per_image(shuffled), "dino")
    assert steps == [0, 50]
    assert matrix == pytest.approx(np.array([[0.2, 0.4, 0.8], [0.6, 0.8, 0.7]]))


def test_steps_are_sorted_as_numbers() -> None:
    scores = table({(step, 0, 0): [step / 1000] for step in (1000, 50, 200)})
    assert image_matrix(per_image(scores), "dino")[0] == [50, 200, 1000]
    assert curve_table(scores)["dino"].tolist() == pytest.approx([0.05, 0.2, 1.0])


def test_one_image_has_a_mean_and_no_error() -> None:
    curve = curve_table(table({(0, 0, 0): [0.5]}))
    assert curve["dino"].item() == 0.5
    assert np.isnan(curve["dino_se"].item())


def test_the_mean_of_the_matrix_is_the_curve() -> None:
    assert image_matrix(per_image(SCORES), "dino")[1].mean(1) == pytest.approx(curve_table(SCORES)["dino"].to_numpy())


def test_a_metric_that_gave_no_number_for_an_image_has_no_mean_there(tmp_path: Path) -> None:
    own = SCORES[SCORES["metric"] == "dino"].assign(metric="own")
    own.loc[own.index[0], "value"] = np.nan
    pd.concat([SCORES, own]).to_csv(tmp_path / "scores.csv", index=False)
    curve = curve_table(read_scores(tmp_path))
    assert np.isnan(curve["own"][0])
    assert curve["own"][1] == pytest.approx(curve["dino"][1])
    assert curve["dino"].notna().all()


def test_a_row_that_stands_twice_is_named(tmp_path: Path) -> None:
    """Its mean with the first one would be another score."""
    text = SCORES.to_csv(index=False)
    (tmp_path / "scores.csv").write_text(text + text.splitlines()[1].rpartition(",")[0] + ",0.9\n")
    with pytest.raises(UserError, match=rf"line {len(text.splitlines()) + 1} scores an image a second time; copy it again"):
        read_scores(tmp_path)


@pytest.mark.parametrize(("column", "value"), [
    ("step", -1), ("step", 0.5), ("step", 1e30), ("step", np.inf), ("prompt", -2), ("prompt", 0.25), ("image", -1), ("image", 1.5),
])  # fmt: skip
def test_a_row_of_no_checkpoint_or_image_is_named(tmp_path: Path, column: str, value: float) -> None:
    """A step below 0 would be the first point of the curve, and half a step was cut to a whole one."""
    wrong = SCORES.astype({column: float})
    wrong.loc[2, column] = value
    wrong.to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(
        UserError, match=rf"scores\.csv: .*line 4: {column} {re.escape(f'{value:g}')} is no whole number from 0 on.*copy it"
    ):
        read_scores(tmp_path)


@pytest.mark.parametrize(("metric", "value", "words"), [
    ("dino", np.nan, "dino is no number"), ("dino", np.inf, "dino is inf, which no image can have"), ("dino", 1.5, "dino is 1.5, which"),
    ("clip_t", np.nan, "clip_t is no number"), ("failed", np.inf, "failed is inf, which"), ("failed", -1e200, "failed is -1e.200, which"),
])  # fmt: skip
def test_a_score_that_no_run_writes_is_named(tmp_path: Path, metric: str, value: float, words: str) -> None:
    wrong = SCORES.copy()
    at = wrong.index[wrong["metric"] == metric][1]
    wrong.loc[at, "value"] = value
    wrong.to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(UserError, match=rf"scores\.csv: .*line {at + 2}: {words}.*copy it again, or repeat the run"):
        read_scores(tmp_path)


@pytest.mark.parametrize("gone", ["dino", "clip_t", "failed"])
def test_a_row_that_is_gone_is_missed(tmp_path: Path, gone: str) -> None:
    """The mean of the other images would be another score."""
    at = SCORES.index[(SCORES["step"] == 50) & (SCORES["metric"] == gone)][0]
    SCORES.drop(index=at).to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(UserError, match=rf"step 50 has \d of \d scores of {gone}.*copy it again"):
        read_scores(tmp_path)


def test_a_similarity_that_lacks_a_checkpoint_or_an_image_is_missed(tmp_path: Path) -> None:
    first = (SCORES["step"] == 0) & (SCORES["metric"] == "clip_t")
    SCORES[~first].to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(UserError, match="step 0 has 0 of 3 scores of clip_t"):
        read_scores(tmp_path)
    last = (SCORES["prompt"] == 1) & (SCORES["metric"] == "dino")
    SCORES[~last].to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(UserError, match="1 images have no score of dino"):
        read_scores(tmp_path)


def test_a_metric_may_begin_later(tmp_path: Path) -> None:
    """Of a run that a newer version resumed."""
    (SCORES[(SCORES["step"] > 0) | (SCORES["metric"] != "failed")]).to_csv(tmp_path / "scores.csv", index=False)
    assert read_scores(tmp_path)["metric"].isin(["failed"]).any()


@pytest.mark.parametrize("images", [2, 4, 16])
def test_a_band_of_95_percent_holds_the_mean_in_95_percent(images: int) -> None:
    drawn = np.random.default_rng(0).standard_normal((20_000, images))
    half = half_band(drawn.std(1, ddof=1) / np.sqrt(images), images)
    assert float((np.abs(drawn.mean(1)) <= half).mean()) == pytest.approx(0.95, abs=0.006)


def test_one_image_has_no_band() -> None:
    assert half_band(np.array([np.nan, 0.1]), np.array([1, 4])).tolist() == pytest.approx([0.0, 0.3182], abs=1e-4)
