"""The paper's Figures 3 to 5: what one denoising step makes of inputs that are no noisy photograph. Cheap, and without sampling.

The paper (arXiv 2405.19931, section 3) takes P(x0) ~ N(x', s²) with the training latents x'. Then x̂0 = x' + c (x_t - √ā x') with
c = √ā s² / (ā s² + 1 - ā). Figure 3 shows x̂0 of x_t = k x'; Figure 4 reads s off x_t ~ N(0, 1 - ā); Figure 5 adds noise to a patch.

The paper prints 2.65 for c² at t = 100 after 1,000 iterations (s about 4.8). Its own formula cannot give that: c² is at most 1 / ā,
which is 1.118 on Stable Diffusion's schedule (ā = .894), and 1.107 at s = 4.8. The model fails to remove noise there; it does not grow it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bayesdiff.core.seeds import generator
from bayesdiff.diffusion.batch import Conditioning
from bayesdiff.training.probes import clean_of, predict

FACTORS = (0.0, 0.5, 1.0, 1.5)
"""k of x_t = k x'."""
EARLY = 0.1
"""Timestep of Figures 3 and 5, as a share of the schedule's length: t = 100 of 1,000."""
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Timesteps that sigma_1 is averaged over."""
PATCH = 1.0
"""Standard deviation of the extra noise of Figure 5, in units of the training latents' own."""


def coefficient(alpha: float, s: float) -> float:
    """The paper's c at the cumulative product ``alpha`` in (0, 1], for a deviation ``s`` of the fine-tuned distribution."""
    return float(np.sqrt(alpha) * s**2 / (alpha * s**2 + 1 - alpha))


def sigma_of(slope: float, alpha: float) -> float:
    """The s whose coefficient is ``slope``: 0 for a slope of 0 or less, infinite from 1 / √alpha on."""
    rest = 1 - np.sqrt(alpha) * slope
    if slope <= 0 or rest <= 0:
        return 0.0 if slope <= 0 else float("inf")
    return float(np.sqrt(slope * (1 - alpha) / (np.sqrt(alpha) * rest)))


@torch.no_grad()
def one_step(unet: torch.nn.Module, scheduler: Any, latents: torch.Tensor, text: Conditioning, seed: int) -> dict[str, float]:
    """The numbers of Figures 3 to 5 for one model.

    Args:
        latents: (1, C, h, w) of the training image, scaled as the U-Net sees them.
        seed: of the fixed noise.

    Returns:
        ``error_k``: mean squared distance of x̂0 from x' at x_t = k x', over the mean square of x'; ``patch_gain``: share of the energy
        of extra noise in a patch that is left in x̂0; ``sigma_1`` (the mean over timesteps); ``g_t`` at every timestep.
    """
    length = scheduler.config.num_train_timesteps
    early = int(EARLY * length)
    scale = latents.square().mean()
    row = {f"error_{k:g}": _error(unet, scheduler, latents, k, early, text, scale) for k in FACTORS}
    row["patch_gain"] = _patch_gain(unet, scheduler, latents, text, early, seed)
    slopes = {int(share * length): _slope_on_noise(unet, scheduler, latents, text, int(share * length), seed) for share in SHARES}
    row |= {f"g_{timestep}": slope for timestep, slope in slopes.items()}
    return {**row, "sigma_1": float(np.mean([sigma_of(slope, float(scheduler.alphas_cumprod[t])) for t, slope in slopes.items()]))}


def _denoised(unet: torch.nn.Module, scheduler: Any, noisy: torch.Tensor, timestep: int, text: Conditioning) -> torch.Tensor:
    times = torch.full((len(noisy),), timestep, device=noisy.device)
    predicted = predict(unet, noisy, times, Conditioning.stack([text], len(noisy)))
    return clean_of(scheduler, predicted, noisy, scheduler.alphas_cumprod[timestep].to(noisy))


def _error(
    unet: torch.nn.Module, scheduler: Any, latents: torch.Tensor, k: float, timestep: int, text: Conditioning, scale: torch.Tensor
) -> float:
    clean = _denoised(unet, scheduler, k * latents, timestep, text)
    return float((clean - latents).square().mean() / scale)


def _patch_gain(unet: torch.nn.Module, scheduler: Any, latents: torch.Tensor, text: Conditioning, timestep: int, seed: int) -> float:
    """Energy of the change of x̂0 in the middle quarter, over the energy of the noise that was added there."""
    noise = torch.randn(latents.shape, generator=generator(seed, "one_step/noise", timestep)).to(latents)
    noisy = scheduler.add_noise(latents, noise, torch.full((1,), timestep, device=latents.device))
    height, width = latents.shape[-2:]
    inside = torch.zeros_like(latents)
    inside[..., height // 4 : -(height // 4), width // 4 : -(width // 4)] = 1
    extra = PATCH * latents.std() * torch.randn(latents.shape, generator=generator(seed, "one_step/patch", timestep)).to(latents) * inside
    change = _denoised(unet, scheduler, noisy + extra, timestep, text) - _denoised(unet, scheduler, noisy, timestep, text)
    return float((change * inside).square().sum() / extra.square().sum())


def _slope_on_noise(unet: torch.nn.Module, scheduler: Any, latents: torch.Tensor, text: Conditioning, timestep: int, seed: int) -> float:
    """Slope of x̂0 - x' on x_t - √ā x' for x_t ~ N(0, 1 - ā), without a signal of the photograph."""
    alpha = scheduler.alphas_cumprod[timestep].to(latents)
    noise = torch.randn(latents.shape, generator=generator(seed, "one_step/slope", timestep)).to(latents)
    noisy = (1 - alpha).sqrt() * noise
    off = noisy - alpha.sqrt() * latents
    return float(((_denoised(unet, scheduler, noisy, timestep, text) - latents) * off).sum() / off.square().sum())
