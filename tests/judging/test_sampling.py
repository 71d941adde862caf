"""Checkpoints that exist are sampled as the suite samples its own: the same pictures, scores and verdict."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import Make

from bayesdiff.config.schema import ModelConf
from bayesdiff.core.errors import UserError
from bayesdiff.diffusion.pipeline import load_pipeline
from bayesdiff.judging.judgement import Judgement, judge_folder
from bayesdiff.judging.settings import Asked
from bayesdiff.recording.record import RunRecord
from bayesdiff.runs.experiment import run_experiment

PROMPTS = ("a photo of a {identifier} {class_noun}", "a {identifier} {class_noun} on the beach")
SAMPLER = ["sampler.steps=2", "sampler.images_per_prompt=1", "sampler.scheduler=ddim", "sampler.guidance_scale=7.5"]
STEPS = (0, 1, 2, 3, 4, 5)
Run = tuple[Path, RunRecord]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (folder := tmp_path / "photos").mkdir()
    for i in range(2):
        small = np.random.default_rng(i).integers(0, 255, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def run(
    make_config: Make, twin: Path, photos: Path, random_encoders: dict[str, str], tmp_path: Path, quick_pictures: None
) -> Callable[..., Run]:
    """A run of the suite on the twin that keeps every checkpoint, trained fast enough for its pictures to differ."""

    def make(*words: str) -> Run:
        prompts = ",".join(f"'{prompt}'" for prompt in PROMPTS)
        data = ["data=folder", f"data.path={photos}", "data.class_noun=dog", "data.identifier=qwe", "shots=all", "probes=false"]
        steps = [f"schedule.steps={STEPS[-1]}", f"schedule.checkpoints={list(STEPS)}".replace(" ", ""), "schedule.keep=all"]
        encoders = [f"{key}={value}" for key, value in random_encoders.items()]
        model = [f"model.path={twin}", "model.name=twin", "model.resolution=64", "report=false", f"paths.runs={tmp_path / 'runs'}"]
        cfg = make_config("+experiment=smoke", *model, *data, *steps, *encoders, *SAMPLER, f"sampler.prompts=[{prompts}]", *words)
        return run_experiment(cfg)

    return make


@pytest.fixture
def judge(twin: Path, photos: Path, random_encoders: dict[str, str], tmp_path: Path) -> Callable[[Path], Judgement]:
    """What a person who has the checkpoints alone would ask for."""
    (file := tmp_path / "prompts.txt").write_text("\n".join(prompt.format(identifier="qwe", class_noun="dog") for prompt in PROMPTS))
    words = (*(f"{key}={value}" for key, value in random_encoders.items()), *SAMPLER)
    asked = Asked(photos, "dog", "qwe", "toybox", file, model=str(twin), words=words)
    return lambda folder: judge_folder(folder, asked, tmp_path / "cache")


def same_as_the_run(judgement: Judgement, run: Path, record: RunRecord, tmp_path: Path) -> None:
    """Every picture is the run's own, and so is the verdict."""
    ours = judge_folder(run, Asked(), tmp_path / "scores")
    for metric in ("dino", "clip_i", "clip_t", "hf_energy"):
        assert judgement.reading.columns[metric] == pytest.approx(ours.reading.columns[metric], abs=2e-6), metric
    assert len(np.unique(judgement.reading.columns["hf_energy"], axis=0)) == len(STEPS), "each checkpoint has pictures of its own"
    assert record.verdict is not None
    for name in ("kind", "flagged", "best_step", "best_steps", "labels", "avoid", "sentence"):
        assert judgement.verdict.to_dict()[name] == record.verdict[name], name


def as_stock_diffusers(run: Path, folder: Path, twin: Path) -> Path:
    """``checkpoint-N/pytorch_lora_weights.safetensors``, written as the training script of diffusers does."""
    for step in STEPS[1:]:
        pipe = load_pipeline(ModelConf("twin", str(twin), resolution=64), torch.device("cpu"))
        pipe.load_lora_weights(run / "checkpoints" / f"step-{step:06d}")
        layers = get_peft_model_state_dict(pipe.unet, adapter_name=pipe.get_active_adapters()[0])
        StableDiffusionPipeline.save_lora_weights(folder / f"checkpoint-{step}", unet_lora_layers=layers)
        (folder / f"checkpoint-{step}" / "optimizer.bin").write_bytes(b"state of the optimiser")
    return folder


def as_kohya(run: Path, folder: Path, name: Callable[[int], str], alpha: float) -> Path:
    """Kohya's names of layers, ``lora_down``, ``lora_up`` and ``alpha``, which the strength of the update is divided by."""
    folder.mkdir()
    for step in STEPS[1:]:
        stored = load_file(run / "checkpoints" / f"step-{step:06d}" / "pytorch_lora_weights.safetensors")
        found: dict[str, torch.Tensor] = {}
        for key, value in stored.items():
            layer, _, matrix = key.removeprefix("unet.").removesuffix(".weight").rpartition(".")
            layer = "lora_unet_" + layer.replace(".", "_")
            rank = min(value.shape)
            found[f"{layer}.{'lora_down' if matrix == 'lora_A' else 'lora_up'}.weight"] = (
                value.contiguous() if matrix == "lora_A" else (value * rank / alpha).contiguous()
            )
            found[f"{layer}.alpha"] = torch.tensor(alpha)
        save_file(found, folder / name(step), metadata={"ss_steps": str(step)})
    return folder


