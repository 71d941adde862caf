"""One optimiser for both arms of a pair, and a learning rate that is a function of the step."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import ARMS, BNN_ON, Make, differing, silent, tiny_training, train, trained, weights
from torch import nn

from bayesdiff.arms.draws import SMALLEST
from bayesdiff.arms.gaussian import inverse_softplus
from bayesdiff.core.errors import UserError
from bayesdiff.training.optimizer import CpuAdamW, rate_at, set_rate


@pytest.mark.parametrize("arm", ARMS)
def test_both_arms_have_the_same_optimiser_for_the_means(make_config: Make, arm: str) -> None:
    state = tiny_training(make_config("+experiment=smoke", arm))
    assert type(state.optimizer) is CpuAdamW
    group = state.optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (5e-4, (0.9, 0.999), 1e-8, 0.01)
    assert [id(p) for p in group["params"]] == [id(p) for p in state.trained]


def test_no_weight_decay_draws_sigma_upwards(make_config: Make) -> None:
    state = tiny_training(make_config("+experiment=smoke", BNN_ON))
    assert state.optimizer.param_groups[1]["weight_decay"] == 0.0
    assert len(state.optimizer.param_groups[1]["params"]) == len(state.layers)


def test_a_sigma_that_is_stored_directly_decays_as_in_the_released_code(make_config: Make) -> None:
    state = tiny_training(make_config("+experiment=smoke", "bnn=released"))
    assert state.optimizer.param_groups[1]["weight_decay"] == 0.01


def test_a_fixed_sigma_has_no_optimiser_state(make_config: Make) -> None:
    plain, noisy = (tiny_training(make_config("+experiment=smoke", f"bnn={arm}")) for arm in ("off", "weight_noise"))
    assert len(noisy.optimizer.param_groups) == len(plain.optimizer.param_groups) == 1
    train(noisy, make_config("+experiment=smoke", "bnn=weight_noise"), 0, 2, silent)
    assert all((layer.gaussian.sigma - 0.01).abs().max() < 1e-6 for layer in noisy.layers)


def test_8_bit_adamw_says_what_is_missing(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"training\.optimizer=adamw_8bit: .*pip install 'bayesdiff\[low-memory\]'"):
        tiny_training(make_config("+experiment=smoke", "training.optimizer=adamw_8bit"))


SHAPES = {
    "constant": lambda step: 1.0,
    "constant_with_warmup": lambda step: min(1.0, step / 5),
    "linear": lambda step: step / 5 if step < 5 else (20 - step) / 15,
    "cosine": lambda step: step / 5 if step < 5 else 0.5 * (1 + math.cos(math.pi * (step - 5) / 15)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_schedule_has_its_shape_after_a_warm_up(make_config: Make, name: str) -> None:
    warmup = 0 if name == "constant" else 5
    cfg = make_config("+experiment=smoke", f"training.lr_schedule={name}", f"training.lr_warmup_steps={warmup}")
    factor = rate_at(cfg.training, 1.0, cfg.schedule.steps)
    assert [factor(step) for step in range(20)] == pytest.approx([SHAPES[name](step) for step in range(20)])


def test_the_rate_of_a_step_is_set_and_reported(make_config: Make) -> None:
    cfg = make_config("+experiment=smoke", "training.lr_schedule=linear")
    state, rates = tiny_training(cfg), []
    train(state, cfg, 5, 8, lambda _, parts: rates.append((parts["learning_rate"], state.optimizer.param_groups[0]["lr"])))
    assert [applied for _, applied in rates] == [reported for reported, _ in rates]
    assert [reported for reported, _ in rates] == pytest.approx([5e-4 * (20 - step) / 20 for step in (5, 6, 7)])


def test_the_rate_changes_at_its_steps(make_config: Make) -> None:
    cfg = make_config("+experiment=smoke", "training.rate_changes=[[5,10],[7,0.5]]")
    rate = rate_at(cfg.training, 2.0, cfg.schedule.steps)
    assert [rate(step) for step in (0, 4, 5, 6, 7, 19)] == [2.0, 2.0, 20.0, 20.0, 1.0, 1.0]


def test_betas_reach_the_optimiser_and_change_what_is_learned(make_config: Make) -> None:
    usual, quick = (make_config("+experiment=smoke", f"training.betas=[0.9,{beta}]") for beta in (0.999, 0.95))
    assert tiny_training(quick).optimizer.param_groups[0]["betas"] == (0.9, 0.95)
    assert differing(weights(trained(usual, 3)), weights(trained(quick, 3))) != []


def test_with_its_factor_a_sigma_goes_as_far_as_one_that_is_stored_itself(make_config: Make) -> None:
    """rho moves by a hundred learning rates a step, sigma by one."""
    moved = {}
    for name, overrides in {
        "usual": [BNN_ON],
        "factor": [BNN_ON, "bnn.sigma_learning_rate_factor=100"],
        "direct": ["bnn=released"],
    }.items():
        cfg = make_config("+experiment=smoke", *overrides, "method.learning_rate=1e-5", "bnn.kl_weight=0")
        state = tiny_training(cfg)
        train(state, cfg, 0, 5, silent)
        moved[name] = max(float((layer.gaussian.sigma / layer.scale - 0.01).abs().max()) for layer in state.layers)
    assert moved["direct"] == pytest.approx(5e-5, rel=0.2)
    assert moved["factor"] == pytest.approx(moved["direct"], rel=0.2)
    assert moved["usual"] < moved["direct"] / 50


@pytest.mark.parametrize("method", ["dreambooth", "lora", "oft"])
def test_on_stable_diffusion_sigma_moves_as_the_released_update_moves_it(make_config: Make, method: str) -> None:
    """The released code steps sigma itself, by AdamW at the means' rate, and clamps it; 400 steps of gradients that wander."""
    words = [f"method={method}", "metrics=paper", "data=dreambooth", "data.path=x", "data.subject=dog"]
    usual = make_config("model=sd15", *words, "bnn=on").bnn
    assert usual.sigma_learning_rate_factor == 100
    rate, start, steps = 5e-6, usual.sigma_init, 400
    g = torch.Generator().manual_seed(0)
    drift = torch.randn(1000, generator=g)
    rho = torch.full((1000,), inverse_softplus(start)).requires_grad_()
    sigma = torch.full((1000,), start).requires_grad_()
    ours = torch.optim.AdamW([rho], lr=rate * usual.sigma_learning_rate_factor, weight_decay=0.0)
    released = torch.optim.AdamW([sigma], lr=rate, weight_decay=0.01)
    for _ in range(steps):
        gradient = drift + 2 * torch.randn(1000, generator=g)
        sigma.grad, rho.grad = gradient, gradient * torch.sigmoid(rho.detach())
        ours.step()
        released.step()
        sigma.data.clamp_(min=SMALLEST)
    moved, theirs = (torch.nn.functional.softplus(rho.detach()) - start) / start, (sigma.detach() - start) / start
    assert float(theirs.std()) > 0.05
    assert float((moved - theirs).abs().max()) < 0.25 * float(theirs.abs().max())
    assert float(moved.std()) == pytest.approx(float(theirs.std()), rel=0.1)


