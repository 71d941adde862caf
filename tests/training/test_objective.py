"""The loss is what the formulas say, computed here by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from torch import nn

from bayesdiff.arms.gaussian import BayesianLayer, kl_divergence, make_bayesian
from bayesdiff.config.schema import BnnConf
from bayesdiff.diffusion.batch import Batch, Conditioning
from bayesdiff.training.objective import prediction_target, training_loss

GAUSSIAN = BnnConf("gaussian", sigma_init=0.02, prior_sigma=0.05, kl_weight=0.01)


class Guess(nn.Module):
    """Predicts a fixed tensor and remembers what it was shown."""

    def __init__(self, prediction: torch.Tensor):
        super().__init__()
        self.prediction = nn.Parameter(prediction)

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, encoder_hidden_states: torch.Tensor, **added: Any) -> SimpleNamespace:
        self.seen, self.added = (noisy, timesteps, encoder_hidden_states), added
        return SimpleNamespace(sample=self.prediction)


def scheduler(kind: str = "epsilon") -> DDPMScheduler:
    return DDPMScheduler(prediction_type=kind, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)


def batch(prior: int = 0) -> Batch:
    g = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(4, 2, 3, 3, generator=g), torch.randn(4, 2, 3, 3, generator=g)
    return Batch(latents, noise, torch.tensor([0, 10, 500, 999]), Conditioning(torch.randn(4, 5, 6, generator=g)), prior)


def guess() -> Guess:
    return Guess(torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(1)))


def coefficients(timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Square roots of the signal's and the noise's share of variance, from the betas."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    signal = torch.cumprod(1 - betas, 0)[timesteps].view(-1, 1, 1, 1)
    return signal.sqrt().float(), (1 - signal).sqrt().float()


def gaussian_layers() -> list[BayesianLayer]:
    layers = make_bayesian(nn.Sequential(nn.Linear(3, 2)), ["0"], GAUSSIAN)
    with torch.no_grad():
        layers[0].mean.add_(0.1)
    return layers


def wanted(schedule: object, data: Batch) -> torch.Tensor:
    return prediction_target(schedule, data.latents, data.noise, data.timesteps)


def test_the_target_of_an_epsilon_model_is_the_noise() -> None:
    data = batch()
    assert torch.equal(wanted(scheduler(), data), data.noise)


def test_the_target_of_a_v_model_is_the_velocity() -> None:
    data = batch()
    signal, noise = coefficients(data.timesteps)
    torch.testing.assert_close(wanted(scheduler("v_prediction"), data), signal * data.noise - noise * data.latents)


def test_another_prediction_type_is_refused() -> None:
    with pytest.raises(ValueError, match="sample"):
        wanted(scheduler("sample"), batch())


def test_the_model_sees_noisy_latents_timesteps_and_text() -> None:
    data, model = batch(), guess()
    training_loss(model, scheduler(), data, {}, prior_loss_weight=0.3)
    signal, noise = coefficients(data.timesteps)
    torch.testing.assert_close(model.seen[0], signal * data.latents + noise * data.noise)
    assert model.seen[1] is data.timesteps
    assert model.seen[2] is data.text.states
    assert model.added == {}


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_loss_is_the_mean_squared_error(kind: str) -> None:
    data, model = batch(), guess()
    loss, parts = training_loss(model, scheduler(kind), data, {}, prior_loss_weight=0.3)
    expected = ((model.prediction - wanted(scheduler(kind), data)) ** 2).mean().item()
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert {name: value.item() for name, value in parts.items()} == {"loss": loss.item(), "loss_instance": loss.item()}


@pytest.mark.parametrize("prior", [1, 2])
def test_with_prior_preservation_the_loss_is_instance_plus_weighted_class(prior: int) -> None:
    data, model = batch(prior), guess()
    loss, parts = training_loss(model, scheduler(), data, {}, prior_loss_weight=0.3)
    error = (model.prediction - data.noise).detach() ** 2
    instance, of_class = error[:-prior].mean().item(), error[-prior:].mean().item()
    assert loss.item() == pytest.approx(instance + 0.3 * of_class, rel=1e-6)
    assert {name: value.item() for name, value in parts.items()} == pytest.approx(
        {"loss": loss.item(), "loss_instance": instance, "loss_prior": of_class}, rel=1e-6
    )


def test_class_rows_weigh_on_the_gradient_by_their_weight() -> None:
    data, model = batch(prior=2), guess()
    training_loss(model, scheduler(), data, {}, prior_loss_weight=0.3)[0].backward()
    row = 2 * (model.prediction.detach() - data.noise) / (2 * 18)
    weight = torch.tensor([1.0, 1.0, 0.3, 0.3]).view(-1, 1, 1, 1)
    torch.testing.assert_close(model.prediction.grad, weight * row)


def test_the_divergence_is_added_by_its_weight() -> None:
    layers = gaussian_layers()
    loss, parts = training_loss(guess(), scheduler(), batch(), {"kl": (0.01, kl_divergence(layers, GAUSSIAN))})
    plain, _ = training_loss(guess(), scheduler(), batch(), {}, prior_loss_weight=0.3)
    kl = kl_divergence(layers, GAUSSIAN).item()
    assert parts["kl"].item() == pytest.approx(kl, rel=1e-6)
    assert loss.item() == pytest.approx(plain.item() + 0.01 * kl, rel=1e-6)
    loss.backward()
    assert layers[0].mean.grad.abs().sum() > 0


def test_a_half_precision_prediction_is_compared_in_single_precision() -> None:
    data, model = batch(), guess().half()
    loss, _ = training_loss(model, scheduler(), data, {}, prior_loss_weight=0.3)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(((model.prediction.float() - data.noise) ** 2).mean().item(), rel=1e-6)


def test_the_conditions_of_sdxl_reach_the_model() -> None:
    added = {"text_embeds": torch.ones(4, 3), "time_ids": torch.zeros(4, 6)}
    data = replace(batch(), text=Conditioning(batch().text.states, added))
    training_loss(model := guess(), scheduler(), data, {}, prior_loss_weight=0.3)
    assert model.added == {"added_cond_kwargs": added}


def test_texts_are_stacked_row_by_row() -> None:
    one, two = (Conditioning(torch.full((1, 2, 3), v), {"time_ids": torch.full((1, 6), v)}) for v in (1.0, 2.0))
    stacked = Conditioning.stack([one, two], 2)
    assert stacked.states[:, 0, 0].tolist() == stacked.added["time_ids"][:, 0].tolist() == [1.0, 1.0, 2.0, 2.0]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_bounds_the_weight_of_small_noise(kind: str) -> None:
    data, model = batch(), guess()
    loss, _ = training_loss(model, scheduler(kind), data, {}, min_snr_gamma=5.0)
    signal, _ = coefficients(data.timesteps)
    snr = (signal**2 / (1 - signal**2)).flatten()
    weight = snr.clamp(max=5.0) / (snr + (kind == "v_prediction"))
    error = ((model.prediction - wanted(scheduler(kind), data)) ** 2).mean((1, 2, 3))
    assert loss.item() == pytest.approx((weight * error).mean().item(), rel=1e-4)
    assert weight[0] < 0.01
