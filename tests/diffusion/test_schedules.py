"""The same images whatever scheduler a model was saved with; schedules that only look right are refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, PNDMScheduler
from tiny import Make, load
from twins import SCHEDULE, TWINS, build_twin, change_scheduler

from bayesdiff.config.prompts import Prompt
from bayesdiff.config.schema import ModelConf, SamplerConf, Scheduler
from bayesdiff.core.errors import UserError
from bayesdiff.diffusion.pipeline import check_limits, load_pipeline, use_sampler
from bayesdiff.diffusion.sampling import sample_prompts
from bayesdiff.diffusion.schedules import build_sampler, noise_schedule, refused_schedule, training_scheduler
from bayesdiff.runs.experiment import run_experiment
from bayesdiff.toybox.weights import PIPELINE

CPU = torch.device("cpu")
BETAS = {key: value for key, value in SCHEDULE.items() if key != "steps_offset"}
"""A noise schedule alone: what a saved file lacks has its class's defaults, clipping among them."""
SAVED = [
    "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
]  # fmt: skip
OTHERS = ["DDPMScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler", "KDPM2DiscreteScheduler"]
KINDS = [Scheduler.ddim, Scheduler.pndm, Scheduler.dpm]
PROMPT = Prompt("a photo of qwe backpack", "", "")


def conf(kind: Scheduler, steps: int = 4) -> SamplerConf:
    return SamplerConf(scheduler=kind, steps=steps, prompts=[], images_per_prompt=1)


def saved(name: str, **more: Any) -> Any:
    return getattr(diffusers, name)(**{**BETAS, **more})


def images(folder: Path, kind: Scheduler) -> np.ndarray:
    pipe = load(folder)
    use_sampler(pipe, conf(kind))
    return np.stack([np.asarray(s.image) for s in sample_prompts(pipe, [PROMPT], conf(kind), 64)])


@pytest.mark.parametrize("kind", KINDS)
def test_the_toybox_gives_the_same_images_whatever_it_was_saved_with(tmp_path: Path, kind: Scheduler) -> None:
    shipped = images(PIPELINE, kind)
    folder = Path(shutil.copytree(PIPELINE, tmp_path / "toybox"))
    for name in SAVED:
        assert np.array_equal(images(change_scheduler(folder, saved(name)), kind), shipped), name


@pytest.mark.parametrize("name", [*SAVED, *OTHERS])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sampler_is_built_from_the_noise_schedule_alone(name: str, kind: Scheduler) -> None:
    odd = {"clip_sample": True, "thresholding": True, "timestep_spacing": "trailing", "steps_offset": 0, "set_alpha_to_one": True}
    accepted = {k: v for k, v in odd.items() if k in dict(saved(name).config)}
    plain, twisted = (build_sampler(kind, saved(name, **more)) for more in ({}, accepted))
    assert dict(plain.config) == dict(twisted.config) == dict(build_sampler(kind, saved("DDIMScheduler")).config)
    assert not plain.config.get("clip_sample")
    assert not plain.config.get("thresholding")


@pytest.mark.parametrize(("kind", "maker"), [(Scheduler.ddim, DDIMScheduler), (Scheduler.dpm, DPMSolverMultistepScheduler)])
@pytest.mark.parametrize("steps", [1, 2, 25, 50])
def test_the_shipped_toybox_is_sampled_as_in_the_committed_records(kind: Scheduler, maker: Any, steps: int) -> None:
    """Those were sampled by ``from_config`` of the shipped scheduler, which says everything itself."""
    shipped = DDIMScheduler.from_pretrained(PIPELINE, subfolder="scheduler")
    before, now = maker.from_config(shipped.config), build_sampler(kind, shipped)
    steps_taken = []
    for scheduler in (before, now):
        scheduler.set_timesteps(steps)
        g, latents = torch.Generator().manual_seed(0), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        for time in scheduler.timesteps:
            latents = scheduler.step(torch.randn(latents.shape, generator=g), time, latents).prev_sample
        steps_taken.append(latents)
    assert torch.equal(before.timesteps, now.timesteps)
    assert torch.equal(before.alphas_cumprod, now.alphas_cumprod)
    assert torch.equal(*steps_taken)


@pytest.mark.parametrize("kind", KINDS)
def test_pndm_and_the_others_take_the_steps_that_were_asked_for(kind: Scheduler) -> None:
    scheduler = build_sampler(kind, PNDMScheduler(**BETAS))
    scheduler.set_timesteps(10)
    assert len(scheduler.timesteps) == 10 + (kind is Scheduler.pndm)


def test_schedules_that_end_in_noise_begin_at_the_last_timestep() -> None:
    model = DDIMScheduler(**BETAS, rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="leading")
    for kind in (Scheduler.ddim, Scheduler.dpm):
        scheduler = build_sampler(kind, model)
        scheduler.set_timesteps(10)
        assert int(scheduler.timesteps[0]) == 999, kind
    with pytest.raises(UserError, match=r"sampler\.scheduler=pndm: cannot follow"):
        build_sampler(Scheduler.pndm, model)


