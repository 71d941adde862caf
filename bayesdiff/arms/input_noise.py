"""Control: noise on the clean latents of every step, augmentation in latent space instead of weight space."""

from __future__ import annotations

from dataclasses import replace

import torch

from bayesdiff.arms.protocol import Arm, Site
from bayesdiff.core.seeds import generator
from bayesdiff.diffusion.batch import Batch


class InputNoise(Arm):
    def batch(self, batch: Batch, micro: int) -> Batch:
        draw = torch.randn(batch.latents.shape, generator=generator(self.seed, "input_noise", micro)).to(batch.latents)
        return replace(batch, latents=batch.latents + self.conf.input_noise * draw)


def attach(site: Site) -> Arm:
    """Latents with ``bnn.input_noise`` added, a new draw a micro-batch."""
    return InputNoise(site)
