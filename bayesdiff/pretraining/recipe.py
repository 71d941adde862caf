"""One resumable pretraining loop for all four parts of the toybox.

A part hands over its trainable module and a loss; the loop owns optimiser, learning rate, EMA,
bf16 autocast (where the processor has it), the log and the resume file. Give the same command
again to go on.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from bayesdiff.core.files import atomic_write
from bayesdiff.core.seeds import generator

WORK = Path("pretrain")
"""Default folder of rendered images, resume files and logs."""

Trained = TypeVar("Trained", bound=nn.Module)


@dataclass(frozen=True)
class Recipe:
    """How one part is trained."""

    steps: int
    learning_rate: float
    warmup: int = 200
    weight_decay: float = 0.01
    ema: float = 0.999
    """Decay of the weight average that is shipped; 0 ships the raw weights."""
    cosine: bool = True
    seed: int = 0
    save_every: int = 250
    clip: float = 1.0


def work_folder(description: str | None) -> Path:
    """The one option of a part's command line: ``--work FOLDER``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    return Path(parser.parse_args().work)


def has_fast_bfloat16() -> bool:
    """Whether the CPU multiplies bf16 in hardware; without it autocast is 20 times slower than float32."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def rate(recipe: Recipe, step: int) -> float:
    """Learning rate at a step: linear warm-up, then cosine to 2 % (or constant)."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    if not recipe.cosine:
        return recipe.learning_rate
    progress = min((step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1), 1.0)
    return recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + float(torch.cos(torch.tensor(progress * torch.pi)))))


def _update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for a, p in zip(average.parameters(), module.parameters(), strict=True):
            a.lerp_(p, 1 - decay)
        for old, new in zip(average.buffers(), module.buffers(), strict=True):
            old.copy_(new)


def fit(name: str, module: Trained, loss: Callable[[torch.Generator], torch.Tensor], recipe: Recipe, work: Path = WORK) -> Trained:
    """Train ``module`` in place with ``loss(generator)`` and return its weight average.

    The loss is called under bf16 autocast where the CPU has it, with a generator that is a function of (seed, step), so
    that a resumed run draws what an uninterrupted one would have drawn.
    """
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.99), fused=True
    )
    average = copy.deepcopy(module).requires_grad_(False)
    work.mkdir(parents=True, exist_ok=True)
    state_file, log_file = work / f"{name}.state.pt", work / f"{name}.log.csv"
    start = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        module.load_state_dict(state["module"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    elif log_file.exists():
        log_file.unlink()
    clock, total, count, fast = time.perf_counter(), torch.zeros(()), 0, has_fast_bfloat16()
    for step in range(start, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(recipe, step)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            value = loss(generator(recipe.seed, name, step))
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _update_average(average, module, min(recipe.ema, (step + 1) / (step + 10)))
        total, count = total + value.detach(), count + 1
        if (step + 1) % 50 == 0:
            line = f"{step + 1},{float(total) / count:.5f},{(time.perf_counter() - clock) / count:.3f}"
            with log_file.open("a") as log:
                log.write(line + "\n")
            print(f"{name} step,loss,seconds_a_step: {line}", flush=True)
            clock, total, count = time.perf_counter(), torch.zeros(()), 0
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            state = {"module": module.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            with atomic_write(state_file) as part:
                torch.save(state, part)
    return average.eval()
