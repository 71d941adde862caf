"""Speed as ratios, which hold on any machine: ``make bench`` writes them, ``make bench-check`` compares them with the committed ones.

The two sides of a ratio are run in turns in one process, on one thread, and timed by the process's own CPU time: other programs
on the machine touch neither. Every ratio has the median of its pairs and their spread, the distance of the quartiles.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bayesdiff.config.compose import compose
from bayesdiff.config.schema import Config
from bayesdiff.core.files import write_json
from bayesdiff.diffusion.batch import encode_pictures
from bayesdiff.diffusion.pipeline import load_pipeline
from bayesdiff.diffusion.subject import load_subject
from bayesdiff.training.batches import batch_at
from bayesdiff.training.loop import Training, prepare, train
from bayesdiff.training.objective import training_loss

COMMITTED = Path(__file__).resolve().parents[1] / "results" / "bench" / "cpu.json"
PAIRS, STEPS = 12, 3
"""Pairs of a ratio, after one that warms up, and steps in each side of a pair."""
CURVE_STEPS = 91
"""Steps a checkpoint in the share of a run; corruption_curve has 2,100 steps and 23 checkpoints."""
CHECKPOINTS = 23
BRIEF = ("sampler.steps=1",)
"""Of runs with one step of training and one of sampling a checkpoint."""
LEAST = 0.03
"""A ratio may grow by this much, or by three spreads if they are more, before it is a regression."""
BARS = {
    "step over bare step": 1.05, "bnn=on over off, dreambooth": 1.25, "bnn=on over off, lora": 1.08, "bnn=on over off, oft": 1.06,
    "share outside the U-Net": 0.10,
}  # fmt: skip
Side = Callable[[int], None]


@dataclass(frozen=True)
class Ratio:
    """``median`` and ``spread`` of the pairs; ``ms`` are the two sides' own medians a step."""

    median: float
    spread: float
    ms: tuple[float, float]


def seconds(side: Side, step: int) -> float:
    begun = time.process_time()
    side(step)
    return time.process_time() - begun


def paired(first: Side, second: Side, pairs: int = PAIRS) -> Ratio:
    """Second over first, run in turns; each side gets the step at which it begins."""
    times = [(seconds(first, i * STEPS), seconds(second, i * STEPS)) for i in range(pairs + 1)][1:]
    ratios = sorted(b / a for a, b in times)
    low, _, high = statistics.quantiles(ratios, n=4)
    ms = [statistics.median(column) / STEPS * 1e3 for column in zip(*times, strict=True)]
    return Ratio(statistics.median(ratios), high - low, (ms[0], ms[1]))


def toybox(*words: str) -> tuple[Config, Training]:
    """The shipped toybox, ready to be trained on one photograph."""
    cfg = compose(("+experiment=corruption_curve", *words))
    pipe = load_pipeline(cfg.model, torch.device("cpu"))
    subject = load_subject(cfg.data, 1, 0, cfg.model.resolution)
    return cfg, prepare(pipe, cfg, encode_pictures(pipe, [photo.image for photo in subject.photos], "a photo of qwe backpack"), None)


def steps_of(cfg: Config, state: Training) -> Side:
    return lambda step: train(state, cfg, step, step + STEPS, lambda *_: None)


def bare(cfg: Config, state: Training) -> Side:
    """Forward, backward, clipping and AdamW in a plain loop, on a batch that stays."""
    batch = batch_at(0, 0, 1, 1000, state.instance, None)

    def run(_: int) -> None:
        state.pipe.unet.train()
        for _ in range(STEPS):
            training_loss(state.pipe.unet, state.noise_schedule, batch, {})[0].backward()
            nn.utils.clip_grad_norm_(state.trained, cfg.training.max_grad_norm)
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
        state.pipe.unet.eval()

    return run


def over_bare(pairs: int) -> Ratio:
    return paired(bare(*toybox("bnn=off")), steps_of(*toybox("bnn=off")), pairs)


def on_over_off(method: str, pairs: int) -> Ratio:
    off, on = (steps_of(*toybox(f"method={method}", f"bnn={arm}")) for arm in ("off", "on"))
    return paired(off, on, pairs)


