"""AdamW over the means and the sigmas, and the learning rate as a function of the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bayesdiff.config.schema import Arm, Config, LrSchedule, Optimizer, SigmaParametrization
from bayesdiff.core.errors import UserError, first_line


def build_optimizer(means: list[nn.Parameter], rhos: list[nn.Parameter], cfg: Config) -> torch.optim.Optimizer:
    """One optimiser, the same for both arms of a pair: group 0 are the means, group 1 the rhos.

    rho gets no weight decay, which would draw softplus(rho) upwards; a sigma that is stored directly
    gets the same as the means, as in the released code, and moves at their rate. Raises ``UserError`` without bitsandbytes.
    """
    conf = cfg.training
    direct = cfg.bnn.sigma_parametrization is SigmaParametrization.direct
    groups: list[dict[str, Any]] = [{"params": means, "weight_decay": conf.weight_decay}]
    if rhos:
        factor = 1.0 if direct else cfg.bnn.sigma_learning_rate_factor
        groups.append({"params": rhos, "weight_decay": conf.weight_decay if direct else 0.0, "factor": factor})
    if conf.optimizer is Optimizer.adamw:
        return torch.optim.AdamW(groups, lr=cfg.method.learning_rate, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except Exception as error:  # it also fails on import where its binary does not fit the machine
        raise UserError(f"training.optimizer=adamw_8bit: cannot be used ({first_line(error)}); pip install bitsandbytes") from error
    quantised: torch.optim.Optimizer = AdamW8bit(groups, lr=cfg.method.learning_rate)
    return quantised


def rate_factor(cfg: Config) -> Callable[[int], float]:
    """Share of the peak learning rate at a step (from 0): diffusers' schedules, without their state."""
    from diffusers.optimization import get_scheduler

    conf = cfg.training
    name = LrSchedule.linear if cfg.bnn.kind is Arm.lr_decay else conf.lr_schedule
    dummy = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    schedule = get_scheduler(name.value, dummy, num_warmup_steps=conf.lr_warmup_steps, num_training_steps=cfg.schedule.steps)
    factor: Callable[[int], float] = schedule.lr_lambdas[0]
    return factor


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the means, and the rhos' own share of it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)
