"""Gaussian weights: their size, their draws, their divergence, their gradients, and which layers have them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from scipy import stats
from tiny import tiny_inputs, tiny_unet
from torch import nn

from bayesdiff.arms import gaussian as bayes
from bayesdiff.arms.gaussian import BayesianLayer, draw_weights, kl_divergence, load_mean, mean_state, rho_parameters, sigmas, use_mean
from bayesdiff.arms.layers import select_layers
from bayesdiff.config.schema import BnnConf, Kl, Sigma, SigmaParametrization
from bayesdiff.core.errors import UserError

PRESET = "linear_no_cross_attention"


def gaussian(start: float, **options: Any) -> BnnConf:
    """A Gaussian arm that keeps its prior."""
    return BnnConf("gaussian", sigma_init=start, **{"kl_weight": 1.0, **options})


def make_bayesian(model: nn.Module, names: list[str], start: float, **options: Any) -> list[BayesianLayer]:
    return bayes.make_bayesian(model, names, gaussian(start, **options))


def divergence(layers: list[BayesianLayer], prior_sigma: float, kl: Kl = Kl.elbo) -> torch.Tensor:
    return kl_divergence(layers, gaussian(0.1, prior_sigma=prior_sigma, kl=kl))


def two_linears(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).to(dtype)


def bayesian_unet(sigma: float = 0.01) -> tuple[UNet2DConditionModel, list[BayesianLayer]]:
    unet = tiny_unet()
    return unet, make_bayesian(unet, select_layers(unet, PRESET), sigma)


def values(layers: list[BayesianLayer]) -> dict[str, torch.Tensor]:
    return {layer.name: getattr(layer.module, layer.parameter).detach().clone() for layer in layers}


def many_draws(sigma: float, draws: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean (N,) and ``draws`` draws (draws, N) of a layer's weights."""
    layers = make_bayesian(two_linears(), ["0", "2"], sigma)
    rows = []
    for step in range(draws):
        draw_weights(layers, 0, step)
        rows.append(torch.cat([value.flatten() for value in values(layers).values()]))
    return torch.cat([layer.mean.detach().flatten() for layer in layers]), torch.stack(rows)


@pytest.mark.parametrize("sigma", [1e-8, 1e-3, 0.01, 0.5, 3.0])
def test_sigma_starts_where_it_was_asked_to(sigma: float) -> None:
    for layer in make_bayesian(two_linears(), ["0", "2"], sigma):
        torch.testing.assert_close(layer.gaussian.sigma, torch.full_like(layer.mean, sigma), rtol=2e-6, atol=0)


def test_sigma_is_positive_for_any_rho() -> None:
    (layer, _) = make_bayesian(two_linears(), ["0"], 0.01)
    with torch.no_grad():
        layer.gaussian.rho.copy_(torch.linspace(-80, 80, layer.mean.numel()).view_as(layer.mean))
    assert (layer.gaussian.sigma > 0).all()
    assert torch.isfinite(layer.gaussian.sigma).all()


def test_a_draw_is_normal_around_the_mean_with_the_asked_sigma() -> None:
    mean, draws = many_draws(0.2, 400)
    z = ((draws - mean) / 0.2).double()
    assert abs(float(z.mean())) < 4 / math.sqrt(z.numel())
    assert abs(float(z.std()) - 1) < 4 / math.sqrt(2 * z.numel())
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3


def test_every_scalar_has_noise_of_its_own() -> None:
    mean, draws = many_draws(0.2, 400)
    correlation = torch.corrcoef((draws - mean).T.double())
    off_diagonal = correlation[~torch.eye(len(mean), dtype=torch.bool)]
    assert float(off_diagonal.abs().max()) < 5.5 / math.sqrt(len(draws))
    assert abs(float(off_diagonal.std()) * math.sqrt(len(draws)) - 1) < 0.1


def test_draws_of_successive_steps_are_independent() -> None:
    mean, draws = many_draws(0.2, 400)
    z = ((draws - mean) / 0.2).double()
    assert abs(float((z[1:] * z[:-1]).mean())) < 4 / math.sqrt(z[1:].numel())


def test_a_draw_depends_on_seed_step_and_layer_alone() -> None:
    layers = make_bayesian(two_linears(), ["0", "2"], 0.1)
    draw_weights(layers, 3, 7)
    first = values(layers)
    torch.manual_seed(99)
    for step in (1, 9):
        draw_weights(layers, 3, step)
    draw_weights(layers[::-1], 3, 7)
    assert all(torch.equal(first[name], value) for name, value in values(layers).items())


def test_a_draw_does_not_depend_on_which_other_layers_are_bayesian() -> None:
    both, one = make_bayesian(two_linears(), ["0", "2"], 0.1), make_bayesian(two_linears(), ["2"], 0.1)
    for layers in (both, one):
        draw_weights(layers, 3, 7)
    alone, among = values(one), values(both)
    assert set(alone) == {"2.weight", "2.bias"}
    assert all(torch.equal(among[name], value) for name, value in alone.items())


