"""What one optimisation step sees, as a function of (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from bayesdiff.core.seeds import generator
from bayesdiff.training.objective import Batch, Conditioning


@dataclass(frozen=True)
class Encoded:
    """Latent posteriors of N pictures, (N, C, h, w) each, and one text with its conditioning."""

    mean: torch.Tensor
    std: torch.Tensor
    text: Conditioning
    prompt: str = ""


def to_tensor(images: list[Image.Image]) -> torch.Tensor:
    """RGB images of one size to float (N, 3, H, W) in [-1, 1]."""
    return torch.stack([torch.from_numpy(np.asarray(i, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1 for i in images])


def encode_text(pipe: Any, text: str, resolution: int) -> Conditioning:
    """Conditioning of one prompt, batch size 1, as the pipeline computes it for sampling.

    SDXL adds its pooled text and the sizes of an uncropped square picture.
    """
    found = pipe.encode_prompt(text, device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=False)
    if len(found) == 2:
        return Conditioning(found[0])
    sizes = torch.tensor([[resolution, resolution, 0, 0, resolution, resolution]], dtype=torch.float32, device=pipe.device)
    return Conditioning(found[0], {"text_embeds": found[2], "time_ids": sizes})


@torch.no_grad()
def encode_pictures(pipe: Any, images: list[Image.Image], text: str) -> Encoded:
    """Encode pictures (squares of one size) once; each step then draws from their posteriors."""
    means, stds = [], []
    for image in images:
        posterior = pipe.vae.encode(to_tensor([image]).to(pipe.device)).latent_dist
        means.append(posterior.mean)
        stds.append(posterior.std)
    scale = pipe.vae.config.scaling_factor
    return Encoded(torch.cat(means) * scale, torch.cat(stds) * scale, encode_text(pipe, text, images[0].width), text)


def picture_order(count: int, batch: int, seed: int, stream: str, step: int) -> list[int]:
    """Indices of a step's pictures: shuffled anew each pass, all hit equally often."""
    chosen = []
    for position in range(step * batch, (step + 1) * batch):
        order = torch.randperm(count, generator=generator(seed, stream, position // count))
        chosen.append(int(order[position % count]))
    return chosen


def batch_at(step: int, seed: int, batch_size: int, timesteps: int, instance: Encoded, classes: Encoded | None) -> Batch:
    """The batch of one step: instance rows, then as many class rows with prior preservation.

    Args:
        step: optimisation step (or micro-step, with gradient accumulation), from 0.
        timesteps: length T of the noise schedule; t is uniform in [0, T).
    """
    sources = [("instance", instance)] + ([("class", classes)] if classes is not None else [])
    latents, noises, times = [], [], []
    for name, source in sources:
        rows = picture_order(len(source.mean), batch_size, seed, f"order/{name}", step)
        mean, std, device = source.mean[rows], source.std[rows], source.mean.device
        latents.append(mean + std * torch.randn(mean.shape, generator=generator(seed, f"posterior/{name}", step)).to(device))
        noises.append(torch.randn(mean.shape, generator=generator(seed, f"noise/{name}", step)).to(device))
        times.append(torch.randint(timesteps, (batch_size,), generator=generator(seed, f"timesteps/{name}", step)).to(device))
    text = Conditioning.stack([source.text for _, source in sources], batch_size)
    prior = batch_size if classes is not None else 0
    return Batch(torch.cat(latents), torch.cat(noises), torch.cat(times), text, prior)
