"""The running verdict in loops of others is the one that the finished curve gives."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from bayesdiff.core.errors import UserError
from bayesdiff.corruption import detect_corruption
from bayesdiff.judging.callback import CheckpointJudge, Progress
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
    judge, rng = CheckpointJudge(patience=4), np.random.default_rng(0)
    reasons = []
    for i in range(1, 11):
        reasons.append(judge.update(i, 0.9 - 0.05 * i + 0.002 * rng.standard_normal(8)).reason)
    first = next(i for i, reason in enumerate(reasons) if reason)
    assert first >= 4
    assert "may be better" in reasons[first]
    assert not CheckpointJudge().update(1, [0.5, 0.6]).reason


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
    judge = CheckpointJudge(photos, metrics="toybox")
    judge.update(5, images(0.5))
    with pytest.raises(ValueError, match="step 5 does not come after step 5"):
        judge.update(5, images(0.5))
    with pytest.raises(ValueError, match="2 scores, and the checkpoints before it 4"):
        judge.update(6, images(0.5)[:2])
    with pytest.raises(UserError, match="choose one of"):
        CheckpointJudge(photos, metrics="dinov9")


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