@pytest.mark.parametrize("other", [(4, 7), (3, 8)])
def test_another_seed_or_step_gives_another_draw(other: tuple[int, int]) -> None:
    layers = make_bayesian(two_linears(), ["0", "2"], 0.1)
    draw_weights(layers, 3, 7)
    first = values(layers)
    draw_weights(layers, *other)
    assert not any(torch.equal(first[name], value) for name, value in values(layers).items())


def test_layers_of_one_shape_get_different_noise() -> None:
    layers = make_bayesian(nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5)), ["0", "1"], 0.1)
    draw_weights(layers, 0, 0)
    first, second = (layer.gaussian.eps for layer in (layers[0], layers[2]))
    assert first is not None
    assert not torch.equal(first, second)


def test_a_draw_leaves_the_global_generator_alone() -> None:
    layers = make_bayesian(two_linears(), ["0", "2"], 0.1)
    before = torch.get_rng_state()
    draw_weights(layers, 0, 0)
    assert torch.equal(before, torch.get_rng_state())


def test_weight_and_bias_become_gaussian_and_stay_the_same_parameters() -> None:
    model = two_linears()
    before = model[0].weight
    layers = make_bayesian(model, ["0"], 0.1)
    assert [layer.name for layer in layers] == ["0.weight", "0.bias"]
    assert layers[0].mean is before
    assert not hasattr(model[2], "parametrizations")


def test_a_layer_without_bias_has_one_gaussian_tensor() -> None:
    assert [layer.name for layer in make_bayesian(nn.Sequential(nn.Linear(3, 2, bias=False)), ["0"], 0.1)] == ["0.weight"]


def test_the_mean_of_a_linear_layer_is_the_plain_layer_bit_for_bit() -> None:
    plain, model = two_linears(), two_linears()
    layers = make_bayesian(model, ["0", "2"], 0.1)
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(model(x), plain(x))
    draw_weights(layers, 0, 0)
    assert not torch.equal(model(x), plain(x))
    use_mean(layers)
    assert torch.equal(model(x), plain(x))


def test_the_mean_of_a_unet_is_the_plain_unet_bit_for_bit() -> None:
    unet, layers = bayesian_unet()
    with torch.no_grad():
        expected = tiny_unet()(**tiny_inputs()).sample
        assert torch.equal(unet(**tiny_inputs()).sample, expected)
        draw_weights(layers, 0, 0)
        assert not torch.equal(unet(**tiny_inputs()).sample, expected)
        use_mean(layers)
        assert torch.equal(unet(**tiny_inputs()).sample, expected)


def test_the_divergence_is_that_of_torch() -> None:
    torch.manual_seed(4)
    layers = make_bayesian(two_linears(torch.float64), ["0", "2"], 0.03)
    expected = 0.0
    for layer in layers:
        prior = torch.distributions.Normal(layer.mean.detach().clone(), 0.05)
        with torch.no_grad():
            layer.mean.add_(0.02 * torch.randn_like(layer.mean))
            layer.gaussian.rho.add_(0.5 * torch.randn_like(layer.mean))
            q = torch.distributions.Normal(layer.mean, layer.gaussian.sigma)
            expected += float(torch.distributions.kl_divergence(q, prior).sum())
    assert expected > 1
    assert divergence(layers, 0.05).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kl", list(Kl))
@pytest.mark.parametrize("sigma", [Sigma.per_weight, Sigma.per_row, Sigma.per_tensor])
def test_either_divergence_counts_every_scalar_once(kl: Kl, sigma: Sigma) -> None:
    torch.manual_seed(4)
    layers = make_bayesian(two_linears(torch.float64), ["0", "2"], 0.03, sigma=sigma)
    expected = 0.0
    for layer in layers:
        prior = torch.distributions.Normal(layer.mean.detach().clone(), 0.05)
        with torch.no_grad():
            layer.mean.add_(0.02 * torch.randn_like(layer.mean))
            layer.gaussian.rho.add_(0.5 * torch.randn_like(layer.gaussian.rho))
            q = torch.distributions.Normal(layer.mean, layer.gaussian.sigma.expand_as(layer.mean))
            pair = (q, prior) if kl is Kl.elbo else (prior, q)
            expected += float(torch.distributions.kl_divergence(*pair).sum())
    assert divergence(layers, 0.05, kl).item() == pytest.approx(expected, rel=1e-6)


def test_the_two_divergences_differ() -> None:
    layers = make_bayesian(two_linears(torch.float64), ["0"], 0.03)
    assert divergence(layers, 0.05, Kl.elbo).item() != pytest.approx(divergence(layers, 0.05, Kl.reverse).item(), rel=0.05)