def test_loras_of_diffusers_kohya_and_ai_toolkit_give_the_suites_own_verdict(
    run: Callable[..., Run], judge: Callable[[Path], Judgement], twin: Path, tmp_path: Path
) -> None:
    folder, record = run("method=lora", "method.rank=2", "method.learning_rate=0.05")
    stock = judge(as_stock_diffusers(folder, tmp_path / "stock", twin))
    same_as_the_run(stock, folder, record, tmp_path)
    assert (stock.details["layout"], stock.details["sampled_now"], stock.details["samples"]) == ("diffusers", 12, 12)
    assert any("the base model as step 0" in note for note in stock.reading.notes)
    kohya = judge(as_kohya(folder, tmp_path / "kohya", lambda step: f"mine-step{step:08d}.safetensors", 1.0))
    same_as_the_run(kohya, folder, record, tmp_path)
    assert (kohya.details["layout"], kohya.details["sampled_now"]) == ("kohya", 10), "the base model is known"
    last = lambda step: "mine.safetensors" if step == STEPS[-1] else f"mine_{step:09d}.safetensors"  # noqa: E731
    toolkit = judge(as_kohya(folder, tmp_path / "toolkit", last, 2.0))
    same_as_the_run(toolkit, folder, record, tmp_path)
    assert toolkit.details["layout"] == "ai-toolkit"
    assert judge(tmp_path / "toolkit").details["sampled_now"] == 0


@pytest.mark.parametrize("words", [["method=dreambooth"], ["method=oft", "method.rank=2"]], ids=["whole models", "peft"])
def test_own_checkpoints_and_stock_layouts_give_the_suites_own_verdict(
    run: Callable[..., Run], judge: Callable[[Path], Judgement], words: list[str], tmp_path: Path
) -> None:
    folder, record = run(*words, "method.learning_rate=0.02")
    own = judge_folder(folder / "checkpoints", Asked(), tmp_path / "own")
    same_as_the_run(own, folder, record, tmp_path)
    assert own.details["sampled_now"] == 12
    with pytest.raises(UserError, match="knows its model; leave the option out"):
        judge_folder(folder, Asked(model="sd15"), None)
    for step in STEPS[1:]:
        shutil.copytree(folder / "checkpoints" / f"step-{step:06d}", tmp_path / "out" / f"checkpoint-{step}")
    same_as_the_run(judge(tmp_path / "out"), folder, record, tmp_path)


def test_the_folder_is_left_as_it_is_and_what_is_missing_is_sampled_alone(
    adapters: Path, judge: Callable[[Path], Judgement], tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in adapters.rglob("*")}
    assert judge(adapters).details["sampled_now"] == 4 * 2
    assert {path: path.stat().st_mtime_ns for path in adapters.rglob("*")} == before
    (file := tmp_path / "prompts.txt").write_text(f"{file.read_text()}\na qwe dog in the snow\n")
    assert judge(adapters).details["sampled_now"] == 4, "of each checkpoint the new prompt"
    shutil.copytree(adapters / "step-1", adapters / "step-4")
    assert judge(adapters).details["sampled_now"] == 0, "the same weights under another name"


def test_what_cannot_be_asked_is_refused_before_anything_is_sampled(adapters: Path, twin: Path, photos: Path) -> None:
    for asked, said in (
        (Asked(photos), "checkpoints and no samples; sample them with a base model"),
        (Asked(None, model=str(twin)), "--photos is missing"),
        (Asked(photos, model=str(twin)), "no prompts to sample with"),
        (Asked(photos, "dog", "qwe", "toybox", model=str(twin / "none")), "cannot be loaded"),
    ):
        with pytest.raises(UserError, match=said) as refused:
            judge_folder(adapters, asked, None)
        assert "\n" not in str(refused.value)


def test_identifier_and_class_noun_are_read_off_kohyas_folder_of_photographs(
    adapters: Path, twin: Path, photos: Path, random_encoders: dict[str, str]
) -> None:
    photos.rename(photos.with_name("10_qwe dog"))
    words = (*(f"{key}={value}" for key, value in random_encoders.items()), *SAMPLER)
    for place in (photos.with_name("10_qwe dog"),):
        found = judge_folder(adapters, Asked(place, metrics="toybox", model=str(twin), words=words), None)
        assert any("identifier qwe and class noun dog from the folder 10_qwe dog" in note for note in found.reading.notes)
        assert found.details["prompts_from"] == "sampler.prompts"
