"""Models load frozen and in single precision, or one line says how to mend it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from tiny import Make, encoded, load

from bayesdiff.config.schema import ModelConf, Precision, SamplerConf, Scheduler
from bayesdiff.core.errors import UserError
from bayesdiff.diffusion.pipeline import (
    check_limits,
    check_precision,
    choose_device,
    load_pipeline,
    model_location,
    use_sampler,
)
from bayesdiff.toybox.weights import PIPELINE
from bayesdiff.training.loop import prepare

CPU = torch.device("cpu")


def conf(path: str | Path, **more: str) -> ModelConf:
    return ModelConf("model", str(path), resolution=64, **more)


@pytest.fixture
def copy(random_pipeline: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_pipeline, tmp_path / "copy"))


def test_all_parts_are_frozen_single_precision_and_in_evaluation_mode(random_pipeline: Path) -> None:
    pipe = load(random_pipeline)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        assert {p.dtype for p in part.parameters()} == {torch.float32}
        assert not any(p.requires_grad for p in part.parameters())
        assert not any(module.training for module in part.modules())


def test_only_the_unet_becomes_trainable(random_pipeline: Path, make_config: Make) -> None:
    pipe = load(random_pipeline)
    prepare(pipe, make_config("bnn=on"), encoded(), None)
    trained = [any(p.requires_grad for p in part.parameters()) for part in (pipe.unet, pipe.vae, pipe.text_encoder)]
    assert trained == [True, False, False]


def test_toybox_is_the_shipped_folder_and_anything_else_itself() -> None:
    assert model_location(conf("toybox")) == str(PIPELINE)
    assert model_location(conf("me/model")) == "me/model"


def test_a_hub_model_that_is_not_here_names_the_download() -> None:
    with pytest.raises(
        UserError, match=r"fetch it \(4 GB\) with python -c .*P\.download\('nobody/nothing', safety_checker=None\).*model\.path"
    ) as caught:
        load_pipeline(conf("nobody/nothing", size="4 GB"), CPU)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path}/none: .*model\.path") as caught:
        load_pipeline(conf(tmp_path / "none"), CPU)
    assert "\n" not in str(caught.value)


def test_a_missing_toybox_names_git_and_make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bayesdiff.toybox.weights.PIPELINE", tmp_path / "none")
    with pytest.raises(UserError, match=r"git checkout -- bayesdiff/toybox/weights.*make pretrain"):
        load_pipeline(conf("toybox"), CPU)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [truncate, Path.unlink], ids=["truncated", "missing"])
@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"])
def test_weights_that_cannot_be_read_are_said_in_one_line(copy: Path, part: str, damage: Callable[[Path], None]) -> None:
    damage(copy / f"{part}.safetensors")
    with pytest.raises(UserError, match=rf"model {copy}: cannot be loaded \(.+\); download it again or correct model\.path") as caught:
        load_pipeline(conf(copy), CPU)
    assert "\n" not in str(caught.value)


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    config = copy / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "cross_attention_dim": 64}))
    with pytest.raises(UserError, match="cannot be loaded"):
        load_pipeline(conf(copy), CPU)


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"correct model\.path"):
        load_pipeline(conf(tmp_path), CPU)


def test_the_automatic_device_is_there() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == CPU


def test_a_gpu_that_is_not_there_is_said() -> None:
    with pytest.raises(UserError, match=rf"device=cuda:7: this machine has {torch.cuda.device_count()} CUDA device\(s\); use device=auto"):
        choose_device("cuda:7")


def test_the_chosen_gpu_is_torchs_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams and recordings without a device are the current one's; a later run of the process has its own again."""
    current: list[int] = []
    for name, fake in {"is_available": lambda: True, "device_count": lambda: 2, "set_device": current.append}.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    choose_device("cpu")
    assert torch.backends.cudnn.allow_tf32
    for name in ("cuda:1", "cuda", "auto", "cpu"):
        choose_device(name)
        assert not torch.backends.cudnn.allow_tf32, "encoders are held against exact scores, before training.tf32 is read"
    assert current == [1, 0, 0]
    with pytest.raises(UserError, match="this machine has 2"):
        choose_device("cuda:2")
    assert current == [1, 0, 0]


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", ""])
def test_a_device_that_does_not_exist_is_said(name: str) -> None:
    with pytest.raises(UserError, match=f"device={name}: choose auto, cpu, cuda or cuda:N"):
        choose_device(name)


