"""Control: dropout in the U-Net while it is trained; its layers are silent in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from bayesdiff.arms.protocol import Arm, Site
from bayesdiff.core.seeds import derive


def set_dropout(unet: nn.Module, rate: float) -> int:
    """Give every dropout layer of the U-Net a rate; returns how many there are."""
    layers = [module for module in unet.modules() if isinstance(module, nn.Dropout)]
    for layer in layers:
        layer.p = rate
    return len(layers)


class Dropout(Arm):
    NOISE_ON_DEVICE = True

    def __init__(self, site: Site):
        super().__init__(site)
        set_dropout(site.unet, site.conf.dropout)

    @contextmanager
    def forward(self, micro: int) -> Iterator[None]:
        """Masks are a function of (seed, micro): they come from the global generator, which is put back after."""
        with torch.random.fork_rng():
            torch.manual_seed(derive(self.seed, "dropout", micro))
            yield


def attach(site: Site) -> Arm:
    """Every dropout layer at rate ``bnn.dropout``."""
    return Dropout(site)
