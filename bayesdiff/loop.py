"""The training loop: one visible function from one checkpoint to the next."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from bayesdiff.batches import Encoded, batch_at
from bayesdiff.bayes import BayesianLayer, draw_weights, make_bayesian, use_mean
from bayesdiff.config import Config
from bayesdiff.methods import METHODS
from bayesdiff.objective import training_loss

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


class Diverged(Exception):
    """The loss is not finite; ``step`` is the optimisation step that showed it."""

    def __init__(self, step: int):
        super().__init__(f"loss is not finite at step {step}")
        self.step = step


@dataclass
class Training:
    """Everything a step changes (weights, sigmas, optimiser) and the data it reads."""

    pipe: StableDiffusionPipeline
    layers: list[BayesianLayer]
    optimizer: torch.optim.Optimizer
    instance: Encoded
    classes: Encoded | None
    noise_schedule: object


def prepare(pipe: StableDiffusionPipeline, cfg: Config, instance: Encoded, classes: Encoded | None) -> Training:
    """Make the method's weights trainable, some of them Gaussian, and build AdamW over all of them."""
    method = METHODS[cfg.method.name]
    method.build(pipe.unet)
    layers: list[BayesianLayer] = []
    if cfg.bnn.enabled:
        layers = make_bayesian(pipe.unet, method.bayesian_targets(pipe.unet, cfg.bnn), cfg.bnn.sigma_init)
    optimizer = torch.optim.AdamW(method.trainable(pipe.unet), lr=cfg.method.learning_rate, weight_decay=cfg.method.weight_decay)
    return Training(pipe, layers, optimizer, instance, classes, _training_scheduler(pipe))


def _training_scheduler(pipe: StableDiffusionPipeline) -> object:
    """The forward process of the model's own schedule, whatever sampler the pipeline uses."""
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_config(pipe.scheduler.config)


def train(state: Training, cfg: Config, start: int, stop: int, report: Callable[[int, dict[str, float]], None]) -> None:
    """Run optimisation steps ``start`` to ``stop - 1`` in place.

    ``report`` gets (steps done, loss parts) after each step. Raises ``Diverged`` before a step with a
    non-finite loss or gradient touches the weights.
    """
    unet, scheduler = state.pipe.unet, state.noise_schedule
    timesteps = scheduler.config.num_train_timesteps  # type: ignore[attr-defined]
    trained = [p for group in state.optimizer.param_groups for p in group["params"]]
    unet.train()
    for step in range(start, stop):
        batch = batch_at(step, cfg.seed, cfg.schedule.batch_size, timesteps, state.instance, state.classes)
        draw_weights(state.layers, cfg.seed, step)
        loss, parts = training_loss(unet, scheduler, batch, cfg.method, cfg.bnn, state.layers)
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(trained, cfg.schedule.max_grad_norm))
        if not (math.isfinite(parts["loss"]) and math.isfinite(norm)):
            raise Diverged(step + 1)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        report(step + 1, {**parts, "grad_norm": norm})
    use_mean(state.layers)
    unet.eval()
