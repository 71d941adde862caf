"""The training objective: diffusion loss, prior-preservation loss and KL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from bayesdiff.bayes import BayesianLayer, kl_divergence
from bayesdiff.config import BnnConf, MethodConf


@dataclass(frozen=True)
class Batch:
    """One optimisation step's data; the last ``prior`` rows are class images.

    ``latents`` and ``noise`` (B, C, H, W), ``timesteps`` (B,) in [0, T), ``text_states`` (B, L, D).
    """

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    text_states: torch.Tensor
    prior: int = 0


def prediction_target(scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """What the U-Net predicts: the noise, or the velocity (progressive distillation, eq. 13)."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    raise ValueError(f"prediction_type {kind!r} is not supported")


def training_loss(
    unet: torch.nn.Module, scheduler: Any, batch: Batch, method: MethodConf, bnn: BnnConf, layers: list[BayesianLayer]
) -> tuple[torch.Tensor, dict[str, float]]:
    """Total loss and its parts.

    loss = MSE(instance) + prior_loss_weight · MSE(class) + kl_weight · KL(q || prior), each MSE a
    mean over its rows (code of record: ``train_dreambooth_bayes.py``; paper eq. 3). With
    ``kl_weight`` 0 no KL graph is built.
    """
    noisy = scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
    prediction = unet(noisy, batch.timesteps, encoder_hidden_states=batch.text_states).sample
    target = prediction_target(scheduler, batch.latents, batch.noise, batch.timesteps)
    error = F.mse_loss(prediction.float(), target.float(), reduction="none").mean((1, 2, 3))
    count = len(error) - batch.prior
    loss = error[:count].mean()
    parts = {"loss_instance": loss.detach()}
    if batch.prior:
        prior = error[count:].mean()
        loss, parts["loss_prior"] = loss + method.prior_loss_weight * prior, prior.detach()
    if layers and bnn.kl_weight > 0:
        kl = kl_divergence(layers, bnn.prior_sigma)
        loss, parts["kl"] = loss + bnn.kl_weight * kl, kl.detach()
    return loss, {"loss": float(loss.detach()), **{name: float(value) for name, value in parts.items()}}
