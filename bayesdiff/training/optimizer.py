"""AdamW over the weights and the arm's parameters, and the learning rate as a function of the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bayesdiff.config.schema import LrSchedule, Optimizer, TrainingConf
from bayesdiff.core.errors import UserError, first_line


def build_optimizer(means: list[nn.Parameter], of_arm: list[dict[str, Any]], conf: TrainingConf, rate: float) -> torch.optim.Optimizer:
    """One optimiser, the same for both arms of a pair: group 0 are the weights (of Bayesian arms their means).

    Args:
        of_arm: groups of the arm's own parameters (``Arm.parameter_groups``).
        rate: peak learning rate; ``rate_at`` sets it before every step.

    Raises:
        UserError: 8-bit AdamW without bitsandbytes.
    """
    groups: list[dict[str, Any]] = [{"params": means, "weight_decay": conf.weight_decay}]
    for group in of_arm:
        decay = conf.weight_decay if group["decays"] else 0.0
        groups.append({"params": group["params"], "weight_decay": decay, "factor": group["factor"]})
    betas = (conf.betas[0], conf.betas[1])
    if conf.optimizer is Optimizer.adamw:
        on_gpu = means[0].device.type == "cuda"
        if on_gpu:  # a tensor for each group, so that a recorded step reads its own rate anew
            groups = [{**group, "lr": torch.tensor(rate, device=means[0].device)} for group in groups]
        return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True, capturable=on_gpu)
    try:
        from bitsandbytes.optim import AdamW8bit
    except Exception as error:  # it also fails on import where its binary does not fit the machine
        raise UserError(f"training.optimizer=adamw_8bit: cannot be used ({first_line(error)}); pip install bitsandbytes") from error
    quantised: torch.optim.Optimizer = AdamW8bit(groups, lr=rate, betas=betas)
    return quantised


def rate_at(conf: TrainingConf, peak: float, steps: int, imposed: LrSchedule | None = None) -> Callable[[int], float]:
    """The learning rate of a step (from 0): diffusers' schedules without their state, times the last change before the step.

    Args:
        peak: ``method.learning_rate``.
        steps: length of the whole run.
        imposed: the schedule of an arm that sets one itself.
    """
    from diffusers.optimization import get_scheduler

    name = imposed or conf.lr_schedule
    dummy = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    schedule = get_scheduler(name.value, dummy, num_warmup_steps=conf.lr_warmup_steps, num_training_steps=steps)
    factor: Callable[[int], float] = schedule.lr_lambdas[0]

    def rate(step: int) -> float:
        changed = [share for start, share in conf.rate_changes if start <= step]
        return peak * factor(step) * (changed[-1] if changed else 1.0)

    return rate


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the weights, and other groups' own share of it."""
    for group in optimizer.param_groups:
        own = rate * group.get("factor", 1.0)
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own
