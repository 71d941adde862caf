"""Gaussian weights: the Bayesian layers of the paper, for any module and any parameter of it.

A Bayesian parameter is W = mu + sigma · eps with eps ~ N(0, 1) for every scalar (mean field; paper
section 4, code of record ``models/layers``). ``mu`` is the module's own parameter, so a model with
Gaussian weights stays the same model; the mean (eps = 0) is what samples use.

Two corrections against the code of record, each guarded by a test:
* sigma = softplus(rho) stays positive by construction; there it is stored directly and clamped
  (``sigma_parametrization=direct`` does the same, also for OFT).
* eps is drawn once a step, outside the forward pass, as a function of (seed, step, layer): recomputed
  forwards (gradient checkpointing) see the same draw, and pairs of runs stay paired.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from bayesdiff.arms.draws import SMALLEST, Draw, sigma_of
from bayesdiff.arms.protocol import Arm, Site
from bayesdiff.config.schema import BnnConf, Kl, Sigma, SigmaParametrization
from bayesdiff.core.errors import UserError
from bayesdiff.core.seeds import derive


def inverse_softplus(sigma: float) -> float:
    """The rho of a sigma; minus infinity for 0, where softplus and its slope are exactly 0."""
    return math.log(math.expm1(sigma)) if sigma > 0 else -math.inf


def _sigma_shape(mean: torch.Tensor, kind: Sigma) -> tuple[int, ...]:
    if kind is Sigma.per_weight:
        return tuple(mean.shape)
    return (mean.shape[0],) + (1,) * (mean.ndim - 1) if kind is Sigma.per_row else (1,) * mean.ndim


class GaussianWeight(nn.Module):
    """Parametrisation of one tensor: returns mu, or mu + sigma · eps while a draw is set.

    Args:
        mean: the tensor that becomes Gaussian, any shape.
        conf: which sigma is trained, how it is stored, and where it starts.
        scale: of ``sigma_init`` for this tensor (a method's own units).
    """

    prior_mean: torch.Tensor | None
    rho: torch.Tensor
    draw: Draw
    """The buffers that this tensor's noise has a slice of."""
    number: int
    """Of this tensor in the draw."""

    def __init__(self, mean: torch.Tensor, conf: BnnConf, scale: float = 1.0):
        super().__init__()
        self.direct = conf.sigma_parametrization is SigmaParametrization.direct
        start = scale * conf.sigma_init
        rho = torch.full(_sigma_shape(mean, conf.sigma), start if self.direct else inverse_softplus(start), dtype=mean.dtype)
        if conf.sigma is Sigma.fixed:
            self.register_buffer("rho", rho.to(mean.device))
        else:
            self.rho = nn.Parameter(rho.to(mean.device))
        self.drawn: torch.Tensor | None = None
        # a copy of the weights, so only where a KL will be taken
        self.register_buffer("prior_mean", mean.detach().clone() if conf.kl_weight > 0 else None, persistent=False)

    @property
    def sigma(self) -> torch.Tensor:
        """Standard deviation, any shape (…) that broadcasts to the weight; >= 0 (one that is stored directly: once drawn)."""
        return sigma_of(self.rho, self.direct)

    @property
    def eps(self) -> torch.Tensor | None:
        """The noise of the draw, the weight's shape (…), until a backward pass has spent it; None at the mean."""
        return None if self.drawn is None else self.draw.noise[self.number]

    def forward(self, mean: torch.Tensor) -> torch.Tensor:
        """The weight in use, of any shape (…): its mean, or mean + sigma · eps as it was when drawn."""
        return mean if self.drawn is None else self.drawn


@dataclass(frozen=True)
class BayesianLayer:
    """One Bayesian tensor: ``name`` is module path and parameter ("mid.attn1.to_q.weight")."""

    name: str
    module: nn.Module
    parameter: str
    scale: float = 1.0
    """Of sigma and prior sigma, see ``GaussianWeight``."""

    @cached_property  # the path to it is looked up at every step else
    def gaussian(self) -> GaussianWeight:
        return self.module.get_submodule(f"parametrizations.{self.parameter}.0")  # type: ignore[return-value]

    @property
    def mean(self) -> torch.Tensor:
        """The parameter that is trained, of any shape (…)."""
        return self.module.get_parameter(f"parametrizations.{self.parameter}.original")


def make_bayesian(model: nn.Module, names: list[str], conf: BnnConf, scale: float = 1.0) -> list[BayesianLayer]:
    """Make all tensors of the named modules Gaussian around their present values, in place."""
    layers = []
    for name in names:
        module = model.get_submodule(name)
        for parameter in [key for key, value in module.named_parameters(recurse=False) if value is not None]:
            tensor = getattr(module, parameter)
            parametrize.register_parametrization(module, parameter, GaussianWeight(tensor, conf, scale), unsafe=True)
            layers.append(BayesianLayer(f"{name}.{parameter}", module, parameter, scale))
    _share_buffers(layers)
    return layers


def _share_buffers(layers: list[BayesianLayer]) -> None:
    gaussians = [layer.gaussian for layer in layers]
    draw = Draw([layer.name for layer in layers], [layer.mean for layer in layers], [one.rho for one in gaussians], gaussians[0].direct)
    for number, one in enumerate(gaussians):
        one.draw, one.number = draw, number


def rho_parameters(layers: list[BayesianLayer]) -> list[nn.Parameter]:
    """The rhos that are trained (none where sigma is fixed), in layer order."""
    return [rho for layer in layers if isinstance(rho := layer.gaussian.rho, nn.Parameter)]


def draw_weights(layers: list[BayesianLayer], seed: int, step: int, stream: str = "weights") -> None:
    """Set one draw of every Bayesian tensor: a function of (seed, stream, step, layer name).

    Every CPU draws the same numbers, and every GPU the same others (``draws.counter_normal``). Tensors that were made
    Gaussian together are drawn together.
    """
    for draw in dict.fromkeys(layer.gaussian.draw for layer in layers):
        drawn = draw.new([derive(seed, f"{stream}/{name}", step) for name in draw.names])
        for gaussian in (layer.gaussian for layer in layers):
            if gaussian.draw is draw:
                gaussian.drawn = drawn[gaussian.number]


def use_mean(layers: list[BayesianLayer]) -> None:
    """Back to the posterior mean: forward passes cost what the plain model costs."""
    for layer in layers:
        layer.gaussian.drawn = None


def kl_divergence(layers: list[BayesianLayer], conf: BnnConf) -> torch.Tensor:
    """KL between posterior and prior in nats, summed over all Bayesian numbers: a scalar ().

    The prior of a scalar is N(pretrained weight, prior_sigma²). ``elbo`` is KL(q || prior), paper
    eq. 3; ``reverse`` is KL(prior || q), which the code of record sums (``cal_KL`` called with the
    prior first).
    """
    total = torch.zeros((), device=layers[0].mean.device)
    for layer in layers:
        prior, prior_mean = layer.scale * conf.prior_sigma, layer.gaussian.prior_mean
        assert prior_mean is not None, "make_bayesian keeps the prior mean where kl_weight > 0"
        sigma, shift = layer.gaussian.sigma, layer.mean - prior_mean
        constant = torch.full((), prior, dtype=sigma.dtype, device=sigma.device)
        wide, narrow = (sigma, constant) if conf.kl is Kl.elbo else (constant, sigma)
        total = total + (narrow.log() - wide.log() + (wide**2 + shift**2) / (2 * narrow**2) - 0.5).sum()
    return total


def sigmas(layers: list[BayesianLayer]) -> dict[str, torch.Tensor]:
    """``rho`` of every Bayesian tensor by layer name, any shapes (…), for saving.

    Sigmas that are stored directly are clamped, as the next draw does.
    """
    gaussians = {layer.name: layer.gaussian for layer in layers}
    return {name: (g.rho.clamp(min=SMALLEST) if g.direct else g.rho).detach() for name, g in gaussians.items()}


def mean_state(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The plain state dict of the mean model, any shapes (…): stock names, whatever is Bayesian."""
    for key, value in model.state_dict().items():
        if key.endswith(".rho"):
            continue
        yield re.sub(r"parametrizations\.(\w+)\.original$", r"\1", key), value


def storable(tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Named tensors of any shapes (…) as a safetensors file takes them: without gradients, on the CPU, contiguous."""
    return {name: value.detach().cpu().contiguous() for name, value in tensors}


@torch.no_grad()
def load_mean(model: nn.Module, mean: dict[str, torch.Tensor]) -> None:
    """Copy a plain state dict, any shapes (…), into a model, Bayesian or not.

    Raises ``UserError`` where a name is missing on either side.
    """
    copy_tensors(dict(mean_state(model)), mean)


@torch.no_grad()
def copy_tensors(target: dict[str, torch.Tensor], source: dict[str, torch.Tensor]) -> None:
    """Copy tensors of any shapes (…) by name, in place; raises ``UserError`` where the names differ."""
    if set(target) != set(source):
        raise UserError(f"checkpoint does not fit the model: {len(set(target) ^ set(source))} names differ")
    for name, value in target.items():
        value.copy_(source[name])


class Gaussian(Arm):
    """Gaussian weights, trained by variational inference; sampling uses their mean."""

    def __init__(self, site: Site):
        super().__init__(site)
        self.layers = make_bayesian(site.unet, site.targets(), site.conf, site.sigma_scale)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """rho without weight decay, which would draw softplus(rho) upwards; a sigma stored directly as the means, as released."""
        direct = self.conf.sigma_parametrization is SigmaParametrization.direct
        rhos, factor = rho_parameters(self.layers), 1.0 if direct else self.conf.sigma_learning_rate_factor
        return [{"params": rhos, "decays": direct, "factor": factor}] if rhos else []

    def before_step(self, step: int) -> None:
        draw_weights(self.layers, self.seed, step)

    def penalty(self) -> dict[str, tuple[float, torch.Tensor]]:
        weight = self.conf.kl_weight
        return {"kl": (weight, kl_divergence(self.layers, self.conf))} if weight > 0 else {}

    def after_training(self) -> None:
        use_mean(self.layers)

    def kept(self) -> dict[str, torch.Tensor]:
        return sigmas(self.layers)

    @torch.no_grad()
    def load(self, kept: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> None:
        for layer in self.layers:
            layer.gaussian.rho.copy_(kept[layer.name])


def attach(site: Site) -> Arm:
    """Gaussian weights on the method's target modules."""
    return Gaussian(site)
