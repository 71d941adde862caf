"""The training objective: diffusion loss, prior-preservation loss, and what an arm adds to it."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from bayesdiff.diffusion.batch import Batch


def prediction_target(scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """What the U-Net predicts, (B, C, H, W): the noise, or the velocity (progressive distillation, eq. 13)."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        velocity: torch.Tensor = scheduler.get_velocity(latents, noise, timesteps)
        return velocity
    raise ValueError(f"prediction_type {kind!r} is not supported")


def signal_to_noise(scheduler: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """SNR of every timestep, (T,), and what a squared image error counts in the prediction's own: SNR, for a velocity SNR + 1."""
    alphas = scheduler.alphas_cumprod
    snr = alphas / (1 - alphas)
    return snr, snr + 1 if scheduler.config.prediction_type == "v_prediction" else snr


def min_snr_weight(scheduler: Any, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Loss weight (B,) of min-SNR (arXiv 2303.09556): min(SNR, gamma) / SNR, over SNR + 1 for a velocity."""
    snr, own = signal_to_noise(scheduler)
    return (snr.clamp(max=gamma) / own).to(timesteps.device)[timesteps]


def diffusion_errors(unet: torch.nn.Module, scheduler: Any, batch: Batch, gamma: float | None) -> torch.Tensor:
    """Squared error of every row (B,), a mean over channels and pixels, in float32."""
    noisy = scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
    added = {"added_cond_kwargs": batch.text.added} if batch.text.added else {}
    prediction = unet(noisy, batch.timesteps, encoder_hidden_states=batch.text.states, **added).sample
    target = prediction_target(scheduler, batch.latents, batch.noise, batch.timesteps)
    error = F.mse_loss(prediction.float(), target.float(), reduction="none").mean((1, 2, 3))
    return error if gamma is None else error * min_snr_weight(scheduler, batch.timesteps, gamma)


def training_loss(
    unet: torch.nn.Module, scheduler: Any, batch: Batch, penalty: dict[str, tuple[float, torch.Tensor]],
    *, prior_loss_weight: float = 1.0, min_snr_gamma: float | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:  # fmt: skip
    """Total loss () and its parts, detached.

    loss = MSE(instance) + prior_loss_weight · MSE(class) + Σ weight · penalty, each MSE a mean over its
    rows (code of record: ``train_dreambooth_bayes.py``; paper eq. 3, where the penalty is the KL).

    Args:
        batch: B rows, the last ``batch.prior`` of them class images.
        penalty: what an arm adds, by name: weight and value.
    """
    error = diffusion_errors(unet, scheduler, batch, min_snr_gamma)
    count = len(error) - batch.prior
    loss = error[:count].mean()
    parts = {"loss_instance": loss.detach()}
    if batch.prior:
        of_class = error[count:].mean()
        loss, parts["loss_prior"] = loss + prior_loss_weight * of_class, of_class.detach()
    for name, (weight, value) in penalty.items():
        loss, parts[name] = loss + weight * value, value.detach()
    return loss, {"loss": loss.detach(), **parts}