@pytest.mark.parametrize("name", ["mps", "meta", "xpu"])
def test_a_device_that_is_not_offered_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"device={name}"):
        choose_device(name)


def test_a_model_that_predicts_something_else_is_refused_before_training(random_pipeline: Path, make_config: Make) -> None:
    pipe, cfg = load(random_pipeline), make_config("+experiment=smoke")
    check_limits(pipe, cfg.model, cfg.sampler)
    pipe.scheduler.register_to_config(prediction_type="sample")
    with pytest.raises(UserError, match=r"predicts sample; this suite trains epsilon and v_prediction; choose"):
        check_limits(pipe, cfg.model, cfg.sampler)


def test_a_sampler_that_cannot_follow_the_schedule_is_refused(random_pipeline: Path) -> None:
    pipe = load(random_pipeline)
    with pytest.raises(UserError, match=r"sampler\.scheduler=pndm"):
        use_sampler(pipe, SamplerConf(scheduler=Scheduler.pndm, prompts=[]))


KINDS = [
    (Scheduler.ddim, "DDIMScheduler"),
    (Scheduler.dpm, "DPMSolverMultistepScheduler"),
]


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_a_sampler_keeps_prediction_type_and_length(random_pipeline: Path, kind: Scheduler, name: str) -> None:
    pipe = load(random_pipeline)
    before = pipe.scheduler.config
    use_sampler(pipe, SamplerConf(scheduler=kind, prompts=[]))
    assert type(pipe.scheduler).__name__ == name
    for key in ("prediction_type", "num_train_timesteps", "beta_schedule", "beta_start", "beta_end"):
        assert pipe.scheduler.config[key] == before[key], key
    assert pipe.scheduler.config.prediction_type == "v_prediction"


@pytest.mark.parametrize("kind", [Scheduler.ddim, Scheduler.dpm])
def test_a_sampler_keeps_the_noise_schedule(random_pipeline: Path, kind: Scheduler) -> None:
    pipe = load(random_pipeline)
    before = pipe.scheduler.alphas_cumprod.clone()
    use_sampler(pipe, SamplerConf(scheduler=kind, prompts=[]))
    torch.testing.assert_close(pipe.scheduler.alphas_cumprod, before, rtol=0, atol=1e-6)


def test_the_models_own_sampler_stays(random_pipeline: Path) -> None:
    pipe = load(random_pipeline)
    before = pipe.scheduler
    use_sampler(pipe, SamplerConf(scheduler=Scheduler.model, prompts=[]))
    assert pipe.scheduler is before


@pytest.mark.parametrize("kind", [kind for kind in Scheduler if kind is not Scheduler.pndm])
def test_training_uses_the_models_noise_schedule_under_any_sampler(random_pipeline: Path, make_config: Make, kind: Scheduler) -> None:
    pipe = load(random_pipeline)
    expected = DDPMScheduler.from_config(pipe.scheduler.config)
    use_sampler(pipe, SamplerConf(scheduler=kind, prompts=[]))
    schedule = prepare(pipe, make_config(), encoded(), None).noise_schedule
    assert torch.equal(schedule.alphas_cumprod, expected.alphas_cumprod)
    assert schedule.config.prediction_type == "v_prediction"
    assert float(schedule.alphas_cumprod[-1]) == 0.0


def test_a_model_behind_a_licence_says_how_to_get_in() -> None:
    conf = ModelConf("sd20", "nobody/gated-model", revision="abc", gated=True, size="5 GB", resolution=512)
    with pytest.raises(UserError, match=r"fetch it \(5 GB\) with .*'nobody/gated-model', revision='abc', safety.*; accept its licence"):
        load_pipeline(conf, CPU)


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(UserError, match=r"training\.mixed_precision=fp16: needs a CUDA device"):
        check_precision(Precision.fp16, CPU)
    for precision in (Precision.no, Precision.bf16):
        check_precision(precision, CPU)


def test_a_pipeline_of_another_kind_is_refused(random_pipeline: Path, tmp_path: Path) -> None:
    index = json.loads((random_pipeline / "model_index.json").read_text())
    shutil.copytree(random_pipeline, tmp_path / "other")
    (tmp_path / "other" / "model_index.json").write_text(json.dumps({**index, "_class_name": "StableDiffusionImg2ImgPipeline"}))
    with pytest.raises(UserError, match=r"it holds a StableDiffusionImg2ImgPipeline; this suite fine-tunes StableDiffusionPipeline"):
        load_pipeline(ModelConf("other", str(tmp_path / "other"), resolution=64), CPU)
