"""The training loop: one visible function from one checkpoint to the next."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bayesdiff.arms.controls import WeightAverage, seeded_dropout, set_dropout, squared_distance, with_input_noise
from bayesdiff.arms.gaussian import BayesianLayer, draw_weights, make_bayesian, rho_parameters, use_mean
from bayesdiff.config.schema import Arm, Config, Precision
from bayesdiff.core.processes import all_reduce, share
from bayesdiff.methods import method_of
from bayesdiff.training.batches import Encoded, batch_at, encode_text
from bayesdiff.training.objective import training_loss
from bayesdiff.training.optimizer import build_optimizer, rate_factor, set_rate

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

DTYPES = {Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}


class Diverged(Exception):
    """The loss is not finite; ``step`` is the optimisation step that showed it."""

    def __init__(self, step: int):
        super().__init__(f"loss is not finite at step {step}")
        self.step = step


@dataclass
class Training:
    """Everything a step changes (weights, sigmas, optimiser, average) and the data it reads."""

    pipe: StableDiffusionPipeline
    parts: dict[str, nn.Module]
    """The trained models by their names in the pipeline."""
    trained: list[nn.Parameter]
    """The means; sigmas are the layers'."""
    layers: list[BayesianLayer]
    optimizer: torch.optim.Optimizer
    instance: Encoded
    classes: Encoded | None
    noise_schedule: Any
    scaler: torch.amp.GradScaler
    average: WeightAverage | None = None
    first: list[torch.Tensor] = field(default_factory=list)
    """The weights before training, where an arm needs them."""

    def shown(self) -> AbstractContextManager[None]:
        """Within the block the model has the weights that are kept and sampled: their average, where there is one."""
        return nullcontext() if self.average is None else self.average.shown()


def trained_parts(pipe: StableDiffusionPipeline, cfg: Config) -> dict[str, nn.Module]:
    """The U-Net, and every text encoder of the pipeline where ``method.train_text_encoder`` asks for it."""
    names = ["unet"] + (["text_encoder", "text_encoder_2"] if cfg.method.train_text_encoder else [])
    return {name: part for name in names if (part := getattr(pipe, name, None)) is not None}


def prepare_weights(pipe: StableDiffusionPipeline, cfg: Config) -> tuple[dict[str, nn.Module], list[nn.Parameter], list[BayesianLayer]]:
    """Make the method's weights trainable and some of them Gaussian: the trained models, the means, the layers."""
    method, parts = method_of(cfg.method.name), trained_parts(pipe, cfg)
    trained = method.build(parts, cfg.method, cfg.seed)
    layers: list[BayesianLayer] = []
    if cfg.bnn.kind is Arm.gaussian:
        layers = make_bayesian(pipe.unet, method.bayesian_targets(pipe.unet, cfg.bnn), cfg.bnn, method.SIGMA_SCALE)
    return parts, trained, layers


def prepare(pipe: StableDiffusionPipeline, cfg: Config, instance: Encoded, classes: Encoded | None) -> Training:
    """The model ready to be trained, with one optimiser over all its weights."""
    parts, trained, layers = prepare_weights(pipe, cfg)
    optimizer = build_optimizer(trained, rho_parameters(layers), cfg)
    scaler = torch.amp.GradScaler(trained[0].device.type, enabled=cfg.training.mixed_precision is Precision.fp16)
    state = Training(pipe, parts, trained, layers, optimizer, instance, classes, _training_scheduler(pipe), scaler)
    _prepare_arm(state, cfg)
    if cfg.training.gradient_checkpointing:
        for name, part in parts.items():
            (part.enable_gradient_checkpointing if name == "unet" else part.gradient_checkpointing_enable)()  # type: ignore[operator]
    if cfg.training.compile:
        pipe.unet.compile()
    return state


def _prepare_arm(state: Training, cfg: Config) -> None:
    """What the controls need beside the plain method."""
    if cfg.bnn.kind is Arm.ema:
        state.average = WeightAverage(state.trained, cfg.bnn.ema_decay)
    elif cfg.bnn.kind is Arm.l2_to_pretrained:
        state.first = [p.detach().clone() for p in state.trained]
    elif cfg.bnn.kind is Arm.dropout:
        set_dropout(state.pipe.unet, cfg.bnn.dropout)


