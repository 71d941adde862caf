"""Noise schedules, prediction targets, and the pipeline as it is shipped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from bayesdiff.pretraining.autoencoder import build, encode_means
from bayesdiff.pretraining.clip import tokenize
from bayesdiff.pretraining.dataset import WorldData
from bayesdiff.pretraining.denoiser import (
    SCHEDULES,
    SNR_LIMIT,
    WEIGHT_LIMIT,
    Denoiser,
    build_scheduler,
    cached_latents,
    denoising_loss,
    loss_weight,
)
from bayesdiff.toybox.weights import PIPELINE
from bayesdiff.training.objective import prediction_target

LATENTS, NOISE = (torch.randn(3, 4, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
TIMESTEPS = torch.tensor([0, 500, 999])


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser().eval()


def bars(scheduler: DDIMScheduler) -> torch.Tensor:
    return scheduler.alphas_cumprod[TIMESTEPS][:, None, None, None]


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_only_ever_adds_noise(name: str) -> None:
    steps = build_scheduler(name).alphas_cumprod
    assert len(steps) == 1000
    assert (steps.diff() < 0).all()
    assert 0.99 < steps[0] < 1


def test_zero_snr_ends_in_pure_noise_and_the_others_do_not() -> None:
    ends = {name: float(build_scheduler(name).alphas_cumprod[-1]) for name in SCHEDULES}
    assert ends["zero_snr_v"] == pytest.approx(0, abs=1e-12)
    assert min(ends["sd"], ends["linear"]) > 1e-6


def test_the_last_step_of_zero_snr_forgets_the_picture() -> None:
    scheduler = build_scheduler("zero_snr_v")
    noisy = scheduler.add_noise(LATENTS, NOISE, torch.tensor([999] * 3))
    assert torch.allclose(noisy, NOISE, atol=1e-6)


def test_sampling_starts_where_zero_snr_ends() -> None:
    scheduler = build_scheduler("zero_snr_v")
    scheduler.set_timesteps(25)
    assert int(scheduler.timesteps[0]) == 999


@pytest.mark.parametrize("name", ["sd", "linear"])
def test_epsilon_is_predicted_as_the_noise(name: str) -> None:
    assert torch.equal(prediction_target(build_scheduler(name), LATENTS, NOISE, TIMESTEPS), NOISE)


def test_velocity_is_predicted_as_noise_minus_latents_by_their_shares() -> None:
    scheduler = build_scheduler("zero_snr_v")
    truth = bars(scheduler).sqrt() * NOISE - (1 - bars(scheduler)).sqrt() * LATENTS
    assert torch.allclose(prediction_target(scheduler, LATENTS, NOISE, TIMESTEPS), truth, atol=1e-5)
    assert torch.allclose(truth[2], -LATENTS[2], atol=1e-5)


def test_latents_are_recovered_from_the_velocity() -> None:
    scheduler = build_scheduler("zero_snr_v")
    noisy, velocity = scheduler.add_noise(LATENTS, NOISE, TIMESTEPS), prediction_target(scheduler, LATENTS, NOISE, TIMESTEPS)
    assert torch.allclose(bars(scheduler).sqrt() * noisy - (1 - bars(scheduler)).sqrt() * velocity, LATENTS, atol=1e-4)


def test_the_loss_is_finite_and_a_function_of_the_generator(denoiser: Denoiser) -> None:
    tokens = tokenize(["a red dog", "a mug", ""])
    with torch.no_grad():
        values = [float(denoising_loss(denoiser, build_scheduler(), LATENTS, tokens, torch.Generator().manual_seed(s))) for s in (3, 3, 4)]
    assert values[0] == values[1] != values[2]
    assert 0.1 < values[0] < 10


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_loss_weight_is_bounded_and_the_same_for_every_prediction_in_terms_of_the_image(name: str) -> None:
    scheduler = build_scheduler(name)
    alphas, weight = scheduler.alphas_cumprod.double(), loss_weight(scheduler).double()
    snr = alphas / (1 - alphas)
    per_image_error = snr + 1 if name == "zero_snr_v" else snr  # what one unit of image error costs in the prediction's own error
    free = weight < WEIGHT_LIMIT
    torch.testing.assert_close((weight * per_image_error)[free], (snr + 1).clamp(max=SNR_LIMIT)[free], rtol=1e-4, atol=0)
    assert 0 < float(weight.min()) < float(weight.max()) <= WEIGHT_LIMIT
    assert free.float().mean() > 0.5


def test_the_prediction_depends_on_the_words(denoiser: Denoiser) -> None:
    with torch.no_grad():
        dog, mug = (denoiser(LATENTS[:1], torch.tensor([500]), tokenize([text])) for text in ("a red dog", "a mug"))
    assert dog.shape == LATENTS[:1].shape
    assert float((dog - mug).abs().max()) > 1e-6


def test_the_shipped_scheduler_is_the_one_that_training_goes_on_with() -> None:
    shipped = DDIMScheduler.from_pretrained(PIPELINE / "scheduler")
    for key in ("prediction_type", "beta_schedule", "beta_start", "beta_end", "rescale_betas_zero_snr", "timestep_spacing"):
        assert shipped.config[key] == build_scheduler().config[key], key


def test_latents_are_computed_once(tmp_path: Path) -> None:
    data = WorldData(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8), ["a dog", "a mug"])
    torch.manual_seed(0)
    vae = build().eval()
    latents = cached_latents(tmp_path, data, vae)
    assert latents.dtype == torch.float16
    assert torch.allclose(latents.float(), encode_means(vae, data, 2), rtol=1e-2, atol=1e-3)
    assert torch.equal(cached_latents(tmp_path, data, build()), latents)


def test_a_saved_pipeline_has_every_part_in_half_precision(random_pipeline: Path) -> None:
    from safetensors.torch import load_file

    index = json.loads((random_pipeline / "model_index.json").read_text())
    parts = {"vae", "unet", "text_encoder", "tokenizer", "scheduler"}
    assert parts <= set(index)
    assert {p.name for p in random_pipeline.iterdir()} == {*parts, "model_index.json"}
    assert json.loads((random_pipeline / "scheduler" / "scheduler_config.json").read_text())["prediction_type"] == "v_prediction"
    for weights in random_pipeline.rglob("*.safetensors"):
        assert {value.dtype for value in load_file(weights).values() if value.is_floating_point()} == {torch.float16}