def test_betas_that_end_in_noise_are_refused_where_a_sampler_is_not_defined() -> None:
    betas = DDIMScheduler(**BETAS, rescale_betas_zero_snr=True).betas.tolist()
    model = DDIMScheduler(trained_betas=betas, prediction_type="v_prediction")
    assert refused_schedule(model) == ""
    assert build_sampler(Scheduler.ddim, model).config.timestep_spacing == "trailing"
    for kind in (Scheduler.dpm, Scheduler.pndm):
        with pytest.raises(UserError, match=rf"sampler\.scheduler={kind.value}: .*use ddim"):
            build_sampler(kind, model)


def test_betas_of_a_models_own_are_kept() -> None:
    betas = np.linspace(1e-4, 0.03, 500).tolist()
    model = DPMSolverMultistepScheduler(trained_betas=betas, num_train_timesteps=500, prediction_type="v_prediction")
    for kind in KINDS:
        scheduler = build_sampler(kind, model)
        assert torch.equal(scheduler.alphas_cumprod, model.alphas_cumprod)
        assert (scheduler.config.num_train_timesteps, scheduler.config.prediction_type) == (500, "v_prediction")


@pytest.mark.parametrize("name", [*SAVED, *OTHERS])
def test_training_follows_the_schedule_and_never_clips(name: str) -> None:
    trained = training_scheduler(saved(name, prediction_type="v_prediction"))
    assert isinstance(trained, DDPMScheduler)
    assert torch.equal(trained.alphas_cumprod, DDPMScheduler(**BETAS).alphas_cumprod)
    assert (trained.config.prediction_type, trained.config.clip_sample) == ("v_prediction", False)


def test_what_a_file_leaves_out_has_the_defaults_of_the_saved_class() -> None:
    assert noise_schedule(diffusers.HeunDiscreteScheduler())["beta_end"] == 0.012
    assert noise_schedule(PNDMScheduler())["beta_end"] == 0.02


REFUSED = [
    ("EDMDPMSolverMultistepScheduler", {}, "EDMDPMSolverMultistepScheduler has no noise schedule of betas"),
    ("EDMEulerScheduler", {"prediction_type": "v_prediction"}, "EDMEulerScheduler has no noise schedule of betas"),
    ("FlowMatchEulerDiscreteScheduler", {}, "FlowMatchEulerDiscreteScheduler has no noise schedule of betas"),
    ("FlowMatchHeunDiscreteScheduler", {}, "FlowMatchHeunDiscreteScheduler has no noise schedule of betas"),
    ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}, "use_flow_sigmas=true"),
    ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True}, "use_flow_sigmas=true"),
    ("EulerDiscreteScheduler", {"timestep_type": "continuous", "prediction_type": "v_prediction"}, "timestep_type=continuous"),
    ("EulerDiscreteScheduler", {"prediction_type": "sample"}, "it predicts sample"),
    ("DDIMScheduler", {"rescale_betas_zero_snr": True}, "ends in pure noise"),
    ("DDIMScheduler", {"trained_betas": [0.001] * 10}, "has 10 betas for num_train_timesteps=1000"),
    ("DDIMScheduler", {"trained_betas": [-0.01] * 1000}, "betas that are not between 0 and 1"),
    ("DDIMScheduler", {"trained_betas": [0.01] * 999 + [float("nan")]}, "betas that are not between 0 and 1"),
    ("DDIMScheduler", {"trained_betas": [1.5] * 1000}, "betas that are not between 0 and 1"),
]


@pytest.mark.parametrize(("name", "more", "why"), REFUSED)
def test_a_schedule_that_cannot_be_trained_on_is_refused_by_name(tmp_path: Path, name: str, more: dict[str, Any], why: str) -> None:
    scheduler = saved(name, **more) if name.startswith(("DD", "DPM", "Uni", "EulerD")) else getattr(diffusers, name)(**more)
    folder = change_scheduler(build_twin("sdxl", tmp_path / "model"), scheduler)
    with pytest.raises(UserError) as caught:
        load_pipeline(ModelConf("mine", str(folder), resolution=64), CPU)
    assert why in str(caught.value)
    assert "choose Stable Diffusion" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", TWINS)
def test_the_published_models_are_not_refused(tmp_path: Path, name: str) -> None:
    load_pipeline(ModelConf(name, str(build_twin(name, tmp_path / name)), resolution=64), CPU)


def test_the_models_own_scheduler_stays_but_does_not_clip() -> None:
    pipe = load(PIPELINE)
    before = pipe.scheduler
    use_sampler(pipe, conf(Scheduler.model))
    assert pipe.scheduler is before
    pipe.scheduler = saved("DDIMScheduler", clip_sample=True, timestep_spacing="trailing")
    use_sampler(pipe, conf(Scheduler.model))
    assert (pipe.scheduler.config.clip_sample, pipe.scheduler.config.timestep_spacing) == (False, "trailing")


