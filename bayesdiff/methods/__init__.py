"""Fine-tuning methods. Every module here offers the same five names, and the loop knows none of them.

``build(parts, conf, seed)`` makes the method's parameters trainable and returns them,
``bayesian_targets(unet, conf)`` names the modules whose weights become Gaussian, ``SIGMA_SCALE``
turns ``bnn.sigma_init`` into the units of those weights, ``export(parts, folder)`` writes the mean
in the layout that stock libraries load, and ``load(parts, folder)`` reads it back in place.

``parts`` are the trained models by their name in the pipeline: ``unet``, and the text encoders where
they are trained too. Only the U-Net is ever Bayesian.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, cast

from torch import nn

from bayesdiff.config import BnnConf, Method, MethodConf
from bayesdiff.methods import dreambooth, lora, oft

Parts = dict[str, nn.Module]


class FineTuning(Protocol):
    SIGMA_SCALE: float

    def build(self, parts: Parts, conf: MethodConf, seed: int) -> list[nn.Parameter]: ...
    def bayesian_targets(self, unet: nn.Module, conf: BnnConf) -> list[str]: ...
    def export(self, parts: Parts, folder: Path) -> None: ...
    def load(self, parts: Parts, folder: Path) -> None: ...


METHODS: dict[Method, FineTuning] = {
    Method.dreambooth: cast(FineTuning, dreambooth),
    Method.lora: cast(FineTuning, lora),
    Method.oft: cast(FineTuning, oft),
}
