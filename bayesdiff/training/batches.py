"""What one optimisation step sees, as a function of (seed, step)."""

from __future__ import annotations

import torch

from bayesdiff.core.seeds import generator, sent
from bayesdiff.diffusion.batch import Batch, Conditioning, Encoded


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
        device = source.mean.device
        places = sent(torch.tensor(rows), device)
        mean, std = source.mean[places], source.std[places]
        latents.append(mean + std * sent(torch.randn(mean.shape, generator=generator(seed, f"posterior/{name}", step)), device))
        noises.append(sent(torch.randn(mean.shape, generator=generator(seed, f"noise/{name}", step)), device))
        times.append(sent(torch.randint(timesteps, (batch_size,), generator=generator(seed, f"timesteps/{name}", step)), device))
    text = Conditioning.stack([source.text for _, source in sources], batch_size)
    prior = batch_size if classes is not None else 0
    return Batch(torch.cat(latents), torch.cat(noises), torch.cat(times), text, prior)
