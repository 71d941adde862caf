"""A page has the answer, the curve, the samples and the way to repeat them; no text of a user's is read as anything else."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.corruption.outcome import KINDS as VERDICTS
from bayesdiff.recording.record import load_record
from bayesdiff.reporting.charts import DARK, LIGHT, library
from bayesdiff.reporting.pages import KINDS, MOST_ARMS, card, numbers, runs_page, write_runs
from bayesdiff.reporting.runs import write_run_page
from bayesdiff.reporting.traces import Trace, arms_of, named
from tests.made_pages import HOSTILE, Page, check_whole
from tests.made_runs import made_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [made_run(folder / "plain"), made_run(folder / "bayesian", "bnn=on", shift=0.05, seed=1)]


def both(runs: list[Path]) -> list[Trace]:
    return [arm for run in runs for arm in arms_of(run)]


def test_the_answer_stands_first_and_is_the_verdicts_own(runs: list[Path]) -> None:
    page = Page(runs_page(arms_of(runs[0])))
    record = load_record(runs[0])
    assert record is not None and record.verdict is not None
    assert record.verdict["kind"] == "corruption"
    sentence = record.verdict["sentence"]
    assert sentence in page.text
    assert page.text.index("Corruption stage") < page.text.index(sentence) < page.text.index("Scores over training")
    check_whole(page)


def test_the_answer_is_of_the_scores_that_the_page_shows(tmp_path: Path) -> None:
    """Also where they are not those that the record's verdict was made of: corrected, scored anew, or copied from elsewhere."""
    run = made_run(tmp_path / "run")
    scores = pd.read_csv(run / "scores.csv")
    low = (scores["metric"] == "dino") & scores["step"].between(60, 90)
    scores.loc[low, "value"] = 0.85 + 0.01 * np.random.default_rng(0).standard_normal(low.sum())
    scores.to_csv(run / "scores.csv", index=False)
    page = Page(runs_page(arms_of(run)))
    assert min(page.data["arms"][0]["curves"]["dino"]["mean"][6:10]) > 0.8
    assert page.data["arms"][0]["avoid"] == []
    assert "Corrupted:" not in page.text


def test_the_script_has_curve_levels_and_every_sample_at_true_pixels(runs: list[Path]) -> None:
    page = Page(runs_page(arms_of(runs[0])))
    data = page.data
    (arm,) = data["arms"]
    record = load_record(runs[0])
    assert record is not None and record.verdict is not None
    assert arm["steps"] == list(range(0, 150, 10))
    assert (arm["keep"], arm["stages"]) == (record.verdict["best_step"], record.verdict["labels"])
    assert [span[:2] for span in arm["avoid"]] == record.verdict["avoid"]
    assert arm["stage"] == [record.verdict["onset_step"], record.verdict["recovery_step"]]
    assert arm["curves"]["dino"]["mean"][3] == pytest.approx(np.mean(page.store("scores-0")["scores"]["dino"][3]), abs=1e-5)
    assert arm["pictures"] == arm["steps"]
    assert all(len(page.store(f"pictures-0-{step}")) == len(data["prompts"]) == 6 for step in arm["steps"])
    assert all(uri.startswith("data:image/webp;base64,") for uri in page.store("pictures-0-0"))
    assert len(data["photos"]) == 1


def test_a_pair_has_its_differences_and_the_settings_that_differ(runs: list[Path]) -> None:
    page = Page(runs_page(both(runs)))
    gap = page.data["gaps"]["dino"]["1"]
    assert gap["mean"] == pytest.approx([0.05] * 15, abs=0.03)
    assert all(low < mean < high for low, mean, high in zip(gap["low"], gap["mean"], gap["high"], strict=True))
    assert [arm["label"] for arm in page.data["arms"]] == ["plain", "bnn"]
    assert "Settings that differ" in page.text
    assert "bnn.kind off gaussian" in page.text
    check_whole(page)


def test_a_page_asks_nothing_of_a_network(runs: list[Path]) -> None:
    text = runs_page(both(runs)).replace(library(), "")
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//|url\(\s*["']?http|@import""", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_text_of_a_user_stays_text(tmp_path: Path, hostile: str) -> None:
    """Through subject, prompt, command, message, folder name, setting and custom metric, on the default path."""
    run = made_run(tmp_path / hostile.replace("/", "∕"), steps=8)
    content = json.loads((run / "record.json").read_text())
    content["config"]["data"]["subject"] = content["subject"]["name"] = content["message"] = content["command"] = hostile
    content["config"]["sampler"]["prompts"] = [hostile.replace("{", "{{").replace("}", "}}"), "a photo of {identifier} {class_noun}"]
    content["custom_metrics"] = {"own": {"name": "own", "label": hostile, "unit": hostile, "higher_is_better": None, "source": hostile}}
    (run / "record.json").write_text(json.dumps(content))
    scores = (run / "scores.csv").read_text().splitlines()
    (run / "scores.csv").write_text("\n".join(scores + [line.replace(",dino,", ",own,") for line in scores if ",dino," in line]) + "\n")
    page = Page(runs_page(arms_of(run), title=hostile))
    check_whole(page)
    assert page.text.count(" ".join(hostile.split())) >= 3  # title, message, command
    assert next(metric for metric in page.data["metrics"] if metric["name"] == "own")["label"] == hostile
    assert "49" not in re.sub(r"[\d.]+ ± [\d.]+", "", page.text.partition("Scores over training")[0])


