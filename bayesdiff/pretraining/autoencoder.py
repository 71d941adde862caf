"""Pretrain the toybox's autoencoder: 64×64×3 images to whitened 32×32×4 latents and back.

Command:  python -m bayesdiff.pretraining.autoencoder
Cost:     about 17 minutes on 2 CPU cores
Expected: PSNR above 28 dB on held-out renders, high-frequency energy kept above 0.8, latents of
          zero mean and unit variance per channel, posterior standard deviation below 0.02
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from bayesdiff.pretraining.dataset import WorldData, render_world
from bayesdiff.pretraining.recipe import WORK, Recipe, fit, work_folder
from bayesdiff.toybox.weights import save_component

TRAIN_IMAGES = 40_000
CROP, BATCH = 32, 32
KL_WEIGHT = 1e-8
"""So small that the posterior is almost a point: the decoder then hides no noise, and corruption
of the latents is visible in the samples."""
TEXTURE_WEIGHT = 0.5
RECIPE = Recipe(steps=4_000, learning_rate=1.5e-3, ema=0.995)


def build() -> AutoencoderKL:
    """Factor 2 in space, 4 latent channels, no attention: 0.6 M weights."""
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, sample_size=64, scaling_factor=1.0,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8, mid_block_add_attention=False,
    )  # fmt: skip


def gradient_l1(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """L1 distance of the horizontal and vertical differences of two batches (B, C, H, W); a scalar ()."""
    difference = a - b
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()


def texture(pixels: torch.Tensor) -> torch.Tensor:
    """Mean absolute Laplacian of every image of a batch (B, C, H, W): (B,)."""
    inner = pixels[..., 1:-1, 1:-1]
    around = pixels[..., :-2, 1:-1] + pixels[..., 2:, 1:-1] + pixels[..., 1:-1, :-2] + pixels[..., 1:-1, 2:]
    return (4 * inner - around).abs().mean((1, 2, 3))


def reconstruction_loss(vae: AutoencoderKL, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """L1 + gradient L1 + lost texture + KL on (B, 3, H, W) pixels in [-1, 1].

    L1 alone prefers the median of a grain it cannot carry, which is none; the third term keeps its amount.
    """
    posterior = vae.encode(pixels).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator)
    decoded = vae.decode(posterior.mean + posterior.std * noise).sample
    kl = posterior.kl().mean()
    lost = (texture(decoded) - texture(pixels)).abs().mean()
    loss: torch.Tensor = F.l1_loss(decoded, pixels) + gradient_l1(decoded, pixels) + TEXTURE_WEIGHT * lost + KL_WEIGHT * kl
    return loss


def crops(data: WorldData, generator: torch.Generator) -> torch.Tensor:
    """A batch of random squares, (BATCH, 3, CROP, CROP) in [-1, 1]."""
    pixels = data.batch(torch.randint(len(data.captions), (BATCH,), generator=generator))
    y, x = torch.randint(pixels.shape[-1] - CROP + 1, (2,), generator=generator).tolist()
    return pixels[..., y : y + CROP, x : x + CROP]


@torch.no_grad()
def encode_means(vae: AutoencoderKL, data: WorldData, count: int) -> torch.Tensor:
    """Posterior means of the first ``count`` images, on the autoencoder's device: (count, 4, 32, 32) float32."""
    batches = (data.batch(list(range(i, min(i + 250, count)))).to(vae.device) for i in range(0, count, 250))
    chunks = [vae.encode(batch).latent_dist.mean for batch in batches]
    return torch.cat(chunks)


@torch.no_grad()
def whiten(vae: AutoencoderKL, latents: torch.Tensor) -> None:
    """Fold zero mean and unit variance per channel of latents (B, C, H, W) into the quant convolutions, in place.

    Encoder and decoder as a whole are unchanged; ``scaling_factor`` can stay 1.
    """
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = mean.numel()
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:channels] /= std[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.bias[channels:] -= 2 * std.log()
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= std[None, :, None, None]


def main(work: Path = WORK) -> None:
    data = render_world(work, TRAIN_IMAGES)
    torch.manual_seed(0)
    vae = build().train()
    average = fit("vae", vae, lambda g: reconstruction_loss(vae, crops(data, g), g), RECIPE, work)
    whiten(average, encode_means(average, data, 2_000))
    save_component("vae", average)


if __name__ == "__main__":
    main(work_folder(__doc__))