@contextmanager
def clocked(owner: Any, name: str, spent: list[float]) -> Iterator[None]:
    """Within the block a function's CPU time, without that of clocked ones inside it, goes to ``spent``.

    It is the thread's own: the thread that writes checkpoints works meanwhile, and counts as outside.
    """
    own = getattr(owner, name)

    def run(*given: Any, **named: Any) -> Any:
        begun, inner = time.thread_time(), sum(spent)
        try:
            return own(*given, **named)
        finally:
            spent.append(time.thread_time() - begun - (sum(spent) - inner))

    setattr(owner, name, run)
    try:
        yield
    finally:
        setattr(owner, name, own)


def spent_on(checkpoints: int, steps: int, words: tuple[str, ...] = ()) -> tuple[float, float]:
    """CPU seconds of a run with so many checkpoints, each after ``steps``, after loading: of the U-Net's passes, and of all."""
    from diffusers import UNet2DConditionModel

    from bayesdiff.runs import experiment

    spent: list[float] = []
    loading: list[float] = []
    at = [steps * (number + 1) for number in range(checkpoints)]
    with tempfile.TemporaryDirectory() as folder:
        cfg = compose(
            ("+experiment=corruption_curve", f"schedule.steps={at[-1]}", f"schedule.checkpoints={at}", f"paths.runs={folder}", *words)
        )
        begun = time.process_time()
        with (
            clocked(UNet2DConditionModel, "forward", spent),
            clocked(torch.Tensor, "backward", spent),
            clocked(experiment, "load_bench", loading),
        ):
            experiment.run_experiment(cfg)
        total = time.process_time() - begun
    return sum(spent), total - sum(loading)


def share_outside(steps: int = CURVE_STEPS, checkpoints: int = CHECKPOINTS) -> float:
    """Of corruption_curve's CPU time after loading, what is not the U-Net's forward and backward pass.

    A run with all its checkpoints but brief ones has what grows with them: tables, verdicts, pictures and page. To it comes, once a
    checkpoint, what its steps of training and sampling add: the difference of a full and a brief one.
    """
    spent_on(1, 1, BRIEF)  # what a process loads once for plots and pages is a hundredth of a whole run
    brief, full, curve = spent_on(1, 1, BRIEF), spent_on(1, steps), spent_on(checkpoints, 1, BRIEF)
    inside, total = (c + checkpoints * (f - b) for c, f, b in zip(curve, full, brief, strict=True))
    return 1 - inside / total


def measured(pairs: int = PAIRS, curve_steps: int = CURVE_STEPS) -> dict[str, Any]:
    torch.set_num_threads(1)
    ratios = {"step over bare step": over_bare(pairs)}
    ratios |= {f"bnn=on over off, {method}": on_over_off(method, pairs) for method in ("dreambooth", "lora", "oft")}
    found = {name: vars(ratio) for name, ratio in ratios.items()}
    found["share outside the U-Net"] = {"median": share_outside(curve_steps), "spread": 0.01}
    where = {"torch": torch.__version__, "machine": platform.machine(), "threads": 1, "clock": "process CPU time"}
    return {"ratios": found, "bars": BARS, "where": where}


def regressions(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Ratios that grew beyond both measurements' spread, a line each."""
    worse = []
    for name, was in before["ratios"].items():
        found = now["ratios"][name]
        if found["median"] > was["median"] + max(LEAST, 3 * max(was["spread"], found["spread"])):
            worse.append(f"{name}: {found['median']:.3f}, was {was['median']:.3f} (spread {was['spread']:.3f})")
    return worse


def table(found: dict[str, Any]) -> str:
    rows = [f"{'ratio':32}{'median':>8}{'spread':>8}{'bar':>7}"]
    for name, ratio in found["ratios"].items():
        rows.append(f"{name:32}{ratio['median']:8.3f}{ratio['spread']:8.3f}{found['bars'][name]:7.2f}")
    return "\n".join(rows)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed ratios, and write nothing")
    parser.add_argument("--to", type=Path, default=COMMITTED)
    given = parser.parse_args(arguments)
    found = measured()
    print(table(found))
    if not given.check:
        given.to.parent.mkdir(parents=True, exist_ok=True)
        write_json(given.to, found)
        return 0
    worse = regressions(found, json.loads(given.to.read_text(encoding="utf-8")))
    print("\n".join(worse) or "no regression")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
