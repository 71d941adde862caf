"""Control: a tether, the summed squared distance from the first weights is added to the loss."""

from __future__ import annotations

import torch
from torch import nn

from bayesdiff.arms.protocol import Arm, Site


def squared_distance(trained: list[nn.Parameter], first: list[torch.Tensor]) -> torch.Tensor:
    """Sum of squared differences between the trained weights and the first ones, a scalar ()."""
    total = torch.zeros((), device=trained[0].device)
    for parameter, start in zip(trained, first, strict=True):
        total = total + (parameter - start).square().sum()
    return total


class L2ToPretrained(Arm):
    def __init__(self, site: Site):
        super().__init__(site)
        self.first = [p.detach().clone() for p in site.trained]

    def penalty(self) -> dict[str, tuple[float, torch.Tensor]]:
        return {"l2": (self.conf.l2_weight, squared_distance(self.site.trained, self.first))}


def attach(site: Site) -> Arm:
    """The tether of weight ``bnn.l2_weight``."""
    return L2ToPretrained(site)
