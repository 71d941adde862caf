"""One training step as one CUDA graph; without a CUDA device the same step runs eagerly.

A launch from the host costs tens of microseconds, and a step of a U-Net has thousands: small networks wait
for the host. A graph replays them all in one launch. Inside the graph nothing may depend on the host, so
data, learning rate, average weight and running loss live in buffers of the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from bayesdiff.core.errors import first_line
from bayesdiff.core.files import atomic_write
from bayesdiff.core.seeds import derive
from bayesdiff.diffusion.graphed import recorded
from bayesdiff.pretraining.recipe import Recipe, has_fast_bfloat16, rate

WARM_UP, WINDOW = 3, 50
"""Eager steps before the capture; steps whose loss is averaged, logged and judged together."""
TIMED = 20
"""Steps that are timed when the number of steps follows from the time."""
DIVERGED, SNAPSHOT = 2.0, 10
"""Loss over the best one at which the last good weights come back; windows between two such copies."""


@dataclass
class Training:
    """What a step reads and writes; every tensor stays where it is, so that a graph can be replayed."""

    module: nn.Module
    loss: Callable[[], torch.Tensor]
    recipe: Recipe
    device: torch.device
    betas: tuple[float, float] = (0.9, 0.99)
    autocast: bool | None = None
    """bf16; None: where the device multiplies it."""
    step: int = 0
    best: float = float("inf")
    slowdown: float = 1.0
    """Factor of the learning rate: halved whenever the loss has diverged."""
    restored: int = 0
    parameters: list[torch.Tensor] = field(init=False)
    average: list[torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.rate, self.moved, self.total, self.skipped = (torch.zeros((), device=self.device) for _ in range(4))
        on_gpu = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.rate, weight_decay=self.recipe.weight_decay, betas=self.betas, fused=True, capturable=on_gpu
        )
        # the fused optimiser leaves weights and moments alone when this is 1 (as under a gradient scaler)
        self.optimizer.grad_scale = None  # type: ignore[attr-defined]
        self.optimizer.found_inf = torch.zeros((), device=self.device)  # type: ignore[attr-defined]
        if self.autocast is None:
            self.autocast = on_gpu or has_fast_bfloat16()


def take_step(t: Training) -> None:
    """Loss, gradients, update, weight average; nothing here waits for the device."""
    t.optimizer.zero_grad(set_to_none=False)
    with torch.autocast(t.device.type, torch.bfloat16, enabled=bool(t.autocast), cache_enabled=False):
        value = t.loss()
    value.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(t.parameters, t.recipe.clip, foreach=True)
    bad: torch.Tensor = t.optimizer.found_inf  # type: ignore[attr-defined]
    bad.copy_(~norm.isfinite())
    t.optimizer.step()
    with torch.no_grad():
        difference = torch._foreach_sub(t.parameters, t.average)
        torch._foreach_mul_(difference, t.moved)
        torch._foreach_add_(t.average, difference)
        t.total.add_(value.detach().nan_to_num(0.0, 0.0, 0.0))
        t.skipped.add_(bad)


def prepare_step(t: Training) -> None:
    """Set what a step takes from the host: its learning rate, its share of the average, and its seed."""
    t.rate.fill_(t.slowdown * rate(t.recipe, t.step))
    t.moved.fill_(1 - min(t.recipe.ema, (t.step + 1) / (t.step + 10)))
    torch.manual_seed(derive(t.recipe.seed, "graphed", t.step))


def captured(t: Training) -> Callable[[], None]:
    """The step as a function: the replay of a graph on CUDA (after real steps that warm up), the step itself elsewhere."""
    if t.device.type != "cuda":
        return lambda: take_step(t)

    def warm_up() -> None:
        for _ in range(WARM_UP):
            prepare_step(t)
            take_step(t)
            t.step += 1

    try:
        graph, _ = recorded(lambda: take_step(t), warm_up)
    except RuntimeError as error:  # an operation that cannot be recorded: slow training is better than none
        print(f"no graph, the steps run eagerly: {first_line(error)}", flush=True)
        torch.cuda.synchronize()
        return lambda: take_step(t)
    return graph.replay


def advance(t: Training, run: Callable[[], None], steps: int) -> float:
    """Run ``steps`` steps; returns the seconds a step took."""
    clock = time.perf_counter()
    for _ in range(steps):
        prepare_step(t)
        run()
        t.step += 1
    if t.device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - clock) / max(steps, 1)


def copies(t: Training) -> list[torch.Tensor]:
    """Every tensor of the training's state, of any shape (…), in a fixed order: weights, average, moments."""
    moments = [t.optimizer.state[p][key] for p in t.parameters for key in ("exp_avg", "exp_avg_sq")]
    return [*t.parameters, *t.average, *moments]


