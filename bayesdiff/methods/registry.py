"""Fine-tuning methods by their names. Every module of this room offers the same six names, and the loop knows none of them.

``build(parts, conf, seed)`` makes the method's parameters trainable and returns them,
``bayesian_targets(unet, conf)`` names the modules whose weights become Gaussian, ``SIGMA_SCALE``
turns ``bnn.sigma_init`` into the units of those weights, ``export(parts, folder)`` writes the mean
in the layout that stock libraries load, ``load(parts, folder)`` reads it back in place, and
``UNET_MEANS`` says in which of those files the U-Net's tensors are, and what stands before their names.

``parts`` are the trained models by their name in the pipeline: ``unet``, and the text encoders where
they are trained too. Only the U-Net is ever Bayesian.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from bayesdiff.config.schema import BnnConf, MethodConf
from bayesdiff.core.errors import UserError

if TYPE_CHECKING:  # a command that refuses its words need not wait for torch
    from torch import nn

Parts: TypeAlias = "dict[str, nn.Module]"


class FineTuning(Protocol):
    SIGMA_SCALE: float
    UNET_MEANS: tuple[str, str]

    def build(self, parts: Parts, conf: MethodConf, seed: int) -> list[nn.Parameter]: ...
    def bayesian_targets(self, unet: nn.Module, conf: BnnConf) -> list[str]: ...
    def export(self, parts: Parts, folder: Path) -> None: ...
    def load(self, parts: Parts, folder: Path) -> None: ...


OFFERED = ("SIGMA_SCALE", "UNET_MEANS", "build", "bayesian_targets", "export", "load")
BUILT_IN = {name: f"bayesdiff.methods.{name}" for name in ("dreambooth", "lora", "oft")}
"""The shipped methods, and their modules."""


def unrecordable(name: str) -> str:
    """Why a method's forward pass cannot be a CUDA graph, as its module says by ``UNRECORDABLE``; empty where it says nothing."""
    return str(getattr(method_of(name), "UNRECORDABLE", ""))


def method_of(name: str) -> FineTuning:
    """The module of a method: a shipped one by its name, any other by its dotted name on the Python path.

    Raises:
        UserError: no such module, or one that lacks what a method offers.
    """
    if name in BUILT_IN:
        return cast(FineTuning, import_module(BUILT_IN[name]))
    try:
        module = import_module(name)
    except (ImportError, TypeError, ValueError) as error:
        raise UserError(f"method.name={name}: cannot be imported ({error}); put its folder on PYTHONPATH") from error
    if missing := [part for part in OFFERED if not hasattr(module, part)]:
        raise UserError(f"method.name={name}: lacks {', '.join(missing)}; see docs/extending.md")
    return cast(FineTuning, module)
