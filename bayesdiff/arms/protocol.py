"""What an arm is: a few hooks into training, each of which does nothing unless an arm overrides it.

The loop calls the hooks and names no arm. A module offers ``attach(site)``, which returns an ``Arm``; shipped
arms are in this room, one of your own is a dotted name (docs/extending.md).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from bayesdiff.config.schema import BnnConf, LrSchedule

if TYPE_CHECKING:
    from bayesdiff.arms.gaussian import BayesianLayer
    from bayesdiff.diffusion.batch import Batch, Conditioning


@dataclass(frozen=True)
class Site:
    """What an arm may read and change before the first step."""

    unet: nn.Module
    trained: list[nn.Parameter]
    """The weights that the method trains, in module order."""
    conf: BnnConf
    seed: int
    targets: Callable[[], list[str]]
    """Modules of the U-Net that the method would make Gaussian, by ``bnn.layers``."""
    sigma_scale: float
    """Units of ``bnn.sigma_init`` in those modules' weights."""
    empty_prompt: Callable[[], Conditioning]
    """Conditioning of the empty prompt, batch size 1."""


class Arm:
    """The plain arm, and the base of all others: ``step`` and ``micro`` count from 0, and every draw is a function of them."""

    NOISE_ON_DEVICE: ClassVar[bool] = False
    """Whether noise is drawn on the device: each kind of GPU draws its own, so that a run stays on one."""
    SHOWS_OTHER_WEIGHTS: ClassVar[bool] = False
    """Whether ``shown`` changes the weights, so that the trained ones have to be kept for resuming."""

    layers: list[BayesianLayer]
    """Gaussian tensors; none but for Bayesian arms."""
    lr_schedule: LrSchedule | None = None
    """The schedule that the arm imposes; None leaves ``training.lr_schedule``."""

    def __init__(self, site: Site):
        self.site, self.conf, self.seed, self.layers = site, site.conf, site.seed, []

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups of the arm's own parameters.

        Each has ``params``, whether weight decay ``decays`` them, and the ``factor`` of their learning rate.
        """
        return []

    def before_step(self, step: int) -> None:
        """Called before the first micro-batch of an optimisation step."""

    def batch(self, batch: Batch, micro: int) -> Batch:
        """The data of a micro-batch, as the arm changes it."""
        return batch

    def forward(self, micro: int) -> AbstractContextManager[None]:
        """What surrounds a micro-batch's forward and backward pass; an arm that overrides it runs without CUDA graphs."""
        return nullcontext()

    def penalty(self) -> dict[str, tuple[float, torch.Tensor]]:
        """Terms of the loss beside the diffusion loss: name in the log, weight, and a scalar () with its graph."""
        return {}

    def after_step(self, step: int) -> None:
        """Called when the optimiser has moved the weights of a step."""

    def after_training(self) -> None:
        """Called before samples are made: the model is to be at the weights that training stands at."""

    def shown(self) -> AbstractContextManager[None]:
        """Within the block the model has the weights that are kept and sampled."""
        return nullcontext()

    def kept(self) -> dict[str, torch.Tensor]:
        """Tensors that a checkpoint keeps beside the weights (``rho.safetensors``), any shapes (…)."""
        return {}

    def state(self) -> dict[str, torch.Tensor]:
        """Further tensors that resuming needs, any shapes (…)."""
        return {}

    def load(self, kept: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> None:
        """Put back what ``kept`` and ``state`` gave, any shapes (…); the trained weights are in the model already."""


def attach(site: Site) -> Arm:
    """The plain arm (``bnn=off``)."""
    return Arm(site)
