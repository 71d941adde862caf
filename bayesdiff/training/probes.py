"""What a checkpoint's model makes of its training image, on fixed noise: cheap, and without sampling.

At timestep t the training latents x′ are noised with fixed eps, x_t = √ā x′ + √(1 - ā) eps, and read with the instance
prompt (c) and the empty prompt (u; on SDXL zeros, which its guidance takes for it):

* ``loss``, ``loss_empty``: mean squared error of the prediction; ``loss_ratio``: of c, over the pretrained model's
  (the overfitting indicator of APT, arXiv 2507.02687);
* ``gap``: mean squared difference of the two predictions, which guidance multiplies;
* ``g``: slope of (x̂0 - x′) on (x_t - √ā x′), the paper's delta coefficient (its section 3): 0 where the model returns x′
  whatever the noise, larger where noise passes into the image;
* ``rho``, ``rho_empty``: how much of a small white error d in the image passes, the slope of x̂0(x_t + √ā d) - x̂0(x_t) on d:
  0 where the prediction has collapsed onto x′, 1 where it keeps what it is shown.
"""

from __future__ import annotations

from typing import Any

import torch

from bayesdiff.core.seeds import generator
from bayesdiff.diffusion.batch import Conditioning
from bayesdiff.training.objective import prediction_target

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Timesteps that are probed, as shares of the schedule's length."""
DRAWS = 2
"""Draws of noise a timestep."""
ERROR = 0.1
"""Standard deviation of the small error, in units of the training latents' own."""
COLUMNS = ("timestep", "loss", "loss_empty", "gap", "g", "rho", "rho_empty")


@torch.no_grad()
def probe(
    unet: torch.nn.Module, scheduler: Any, latents: torch.Tensor, text: Conditioning, empty: Conditioning, seed: int
) -> list[dict[str, float]]:
    """One row a timestep, with ``COLUMNS``; each a mean over ``DRAWS`` draws and over the latents' elements.

    Args:
        latents: (1, C, h, w) of the training image, scaled as the U-Net sees them.
        seed: of the fixed noise: the same at every checkpoint.
    """
    length = scheduler.config.num_train_timesteps
    return [_probe_at(unet, scheduler, latents, text, empty, seed, int(share * length)) for share in SHARES]


def _probe_at(
    unet: torch.nn.Module, scheduler: Any, latents: torch.Tensor, text: Conditioning, empty: Conditioning, seed: int, timestep: int
) -> dict[str, float]:
    clean, times = latents.expand(DRAWS, -1, -1, -1), torch.full((DRAWS,), timestep, device=latents.device)
    noise, white = (_draw(clean, seed, f"probes/{name}", timestep) for name in ("noise", "error"))
    error = ERROR * latents.std() * white
    noisy, shifted = (scheduler.add_noise(image, noise, times) for image in (clean, clean + error))
    alpha = scheduler.alphas_cumprod[timestep].to(latents)
    target = prediction_target(scheduler, clean, noise, times)
    predicted = predict(unet, torch.cat([noisy, shifted] * 2), times.repeat(4), Conditioning.stack([text, empty], 2 * DRAWS))
    seen, moved, seen_empty, moved_empty = predicted.chunk(4)
    row: dict[str, float] = {"timestep": float(timestep)}
    for suffix, at, beside in (("", seen, moved), ("_empty", seen_empty, moved_empty)):
        before, after = (clean_of(scheduler, p, image, alpha) for p, image in ((at, noisy), (beside, shifted)))
        row[f"loss{suffix}"] = float((at - target).square().mean())
        row[f"rho{suffix}"] = _slope(after - before, error)
        if not suffix:
            row["g"] = _slope(before - clean, noisy - alpha.sqrt() * clean)
    return {**row, "gap": float((seen - seen_empty).square().mean())}


def _draw(like: torch.Tensor, seed: int, stream: str, timestep: int) -> torch.Tensor:
    return torch.randn(like.shape, generator=generator(seed, stream, timestep)).to(like)


def predict(unet: torch.nn.Module, noisy: torch.Tensor, times: torch.Tensor, text: Conditioning) -> torch.Tensor:
    """The predictions, noise or velocity, (B, C, h, w) in float32, of all rows in one forward pass: a GPU's cost is launches."""
    added = {"added_cond_kwargs": text.added} if text.added else {}
    predicted: torch.Tensor = unet(noisy, times, encoder_hidden_states=text.states, **added).sample
    return predicted.float()


def clean_of(scheduler: Any, prediction: torch.Tensor, noisy: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """x̂0 (B, C, h, w) of a predicted noise or velocity, with ``alpha`` () the cumulative product ā of the timestep."""
    signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
    if scheduler.config.prediction_type == "v_prediction":
        return signal * noisy - sigma * prediction
    return (noisy - sigma * prediction) / signal


def _slope(of: torch.Tensor, on: torch.Tensor) -> float:
    return float((of * on).sum() / on.square().sum())
