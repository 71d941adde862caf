"""The empty prompt in a share of the rows: the unconditional prediction learns the photographs too.

Guidance samples with the difference of the conditional and the unconditional prediction. Fine-tuning on the instance
prompt alone moves the first and leaves the second behind; this arm closes that gap. Pretraining of Stable Diffusion drops
the prompt in 10 % of its rows for the same reason (arXiv 2207.12598). The empty prompt is what guidance starts from: on SDXL
zeros, not the encoding of an empty text.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from bayesdiff.arms.protocol import Arm, Site
from bayesdiff.core.seeds import generator, sent
from bayesdiff.diffusion.batch import Batch, Conditioning


class PromptDropout(Arm):
    def __init__(self, site: Site):
        super().__init__(site)
        self.empty = site.empty_prompt()

    def batch(self, batch: Batch, micro: int) -> Batch:
        """Each row, of the instance and of the class, loses its prompt with probability ``bnn.prompt_dropout``."""
        draw = torch.rand(len(batch.latents), generator=generator(self.seed, "prompt_dropout", micro))
        dropped = sent(draw < self.conf.prompt_dropout, batch.latents.device)
        return replace(batch, text=_without(batch.text, self.empty, dropped))


def _without(text: Conditioning, empty: Conditioning, dropped: torch.Tensor) -> Conditioning:
    """Conditioning (B, …) with the rows of ``dropped`` (B,) replaced by the empty prompt's one row."""

    def chosen(rows: torch.Tensor, nothing: torch.Tensor) -> torch.Tensor:
        return torch.where(dropped.view(-1, *[1] * (rows.ndim - 1)), nothing.to(rows), rows)

    added = {key: chosen(rows, empty.added[key]) for key, rows in text.added.items()}
    return Conditioning(chosen(text.states, empty.states), added)


def attach(site: Site) -> Arm:
    """The empty prompt in a share ``bnn.prompt_dropout`` of the rows."""
    return PromptDropout(site)
