"""Control: an exponential moving average of the trained weights is sampled and kept; training goes on from the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

from bayesdiff.arms.protocol import Arm, Site


class WeightAverage:
    """Exponential moving average of weights.

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
        torch._foreach_lerp_(self.average, list(self.trained), 1 - decay)  # one launch for many tensors on a GPU

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

    def state(self) -> dict[str, torch.Tensor]:
        """The average by number of parameter; each has any shape (…), its parameter's."""
        return {f"{index:06d}": value for index, value in enumerate(self.average)}

    @torch.no_grad()
    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what ``state`` gave, tensors of any shapes (…)."""
        for name, average in zip(sorted(state), self.average, strict=True):
            average.copy_(state[name])


class Ema(Arm):
    SHOWS_OTHER_WEIGHTS = True

    def __init__(self, site: Site):
        super().__init__(site)
        self.average = WeightAverage(site.trained, site.conf.ema_decay)

    def after_step(self, step: int) -> None:
        self.average.update(step)

    def shown(self) -> AbstractContextManager[None]:
        return self.average.shown()

    def state(self) -> dict[str, torch.Tensor]:
        return self.average.state()

    def load(self, kept: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> None:
        self.average.load(state)


def attach(site: Site) -> Arm:
    """The averaged weights as an arm."""
    return Ema(site)
