"""The training loop: one visible function from one checkpoint to the next."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bayesdiff.arms.ema import WeightAverage
from bayesdiff.arms.gaussian import BayesianLayer
from bayesdiff.arms.protocol import Arm, Site
from bayesdiff.arms.registry import arm_of
from bayesdiff.config.schema import Config, Graph, Optimizer, Precision, Weights
from bayesdiff.core.errors import UserError
from bayesdiff.core.processes import all_reduce, share
from bayesdiff.diffusion.batch import Batch, Encoded, encode_text, encode_unconditional
from bayesdiff.diffusion.schedules import training_scheduler
from bayesdiff.diffusion.texts import Known
from bayesdiff.methods import method_of, unrecordable
from bayesdiff.training.batches import batch_at
from bayesdiff.training.compiling import compile_unet
from bayesdiff.training.graph import GraphedStep, obstacle, tried
from bayesdiff.training.objective import training_loss
from bayesdiff.training.optimizer import build_optimizer, rate_at, set_rate

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

Report = Callable[[int, dict[str, float]], None]
DTYPES = {Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}


class Diverged(Exception):
    """The loss is not finite; ``step`` is the optimisation step that showed it."""

    def __init__(self, step: int):
        super().__init__(f"loss is not finite at step {step}")
        self.step = step


@dataclass
class Training:
    """Everything a step changes (weights, the arm's own state, optimiser, averages) and the data it reads."""

    pipe: StableDiffusionPipeline
    parts: dict[str, nn.Module]
    """The trained models by their names in the pipeline."""
    trained: list[nn.Parameter]
    """The method's weights; of Gaussian weights the means."""
    arm: Arm
    optimizer: torch.optim.Optimizer
    instance: Encoded
    classes: Encoded | None
    noise_schedule: Any
    scaler: torch.amp.GradScaler
    model_scheduler: Any = None
    """The scheduler that the model came with, from which every sampler is built."""
    graphed: GraphedStep | None = None
    """The recorded step, once it was recorded."""
    unrecorded: str = ""
    """Why the step could not be recorded, once that was tried."""
    forwards: dict[Any, Any] | None = None
    """Recorded forward passes of the U-Net, for sampling on a GPU (``diffusion.graphed``); None runs it eagerly."""
    texts: Known = field(default_factory=dict)
    """Prompts as frozen text encoders encoded them (``diffusion.texts``)."""
    compiled: str = ""
    """What of the U-Net torch.compile compiles, or why nothing (``training.compiling``)."""
    averages: dict[float, WeightAverage] = field(default_factory=dict)
    """Moving averages that evaluations ask for, by their decay; they change nothing in training."""

    @property
    def layers(self) -> list[BayesianLayer]:
        """The Gaussian tensors; none but for Bayesian arms."""
        return self.arm.layers

    def shown(self) -> AbstractContextManager[None]:
        """Within the block the model has the weights that the arm keeps and samples."""
        return self.arm.shown()


def trained_parts(pipe: StableDiffusionPipeline, train_text_encoder: bool) -> dict[str, nn.Module]:
    """The U-Net, and every text encoder of the pipeline where they are trained too."""
    names = ["unet"] + (["text_encoder", "text_encoder_2"] if train_text_encoder else [])
    return {name: part for name in names if (part := getattr(pipe, name, None)) is not None}


def prepare_weights(pipe: StableDiffusionPipeline, cfg: Config) -> tuple[dict[str, nn.Module], list[nn.Parameter]]:
    """Make the method's weights trainable: the trained models and those weights."""
    parts = trained_parts(pipe, cfg.method.train_text_encoder)
    return parts, method_of(cfg.method.name).build(parts, cfg.method, cfg.seed)


def refuse_dropout(parts: dict[str, nn.Module], cfg: Config) -> None:
    """Raises ``UserError`` for a model that drops out by its own configuration: its masks would follow no seed.

    ``bnn=dropout`` gives the U-Net's layers a rate of its own, and draws all masks by seed and step.
    """
    if cfg.bnn.kind == "dropout":
        return
    for name, part in parts.items():
        rates = [module.p for module in part.modules() if isinstance(module, nn.Dropout)]
        if rate := max([*rates, getattr(getattr(part, "config", None), "attention_dropout", 0.0)]):
            raise UserError(
                f"model.path={cfg.model.path}: its {name} has dropout {rate:g}, whose masks follow no seed; "
                f"set it to 0 in {name}/config.json, or add bnn=dropout"
            )


def save_memory(parts: dict[str, nn.Module]) -> None:
    """Keep no activations of the trained models' blocks: the backward pass computes them again."""
    for name, part in parts.items():
        (part.enable_gradient_checkpointing if name == "unet" else part.gradient_checkpointing_enable)()  # type: ignore[operator]


def attach_arm(pipe: StableDiffusionPipeline, cfg: Config, trained: list[nn.Parameter]) -> Arm:
    """The run's arm, attached to a model whose method's weights are trainable already."""
    method = method_of(cfg.method.name)
    site = Site(
        pipe.unet, trained, cfg.bnn, cfg.seed, lambda: method.bayesian_targets(pipe.unet, cfg.bnn), method.SIGMA_SCALE,
        lambda: encode_unconditional(pipe, cfg.model.resolution),
    )  # fmt: skip
    return arm_of(cfg.bnn.kind).attach(site)


def prepare(pipe: StableDiffusionPipeline, cfg: Config, instance: Encoded, classes: Encoded | None) -> Training:
    """The model ready to be trained, with one optimiser over all its weights."""
    parts, trained = prepare_weights(pipe, cfg)
    arm = attach_arm(pipe, cfg, trained)
    optimizer = build_optimizer(trained, arm.parameter_groups(), cfg.training, cfg.method.learning_rate)
    scaler = torch.amp.GradScaler(trained[0].device.type, enabled=cfg.training.mixed_precision is Precision.fp16)
    decays = {one.ema_decay for one in cfg.evaluations.values() if one.weights is Weights.ema}
    averages = {decay: WeightAverage(trained, decay) for decay in sorted(decays)}
    schedule = training_scheduler(pipe.scheduler)
    compiles = cfg.training.compile or cfg.training.compile_blocks  # what is compiled must not trace code that records graphs
    recorded = cfg.training.graph is Graph.auto and not compiles and not unrecordable(cfg.method.name)
    forwards: dict[Any, Any] | None = {} if recorded else None
    state = Training(
        pipe, parts, trained, arm, optimizer, instance, classes, schedule, scaler, model_scheduler=pipe.scheduler,
        forwards=forwards, averages=averages,
    )  # fmt: skip
    if cfg.training.gradient_checkpointing:
        save_memory(parts)
    state.compiled = compile_unet(pipe.unet, cfg.training)
    return state


def _sources(state: Training, cfg: Config) -> tuple[Encoded, Encoded | None]:
    """Instance and class data; with trained text encoders their texts are encoded anew, with gradients."""
    if not cfg.method.train_text_encoder:
        return state.instance, state.classes

    def fresh(source: Encoded) -> Encoded:
        return replace(source, text=encode_text(state.pipe, source.prompt, cfg.model.resolution))

    return fresh(state.instance), None if state.classes is None else fresh(state.classes)


def _batch(state: Training, cfg: Config, micro: int) -> Batch:
    """The data of a micro-batch, as the arm shows it."""
    timesteps = state.noise_schedule.config.num_train_timesteps
    return state.arm.batch(batch_at(micro, cfg.seed, cfg.training.batch_size, timesteps, *_sources(state, cfg)), micro)


def _accumulate(state: Training, cfg: Config, step: int) -> dict[str, torch.Tensor]:
    """Gradients of one optimisation step, over all its micro-batches on all processes; returns their mean loss parts."""
    count, dtype = cfg.training.gradient_accumulation_steps, DTYPES.get(cfg.training.mixed_precision)
    total: dict[str, torch.Tensor] = {}
    for micro in share(range(step * count, (step + 1) * count)):
        with torch.autocast(state.trained[0].device.type, dtype) if dtype else nullcontext(), state.arm.forward(micro):
            batch = _batch(state, cfg, micro)
            loss, parts = training_loss(
                state.pipe.unet,
                state.noise_schedule,
                batch,
                state.arm.penalty(),
                prior_loss_weight=cfg.method.prior_loss_weight,
                min_snr_gamma=cfg.training.min_snr_gamma,
            )
            state.scaler.scale(loss / count).backward()  # type: ignore[no-untyped-call]
        total = {name: total.get(name, 0.0) + value / count for name, value in parts.items()}
    gradients = (p.grad for group in state.optimizer.param_groups for p in group["params"] if p.grad is not None)
    all_reduce(chain(total.values(), gradients))
    return total


def train(state: Training, cfg: Config, start: int, stop: int, report: Report) -> None:
    """Run optimisation steps ``start`` to ``stop - 1`` in place, as one CUDA graph a step where that is possible.

    ``report`` gets (steps done, loss parts) of each step. Raises ``Diverged`` for a step with a non-finite
    loss or gradient, which never touches the weights.
    """
    for part in state.parts.values():
        part.train()
    rate_of, graphs, every, checked = _rates(state, cfg), not obstacle(state, cfg), reads_every(state, cfg), decided_on_host(state, cfg)
    read: list[torch.Tensor] = []
    for step in range(start, stop):
        state.arm.before_step(step)
        names, values = (_graphed_step if graphs else _eager_step)(state, cfg, step, rate_of(step), checked)
        _after_step(state, step)
        read.append(values)
        if (step + 1) % every == 0 or step == stop - 1:
            _tell(names, read, step + 1, rate_of, report, checked)
            read.clear()
    state.arm.after_training()
    for part in state.parts.values():
        part.eval()


def decided_on_host(state: Training, cfg: Config) -> bool:
    """Whether the host looks at each step before the weights move: on a CPU, for 8-bit AdamW, and for the loss scale of fp16."""
    training, on_cpu = cfg.training, state.trained[0].device.type == "cpu"
    return on_cpu or training.optimizer is not Optimizer.adamw or training.mixed_precision is Precision.fp16


def reads_every(state: Training, cfg: Config) -> int:
    """After how many steps the host reads their values; until then it does not wait for the device."""
    return 1 if decided_on_host(state, cfg) else cfg.schedule.log_every


def _rates(state: Training, cfg: Config) -> Callable[[int], float]:
    return rate_at(cfg.training, cfg.method.learning_rate, cfg.schedule.steps, state.arm.lr_schedule)


def _eager_step(state: Training, cfg: Config, step: int, rate: float, on_host: bool) -> tuple[tuple[str, ...], torch.Tensor]:
    """Perform a step; the names of its values, and the values (V,). ``on_host`` checks them before the weights move."""
    parts = _accumulate(state, cfg, step)
    state.scaler.unscale_(state.optimizer)
    norms = _clip(state, cfg.training.max_grad_norm)
    names = (*parts, *(f"norm_{i}" for i in range(len(norms))))
    values = torch.stack([value.float() for value in (*parts.values(), *norms)])
    if on_host:
        _check_finite(state, step, dict(zip(names, values.tolist(), strict=True)))
    else:
        _hold_if_bad(state, values)
    set_rate(state.optimizer, rate)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    return names, values


def _hold_if_bad(state: Training, values: torch.Tensor) -> None:
    """From the first step whose values are not finite on, AdamW moves nothing; decided on the device."""
    bad = 1 - torch.isfinite(values).all().float()
    held = getattr(state.optimizer, "found_inf", None)
    state.optimizer.found_inf = bad if held is None else torch.maximum(held, bad)  # type: ignore[attr-defined]


def _graphed_step(state: Training, cfg: Config, step: int, rate: float, on_host: bool) -> tuple[tuple[str, ...], torch.Tensor]:
    """Replay the recorded step; results as ``_eager_step``, which does the step where it cannot be recorded."""
    if state.unrecorded:
        return _eager_step(state, cfg, step, rate, on_host)
    batch = _batch(state, cfg, step)
    if state.graphed is None:
        state.graphed, state.unrecorded = tried(state, cfg, batch, DTYPES.get(cfg.training.mixed_precision), step)
    if state.graphed is None:
        return _eager_step(state, cfg, step, rate, on_host)
    return state.graphed.names, state.graphed.run(batch, rate)


def _tell(
    names: tuple[str, ...], read: list[torch.Tensor], done: int, rate_of: Callable[[int], float], report: Report, checked: bool
) -> None:  # fmt: skip
    """Report the steps up to ``done``; raises ``Diverged`` at the first that is not finite, unless the host ``checked`` each."""
    for step, row in enumerate(torch.stack(read).tolist(), start=done - len(read)):
        if not checked and not all(math.isfinite(value) for value in row):
            raise Diverged(step + 1)
        parts = {name: value for name, value in zip(names, row, strict=True) if not name.startswith("norm_")}
        report(step + 1, {**parts, "grad_norm": row[names.index("norm_0")], "learning_rate": rate_of(step)})


def _after_step(state: Training, step: int) -> None:
    state.arm.after_step(step)
    for average in state.averages.values():
        average.update(step)


def _clip(state: Training, limit: float) -> list[torch.Tensor]:
    """Clip the gradients of every optimiser group for itself, so that a pair's two arms clip their weights alike; the norms, () each."""
    on_cpu = state.trained[0].device.type == "cpu"
    clip = _clip_on_cpu if on_cpu else nn.utils.clip_grad_norm_
    return [clip(group["params"], limit) for group in state.optimizer.param_groups]


def _clip_on_cpu(weights: list[nn.Parameter], limit: float) -> torch.Tensor:
    """``clip_grad_norm_``, bit for bit; gradients within the limit, of nineteen steps in twenty, are not multiplied by 1."""
    norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None], foreach=True)
    if not limit / (norm + 1e-6) >= 1:  # torch's own factor; one that is not a number is applied too
        nn.utils.clip_grads_with_norm_(weights, limit, norm, foreach=True)
    return norm


def _check_finite(state: Training, step: int, values: dict[str, float]) -> None:
    """Raises ``Diverged``; a gradient that only fp16's loss scale made infinite is the scaler's to skip."""
    overflow = state.scaler.is_enabled() and state.scaler.get_scale() > 1.0
    norm = sum(value for name, value in values.items() if name.startswith("norm_"))
    if not math.isfinite(values["loss"]) or not (math.isfinite(norm) or overflow):
        raise Diverged(step + 1)
