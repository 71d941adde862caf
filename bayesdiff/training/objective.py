"""The training objective: diffusion loss, prior-preservation loss, and what an arm adds to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional as F

from bayesdiff.arms.gaussian import BayesianLayer, kl_divergence
from bayesdiff.config.schema import Config


@dataclass(frozen=True)
class Conditioning:
    """What the U-Net knows of a text: hidden states (B, L, D), and SDXL's added conditions, (B, …) each."""

    states: torch.Tensor
    added: dict[str, torch.Tensor] = field(default_factory=dict)

    @staticmethod
    def stack(texts: list[Conditioning], repeats: int) -> Conditioning:
        """Each text's one row ``repeats`` times, one text after the other."""
        states = torch.cat([text.states.expand(repeats, -1, -1) for text in texts])
        added = {key: torch.cat([text.added[key].expand(repeats, -1) for text in texts]) for key in texts[0].added}
        return Conditioning(states, added)


@dataclass(frozen=True)
class Batch:
    """One optimisation step's data; the last ``prior`` rows are class images.

    ``latents`` and ``noise`` (B, C, H, W), ``timesteps`` (B,) in [0, T).
    """

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    text: Conditioning
    prior: int = 0


def prediction_target(scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """What the U-Net predicts: the noise, or the velocity (progressive distillation, eq. 13)."""
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
    unet: torch.nn.Module, scheduler: Any, batch: Batch, cfg: Config, layers: list[BayesianLayer]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Total loss and its parts, detached.

    loss = MSE(instance) + prior_loss_weight · MSE(class) + kl_weight · KL, each MSE a mean over its
    rows (code of record: ``train_dreambooth_bayes.py``; paper eq. 3). With ``kl_weight`` 0 no KL graph
    is built.
    """
    error = diffusion_errors(unet, scheduler, batch, cfg.training.min_snr_gamma)
    count = len(error) - batch.prior
    loss = error[:count].mean()
    parts = {"loss_instance": loss.detach()}
    if batch.prior:
        prior = error[count:].mean()
        loss, parts["loss_prior"] = loss + cfg.method.prior_loss_weight * prior, prior.detach()
    if layers and cfg.bnn.kl_weight > 0:
        kl = kl_divergence(layers, cfg.bnn)
        loss, parts["kl"] = loss + cfg.bnn.kl_weight * kl, kl.detach()
    return loss, {"loss": loss.detach(), **parts}