def _training_scheduler(pipe: StableDiffusionPipeline) -> Any:
    """The forward process of the model's own schedule, whatever sampler the pipeline uses."""
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_config(pipe.scheduler.config)


def _sources(state: Training, cfg: Config) -> tuple[Encoded, Encoded | None]:
    """Instance and class data; with trained text encoders their texts are encoded anew, with gradients."""
    if not cfg.method.train_text_encoder:
        return state.instance, state.classes

    def fresh(source: Encoded) -> Encoded:
        return replace(source, text=encode_text(state.pipe, source.prompt, cfg.model.resolution))

    return fresh(state.instance), None if state.classes is None else fresh(state.classes)


def _accumulate(state: Training, cfg: Config, step: int) -> dict[str, torch.Tensor]:
    """Gradients of one optimisation step, over all its micro-batches on all processes; returns their mean loss parts."""
    count, size = cfg.training.gradient_accumulation_steps, cfg.training.batch_size
    timesteps, kind = state.noise_schedule.config.num_train_timesteps, cfg.bnn.kind
    dtype = DTYPES.get(cfg.training.mixed_precision)
    total: dict[str, torch.Tensor] = {}
    for micro in share(range(step * count, (step + 1) * count)):
        with torch.autocast(state.trained[0].device.type, dtype) if dtype else nullcontext(), seeded_dropout(cfg.bnn, cfg.seed, micro):
            batch = batch_at(micro, cfg.seed, size, timesteps, *_sources(state, cfg))
            if kind is Arm.input_noise:
                batch = with_input_noise(batch, cfg.bnn, cfg.seed, micro)
            loss, parts = training_loss(state.pipe.unet, state.noise_schedule, batch, cfg, state.layers)
            if kind is Arm.l2_to_pretrained:
                parts["l2"] = (tether := squared_distance(state.trained, state.first)).detach()
                loss = loss + cfg.bnn.l2_weight * tether
                parts["loss"] = loss.detach()
            state.scaler.scale(loss / count).backward()  # type: ignore[no-untyped-call]
        total = {name: total.get(name, 0.0) + value / count for name, value in parts.items()}
    all_reduce([*total.values(), *(p.grad for p in [*state.trained, *rho_parameters(state.layers)] if p.grad is not None)])
    return total


def train(state: Training, cfg: Config, start: int, stop: int, report: Callable[[int, dict[str, float]], None]) -> None:
    """Run optimisation steps ``start`` to ``stop - 1`` in place.

    ``report`` gets (steps done, loss parts) after each step. Raises ``Diverged`` before a step with a
    non-finite loss or gradient touches the weights.
    """
    factor, rhos = rate_factor(cfg), rho_parameters(state.layers)
    for part in state.parts.values():
        part.train()
    for step in range(start, stop):
        draw_weights(state.layers, cfg.seed, step)
        parts = {name: float(value) for name, value in _accumulate(state, cfg, step).items()}
        state.scaler.unscale_(state.optimizer)
        # each for itself: the means of a pair's two arms are then clipped alike
        norm = float(nn.utils.clip_grad_norm_(state.trained, cfg.training.max_grad_norm))
        rho_norm = float(nn.utils.clip_grad_norm_(rhos, cfg.training.max_grad_norm)) if rhos else 0.0
        _check_finite(state, step, parts["loss"], norm + rho_norm)
        set_rate(state.optimizer, rate := cfg.method.learning_rate * factor(step))
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        if state.average is not None:
            state.average.update(step)
        report(step + 1, {**parts, "grad_norm": norm, "learning_rate": rate})
    use_mean(state.layers)
    for part in state.parts.values():
        part.eval()


def _check_finite(state: Training, step: int, loss: float, norm: float) -> None:
    """Raises ``Diverged``; a gradient that only fp16's loss scale made infinite is the scaler's to skip."""
    overflow = state.scaler.is_enabled() and state.scaler.get_scale() > 1.0
    if not math.isfinite(loss) or not (math.isfinite(norm) or overflow):
        raise Diverged(step + 1)
