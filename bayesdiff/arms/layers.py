"""Which modules of a model become Gaussian: presets by module type and name, or any regular expression.

The released code (``utils/bayesian.py``, ``convert``) walks over leaf modules by type and skips named
ones; the presets are its switches under the names of the paper's Table 4. Counts on Stable Diffusion
are in ``docs/deviations.md`` and guarded by tests on the meta device.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from torch import nn

from bayesdiff.core.errors import UserError

TIME = r"(^|\.)(time_emb_proj|time_embedding|add_embedding)(\.|$)"
"""Layers that carry the timestep (and SDXL's sizes), not the picture."""
LEAVES = (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Preset:
    """Modules of ``types`` whose name lies below ``only`` and does not match ``without``."""

    types: tuple[type[nn.Module], ...]
    without: str = "(?!)"
    only: str = ""


PRESETS: dict[str, Preset] = {
    "linear_no_cross_attention": Preset((nn.Linear,), without=r"\.attn2\."),
    "linear_up_blocks": Preset((nn.Linear,), without=r"\.attn2\.", only=r"^(up_blocks|time_embedding|add_embedding)\."),
    "linear_with_cross_attention": Preset((nn.Linear,)),
    "norms": Preset((nn.LayerNorm, nn.GroupNorm)),
    "conv": Preset((nn.Conv2d,)),
    "all": Preset(LEAVES),
}
"""``linear_no_cross_attention`` is the paper's default."""


def select_layers(model: nn.Module, layers: str, time_layers: bool = False) -> list[str]:
    """Names of the modules that a preset or a regular expression selects, in module order.

    Args:
        layers: a name of ``PRESETS``, or an expression that is searched in the names of linear,
            convolution and normalisation layers.
        time_layers: whether presets take in the layers that carry the timestep.

    Raises:
        UserError: a bad expression, or one that selects nothing.
    """
    chosen = PRESETS.get(layers)
    accepts = _by_preset(chosen, time_layers) if chosen else _by_expression(layers)
    names = [name for name, module in model.named_modules() if isinstance(module, LEAVES) and accepts(name, module)]
    if not names:
        raise UserError(
            f"bnn.layers={layers!r}: selects no layer of this model; give an expression, or one of the presets {', '.join(PRESETS)}"
        )
    return names


def _by_preset(preset: Preset, time_layers: bool) -> Callable[[str, nn.Module], bool]:
    def accepts(name: str, module: nn.Module) -> bool:
        fits = isinstance(module, preset.types) and re.search(preset.only, name) and not re.search(preset.without, name)
        return bool(fits) and (time_layers or not re.search(TIME, name))

    return accepts


def _by_expression(expression: str) -> Callable[[str, nn.Module], bool]:
    pattern = _compiled(expression, expression, PRESETS)
    return lambda name, _: bool(pattern.search(name))


def _compiled(expression: str, layers: str, presets: Collection[str]) -> re.Pattern[str]:
    """The expression behind ``bnn.layers``; raises ``UserError`` with the presets where it is none."""
    try:
        return re.compile(expression)
    except re.error as error:
        raise UserError(
            f"bnn.layers={layers!r}: neither a preset ({', '.join(presets)}) nor a regular expression ({error}); give one of them"
        ) from error


def select_names(names: list[str], layers: str, presets: dict[str, str]) -> list[str]:
    """Names that one of a method's own presets (expressions) or any regular expression selects.

    Raises:
        UserError: a bad expression, or one that selects nothing.
    """
    pattern = _compiled(presets.get(layers, layers), layers, presets)
    chosen = [name for name in names if pattern.search(name)]
    if not chosen:
        raise UserError(
            f"bnn.layers={layers!r}: selects no adapter of this method; give an expression, or one of the presets {', '.join(presets)}"
        )
    return chosen
