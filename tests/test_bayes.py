"""Gaussian weights: their size, their draws, their divergence, their gradients, and which layers have them."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from scipy import stats
from tiny import tiny_inputs, tiny_unet
from torch import nn

from bayesdiff.bayes import BayesianLayer, draw_weights, kl_divergence, make_bayesian, mean_state, select_layers, sigmas, use_mean
from bayesdiff.errors import UserError

PRESET = "linear_no_cross_attention"


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
    assert kl_divergence(layers, 0.05).item() == pytest.approx(expected, rel=1e-6)


def test_the_divergence_is_zero_at_the_start() -> None:
    _, layers = bayesian_unet(0.01)
    scalars = sum(layer.mean.numel() for layer in layers)
    assert abs(kl_divergence(layers, 0.01).item()) < 1e-6 * scalars
    assert kl_divergence(layers, 0.02).item() > 0.1 * scalars


def test_the_divergence_pulls_mean_and_sigma_towards_the_prior() -> None:
    layers = make_bayesian(two_linears(torch.float64), ["0"], 0.03)
    with torch.no_grad():
        layers[0].mean.add_(0.1)
    kl_divergence(layers, 0.05).backward()
    assert (layers[0].mean.grad > 0).all()
    assert (layers[0].gaussian.rho.grad < 0).all()


def loss_of(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return (model(x) ** 2).sum()


def finite_differences(model: nn.Module, x: torch.Tensor, tensor: torch.Tensor, width: float = 1e-6) -> torch.Tensor:
    """Central differences of the loss by every scalar of ``tensor``."""
    gradient, flat = torch.zeros_like(tensor).flatten(), tensor.data.view(-1)
    for i in range(len(flat)):
        centre = float(flat[i])
        sides = []
        for shifted in (centre + width, centre - width):
            flat[i] = shifted
            sides.append(loss_of(model, x).item())
        flat[i] = centre
        gradient[i] = (sides[0] - sides[1]) / (2 * width)
    return gradient.view_as(tensor)


@pytest.mark.parametrize("drawn", [True, False])
def test_gradients_are_those_of_finite_differences(drawn: bool) -> None:
    model = two_linears(torch.float64)
    layers = make_bayesian(model, ["0", "2"], 0.3)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if drawn:
        draw_weights(layers, 0, 0)
    loss_of(model, x).backward()
    for layer in layers:
        torch.testing.assert_close(layer.mean.grad, finite_differences(model, x, layer.mean), rtol=1e-6, atol=1e-7)
        if drawn:
            torch.testing.assert_close(layer.gaussian.rho.grad, finite_differences(model, x, layer.gaussian.rho), rtol=1e-6, atol=1e-7)
        else:
            assert layer.gaussian.rho.grad is None


def test_the_gradient_of_rho_is_that_of_the_weight_times_noise_times_sigmoid() -> None:
    model = two_linears(torch.float64)
    layers = make_bayesian(model, ["0", "2"], 0.3)
    draw_weights(layers, 0, 0)
    loss_of(model, torch.ones(3, 6, dtype=torch.float64)).backward()
    for layer in layers:
        rho, eps = layer.gaussian.rho, layer.gaussian.eps
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


def test_the_preset_takes_self_attention_and_feed_forward_of_every_block() -> None:
    unet = tiny_unet()
    blocks = [name for name, module in unet.named_modules() if isinstance(module, BasicTransformerBlock)]
    parts = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2")
    assert len(blocks) == 4
    assert set(select_layers(unet, PRESET)) == {f"{block}.{part}" for block in blocks for part in parts}


def test_the_preset_takes_a_quarter_of_stable_diffusion() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
    names = select_layers(unet, PRESET)
    chosen = [unet.get_submodule(name) for name in names]
    assert len(names) == len(set(names)) == 96
    assert not any("attn2" in name or "time" in name for name in names)
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964
    assert sum(module.weight.numel() for module in chosen) == 198_246_400
    assert sum(p.numel() for module in chosen for p in module.parameters()) == 198_371_200


def test_an_expression_selects_linear_layers_by_name() -> None:
    names = select_layers(tiny_unet(), r"mid_block.*attn2\.to_(k|v)$")
    assert names == [f"mid_block.attentions.0.transformer_blocks.0.attn2.to_{key}" for key in "kv"]


def test_an_expression_never_selects_a_convolution() -> None:
    unet = tiny_unet()
    assert all(isinstance(unet.get_submodule(name), nn.Linear) for name in select_layers(unet, "."))


@pytest.mark.parametrize("layers", ["(", "no_such_layer", "conv_in"])
def test_a_bad_or_empty_selection_is_named(layers: str) -> None:
    with pytest.raises(UserError, match=r"bnn\.layers=.*linear_no_cross_attention"):
        select_layers(tiny_unet(), layers)
