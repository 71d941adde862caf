"""Gaussian weights: the Bayesian layers of the paper, for any module and any parameter of it.

A Bayesian parameter is W = mu + sigma · eps with eps ~ N(0, 1) for every scalar (mean field; paper
section 4, code of record ``models/layers``). ``mu`` is the module's own parameter, so a model with
Gaussian weights stays the same model; the mean (eps = 0) is what samples use.

Two corrections against the code of record, each guarded by a test:
* sigma = softplus(rho) stays positive by construction; there it is stored directly and clamped.
* eps is drawn once a step, outside the forward pass, as a function of (seed, step, layer): recomputed
  forwards (gradient checkpointing) see the same draw, and pairs of runs stay paired.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrize

from bayesdiff.errors import UserError
from bayesdiff.seeds import derive


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


PRESETS: dict[str, str] = {"linear_no_cross_attention": r"\.(attn1\.to_(q|k|v|out\.0)|ff\.net\.\d+(\.proj)?)$"}
"""Layer presets as patterns on the names of linear layers. The default is what the released script
converts: self-attention and feed-forward, without cross-attention and time layers."""


class GaussianWeight(nn.Module):
    """Parametrisation of one tensor: returns mu, or mu + sigma · eps while a draw is set."""

    eps: torch.Tensor | None
    prior_mean: torch.Tensor

    def __init__(self, mean: torch.Tensor, sigma: float):
        super().__init__()
        self.rho = nn.Parameter(torch.full_like(mean, math.log(math.expm1(sigma))))
        self.eps = None
        self.register_buffer("prior_mean", mean.detach().clone(), persistent=False)

    @property
    def sigma(self) -> torch.Tensor:
        """Standard deviation of every scalar, the shape of the weight, > 0."""
        return nn.functional.softplus(self.rho)

    def forward(self, mean: torch.Tensor) -> torch.Tensor:
        return mean if self.eps is None else torch.addcmul(mean, self.sigma, self.eps)


@dataclass(frozen=True)
class BayesianLayer:
    """One Bayesian tensor: ``name`` is module path and parameter ("mid.attn1.to_q.weight")."""

    name: str
    module: nn.Module
    parameter: str

    @property
    def gaussian(self) -> GaussianWeight:
        return self.module.get_submodule(f"parametrizations.{self.parameter}.0")  # type: ignore[return-value]

    @property
    def mean(self) -> torch.Tensor:
        return self.module.get_parameter(f"parametrizations.{self.parameter}.original")


def select_layers(model: nn.Module, layers: str) -> list[str]:
    """Names of the linear layers that a preset or a regular expression selects, in module order.

    Raises:
        UserError: a bad expression, or one that selects nothing.
    """
    try:
        pattern = re.compile(PRESETS.get(layers, layers))
    except re.error as error:
        raise UserError(f"bnn.layers={layers!r}: neither a preset ({', '.join(PRESETS)}) nor a regular expression ({error})") from error
    names = [name for name, module in model.named_modules() if _is_linear(module) and pattern.search(f".{name}")]
    if not names:
        raise UserError(f"bnn.layers={layers!r}: selects no linear layer of this model; presets: {', '.join(PRESETS)}")
    return names


def make_bayesian(model: nn.Module, names: list[str], sigma: float) -> list[BayesianLayer]:
    """Make weight and bias of the named modules Gaussian around their present values, in place."""
    layers = []
    for name in names:
        module = model.get_submodule(name)
        for parameter in [key for key, value in module.named_parameters(recurse=False) if value is not None]:
            tensor = getattr(module, parameter)
            parametrize.register_parametrization(module, parameter, GaussianWeight(tensor, sigma), unsafe=True)
            layers.append(BayesianLayer(f"{name}.{parameter}", module, parameter))
    return layers


@torch.no_grad()
def draw_weights(layers: list[BayesianLayer], seed: int, step: int) -> None:
    """Set one draw of every Bayesian tensor: a function of (seed, step, layer name) alone."""
    for layer in layers:
        rho = layer.gaussian.rho
        g = torch.Generator(rho.device).manual_seed(derive(seed, f"weights/{layer.name}", step))
        layer.gaussian.eps = torch.randn(rho.shape, generator=g, device=rho.device, dtype=rho.dtype)


def use_mean(layers: list[BayesianLayer]) -> None:
    """Back to the posterior mean: forward passes cost what the plain model costs."""
    for layer in layers:
        layer.gaussian.eps = None


def kl_divergence(layers: list[BayesianLayer], prior_sigma: float) -> torch.Tensor:
    """KL(q || prior) in nats, summed over all Bayesian scalars (paper eq. 3).

    The prior of a scalar is N(pretrained weight, prior_sigma²). The code of record sums the reverse
    divergence, KL(prior || q).
    """
    total = torch.zeros((), device=layers[0].mean.device)
    for layer in layers:
        sigma, shift = layer.gaussian.sigma, layer.mean - layer.gaussian.prior_mean
        total = total + (math.log(prior_sigma) - sigma.log() + (sigma**2 + shift**2) / (2 * prior_sigma**2) - 0.5).sum()
    return total


def sigmas(layers: list[BayesianLayer]) -> dict[str, torch.Tensor]:
    """``rho`` of every Bayesian tensor by layer name, for saving."""
    return {layer.name: layer.gaussian.rho.detach() for layer in layers}


def mean_state(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The plain state dict of the mean model: stock names, whatever is Bayesian."""
    for key, value in model.state_dict().items():
        if key.endswith(".rho"):
            continue
        yield re.sub(r"parametrizations\.(\w+)\.original$", r"\1", key), value
