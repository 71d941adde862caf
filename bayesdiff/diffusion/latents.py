"""Pictures' latents in the units that the U-Net is trained on, exactly as the stock pipeline undoes them when it decodes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def refused_autoencoder(pipe: Any) -> str:
    """Why a pipeline's autoencoder is not supported; empty where it is.

    Supported is what the stock pipeline undoes when it decodes: ``scaling_factor``, and for SDXL ``latents_mean`` with
    ``latents_std``, one number a channel.
    """
    kind, config, owner = type(pipe.vae).__name__, pipe.vae.config, type(pipe).__name__
    if kind != "AutoencoderKL":
        return f"its autoencoder is a {kind}; this suite needs an AutoencoderKL"
    if not _is_positive(config.get("scaling_factor")):
        return f"its autoencoder has scaling_factor={config.get('scaling_factor')}"
    if config.get("shift_factor"):
        return f"its autoencoder has shift_factor={config['shift_factor']}, which {owner} does not undo when it decodes"
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is None and std is None:
        return ""
    if owner != "StableDiffusionXLPipeline":
        return f"its autoencoder has latents_mean or latents_std, which {owner} does not undo when it decodes"
    if mean is None or std is None:
        return "its autoencoder has one of latents_mean and latents_std without the other"
    whole = all(isinstance(one, list | tuple) and len(one) == config["latent_channels"] for one in (mean, std))
    if not whole or not all(map(_is_finite, mean)) or not all(map(_is_positive, std)):
        return f"its autoencoder's latents_mean and latents_std are not {config['latent_channels']} numbers each, the second greater than 0"
    return ""


def _is_finite(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)


def _is_positive(number: object) -> bool:
    return _is_finite(number) and number > 0  # type: ignore[operator]


def encode_latents(pipe: Any, posterior: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of a VAE posterior (``vae.encode(pixels).latent_dist``) in the U-Net's units.

    With z the VAE's own latents: (z - latents_mean) · scaling_factor / latents_std, where the autoencoder has them, else
    z · scaling_factor. The stock pipeline decodes by the inverse.

    Returns:
        Two tensors (N, C, h, w).
    """
    import torch

    config = pipe.vae.config
    if config.get("latents_mean") is None:
        return posterior.mean * config.scaling_factor, posterior.std * config.scaling_factor
    mean, std = (torch.tensor(config[key]).view(1, -1, 1, 1).to(posterior.mean) for key in ("latents_mean", "latents_std"))
    return (posterior.mean - mean) * config.scaling_factor / std, posterior.std * config.scaling_factor / std