def test_the_toybox_keeps_the_factor_of_its_records(make_config: Make) -> None:
    assert make_config("+experiment=corruption_curve", "bnn=on").bnn.sigma_learning_rate_factor == 1
    assert make_config("+experiment=corruption_curve", "bnn=on", "bnn.sigma_learning_rate_factor=7").bnn.sigma_learning_rate_factor == 7


def _walked(kind: type[torch.optim.AdamW], path: Path) -> list[torch.Tensor]:
    """Weights and moments after steps of which one lacks a gradient, and others follow a resume from a file."""
    random = torch.Generator().manual_seed(0)
    shapes = [(7,), (33, 5), (), (64, 3, 3, 3)]
    weights = [nn.Parameter(torch.randn(shape, generator=random)) for shape in shapes]
    groups = [{"params": weights[:2], "weight_decay": 0.01}, {"params": weights[2:], "weight_decay": 0.0}]
    optimizer = kind(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    for step in range(9):
        for weight in weights:
            gradient = torch.randn(weight.shape, generator=random)
            weight.grad = None if step == 4 and weight is weights[1] else gradient
        set_rate(optimizer, 1e-3 / (1 + step))
        optimizer.step()
        if step == 6:
            moments = {f"{i}.{name}": value for i, entry in optimizer.state_dict()["state"].items() for name, value in entry.items()}
            save_file(moments, path)
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, value in load_file(path).items():
                state.setdefault(int(name[0]), {})[name[2:]] = value
            optimizer = kind(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return [*weights, *(value for weight in weights for _, value in sorted(optimizer.state[weight].items()))]


def test_on_a_cpu_adamw_is_torchs_own_bit_for_bit(tmp_path: Path) -> None:
    ours, own = (_walked(kind, tmp_path / "moments.safetensors") for kind in (CpuAdamW, torch.optim.AdamW))
    assert len(ours) == len(own) == 16
    assert all(torch.equal(a, b) for a, b in zip(ours, own, strict=True))
    assert [float(ours[number]) for number in (6, 9, 12, 15)] == [9, 8, 9, 9]
