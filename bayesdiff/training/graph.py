"""The step as one CUDA graph: a fine-tuning step at batch 1 is bound by launches, and a graph launches once.

Forward, backward, clipping and the update are recorded over static buffers; a step copies its batch into them and
replays. While recording, and where a loss or gradient is not finite, ``hold`` makes AdamW skip the update on the device, so
that neither warm-up nor a bad step, nor any step after it, moves a weight. What was not finite is found when the values are read.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from bayesdiff.arms.protocol import Arm
from bayesdiff.config.schema import Config, Graph, Optimizer, Precision
from bayesdiff.core.processes import process_count
from bayesdiff.diffusion.batch import Batch, Conditioning
from bayesdiff.diffusion.graphed import given_up, recorded
from bayesdiff.methods import unrecordable
from bayesdiff.training.objective import training_loss

if TYPE_CHECKING:
    from bayesdiff.training.loop import Training

WARM_UP = 3
"""Steps on a side stream before recording: libraries choose their kernels and allocate in them."""


@dataclass(frozen=True)
class GraphedStep:
    """A recorded step: ``run(batch, rate)`` performs it and returns its values without waiting for them."""

    run: Callable[[Batch, float], torch.Tensor]
    names: tuple[str, ...]
    """Of the values, in order: the parts of the loss, then the gradient norm of every optimiser group."""
    held: torch.Tensor
    """1 from the first step on that was not finite, else 0, a scalar (); the graph reads its memory, and no one else may get it."""


def obstacle(state: Training, cfg: Config) -> str:
    """Why the step cannot be one graph here; empty where it can."""
    training = cfg.training
    reasons = {
        "training.graph=off": training.graph is Graph.off,
        "the device is no GPU": state.trained[0].device.type != "cuda",
        "several processes share the run": process_count() > 1,
        "several micro-batches make a step": training.gradient_accumulation_steps > 1,
        "8-bit AdamW decides on the host": training.optimizer is not Optimizer.adamw,
        "fp16's loss scale is decided on the host": training.mixed_precision is Precision.fp16,
        "gradient checkpointing keeps random state on the host": training.gradient_checkpointing,
        "torch.compile records graphs of its own": training.compile or training.compile_blocks,
        "text encoders are trained too": cfg.method.train_text_encoder,
        "the arm surrounds the forward pass": type(state.arm).forward is not Arm.forward,
    }
    return next((reason for reason, applies in reasons.items() if applies), "") or unrecordable(cfg.method.name) or state.unrecorded


def tried(state: Training, cfg: Config, example: Batch, dtype: torch.dtype | None, number: int) -> tuple[GraphedStep | None, str]:
    """``capture``, or None and why the step could not be recorded: a run goes on eagerly then, as if nothing had been tried."""
    try:
        return capture(state, cfg, example, dtype, number), ""
    except RuntimeError as error:  # an operation that no graph can hold, or too little memory for a second set of gradients
        why = given_up("the step", error)
    state.optimizer.zero_grad(set_to_none=True)
    state.optimizer.found_inf = None  # type: ignore[attr-defined]  # else no step would move a weight
    state.arm.before_step(number)
    return None, why


def capture(state: Training, cfg: Config, example: Batch, dtype: torch.dtype | None, number: int) -> GraphedStep:
    """Record step ``number`` of a run over buffers shaped as ``example``; weights and moments are as before afterwards."""
    static = _copy_of(example)
    hold = torch.ones((), device=example.latents.device)
    names: list[str] = []

    def step() -> torch.Tensor:
        state.optimizer.zero_grad(set_to_none=True)  # gradients get memory of the graph's own
        autocast = torch.autocast("cuda", dtype, cache_enabled=False) if dtype else nullcontext()
        with autocast:
            loss, parts = training_loss(
                state.pipe.unet, state.noise_schedule, static, state.arm.penalty(),
                prior_loss_weight=cfg.method.prior_loss_weight, min_snr_gamma=cfg.training.min_snr_gamma,
            )  # fmt: skip
        loss.backward()  # type: ignore[no-untyped-call]
        groups = [group["params"] for group in state.optimizer.param_groups]
        norms = [nn.utils.clip_grad_norm_(group, cfg.training.max_grad_norm) for group in groups]
        names[:] = [*parts, *(f"norm_{i}" for i in range(len(norms)))]
        values = torch.stack([value.float() for value in (*parts.values(), *norms)])
        hold.copy_(torch.maximum(hold, 1 - torch.isfinite(values).all().float()))
        state.optimizer.found_inf = hold  # type: ignore[attr-defined]
        state.optimizer.step()
        return values

    # autograd adds to a gradient on the stream where its parameter was first used, as long as that use lives. The draw that was made
    # for this step is such a use, of a stream that nothing may wait for while another one records
    state.arm.after_training()

    def warm_up() -> None:
        """A backward pass spends the draw, so that each pass gets one from outside the recording; the recorded one too."""
        for _ in range(WARM_UP):
            state.arm.before_step(number)
            step()
        state.arm.before_step(number)

    graph, values = recorded(step, warm_up)
    hold.zero_()

    def run(batch: Batch, rate: float) -> torch.Tensor:
        _fill(static, batch)
        for group in state.optimizer.param_groups:
            group["lr"].fill_(rate * group.get("factor", 1.0))
        graph.replay()
        return values.clone()

    return GraphedStep(run, tuple(names), hold)


def _copy_of(batch: Batch) -> Batch:
    text = Conditioning(batch.text.states.clone(), {key: value.clone() for key, value in batch.text.added.items()})
    return Batch(batch.latents.clone(), batch.noise.clone(), batch.timesteps.clone(), text, batch.prior)


def _fill(static: Batch, batch: Batch) -> None:
    """Copy a step's data into the static buffers."""
    pairs = [(static.latents, batch.latents), (static.noise, batch.noise), (static.timesteps, batch.timesteps)]
    pairs += [(static.text.states, batch.text.states), *((static.text.added[key], batch.text.added[key]) for key in static.text.added)]
    for buffer, value in pairs:
        buffer.copy_(value, non_blocking=True)