def test_an_own_scheduler_that_does_not_follow_the_models_schedule_is_refused() -> None:
    pipe = load(PIPELINE)
    zero = DDIMScheduler(**BETAS, rescale_betas_zero_snr=True, prediction_type="v_prediction")
    pipe.scheduler = diffusers.DEISMultistepScheduler.from_config(zero.config)
    with pytest.raises(UserError, match=r"sampler\.scheduler=model: the model's DEISMultistepScheduler cannot follow"):
        use_sampler(pipe, conf(Scheduler.model))
    use_sampler(pipe, conf(Scheduler.ddim))
    assert pipe.scheduler.config.rescale_betas_zero_snr


def test_a_schedule_that_only_ddpm_knows_is_sampled_by_the_models_own() -> None:
    model = DDPMScheduler(**{**BETAS, "beta_schedule": "sigmoid"})
    assert refused_schedule(model) == ""
    with pytest.raises(UserError, match=r"sampler\.scheduler=ddim: sigmoid is not implemented .*; use model"):
        build_sampler(Scheduler.ddim, model)


@pytest.mark.parametrize(("kind", "most"), [(Scheduler.ddim, 999), (Scheduler.pndm, 999), (Scheduler.dpm, 998)])
def test_more_steps_than_there_are_timesteps_are_refused_before_sampling(kind: Scheduler, most: int) -> None:
    pipe = load(PIPELINE)
    use_sampler(pipe, conf(kind, most))
    with pytest.raises(UserError, match=rf"sampler\.steps={most + 1}: {kind.value} .*give at most 998"):
        use_sampler(pipe, conf(kind, most + 1))


SAMPLERS = [
    *((name, {}) for name in [*SAVED, *OTHERS]), ("LCMScheduler", {}), ("TCDScheduler", {}), ("SASolverScheduler", {}),
    ("DPMSolverSinglestepScheduler", {}), ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True}), ("EulerDiscreteScheduler", {"final_sigmas_type": "sigma_min"}),
    ("EulerDiscreteScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}),
    ("DDPMScheduler", {"clip_sample": True}), ("UniPCMultistepScheduler", {"thresholding": True}),
    ("EulerDiscreteScheduler", {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}),
]  # fmt: skip
"""Schedulers that models are saved with, and that sample."""


@pytest.mark.parametrize(("name", "more"), SAMPLERS)
@pytest.mark.parametrize("steps", [2, 25])
def test_every_sampler_that_a_model_is_saved_with_finds_the_picture_that_is_predicted(name: str, more: dict[str, Any], steps: int) -> None:
    pipe = load(PIPELINE)
    pipe.scheduler = saved(name, **({"skip_prk_steps": True} if name == "PNDMScheduler" else {}), **more)
    use_sampler(pipe, conf(Scheduler.model, steps))


NO_SAMPLERS = [
    ("DDIMInverseScheduler", {}), ("DPMSolverMultistepInverseScheduler", {}), ("UniPCMultistepScheduler", {"predict_x0": False}),
    ("DDPMScheduler", {"variance_type": "learned_range"}), ("DDIMScheduler", {"steps_offset": -3}),
    ("DDIMScheduler", {"steps_offset": 300}), ("DDIMScheduler", {"timestep_spacing": "nosuch"}),
    ("RePaintScheduler", {}),
]  # fmt: skip
"""Saved as a model's scheduler, each of these gives no picture: it inverts, is not finite, or asks for what a U-Net does not give."""


@pytest.mark.parametrize(("name", "more"), NO_SAMPLERS)
def test_a_models_own_scheduler_that_does_not_sample_is_refused_before_training(name: str, more: dict[str, Any]) -> None:
    pipe = load(PIPELINE)
    betas = {key: value for key, value in BETAS.items() if key != "prediction_type"}
    pipe.scheduler = getattr(diffusers, name)(**{**betas, **more})
    own = ModelConf("mine", str(PIPELINE), resolution=64)
    with pytest.raises(UserError, match=r"^sampler\.(scheduler=model|steps=4): .*(use|give) "):
        check_limits(pipe, own, conf(Scheduler.model))
    check_limits(pipe, own, conf(Scheduler.ddim))


@pytest.mark.slow
def test_a_run_on_copies_that_differ_in_what_they_were_saved_with_is_the_same(make_config: Make, smoke: list[str], tmp_path: Path) -> None:
    """Training follows the schedule as sampling does: weights, images and scores bit for bit, on the default path."""
    kept = [word for word in smoke if not word.startswith(("model.path=", "paths.runs="))]
    found = []
    for name in ["", *SAVED]:
        folder = Path(shutil.copytree(PIPELINE, tmp_path / (name or "shipped") / "model"))
        if name:
            change_scheduler(folder, saved(name))
        steps = ["schedule.steps=2", "schedule.checkpoints=[0,2]", f"model.path={folder}", f"paths.runs={folder.parent}"]
        run, _ = run_experiment(make_config(*kept, *steps))
        files = [*sorted(run.glob("images/*/*.png")), run / "scores.csv", *sorted(run.glob("checkpoints/*/unet/*.safetensors"))]
        found.append({str(path.relative_to(run)): path.read_bytes() for path in files})
    assert len(found[0]) >= 6
    assert all(other == found[0] for other in found[1:])