def test_a_methods_scale_is_that_of_sigma_and_prior() -> None:
    conf = gaussian(0.01, prior_sigma=0.01)
    layers = bayes.make_bayesian(two_linears(), ["0"], conf, scale=0.5)
    torch.testing.assert_close(layers[0].gaussian.sigma, torch.full_like(layers[0].mean, 0.005), rtol=2e-6, atol=0)
    assert abs(kl_divergence(layers, conf).item()) < 1e-4


def test_the_prior_is_kept_only_where_a_divergence_is_taken() -> None:
    assert make_bayesian(two_linears(), ["0"], 0.1, kl_weight=0.0)[0].gaussian.prior_mean is None
    assert torch.equal(make_bayesian(model := two_linears(), ["0"], 0.1)[0].gaussian.prior_mean, model[0].weight)


@pytest.mark.parametrize(
    ("sigma", "shapes"),
    [
        (Sigma.per_weight, [(5, 6), (5,)]),
        (Sigma.per_row, [(5, 1), (5,)]),
        (Sigma.per_tensor, [(1, 1), (1,)]),
        (Sigma.fixed, [(1, 1), (1,)]),
    ],
)
def test_a_sigma_has_the_asked_shape_and_every_scalar_its_own_noise(sigma: Sigma, shapes: list[tuple[int, ...]]) -> None:
    layers = make_bayesian(two_linears(), ["0"], 0.1, sigma=sigma)
    assert [tuple(layer.gaussian.rho.shape) for layer in layers] == shapes
    draw_weights(layers, 0, 0)
    for layer in layers:
        noise = (getattr(layer.module, layer.parameter) - layer.mean).detach()
        assert noise.unique().numel() == noise.numel()


def test_a_fixed_sigma_is_no_parameter() -> None:
    layers = make_bayesian(model := two_linears(), ["0"], 0.1, sigma=Sigma.fixed)
    assert rho_parameters(layers) == []
    assert not any("rho" in name for name, _ in model.named_parameters())
    assert set(sigmas(layers)) == {"0.weight", "0.bias"}
    assert len(rho_parameters(make_bayesian(two_linears(), ["0"], 0.1))) == 2


def test_a_direct_sigma_is_stored_itself_and_clamped_where_weights_are_drawn() -> None:
    layers = make_bayesian(two_linears(), ["0"], 0.1, sigma_parametrization=SigmaParametrization.direct)
    assert (layers[0].gaussian.rho == 0.1).all()
    with torch.no_grad():
        layers[0].gaussian.rho.fill_(-3.0)
    draw_weights(layers, 0, 0)
    assert (layers[0].gaussian.sigma == bayes.SMALLEST).all()
    assert torch.isfinite(divergence(layers, 0.05)).item()


def test_a_sigma_of_zero_is_the_plain_model_with_any_draw() -> None:
    model = two_linears()
    layers = make_bayesian(model, ["0", "2"], 0.0)
    draw_weights(layers, 0, 0)
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(model(x), two_linears()(x))
    loss_of(model, x).backward()
    assert all((layer.gaussian.rho.grad == 0).all() for layer in layers)


def test_another_stream_gives_another_draw() -> None:
    layers = make_bayesian(two_linears(), ["0"], 0.1)
    draws = []
    for stream in ("weights", "sampled weights"):
        draw_weights(layers, 0, 0, stream)
        draws.append(layers[0].gaussian.eps.clone())  # drawn in place
    assert not torch.equal(*draws)


def test_at_the_mean_the_model_does_the_plain_models_arithmetic() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    counts = []
    for unet in (tiny_unet(), bayesian_unet()[0]):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            unet(**tiny_inputs())
        counts.append(counter.get_flop_counts()["Global"])
    assert counts[0] == counts[1]


def test_the_divergence_is_zero_at_the_start() -> None:
    _, layers = bayesian_unet(0.01)
    scalars = sum(layer.mean.numel() for layer in layers)
    assert abs(divergence(layers, 0.01).item()) < 1e-6 * scalars
    assert divergence(layers, 0.02).item() > 0.1 * scalars


def test_the_divergence_pulls_mean_and_sigma_towards_the_prior() -> None:
    layers = make_bayesian(two_linears(torch.float64), ["0"], 0.03)
    with torch.no_grad():
        layers[0].mean.add_(0.1)
    divergence(layers, 0.05).backward()
    assert (layers[0].mean.grad > 0).all()
    assert (layers[0].gaussian.rho.grad < 0).all()


