"""Simpler things that a Bayesian arm has to beat: weight averaging, input noise, dropout, a tether.

Each is an option of the ``bnn`` group, so that one sweep compares them. ``weight_noise`` is the
Gaussian arm with a fixed sigma (see ``bayes``), ``lr_decay`` a schedule (see ``optimizer``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from bayesdiff.config.schema import Arm, BnnConf
from bayesdiff.core.seeds import derive, generator
from bayesdiff.training.objective import Batch


class WeightAverage:
    """Exponential moving average of the trained weights (control ``ema``).

    The decay grows as (1 + step) / (10 + step) up to its value, so that the first average is not the
    pretrained model for ever.
    """

    def __init__(self, trained: list[nn.Parameter], decay: float):
        self.trained, self.decay = trained, decay
        self.average = [p.detach().clone() for p in trained]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimisation step ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for average, parameter in zip(self.average, self.trained, strict=True):
            average.lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def _swap(self) -> None:
        for average, parameter in zip(self.average, self.trained, strict=True):
            held = average.clone()
            average.copy_(parameter)
            parameter.copy_(held)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Within the block the model has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()


def with_input_noise(batch: Batch, conf: BnnConf, seed: int, step: int) -> Batch:
    """The batch with ``input_noise`` added to its clean latents: augmentation in latent space, a new draw a step."""
    draw = torch.randn(batch.latents.shape, generator=generator(seed, "input_noise", step)).to(batch.latents)
    return replace(batch, latents=batch.latents + conf.input_noise * draw)


def set_dropout(unet: nn.Module, rate: float) -> int:
    """Give every dropout layer of the U-Net a rate; returns how many there are. Silent in evaluation mode."""
    layers = [module for module in unet.modules() if isinstance(module, nn.Dropout)]
    for layer in layers:
        layer.p = rate
    return len(layers)


@contextmanager
def seeded_dropout(conf: BnnConf, seed: int, step: int) -> Iterator[None]:
    """Dropout masks as a function of (seed, step): they come from the global generator, which is put back after."""
    if conf.kind is not Arm.dropout:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, "dropout", step))
        yield


def squared_distance(trained: list[nn.Parameter], first: list[torch.Tensor]) -> torch.Tensor:
    """Sum of squared differences between the trained weights and the first ones (control ``l2_to_pretrained``)."""
    total = torch.zeros((), device=trained[0].device)
    for parameter, start in zip(trained, first, strict=True):
        total = total + (parameter - start).square().sum()
    return total
