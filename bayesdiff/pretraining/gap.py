"""How much the text changes the prediction: the gap of conditional and unconditional noise.

Command:  python -m bayesdiff.pretraining.gap [MODEL ...] [--images 64] [--output FILE.json]
Cost:     half a minute on 1 CPU core for the toybox

The gap at timestep t is the mean squared difference of the noise predicted with a caption and with the
empty prompt, on noisy latents of held-out pictures. Three sorts of captions are measured: ``caption`` (one
of the ways to say it), ``full`` (always both colours, pattern and context) and ``other`` (the full caption of
another picture). For a perfect model the gap with the true caption is the excess of the unconditional loss, and its
integral over the signal-to-noise ratio is at most twice the caption's information (Guo, Shamai and Verdú,
IEEE Trans. Inf. Theory 51(4), 2005), so a gap far above that shows an unconditional branch that lags behind.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bayesdiff.core.files import write_text
from bayesdiff.pretraining.dataset import HELD_OUT_SEED, to_pixels
from bayesdiff.toybox.world import describe, sample

TIMESTEPS = (100, 300, 500, 700, 900)
FIRST = 20_000
"""Number of the first held-out picture, apart from those of ``check``."""


@dataclass(frozen=True)
class Gap:
    """Mean over pictures, channels and pixels at one timestep; losses are of the predicted noise."""

    timestep: int
    captions: str
    conditional_loss: float
    unconditional_loss: float
    gap: float


def held_out(count: int) -> tuple[np.ndarray, dict[str, list[str]]]:
    """Pictures (count, 64, 64, 3) uint8 and their captions of every sort."""
    pairs = [sample(HELD_OUT_SEED, FIRST + i) for i in range(count)]
    full = [describe(HELD_OUT_SEED, FIRST + i) for i in range(count)]
    captions = {"caption": [text for _, text in pairs], "full": full, "other": full[1:] + full[:1]}
    return np.stack([image for image, _ in pairs]), captions


def noise_of(scheduler: Any, output: torch.Tensor, noisy: torch.Tensor, timestep: int) -> torch.Tensor:
    """The noise in a U-Net's output, both (B, C, H, W), whether it predicts noise or velocity."""
    if scheduler.config.prediction_type == "epsilon":
        return output.float()
    alpha = scheduler.alphas_cumprod[timestep]
    noise: torch.Tensor = (alpha.sqrt() * output + (1 - alpha).sqrt() * noisy).float()
    return noise


@torch.no_grad()
def text_gaps(
    unet: torch.nn.Module, scheduler: Any, latents: torch.Tensor, states: dict[str, torch.Tensor], empty: torch.Tensor
) -> list[Gap]:
    """Gaps at ``TIMESTEPS``, with the same noise for every sort of captions.

    Args:
        latents: (N, C, H, W).
        states: hidden states (N, L, D) for every sort of captions.
        empty: hidden states (1, L, D) of the empty prompt.
    """
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(latents.device)
    gaps = []
    for t in TIMESTEPS:
        at = torch.full((len(latents),), t, device=latents.device)
        noisy = scheduler.add_noise(latents, noise, at)

        def predict(hidden: torch.Tensor, noisy: torch.Tensor = noisy, at: torch.Tensor = at, t: int = t) -> torch.Tensor:
            return noise_of(scheduler, unet(noisy, at, encoder_hidden_states=hidden).sample, noisy, t)

        without = predict(empty.expand(len(latents), -1, -1))
        for sort, hidden in states.items():
            given = predict(hidden)
            with_text, alone, between = (float((a - b).square().mean()) for a, b in ((given, noise), (without, noise), (given, without)))
            gaps.append(Gap(t, sort, with_text, alone, between))
    return gaps


@torch.no_grad()
def pipeline_gaps(pipe: Any, count: int = 64) -> list[Gap]:
    """Gaps of a loaded pipeline on ``count`` held-out pictures of the world."""
    images, captions = held_out(count)
    latents = pipe.vae.encode(to_pixels(images).to(pipe.device)).latent_dist.mean * pipe.vae.config.scaling_factor

    def states(texts: list[str]) -> torch.Tensor:
        encoded: torch.Tensor = pipe.encode_prompt(texts, pipe.device, 1, False)[0]
        return encoded

    return text_gaps(pipe.unet, pipe.scheduler, latents, {sort: states(texts) for sort, texts in captions.items()}, states([""]))


def main() -> None:
    from bayesdiff.config.schema import ModelConf
    from bayesdiff.diffusion.pipeline import load_pipeline

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["toybox"], help="pipeline folders; 'toybox' is the shipped one")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    found = {}
    for model in args.models:
        pipe = load_pipeline(ModelConf(name="toybox", path=model, resolution=64), torch.device("cpu"))
        found[model] = [asdict(gap) for gap in pipeline_gaps(pipe, args.images)]
        print(f"{model}\n    t captions  conditional  unconditional      gap")
        for row in found[model]:
            print("{timestep:5} {captions:8} {conditional_loss:12.5f} {unconditional_loss:14.5f} {gap:8.5f}".format(**row))
    if args.output:
        write_text(args.output, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
