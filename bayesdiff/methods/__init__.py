"""Fine-tuning methods. Every module here offers the same four names, and the loop knows none of them.

``build(unet)`` makes the method's parameters trainable, ``trainable(unet)`` lists them,
``bayesian_targets(unet, conf)`` names the modules whose weights become Gaussian, and
``export(unet, folder)`` writes the mean model in the layout that stock libraries load.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, cast

from torch import nn

from bayesdiff.config import BnnConf, Method
from bayesdiff.methods import dreambooth


class FineTuning(Protocol):
    def build(self, unet: nn.Module) -> None: ...
    def trainable(self, unet: nn.Module) -> list[nn.Parameter]: ...
    def bayesian_targets(self, unet: nn.Module, conf: BnnConf) -> list[str]: ...
    def export(self, unet: nn.Module, folder: Path) -> None: ...


METHODS: dict[Method, FineTuning] = {Method.dreambooth: cast(FineTuning, dreambooth)}
