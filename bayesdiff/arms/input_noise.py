"""Control: noise on the clean latents of every step, augmentation in latent space instead of weight space."""

from __future__ import annotations

from dataclasses import replace

import torch

from bayesdiff.arms.protocol import Arm, Site
from bayesdiff.core.seeds import generator, sent
from bayesdiff.diffusion.batch import Batch


class InputNoise(Arm):
    def batch(self, batch: Batch, micro: int) -> Batch:
        draw = sent(torch.randn(batch.latents.shape, generator=generator(self.seed, "input_noise", micro)), batch.latents.device)
        return replace(batch, latents=batch.latents + self.conf.input_noise * draw)


def attach(site: Site) -> Arm:
    """Latents with ``bnn.input_noise`` added, a new draw a micro-batch."""
    return InputNoise(site)
