"""What the U-Net is given: conditioning of a text, encoded pictures, and the batch of one step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from bayesdiff.diffusion.latents import encode_latents


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


def encode_unconditional(pipe: Any, resolution: int) -> Conditioning:
    """What guidance starts from, batch size 1: the empty prompt, or zeros where the pipeline takes these for it, as SDXL's does."""
    empty = encode_text(pipe, "", resolution)
    if not pipe.config.get("force_zeros_for_empty_prompt"):
        return empty
    zeros = {key: torch.zeros_like(value) if key == "text_embeds" else value for key, value in empty.added.items()}
    return Conditioning(torch.zeros_like(empty.states), zeros)


@torch.no_grad()
def encode_pictures(pipe: Any, images: list[Image.Image], text: str) -> Encoded:
    """Encode pictures (squares of one size) once; each step then draws from their posteriors."""
    means, stds = [], []
    for image in images:
        mean, std = encode_latents(pipe, pipe.vae.encode(to_tensor([image]).to(pipe.device)).latent_dist)
        means.append(mean)
        stds.append(std)
    return Encoded(torch.cat(means), torch.cat(stds), encode_text(pipe, text, images[0].width), text)
