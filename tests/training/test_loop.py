"""The loop: deterministic, paired between the arms, and safe against weights that are not finite."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import (
    ARMS,
    BNN_OFF,
    BNN_ON,
    METHOD_ARMS,
    METHOD_NAMES,
    RANKED,
    Make,
    differing,
    encoded,
    load,
    silent,
    tiny_training,
    tiny_unet,
    trained,
    weights,
)  # fmt: skip
from twins import SIDE, build_twin, change_config

from bayesdiff.arms.gaussian import mean_state
from bayesdiff.config.schema import Config
from bayesdiff.diffusion.batch import Batch, Encoded, encode_pictures
from bayesdiff.training import loop
from bayesdiff.training.batches import batch_at, picture_order
from bayesdiff.training.loop import Diverged, Training, prepare, train


def configured(make_config: Make, *overrides: str) -> Config:
    return make_config("+experiment=smoke", *overrides)


def poisoned(picture: int, count: int = 4) -> Encoded:
    data = encoded(count)
    data.mean[picture, 0, 0, 0] = math.nan
    return data


@pytest.mark.parametrize("overrides", METHOD_ARMS)
def test_training_twice_gives_the_same_bits(make_config: Make, overrides: list[str]) -> None:
    cfg = configured(make_config, *overrides, "training.batch_size=2")
    first = weights(trained(cfg, 4))
    torch.manual_seed(99)
    assert differing(first, weights(trained(cfg, 4))) == []


@pytest.mark.parametrize("overrides", METHOD_ARMS)
def test_training_in_parts_gives_the_same_bits(make_config: Make, overrides: list[str]) -> None:
    cfg = configured(make_config, *overrides)
    state = tiny_training(cfg)
    for start, stop in ((0, 1), (1, 4)):
        train(state, cfg, start, stop, silent)
    assert differing(weights(state), weights(trained(cfg, 4))) == []


def test_another_seed_trains_another_model(make_config: Make) -> None:
    first, second = (weights(trained(configured(make_config, f"seed={seed}"), 2)) for seed in (0, 1))
    assert "conv_in.weight" in differing(first, second)


@pytest.mark.parametrize("arm", ARMS)
def test_training_moves_every_parameter(make_config: Make, arm: str) -> None:
    cfg = configured(make_config, arm)
    start = tiny_training(cfg)
    moved = differing(weights(start), weights(trained(cfg, 2)))
    assert set(moved) == {name for name, _ in start.pipe.unet.named_parameters()}


def test_with_vanishing_sigma_both_arms_train_to_the_same_weights(make_config: Make) -> None:
    plain = trained(configured(make_config, BNN_OFF), 4).pipe.unet.state_dict()
    bayesian = trained(configured(make_config, BNN_ON, "bnn.sigma_init=1e-8"), 4).pipe.unet.state_dict()
    other_seed = trained(configured(make_config, "seed=1"), 4).pipe.unet.state_dict()
    near, far = 0.0, 0.0
    for name, value in plain.items():
        module, _, parameter = name.rpartition(".")
        mean = bayesian.get(name, bayesian.get(f"{module}.parametrizations.{parameter}.original"))
        near, far = max(near, float((mean - value).abs().max())), max(far, float((other_seed[name] - value).abs().max()))
    assert near < 0.02 * far


@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("sigma", ["per_weight", "fixed"])
def test_with_sigma_zero_the_bayesian_arm_is_the_plain_one_bit_for_bit_after_20_steps(make_config: Make, method: str, sigma: str) -> None:
    overrides = [*RANKED[method], "method.learning_rate=1e-2", "training.max_grad_norm=0.05"]
    plain, bayesian = (
        dict(mean_state(trained(configured(make_config, *overrides, *arm), 20).pipe.unet))
        for arm in ([BNN_OFF], [BNN_ON, "bnn.sigma_init=0", f"bnn.sigma={sigma}"])
    )
    assert differing(plain, bayesian) == []
    start = dict(mean_state(tiny_training(configured(make_config, *overrides)).pipe.unet))
    assert differing(plain, start) != []


def test_accumulated_gradients_are_the_mean_over_the_micro_batches(make_config: Make) -> None:
    cfg = configured(make_config, "training.gradient_accumulation_steps=3")
    state, by_hand = tiny_training(cfg), tiny_training(cfg)
    loop._accumulate(state, cfg, 2)
    for micro in (6, 7, 8):
        batch = batch_at(micro, cfg.seed, 1, 1000, by_hand.instance, None)
        (loop.training_loss(by_hand.pipe.unet, by_hand.noise_schedule, batch, {})[0] / 3).backward()
    for ours, expected in zip(state.trained, by_hand.trained, strict=True):
        torch.testing.assert_close(ours.grad, expected.grad)


def test_one_draw_of_weights_serves_all_micro_batches_of_a_step(make_config: Make) -> None:
    cfg = configured(make_config, BNN_ON, "training.gradient_accumulation_steps=3")
    state = tiny_training(cfg)
    draws: list[torch.Tensor] = []
    state.pipe.unet.register_forward_hook(lambda *_: draws.append(state.layers[0].gaussian.drawn.detach().clone()))
    train(state, cfg, 0, 2, silent)
    assert [torch.equal(draws[0], draw) for draw in draws] == [True, True, True, False, False, False]


def test_bf16_trains_float32_weights(make_config: Make) -> None:
    exact, rough = (trained(configured(make_config, f"training.mixed_precision={p}"), 2) for p in ("no", "bf16"))
    assert all(value.dtype == torch.float32 for value in weights(rough).values())
    assert "conv_in.weight" in differing(weights(exact), weights(rough))
    torch.testing.assert_close(weights(rough)["conv_in.weight"], weights(exact)["conv_in.weight"], rtol=0, atol=2e-3)


@pytest.mark.parametrize("overrides", METHOD_ARMS)
def test_gradient_checkpointing_changes_nothing(make_config: Make, overrides: list[str]) -> None:
    plain, recomputed = (
        trained(configured(make_config, *overrides, f"training.gradient_checkpointing={on}"), 3) for on in ("false", "true")
    )
    assert recomputed.pipe.unet.is_gradient_checkpointing
    assert differing(weights(plain), weights(recomputed)) == []


def test_both_arms_see_the_same_batches(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Batch] = []

    def remember(unet: Any, scheduler: Any, batch: Batch, *rest: Any, **weighting: Any) -> Any:
        seen.append(batch)
        return training_loss(unet, scheduler, batch, *rest, **weighting)

    training_loss = loop.training_loss
    monkeypatch.setattr(loop, "training_loss", remember)
    for arm in ARMS:
        trained(configured(make_config, arm), 3)
    for plain, bayesian in zip(seen[:3], seen[3:], strict=True):
        assert torch.equal(plain.text.states, bayesian.text.states)
        assert all(torch.equal(getattr(plain, name), getattr(bayesian, name)) for name in ("latents", "noise", "timesteps"))


@pytest.mark.parametrize("arm", ARMS)
def test_a_loss_that_is_not_finite_stops_before_it_touches_the_weights(make_config: Make, arm: str) -> None:
    cfg = configured(make_config, arm)
    order = [picture_order(4, 1, cfg.seed, "order/instance", step)[0] for step in range(4)]
    state = tiny_training(cfg, poisoned(order[2]))
    with pytest.raises(Diverged, match="step 3") as caught:
        train(state, cfg, 0, 4, silent)
    assert caught.value.step == 3
    assert differing(weights(state), weights(trained(cfg, 2, instance=poisoned(order[2])))) == []
    assert all(torch.isfinite(value).all() for value in weights(state).values())


def test_a_huge_learning_rate_diverges_with_finite_weights(make_config: Make) -> None:
    cfg = configured(make_config, "method.learning_rate=1000")
    state, steps = tiny_training(cfg), []
    with pytest.raises(Diverged) as caught:
        train(state, cfg, 0, 4, lambda step, _: steps.append(step))
    assert steps == list(range(1, caught.value.step))
    assert all(torch.isfinite(value).all() for value in weights(state).values())


def test_a_gradient_that_is_not_finite_stops_training_too(make_config: Make) -> None:
    cfg = configured(make_config)
    state = tiny_training(cfg)
    before = weights(state)
    state.pipe.unet.conv_in.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(Diverged, match="step 1"):
        train(state, cfg, 0, 2, silent)
    assert differing(before, weights(state)) == []


@pytest.mark.parametrize("limit", [1e-3, 1e3])
def test_gradients_are_clipped_to_the_limit(make_config: Make, monkeypatch: pytest.MonkeyPatch, limit: float) -> None:
    cfg = configured(make_config, BNN_ON, f"training.max_grad_norm={limit}")
    state, applied, reported = tiny_training(cfg), [], []
    step = state.optimizer.step

    def measured() -> None:
        norms = [float(torch.cat([p.grad.flatten() for p in group["params"]]).norm()) for group in state.optimizer.param_groups]
        applied.append(norms[0])
        assert norms[1] <= limit * 1.001
        step()

    monkeypatch.setattr(state.optimizer, "step", measured)
    train(state, cfg, 0, 2, lambda _, parts: reported.append(parts["grad_norm"]))
    assert applied == pytest.approx([min(limit, norm) for norm in reported], rel=1e-3)
    assert all(1e-3 < norm < 1e3 for norm in reported)


def test_every_step_is_reported_with_its_parts(make_config: Make) -> None:
    cfg = configured(make_config, BNN_ON, "bnn.kl_weight=1e-6")
    rows: list[tuple[int, dict[str, float]]] = []
    train(tiny_training(cfg, classes=encoded(2)), cfg, 5, 8, lambda step, parts: rows.append((step, parts)))
    assert [step for step, _ in rows] == [6, 7, 8]
    for _, parts in rows:
        assert set(parts) == {"loss", "loss_instance", "loss_prior", "kl", "grad_norm", "learning_rate"}
        assert all(type(value) is float and math.isfinite(value) for value in parts.values())


def test_each_step_draws_new_weights(make_config: Make) -> None:
    cfg = configured(make_config, BNN_ON)
    state = tiny_training(cfg)
    draws: list[torch.Tensor] = []
    state.pipe.unet.register_forward_hook(lambda *_: draws.append(state.layers[0].gaussian.drawn.detach().clone()))
    train(state, cfg, 0, 3, silent)
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == len(draws) == 3


def test_after_training_the_model_is_at_its_mean_and_in_evaluation_mode(make_config: Make) -> None:
    state = trained(configured(make_config, BNN_ON), 2)
    assert all(layer.gaussian.drawn is None for layer in state.layers)
    assert not any(module.training for module in state.pipe.unet.modules())


def test_without_bnn_no_layer_is_gaussian(make_config: Make) -> None:
    state = tiny_training(configured(make_config, BNN_OFF))
    assert state.layers == []
    assert list(state.pipe.unet.state_dict()) == list(tiny_unet().state_dict())


def test_a_weighted_divergence_falls_in_training(make_config: Make) -> None:
    cfg = configured(make_config, BNN_ON, "bnn.kl_weight=1", "bnn.prior_sigma=0.05", "method.learning_rate=1e-3")
    kls: list[float] = []
    train(tiny_training(cfg), cfg, 0, 6, lambda _, parts: kls.append(parts["kl"]))
    assert all(later < earlier for earlier, later in pairwise(kls))


def prepared(folder: Path, cfg: Config) -> Training:
    pipe = load(folder)
    return prepare(pipe, cfg, encode_pictures(pipe, [Image.new("RGB", (SIDE, SIDE), "red")], "a photo of qwe backpack"), None)


def test_the_arm_of_dropout_takes_the_models_own_with_masks_of_a_seed(make_config: Make, tmp_path: Path) -> None:
    cfg = configured(make_config, "bnn=dropout", "method.train_text_encoder=true", "method.learning_rate=0.01")
    folder = change_config(build_twin("sd15", tmp_path), "unet", dropout=0.2)
    change_config(folder, "text_encoder", attention_dropout=0.2)
    first, again = prepared(folder, cfg), prepared(folder, cfg)
    for state in (first, again):
        torch.rand(3)
        train(state, cfg, 0, 2, silent)
    assert differing(weights(first), weights(again)) == []


def test_pictures_of_a_class_change_training(make_config: Make) -> None:
    cfg = configured(make_config)
    classes = replace(encoded(2), mean=encoded(2).mean + 5)
    assert "conv_in.weight" in differing(weights(trained(cfg, 2)), weights(trained(cfg, 2, classes=classes)))


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["bnn=off", "bnn=on"])
def test_a_compiled_model_trains_to_the_same_weights(make_config: Make, arm: str) -> None:
    """Within rounding; compiling takes minutes on a CPU."""
    eager, compiled = (weights(trained(make_config("+experiment=smoke", arm, f"training.compile={flag}"), 3)) for flag in ("false", "true"))
    assert eager.keys() == compiled.keys()
    assert max(float((eager[name] - compiled[name]).abs().max()) for name in eager) < 1e-4


@pytest.mark.parametrize(("size", "bad"), [(1e-3, None), (10.0, None), (1.0, math.nan), (1.0, math.inf)])
def test_clipping_on_a_cpu_is_torchs_own_bit_for_bit(size: float, bad: float | None) -> None:
    random = torch.Generator().manual_seed(0)
    ours = [torch.nn.Parameter(torch.zeros(shape)) for shape in [(3,), (65, 7), (), (16, 4, 3, 3), (2,)]]
    for weight in ours[:-1]:  # the last one has no gradient
        weight.grad = size * torch.randn(weight.shape, generator=random)
    if bad is not None:
        ours[0].grad[1] = bad
    own = [torch.nn.Parameter(weight.detach().clone()) for weight in ours]
    for weight, other in zip(ours[:-1], own[:-1], strict=True):
        other.grad = weight.grad.clone()
    norms = loop._clip_on_cpu(ours, 1.0), torch.nn.utils.clip_grad_norm_(own, 1.0)
    assert torch.equal(*(norm.view(torch.int32) for norm in norms))
    for weight, other in zip(ours[:-1], own[:-1], strict=True):
        assert torch.equal(weight.grad.view(torch.int32), other.grad.view(torch.int32))
