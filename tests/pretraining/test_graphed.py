"""The step that can be a graph: it learns, resumes bit for bit, and survives a diverging loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bayesdiff.pretraining import graphed
from bayesdiff.pretraining.graphed import Training, advance, captured, copies, fit_on, judge, take_step, use_average
from bayesdiff.pretraining.recipe import Recipe

RECIPE = Recipe(steps=150, learning_rate=0.02, warmup=5, ema=0.9)
CPU = torch.device("cpu")


def training(recipe: Recipe = RECIPE, spoil: Callable[[], float] = lambda: 1.0) -> Training:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 1))

    def loss() -> torch.Tensor:
        x = torch.randn(16, 3)
        return (module(x) - x.sum(-1, keepdim=True)).square().mean() * spoil()

    return Training(module, loss, recipe, CPU, autocast=False)


def losses(work: Path) -> list[float]:
    return [float(line.split(",")[1]) for line in (work / "part.log.csv").read_text().splitlines()]


def test_the_loss_falls_and_the_average_lags_behind(tmp_path: Path) -> None:
    t = fit_on(training(), "part", tmp_path)
    assert t.step == 150
    assert losses(tmp_path)[-1] < 0.3 * losses(tmp_path)[0]
    assert any(not torch.equal(mine, averaged) for mine, averaged in zip(t.parameters, t.average, strict=True))
    weight = use_average(t).state_dict()["0.weight"]
    assert torch.equal(weight, t.average[0])


def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    whole = fit_on(training(), "part", tmp_path / "whole")
    for _ in range(3):  # a deadline that lies before the end: one window a call
        calls = iter([0.0, *[0.0] * 2, 1.0, 1.0, 1.0, 1.0])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(graphed.time, "perf_counter", lambda calls=calls: next(calls))
            resumed = fit_on(training(), "part", tmp_path / "parts", deadline=0.5)
    assert resumed.step == 150
    assert len(losses(tmp_path / "parts")) == 3
    assert all(torch.equal(a, b) for a, b in zip(copies(whole), copies(resumed), strict=True))


def test_the_learning_rate_is_the_tensor_that_the_host_sets(tmp_path: Path) -> None:
    fit_on(training(replace(RECIPE, steps=50)), "part", tmp_path)
    t = fit_on(training(replace(RECIPE, steps=60)), "part", tmp_path)
    assert t.optimizer.param_groups[0]["lr"] is t.rate
    t.recipe = replace(RECIPE, steps=100, learning_rate=0.0)
    before = [p.detach().clone() for p in t.parameters]
    advance(t, captured(t), 3)
    assert all(torch.equal(a, b) for a, b in zip(before, t.parameters, strict=True))


def test_the_number_of_steps_follows_from_the_time(tmp_path: Path) -> None:
    clock = graphed.time.perf_counter()
    t = fit_on(training(replace(RECIPE, steps=0)), "part", tmp_path, deadline=clock + 0.5)
    assert t.recipe.steps > graphed.TIMED
    assert t.step <= t.recipe.steps
    assert graphed.time.perf_counter() - clock < 5


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    value = iter([1.0, float("nan"), 1.0])
    t = training(spoil=lambda: next(value))
    t.rate.fill_(0.02)
    t.moved.fill_(0.5)
    take_step(t)
    before = [c.clone() for c in [*t.parameters, *copies(t)[-2:]]]
    take_step(t)
    assert all(torch.equal(a, b) for a, b in zip(before, [*t.parameters, *copies(t)[-2:]], strict=True))
    assert float(t.skipped) == 1
    take_step(t)
    assert not torch.equal(before[0], t.parameters[0])


def test_a_diverged_loss_brings_the_good_weights_back_at_half_the_rate() -> None:
    t = training()
    advance(t, captured(t), 10)
    good = [c.detach().clone() for c in copies(t)]
    t.best = 0.1
    assert not judge(t, 0.15, good)
    advance(t, captured(t), 5)
    assert judge(t, 0.3, good)
    assert (t.slowdown, t.restored) == (0.5, 1)
    assert all(torch.equal(a, b) for a, b in zip(good, copies(t), strict=True))


@pytest.mark.gpu
def test_a_graph_trains_as_the_eager_step_does(tmp_path: Path) -> None:
    device, found = torch.device("cuda"), []
    for eager in (True, False):
        torch.manual_seed(0)
        module = nn.Linear(3, 1).to(device)

        def loss(module: nn.Module = module) -> torch.Tensor:
            x = torch.randn(16, 3, device=device)
            return (module(x) - x.sum(-1, keepdim=True)).square().mean()

        t = Training(module, loss, RECIPE, device, autocast=False)
        run = captured(t)
        advance(t, (lambda t=t: take_step(t)) if eager else run, 20)
        found.append(t.parameters[0].detach().clone())
    torch.testing.assert_close(found[0], found[1])