def loss_of(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return (model(x) ** 2).sum()


def finite_differences(
    model: nn.Module, x: torch.Tensor, tensor: torch.Tensor, draw: Callable[[], None], width: float = 1e-6
) -> torch.Tensor:  # fmt: skip
    """Central differences of the loss by every scalar of ``tensor``; ``draw`` makes the weights in use anew."""
    gradient, flat = torch.zeros_like(tensor).flatten(), tensor.data.view(-1)
    for i in range(len(flat)):
        centre = float(flat[i])
        sides = []
        for shifted in (centre + width, centre - width):
            flat[i] = shifted
            draw()
            sides.append(loss_of(model, x).item())
        flat[i] = centre
        gradient[i] = (sides[0] - sides[1]) / (2 * width)
    return gradient.view_as(tensor)


@pytest.mark.parametrize("drawn", [True, False])
def test_gradients_are_those_of_finite_differences(drawn: bool) -> None:
    model = two_linears(torch.float64)
    layers = make_bayesian(model, ["0", "2"], 0.3)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def draw() -> None:
        if drawn:
            draw_weights(layers, 0, 0)

    draw()
    loss_of(model, x).backward()
    found = [(layer.mean.grad.clone(), layer.gaussian.rho.grad) for layer in layers]
    slopes = [None if rho is None else rho.clone() for _, rho in found]  # it lies where the noise lay
    for layer, (of_mean, _), of_rho in zip(layers, found, slopes, strict=True):
        torch.testing.assert_close(of_mean, finite_differences(model, x, layer.mean, draw), rtol=1e-6, atol=1e-7)
        if of_rho is None:
            assert not drawn
        else:
            torch.testing.assert_close(of_rho, finite_differences(model, x, layer.gaussian.rho, draw), rtol=1e-6, atol=1e-7)


def test_the_gradient_of_rho_is_that_of_the_weight_times_noise_times_sigmoid() -> None:
    model = two_linears(torch.float64)
    layers = make_bayesian(model, ["0", "2"], 0.3)
    draw_weights(layers, 0, 0)
    noise = [layer.gaussian.eps.clone() for layer in layers]  # the backward pass spends it
    loss_of(model, torch.ones(3, 6, dtype=torch.float64)).backward()
    for layer, eps in zip(layers, noise, strict=True):
        rho = layer.gaussian.rho
        torch.testing.assert_close(rho.grad, layer.mean.grad * eps * torch.sigmoid(rho.detach()), rtol=1e-12, atol=0)


def gradients(checkpointing: bool, step: int = 5) -> dict[str, torch.Tensor]:
    unet, layers = bayesian_unet(0.1)
    unet.requires_grad_(True).train()
    if checkpointing:
        unet.enable_gradient_checkpointing()
    assert unet.is_gradient_checkpointing is checkpointing
    draw_weights(layers, 0, step)
    (unet(**tiny_inputs()).sample ** 2).mean().backward()
    return {name: p.grad for name, p in unet.named_parameters()}


def test_gradient_checkpointing_sees_the_same_draw() -> None:
    plain, recomputed = gradients(False), gradients(True)
    assert plain.keys() == recomputed.keys()
    assert sum(name.endswith(".rho") for name in plain) > 0
    for name, gradient in plain.items():
        assert torch.equal(gradient, recomputed[name]), name
    other = gradients(True, step=6)
    assert not torch.equal(plain["conv_in.weight"], other["conv_in.weight"])


def test_the_mean_state_is_the_plain_state() -> None:
    unet, layers = bayesian_unet()
    draw_weights(layers, 0, 0)
    plain, mean = tiny_unet().state_dict(), dict(mean_state(unet))
    assert list(mean) == list(plain)
    assert all(torch.equal(mean[name], value) for name, value in plain.items())


def test_the_mean_state_of_a_plain_model_is_its_state() -> None:
    unet = tiny_unet()
    assert list(dict(mean_state(unet))) == list(unet.state_dict())


def test_sigmas_are_named_by_layer() -> None:
    unet, layers = bayesian_unet(0.02)
    names = {f"{name}.{key}" for name in select_layers(unet, PRESET) for key, _ in tiny_unet().get_submodule(name).named_parameters()}
    assert set(sigmas(layers)) == names
    assert all(torch.equal(value, layer.gaussian.rho) for value, layer in zip(sigmas(layers).values(), layers, strict=True))


def test_a_state_dict_with_other_names_is_refused() -> None:
    unet = tiny_unet()
    state = dict(unet.state_dict())
    state["stranger"] = state.pop("conv_in.weight")
    with pytest.raises(UserError, match="2 names differ"):
        load_mean(unet, state)


def test_plain_weights_load_into_a_bayesian_model_as_its_mean() -> None:
    unet = tiny_unet()
    layers = make_bayesian(unet, select_layers(unet, PRESET), 0.01)
    plain = {name: value + 1 for name, value in tiny_unet().state_dict().items()}
    load_mean(unet, plain)
    assert all(torch.equal(value, plain[name]) for name, value in mean_state(unet))
    assert torch.equal(layers[0].mean, plain[layers[0].name])
