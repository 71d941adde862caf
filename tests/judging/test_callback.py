"""The running verdict in loops of others is the one that the finished curve gives."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from bayesdiff.core.errors import UserError
from bayesdiff.corruption import detect_corruption
from bayesdiff.judging.callback import CheckpointJudge, Progress, VerdictCallback
from bayesdiff.judging.judgement import judge_folder
from bayesdiff.judging.settings import Asked
from bayesdiff.readings.judging import judge as judge_reading
from bayesdiff.readings.reading import Naming
from bayesdiff.readings.sources import read
from tests.corruption.test_detector import CLEAR, TWELVE

ROOT = Path(__file__).resolve().parents[2]
SHARES = (0.9, 0.6, 0.3, 0.1, 0.1, 0.5, 0.7, 0.5, 0.1, 0.1, 0.1)
"""How much of each validation's images is noise."""


def picture(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC), dtype=np.float64)


def images(share: float) -> list[Image.Image]:
    return [Image.fromarray(((1 - share) * picture(0) + share * picture(9 + j)).clip(0, 255).astype(np.uint8)) for j in range(4)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (folder := tmp_path / "photos").mkdir()
    for i in range(2):
        Image.fromarray(picture(i).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def walk(judge: CheckpointJudge, shares: tuple[float, ...] = SHARES, first: int = 1) -> Progress:
    for i, share in enumerate(shares, first):
        progress = judge.update(100 * i, images(share))
    return progress


def test_the_running_verdict_on_images_is_the_one_afterwards_with_and_without_prompts(photos: Path, tmp_path: Path) -> None:
    for name, prompts in (("with", ["a photo of a qwe dog", "a qwe dog on the beach"]), ("without", [])):
        folder = tmp_path / name
        kept = walk(CheckpointJudge(photos, prompts=prompts, identifier="qwe", metrics="toybox", folder=folder))
        file = folder / "prompts.txt" if prompts else None
        after = judge_folder(folder, Asked(photos, identifier="qwe", metrics="toybox", prompts=file), tmp_path / "cache")
        assert kept.verdict == after.verdict
        assert kept.fidelity == pytest.approx(after.reading.columns["dino"][-1].mean(), abs=1e-6)
        assert ("clip_t" in after.reading.columns) == bool(prompts)
        assert file is None or file.read_text().splitlines() == prompts


def test_a_training_that_is_resumed_goes_on_with_the_images_that_were_kept(photos: Path, tmp_path: Path) -> None:
    whole = walk(CheckpointJudge(photos, metrics="toybox", folder=tmp_path / "whole"))
    walk(CheckpointJudge(photos, metrics="toybox", folder=tmp_path / "again"), SHARES[:7])
    with pytest.warns(UserWarning, match="has images of 1 validations after step 600"):
        resumed = walk(CheckpointJudge(photos, metrics="toybox", folder=tmp_path / "again"), SHARES[5:], first=6)
    assert resumed.verdict == whole.verdict


def test_scores_give_the_verdict_of_the_detector_and_of_the_command(tmp_path: Path) -> None:
    judge = CheckpointJudge()
    reasons = [judge.update(step, row).reason for step, row in zip(TWELVE, CLEAR, strict=True)]
    verdict = judge.monitor.verdict
    assert verdict == detect_corruption(TWELVE, CLEAR)
    assert verdict.flagged
    assert reasons[-1] == f"a corruption stage has been passed; keep step {verdict.best_step}"
    assert not any(reasons[:5]), "too early to tell"
    means, rows = CheckpointJudge(), ["step,dino"]
    for step, row in zip(TWELVE, CLEAR.mean(axis=1), strict=True):
        progress = means.update(step, row)
        rows.append(f"{step},{float(row)!r}")
    (file := tmp_path / "curve.csv").write_text("\n".join(rows))
    (reading,) = read(str(file), Naming())
    assert progress.verdict == judge_reading(reading)[0]


def test_a_lower_distance_is_better_where_the_name_says_so() -> None:
    judge = CheckpointJudge(metric="lpips")
    for step, row in zip(TWELVE, CLEAR, strict=True):
        progress = judge.update(step, 1 - row)
    assert progress.best_step in detect_corruption(TWELVE, CLEAR).best_steps


def test_patience_ends_a_run_that_only_gets_worse() -> None:
    """In an open fall it is three times as long: a stage may come back."""
    judge, rng = CheckpointJudge(patience=4), np.random.default_rng(0)
    reasons = []
    for i in range(1, 20):
        reasons.append(judge.update(i, 0.9 - 0.04 * i + 0.002 * rng.standard_normal(8)).reason)
    first = next(i for i, reason in enumerate(reasons) if reason)
    assert reasons[first].startswith("12 checkpoints after step 1")
    assert "may be better" in reasons[first]
    assert not CheckpointJudge().update(1, [0.5, 0.6]).reason


def whole(judge: CheckpointJudge, scores: Sequence[ArrayLike], every: int = 100) -> list[Progress]:
    """What was said at each step up to the first reason to stop."""
    said: list[Progress] = []
    for i, row in enumerate(scores):
        said.append(judge.update(every * i, row))
        if said[-1].reason:
            break
    return said


def stage(scale: float = 1.0) -> NDArray[np.float64]:
    """Scores (21, 8) of a curve that falls after step 700 and is back by step 1,300."""
    at, rng = np.arange(0, 2001, 100), np.random.default_rng(3)
    mean = 0.3 + 0.45 * (1 - np.exp(-at / 250)) - 0.3 * np.exp(-(((at - 1000) / 220) ** 4))
    return scale * (mean[:, None] + 0.05 * rng.standard_normal(8) + 0.02 * rng.standard_normal((21, 8)))


@pytest.mark.parametrize("metric", ["dino", "psnr", "fid"])
def test_patience_outlasts_a_stage_in_any_unit(metric: str) -> None:
    scores = {"dino": stage(), "psnr": stage(30.0), "fid": 100 - stage(100.0)}[metric]
    said = whole(CheckpointJudge(metric=metric, patience=4), scores)
    assert "stage has been passed" in said[-1].reason
    assert said[-1].step >= 1200


def test_patience_outlasts_the_stage_of_the_paper() -> None:
    """The published curve of DreamBooth falls from step 250 and is back at step 3,000."""
    rows = np.loadtxt(ROOT / "results" / "curves" / "paper_figure_1_dreambooth.csv", delimiter=",", skiprows=1)
    judge = CheckpointJudge(patience=4)
    first = next(step for step, score in rows if judge.update(int(step), score).reason)
    assert first > 2500


def test_one_score_that_is_not_finite_stops_nothing_and_is_left_out(tmp_path: Path) -> None:
    scores = stage()[:, 0]
    scores[7] = np.nan
    said = whole(CheckpointJudge(metric="dino"), scores[:13])
    assert len(said) == 13
    assert [progress.verdict.kind == "diverged" for progress in said] == [i == 7 for i in range(13)]
    assert "not finite at the last checkpoint" in str(said[7])
    (file := tmp_path / "curve.csv").write_text("step,dino\n" + "\n".join(f"{100 * i},{score}" for i, score in enumerate(scores[:13])))
    (reading,) = read(str(file), Naming())
    assert said[-1].verdict == judge_reading(reading)[0]


def test_three_validations_in_a_row_that_are_not_finite_are_divergence() -> None:
    scores = stage()
    scores[8:10] = scores[11:] = np.nan
    said = whole(CheckpointJudge(metric="dino"), scores)
    assert len(said) == 14
    assert said[-1].reason.endswith("training diverged.")
    assert str(CheckpointJudge().update(100, np.nan)).startswith("step 100: fidelity nan; no score is finite so far; ")


@pytest.mark.parametrize("good", [4, 8])
def test_three_validations_in_a_row_of_black_images_are_divergence(photos: Path, good: int) -> None:
    """Weights that are not finite sample black images, whose scores are finite."""
    judge = CheckpointJudge(photos, metrics="toybox", prompts="a photo of a dog")
    walk(judge, SHARES[:good])
    black = [Image.new("RGB", (64, 64)) for _ in range(4)]
    reasons = [judge.update(100 * step, black).reason for step in range(good + 1, good + 4)]
    assert reasons[:2] == ["", ""]
    assert reasons[2].startswith(
        f"From step {100 * (good + 1)} on most samples are black or not finite: training diverged. Go back before it"
    )
    assert judge.last is not None and judge.last.verdict.best_step <= 100 * good


def test_a_step_that_was_judged_is_skipped_and_one_that_goes_back_replaces_what_came_after_it() -> None:
    judge = CheckpointJudge()
    for step, row in zip(TWELVE, CLEAR, strict=True):
        last = judge.update(step, row)
    with pytest.warns(UserWarning, match=f"step {TWELVE[-1]} has been judged already") as warned:
        assert [judge.update(TWELVE[-1], row) for row in CLEAR[:2]] == [last, last]
    with pytest.warns(UserWarning, match=f"training was resumed, and what was judged from step {TWELVE[4]} on is left out") as more:
        for step, row in zip(TWELVE[4:], CLEAR[4:], strict=True):
            again = judge.update(step, row)
    assert (len(warned), len(more)) == (1, 1)
    assert again == last


def test_images_of_later_steps_are_named_and_left_where_they_are(photos: Path, tmp_path: Path) -> None:
    walk(CheckpointJudge(photos, metrics="toybox", folder=tmp_path / "kept"), SHARES[:3])
    with pytest.warns(UserWarning, match="has images of 1 validations after step 200, from before"):
        CheckpointJudge(photos, metrics="toybox", folder=tmp_path / "kept").update(200, images(0.5))
    assert len(list((tmp_path / "kept" / "images").iterdir())) == 3


def test_which_way_is_better_is_asked_for_before_training() -> None:
    with pytest.raises(UserError, match=r"metric='identity': .* give higher_is_better=True or False"):
        CheckpointJudge(metric="identity")
    for higher in (True, False):
        judge = CheckpointJudge(metric="identity", higher_is_better=higher)
        for step, row in zip(TWELVE, CLEAR, strict=True):
            progress = judge.update(step, row if higher else 1 - row)
        assert progress.best_step in detect_corruption(TWELVE, CLEAR).best_steps


def test_what_cannot_be_used_is_named_as_the_parameter_before_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^photos \S+nowhere: no such folder"):
        CheckpointJudge(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"^metrics dinov9: choose one of"):
        CheckpointJudge(metrics="dinov9")
    with pytest.raises(UserError, match="patience=0: give a number of validations, 1 or more"):
        CheckpointJudge(patience=0)


def test_settings_hold_for_given_scores_too() -> None:
    judge = CheckpointJudge(words=["detector.min_depth=0.9"])
    for step, row in zip(TWELVE, CLEAR, strict=True):
        progress = judge.update(step, row)
    assert not progress.verdict.flagged


def test_the_base_model_is_no_checkpoint_to_keep() -> None:
    judge = CheckpointJudge()
    assert str(judge.update(0, [0.5, 0.6])) == "step 0: fidelity 0.550; nothing trained yet"
    assert "keep step 100 so far" in str(judge.update(100, [0.6, 0.7]))


def test_an_error_leaves_the_curve_as_it_was(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = CheckpointJudge(photos, metrics="toybox", folder=tmp_path / "kept")
    walk(judge, SHARES[:6])
    with pytest.raises(ValueError, match="2 scores, and the checkpoints before it 4"):
        judge.update(700, images(0.5)[:2])
    with pytest.raises(ValueError, match="give images at every validation"):
        judge.update(700, [0.5] * 4)
    assert judge.scorer is not None
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="out of memory"):
        patch.setattr(type(judge.scorer), "rows", broken)
        judge.update(700, images(0.5))
    last = walk(judge, SHARES[6:], first=8)
    other = CheckpointJudge(photos, metrics="toybox")
    walk(other, SHARES[:6])
    assert last.verdict == walk(other, SHARES[6:], first=8).verdict


def broken(*_: object) -> Any:
    raise RuntimeError("out of memory")


def test_no_error_ends_a_training_and_each_is_warned_of_once() -> None:
    rows, seen = [CLEAR[0], None, None, CLEAR[1][:3], CLEAR[2]], list[int]()

    def sample(row: Any) -> Any:
        return broken() if row is None else row

    callback = VerdictCallback(CheckpointJudge(), sample, report=lambda progress: seen.append(progress.step))
    with pytest.warns(UserWarning, match=r"step \d is not judged, and training goes on: ") as warned:
        assert [callback.reason(step, row) for step, row in enumerate(rows, 1)] == [""] * 5
    assert len(warned) == 2
    assert all("\n" not in str(one.message) for one in warned)
    assert seen == [1, 5]
    for passes in (KeyboardInterrupt, SystemExit):
        with pytest.raises(passes):
            VerdictCallback(CheckpointJudge(), raising(passes)).reason(1, None)


def raising(error: type[BaseException]) -> Any:
    def sample(model: object) -> Any:
        raise error

    return sample


def test_a_report_that_fails_keeps_the_reason_to_stop() -> None:
    callback = VerdictCallback(CheckpointJudge(), lambda model: np.nan, report=broken)
    with pytest.warns(UserWarning, match="step 1 is judged and not reported, and training goes on: RuntimeError: out of memory"):
        assert [bool(callback.reason(step, None)) for step in (1, 2, 3)] == [False, False, True]


def test_the_line_for_a_log_names_the_step_the_fidelity_and_what_to_keep() -> None:
    assert str(CheckpointJudge().update(7, [0.5, 0.6])) == "step 7: fidelity 0.550; keep step 7 so far"


def test_images_that_are_no_pictures_are_refused(photos: Path) -> None:
    """A pipeline may return arrays; they are no scores, and none of them is left out in silence."""
    judge = CheckpointJudge(photos, metrics="toybox")
    with pytest.raises(ValueError, match=r"scores of shape \(2, 4, 4, 3\): give PIL images"):
        judge.update(1, np.zeros((2, 4, 4, 3)))
    with pytest.raises(ValueError, match="1 of 2 are no PIL images"):
        judge.update(1, [Image.new("RGB", (8, 8)), np.zeros((4, 4, 3))])
    with pytest.raises(ValueError, match="no PIL images"):
        judge.update(1, [Image.new("RGB", (8, 8)), 0.5])


def test_a_base_model_that_is_not_beaten_is_said() -> None:
    judge = CheckpointJudge()
    for step, score in enumerate([0.9, 0.3, 0.2, 0.3, 0.2, 0.3, 0.2]):
        progress = judge.update(100 * step, [score - 0.01, score, score + 0.01])
    assert not progress.verdict.better_than_base
    assert "none is better than the base model so far" in str(progress)


def test_what_cannot_be_judged_is_refused(photos: Path) -> None:
    with pytest.raises(UserError, match="images are compared with photographs"):
        CheckpointJudge(metrics="toybox").update(1, images(0.5))
    judge = CheckpointJudge(photos, prompts=["a dog", "a cat", "a bird"], metrics="toybox")
    with pytest.raises(ValueError, match="4 images for 3 prompts"):
        judge.update(1, images(0.5))


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stock_lora_loop", ROOT / "notebooks" / "stock_lora_loop.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module


def test_the_example_trains_with_stock_code_and_its_running_verdict_is_the_one_afterwards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = example()
    monkeypatch.setattr(module, "SAMPLER_STEPS", 2)
    progress = module.main(tmp_path, steps=6, every=1)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    asked = Asked(tmp_path / "photos", module.CLASS_NOUN, module.IDENTIFIER, "toybox", tmp_path / "prompts.txt")
    after = judge_folder(tmp_path, asked, None)
    assert after.verdict == progress.verdict
    assert [line.partition(":")[0] for line in said] == [f"step {step}" for step in after.reading.steps]
    assert len(said) == 7
    assert (tmp_path / "checkpoint-6" / "pytorch_lora_weights.safetensors").exists()
    code = (ROOT / "notebooks" / "stock_lora_loop.py").read_text()
    assert code.count("# bayesdiff\n") == 4, "four lines beside stock code"