def judge(t: Training, mean: float, good: list[torch.Tensor]) -> bool:
    """Whether the loss has diverged; then the ``good`` copies, any shapes (…), come back and the learning rate is halved."""
    if mean <= DIVERGED * t.best or t.step < t.recipe.warmup or not good:
        t.best = min(t.best, mean)
        return False
    with torch.no_grad():
        for mine, copy in zip(copies(t), good, strict=True):
            mine.copy_(copy)
    t.slowdown, t.restored = t.slowdown / 2, t.restored + 1
    return True


def save_state(t: Training, file: Path) -> None:
    state = {
        "module": t.module.state_dict(), "average": t.average, "optimizer": t.optimizer.state_dict(), "step": t.step,
        "best": t.best, "slowdown": t.slowdown, "restored": t.restored, "steps": t.recipe.steps,
    }  # fmt: skip
    with atomic_write(file) as part:
        torch.save(state, part)


def load_state(t: Training, file: Path) -> None:
    state = torch.load(file, weights_only=True, map_location=t.device)
    t.module.load_state_dict(state["module"])
    for mine, saved in zip(t.average, state["average"], strict=True):
        mine.copy_(saved)
    t.optimizer.load_state_dict(state["optimizer"])
    for group in t.optimizer.param_groups:
        group["lr"] = t.rate  # the state holds a copy of it
    t.step, t.best, t.slowdown, t.restored = state["step"], state["best"], state["slowdown"], state["restored"]
    t.recipe = replace(t.recipe, steps=t.recipe.steps or state["steps"])


def log_line(file: Path, step: int, mean: float, seconds: float) -> None:
    line = f"{step},{mean:.5f},{seconds:.4f}"
    with file.open("a") as log:
        log.write(line + "\n")
    if step // WINDOW % SNAPSHOT == 0:
        print(f"step,loss,seconds_a_step: {line}", flush=True)


def fit_on(t: Training, name: str, work: Path, deadline: float = float("inf")) -> Training:
    """Train until ``recipe.steps`` or until ``deadline`` (``time.perf_counter``), save the state, and return it.

    With ``recipe.steps`` 0 the number of steps is what the time until the deadline allows, measured on the first
    steps; the state file keeps it. The same call goes on from the state file. A finished run returns at once.
    """
    work.mkdir(parents=True, exist_ok=True)
    state_file, log_file = work / f"{name}.state.pt", work / f"{name}.log.csv"
    if state_file.exists():
        load_state(t, state_file)
    else:
        log_file.unlink(missing_ok=True)
    if t.recipe.steps and t.step >= t.recipe.steps:
        return t
    run = captured(t)
    if not t.recipe.steps:
        advance(t, run, WARM_UP)
        seconds = advance(t, run, TIMED)
        t.recipe = replace(t.recipe, steps=t.step + max(int((deadline - time.perf_counter()) / seconds), 1))
        print(f"{seconds * 1e3:.1f} ms a step: {t.recipe.steps} steps", flush=True)
    _windows(t, run, log_file, deadline)
    save_state(t, state_file)
    return t


def _windows(t: Training, run: Callable[[], None], log_file: Path, deadline: float) -> None:
    good: list[torch.Tensor] = []
    t.total.zero_()
    while t.step < t.recipe.steps and time.perf_counter() < deadline:
        count = min(WINDOW, t.recipe.steps - t.step)
        seconds = advance(t, run, count)
        mean = float(t.total) / count
        t.total.zero_()
        log_line(log_file, t.step, mean, seconds)
        if judge(t, mean, good):
            print(f"loss {mean:.3f} against {t.best:.3f}: back to the last good weights at half the rate", flush=True)
        elif t.step // WINDOW % SNAPSHOT == 0:
            good = [tensor.detach().clone() for tensor in copies(t)]


def use_average(t: Training) -> nn.Module:
    """Put the weight average into the module, for evaluation; returns the module."""
    with torch.no_grad():
        for mine, averaged in zip(t.parameters, t.average, strict=True):
            mine.copy_(averaged)
    return t.module.eval()
