"""The loss is what the formulas say, computed here by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler
from torch import nn

from bayesdiff import objective
from bayesdiff.bayes import BayesianLayer, kl_divergence, make_bayesian
from bayesdiff.config import BnnConf, Method, MethodConf
from bayesdiff.objective import Batch, prediction_target, training_loss

METHOD = MethodConf(Method.dreambooth, 1e-4, prior_loss_weight=0.3)


class Guess(nn.Module):
    """Predicts a fixed tensor and remembers what it was shown."""

    def __init__(self, prediction: torch.Tensor):
        super().__init__()
        self.prediction = nn.Parameter(prediction)

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, encoder_hidden_states: torch.Tensor) -> SimpleNamespace:
        self.seen = (noisy, timesteps, encoder_hidden_states)
        return SimpleNamespace(sample=self.prediction)


def scheduler(kind: str = "epsilon") -> DDPMScheduler:
    return DDPMScheduler(prediction_type=kind, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)


def batch(prior: int = 0) -> Batch:
    g = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(4, 2, 3, 3, generator=g), torch.randn(4, 2, 3, 3, generator=g)
    return Batch(latents, noise, torch.tensor([0, 10, 500, 999]), torch.randn(4, 5, 6, generator=g), prior)


def guess() -> Guess:
    return Guess(torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(1)))


def coefficients(timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Square roots of the signal's and the noise's share of variance, from the betas."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    signal = torch.cumprod(1 - betas, 0)[timesteps].view(-1, 1, 1, 1)
    return signal.sqrt().float(), (1 - signal).sqrt().float()


def gaussian_layers() -> list[BayesianLayer]:
    layers = make_bayesian(nn.Sequential(nn.Linear(3, 2)), ["0"], 0.02)
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
    training_loss(model, scheduler(), data, METHOD, BnnConf(), [])
    signal, noise = coefficients(data.timesteps)
    torch.testing.assert_close(model.seen[0], signal * data.latents + noise * data.noise)
    assert model.seen[1] is data.timesteps
    assert model.seen[2] is data.text_states


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_loss_is_the_mean_squared_error(kind: str) -> None:
    data, model = batch(), guess()
    loss, parts = training_loss(model, scheduler(kind), data, METHOD, BnnConf(), [])
    expected = ((model.prediction - wanted(scheduler(kind), data)) ** 2).mean().item()
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert parts == {"loss": loss.item(), "loss_instance": loss.item()}


@pytest.mark.parametrize("prior", [1, 2])
def test_with_prior_preservation_the_loss_is_instance_plus_weighted_class(prior: int) -> None:
    data, model = batch(prior), guess()
    loss, parts = training_loss(model, scheduler(), data, METHOD, BnnConf(), [])
    error = (model.prediction - data.noise).detach() ** 2
    instance, of_class = error[:-prior].mean().item(), error[-prior:].mean().item()
    assert loss.item() == pytest.approx(instance + 0.3 * of_class, rel=1e-6)
    assert parts == pytest.approx({"loss": loss.item(), "loss_instance": instance, "loss_prior": of_class}, rel=1e-6)


def test_class_rows_weigh_on_the_gradient_by_their_weight() -> None:
    data, model = batch(prior=2), guess()
    training_loss(model, scheduler(), data, METHOD, BnnConf(), [])[0].backward()
    row = 2 * (model.prediction.detach() - data.noise) / (2 * 18)
    weight = torch.tensor([1.0, 1.0, 0.3, 0.3]).view(-1, 1, 1, 1)
    torch.testing.assert_close(model.prediction.grad, weight * row)


def test_without_a_weight_no_divergence_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("a divergence was computed")

    monkeypatch.setattr(objective, "kl_divergence", forbidden)
    loss, parts = training_loss(guess(), scheduler(), batch(), METHOD, BnnConf(enabled=True, kl_weight=0.0), gaussian_layers())
    plain, _ = training_loss(guess(), scheduler(), batch(), METHOD, BnnConf(), [])
    assert torch.equal(loss, plain)
    assert "kl" not in parts


def test_the_divergence_is_added_by_its_weight() -> None:
    layers = gaussian_layers()
    loss, parts = training_loss(guess(), scheduler(), batch(), METHOD, BnnConf(enabled=True, kl_weight=0.01, prior_sigma=0.05), layers)
    plain, _ = training_loss(guess(), scheduler(), batch(), METHOD, BnnConf(), [])
    kl = kl_divergence(layers, 0.05).item()
    assert parts["kl"] == pytest.approx(kl, rel=1e-6)
    assert loss.item() == pytest.approx(plain.item() + 0.01 * kl, rel=1e-6)
    loss.backward()
    assert layers[0].mean.grad.abs().sum() > 0


def test_a_half_precision_prediction_is_compared_in_single_precision() -> None:
    data, model = batch(), guess().half()
    loss, _ = training_loss(model, scheduler(), data, METHOD, BnnConf(), [])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(((model.prediction.float() - data.noise) ** 2).mean().item(), rel=1e-6)
