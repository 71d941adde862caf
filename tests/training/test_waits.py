"""Between logs the host waits for no device: the loop runs on one whose tensors hold nothing, so that a read fails."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from launches import Launches
from tiny import Make, differing, encoded, silent, tiny_training, tiny_unet, weights

from bayesdiff.diffusion.batch import Conditioning, Encoded
from bayesdiff.pretraining.denoiser import build_scheduler
from bayesdiff.training import loop
from bayesdiff.training.loop import Diverged, Training, prepare, train

ARMS = ["off", "on", "weight_noise", "released", "ema", "input_noise", "lr_decay", "l2_to_pretrained", "prompt_dropout"]


def on_meta(cfg: Any, monkeypatch: pytest.MonkeyPatch) -> Training:
    """A run without memory; torch's fused AdamW does not run there, and its update is left out."""
    monkeypatch.setattr(loop, "build_optimizer", lambda means, groups, *_: torch.optim.SGD([{"params": means}, *groups], lr=1.0))
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *_: None)
    monkeypatch.setattr(loop, "encode_unconditional", lambda *_: Conditioning(torch.zeros(1, 5, 8, device="meta")))
    data, like = encoded(4), torch.device("meta")
    instance = Encoded(data.mean.to(like), data.std.to(like), Conditioning(data.text.states.to(like)))
    pipe: Any = SimpleNamespace(unet=tiny_unet().to(like), scheduler=build_scheduler("linear"))
    state = prepare(pipe, cfg, instance, instance)
    state.noise_schedule.alphas_cumprod = state.noise_schedule.alphas_cumprod.to(like)
    return state


MORE = ["training.gradient_accumulation_steps=2", "training.min_snr_gamma=5"]
PER_DRAW = ["off", "on", "input_noise", "prompt_dropout"]
"""Arms that do something of their own in every micro-batch, and the plain one."""


@pytest.mark.parametrize(("arm", "more"), [*((arm, []) for arm in ARMS), *((arm, MORE) for arm in PER_DRAW)])
def test_a_step_between_logs_waits_for_nothing(make_config: Make, monkeypatch: pytest.MonkeyPatch, arm: str, more: list[str]) -> None:
    cfg, last = make_config("+experiment=smoke", f"bnn={arm}", "schedule.log_every=2", *more), 3 if arm == "on" else 2
    state, told = on_meta(cfg, monkeypatch), []
    monkeypatch.setattr(loop, "_tell", lambda names, read, done, *_: told.append((done, len(read))))
    with Launches() as counted:
        train(state, cfg, 0, last, silent)
    assert told == [(2, 2), (3, 1)][: last - 1]
    assert sum(counted.counts.values()) > 250
    assert not counted.waits


@pytest.mark.parametrize("method", ["lora", "oft"])
def test_nor_does_it_with_an_adapter(make_config: Make, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    test_a_step_between_logs_waits_for_nothing(make_config, monkeypatch, "on", [f"method={method}", "method.rank=2"])


def test_the_counter_sees_a_wait(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with Launches() as counted:
        float(torch.ones(1).sum())  # on the CPU there is nothing to wait for
        with pytest.raises(RuntimeError):
            float(torch.ones(1, device="meta").sum())
        torch.ones(3).to("meta")
        torch.ones(3).to("meta", non_blocking=True)
    assert counted.waits == {"aten._local_scalar_dense": 1, "aten._to_copy": 1}


def unread(state: Training, cfg: Any, steps: int, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, dict[str, float]]]:
    """Train on the CPU as on a GPU: nothing is decided on the host."""
    monkeypatch.setattr(loop, "decided_on_host", lambda *_: False)
    told: list[tuple[int, dict[str, float]]] = []
    train(state, cfg, 0, steps, lambda step, parts: told.append((step, parts)))
    return told


@pytest.mark.parametrize("arm", ["off", "on"])
def test_values_that_are_read_late_are_the_same(make_config: Make, monkeypatch: pytest.MonkeyPatch, arm: str) -> None:
    cfg = make_config("+experiment=smoke", f"bnn={arm}", "schedule.log_every=3")
    state, late = tiny_training(cfg), tiny_training(cfg)
    told: list[tuple[int, dict[str, float]]] = []
    train(state, cfg, 0, 5, lambda step, parts: told.append((step, parts)))
    assert unread(late, cfg, 5, monkeypatch) == told
    assert differing(weights(state), weights(late)) == []


@pytest.mark.parametrize("arm", ["off", "on"])
def test_from_a_step_that_is_not_finite_on_no_weight_moves(make_config: Make, monkeypatch: pytest.MonkeyPatch, arm: str) -> None:
    cfg = make_config("+experiment=smoke", f"bnn={arm}", "schedule.log_every=10")
    state, short = tiny_training(cfg), tiny_training(cfg)
    batch_at, step_of_fault = loop.batch_at, 2

    def faulty(micro: int, *rest: Any) -> Any:
        batch = batch_at(micro, *rest)
        return replace(batch, latents=batch.latents * (math.nan if micro == step_of_fault else 1.0))

    monkeypatch.setattr(loop, "batch_at", faulty)
    with pytest.raises(Diverged) as found:
        unread(state, cfg, 6, monkeypatch)
    assert found.value.step == step_of_fault + 1
    unread(short, cfg, step_of_fault, monkeypatch)
    assert differing(weights(state), weights(short)) == []
