"""The pretraining loop: resumable bit for bit, with a known learning rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from bayesdiff.pretraining.recipe import Recipe, fit, has_fast_bfloat16, rate

RECIPE = Recipe(steps=8, learning_rate=0.05, warmup=2, ema=0.9, save_every=4)
Loss = Callable[[torch.Generator], torch.Tensor]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def loss_of(module: nn.Module, stop_at: int = -1) -> Loss:
    """Distance of the module from a sum, on random inputs; the call ``stop_at`` is interrupted."""
    calls = iter(range(10_000))

    def loss(generator: torch.Generator) -> torch.Tensor:
        if next(calls) == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(16, 3, generator=generator)
        return (module(x) - x.sum(-1, keepdim=True)).square().mean()

    return loss


def state(module: nn.Module, average: nn.Module) -> list[torch.Tensor]:
    return [*module.state_dict().values(), *average.state_dict().values()]


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    whole = model()
    uninterrupted = state(whole, fit("part", whole, loss_of(whole), RECIPE, tmp_path / "whole"))
    stopped, resumed = model(), model()
    with pytest.raises(KeyboardInterrupt):
        fit("part", stopped, loss_of(stopped, stop_at=6), RECIPE, tmp_path / "parts")
    saved = torch.load(tmp_path / "parts" / "part.state.pt", weights_only=True)
    assert saved["step"] == 4
    average = fit("part", resumed, loss_of(resumed), RECIPE, tmp_path / "parts")
    assert all(torch.equal(a, b) for a, b in zip(uninterrupted, state(resumed, average), strict=True))


@pytest.mark.parametrize(
    ("found", "fast"), [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True}, False), ({}, False)]
)
def test_bf16_is_used_only_where_the_processor_multiplies_it(monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], fast: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert has_fast_bfloat16() is fast


def test_training_changes_the_weights_and_lowers_the_loss(tmp_path: Path) -> None:
    module = model()
    loss, generator = loss_of(module), torch.Generator().manual_seed(0)
    before = float(loss(generator).detach())
    average = fit("part", module, loss_of(module), replace(RECIPE, steps=40), tmp_path)
    assert float(loss_of(average)(torch.Generator().manual_seed(0)).detach()) < 0.7 * before


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = model()
    average = fit("part", first, loss_of(first), RECIPE, tmp_path)
    second = model()
    again = fit("part", second, loss_of(second, stop_at=0), RECIPE, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(state(first, average), state(second, again), strict=True))


def test_the_seed_and_the_name_decide_the_draws(tmp_path: Path) -> None:
    def trained(name: str, seed: int, folder: str) -> torch.Tensor:
        module = model()
        fit(name, module, loss_of(module), replace(RECIPE, seed=seed), tmp_path / folder)
        return next(module.parameters()).detach()

    base = trained("part", 0, "a")
    assert torch.equal(base, trained("part", 0, "b"))
    assert not torch.equal(base, trained("part", 1, "c"))
    assert not torch.equal(base, trained("other", 0, "d"))


def test_the_average_lags_behind_and_is_ready_for_use(tmp_path: Path) -> None:
    module = model()
    start = next(module.parameters()).detach().clone()
    average = fit("part", module, loss_of(module), RECIPE, tmp_path)
    lagging, last = next(average.parameters()), next(module.parameters()).detach()
    assert 0 < float((lagging - start).norm()) < float((last - start).norm())
    assert not average.training
    assert not any(p.requires_grad for p in average.parameters())


def test_without_decay_the_average_is_the_model(tmp_path: Path) -> None:
    module = model()
    average = fit("part", module, loss_of(module), replace(RECIPE, ema=0.0), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), average.state_dict().values(), strict=True))


def test_the_log_has_a_row_every_fifty_steps_of_this_run_alone(tmp_path: Path) -> None:
    module = model()
    (tmp_path / "part.log.csv").write_text("50,9.0,1.0\n")
    fit("part", module, loss_of(module), replace(RECIPE, steps=100), tmp_path)
    rows = [line.split(",") for line in (tmp_path / "part.log.csv").read_text().splitlines()]
    assert [row[0] for row in rows] == ["50", "100"]
    assert float(rows[1][1]) < float(rows[0][1])


@pytest.mark.parametrize("cosine", [True, False])
def test_the_learning_rate_warms_up_in_a_line(cosine: bool) -> None:
    recipe = Recipe(steps=1000, learning_rate=0.4, warmup=100, cosine=cosine)
    warm = [rate(recipe, step) for step in range(100)]
    assert warm == pytest.approx([0.004 * (step + 1) for step in range(100)])
    assert rate(recipe, 100) == pytest.approx(0.4)


def test_the_learning_rate_falls_as_a_cosine_to_two_percent() -> None:
    recipe = Recipe(steps=1000, learning_rate=0.4, warmup=100)
    rates = [rate(recipe, step) for step in range(100, 1000)]
    assert all(a >= b for a, b in pairwise(rates))
    assert rate(recipe, 550) == pytest.approx(0.4 * 0.51)
    assert rate(recipe, 1000) == rate(recipe, 5000) == pytest.approx(0.008)


def test_the_learning_rate_can_stay() -> None:
    recipe = Recipe(steps=1000, learning_rate=0.4, warmup=100, cosine=False)
    assert {rate(recipe, step) for step in (100, 500, 999)} == {0.4}