def test_a_committed_record_says_what_is_absent(tmp_path: Path) -> None:
    from bayesdiff.recording.collect import collect

    run = made_run(tmp_path / "x")
    record = load_record(run)
    assert record is not None
    run = run.rename(tmp_path / f"toybox-{record.run_key}")
    page = Page(runs_page(arms_of(collect(run, tmp_path / "results"))))
    assert "Samples are not shown: a committed record has the scores of every image, and not the images." in page.text
    assert not any(attributes.get("id") == "slider" for _, attributes in page.elements)
    check_whole(page)


def test_a_run_without_scores_has_a_page(tmp_path: Path) -> None:
    run = made_run(tmp_path / "x")
    (run / "scores.csv").unlink()
    content = json.loads((run / "record.json").read_text())
    (run / "record.json").write_text(json.dumps({**content, "status": "running", "verdict": None}))
    page = Page(write_run_page(run).read_text())
    assert "No checkpoint is scored yet." in page.text
    assert "running" in page.text
    check_whole(page)


def test_the_band_of_a_curve_is_students(runs: list[Path]) -> None:
    """Six images a checkpoint: 2.571 standard errors."""
    data = Page(runs_page(arms_of(runs[0])))
    scores = np.array(data.store("scores-0")["scores"]["dino"][3])
    curve = data.data["arms"][0]["curves"]["dino"]
    assert curve["high"][3] - curve["mean"][3] == pytest.approx(2.5706 * scores.std(ddof=1) / np.sqrt(6), abs=2e-5)


def test_values_that_are_not_finite_are_no_numbers() -> None:
    assert numbers([[1.0, np.nan], [np.inf, 0.123456789]]) == [[1.0, None], [None, 0.12346]]


def test_too_many_curves_are_refused_in_one_line(runs: list[Path]) -> None:
    with pytest.raises(UserError, match=f"at most {MOST_ARMS}"):
        runs_page(arms_of(runs[0]) * (MOST_ARMS + 1))
    with pytest.raises(UserError, match="no run"):
        runs_page([])


@pytest.mark.slow
def test_six_arms_of_forty_checkpoints_fit(tmp_path: Path) -> None:
    """At most 15 MB, also where the samples are large and grainy: an exact file would have 190 MB."""
    run = arms_of(made_run(tmp_path / "x", steps=40, side=256, prompts=1, images=1))[0]
    arms = [replace(run, name=f"arm {i}") for i in range(6)]
    target = write_runs(arms, tmp_path / "page.html")
    assert 5e6 < target.stat().st_size <= 15e6
    page = Page(target.read_text())
    assert all(None not in page.store(f"pictures-{i}-200") for i in range(6))
    assert "their grain is smoothed a little" in page.text


def test_labels_tell_arms_apart(runs: list[Path]) -> None:
    arms = both(runs)
    assert [arm.label for arm in named(arms)] == ["plain", "bnn"]
    twice = [arm.label for arm in named([arms[0], arms[0]])]
    assert len(set(twice)) == 2


@pytest.mark.parametrize("kind", VERDICTS)
def test_every_kind_of_verdict_has_a_badge(runs: list[Path], kind: str) -> None:
    arm = arms_of(runs[0])[0]
    assert arm.verdict is not None
    found = card(replace(arm, verdict=replace(arm.verdict, kind=kind)))
    assert (found["badge"], found["tone"]) == KINDS[kind]


def luminance(colour: str) -> float:
    """Relative, of sRGB (WCAG 2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("colours", "ground"), [(LIGHT, "#ffffff"), (DARK, "#1a2029")])
def test_lines_stand_out_from_their_ground(colours: tuple[str, ...], ground: str) -> None:
    """A contrast of 3 at least, as WCAG 2.1 asks of graphics; they are told apart by dashes and markers too."""
    for colour in colours:
        low, high = sorted((luminance(colour), luminance(ground)))
        assert (high + 0.05) / (low + 0.05) >= 3, colour
    assert len(set(colours)) == MOST_ARMS


def test_the_styles_colours_are_the_charts(runs: list[Path]) -> None:
    text = runs_page(arms_of(runs[0]))
    for colours in (LIGHT, DARK):
        assert all(f"--arm-{i}: {colour}" in text for i, colour in enumerate(colours))
