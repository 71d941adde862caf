"""AdamW over the weights and the arm's parameters, and the learning rate as a function of the step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bayesdiff.config.schema import LrSchedule, Optimizer, TrainingConf
from bayesdiff.core.errors import UserError, first_line


class CpuAdamW(torch.optim.AdamW):
    """torch's fused AdamW, bit for bit, without what a step does anew for every tensor: a third of its time on a CPU.

    Lists of the moments are made once, and the tensors' counts of steps are views of one tensor. ``state`` and its files stay as they
    are. The first step, one in which a weight has no gradient, and one that a scaler or a check may hold back are torch's own.
    """

    _listed: tuple[Any, list[_Moments]] | None = None
    """The lists of every group, and the ``state`` that they were made from: a loaded one is another object."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Perform one step on the gradients as they are; ``closure`` as torch has it."""
        gradients = [[parameter.grad for parameter in group["params"]] for group in self.param_groups]
        lists, held = self._lists(), any(getattr(self, name, None) is not None for name in ("found_inf", "grad_scale"))
        if closure is not None or held or lists is None or any(gradient is None for group in gradients for gradient in group):
            return super().step(closure)
        for group, given, moments in zip(self.param_groups, gradients, lists, strict=True):
            moments.counts.add_(1)
            torch._fused_adamw_(
                group["params"], given, moments.means, moments.squares, [], moments.steps, amsgrad=False, lr=group["lr"],
                beta1=group["betas"][0], beta2=group["betas"][1], weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
            )  # fmt: skip
        return None

    def _lists(self) -> list[_Moments] | None:
        """Of every group; None where a weight has no moments yet."""
        if self._listed is None or self._listed[0] is not self.state:
            if any(parameter not in self.state for group in self.param_groups for parameter in group["params"]):
                return None
            self._listed = self.state, [_Moments.of(group["params"], self.state) for group in self.param_groups]
        return self._listed[1]


@dataclass(frozen=True)
class _Moments:
    """AdamW's state of a group's N weights, in their order."""

    means: list[torch.Tensor]
    squares: list[torch.Tensor]
    counts: torch.Tensor
    """(N,) steps done."""
    steps: list[torch.Tensor]
    """The same, a view () for each weight."""

    @classmethod
    def of(cls, parameters: list[nn.Parameter], state: Any) -> _Moments:
        """Reads ``state``, and puts the views of ``counts`` into it."""
        entries = [state[parameter] for parameter in parameters]
        counts = torch.stack([entry["step"] for entry in entries])
        for entry, view in zip(entries, counts.unbind(), strict=True):
            entry["step"] = view
        steps = [entry["step"] for entry in entries]
        return cls([entry["exp_avg"] for entry in entries], [entry["exp_avg_sq"] for entry in entries], counts, steps)


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
        kind = CpuAdamW if means[0].device.type == "cpu" else torch.optim.AdamW
        return kind(groups, lr=rate, betas=betas, fused=True, capturable=on_gpu)
    try:
        from bitsandbytes.optim import AdamW8bit
    except Exception as error:  # it also fails on import where its binary does not fit the machine
        why = f"cannot be used ({first_line(error)}); pip install 'bayesdiff[low-memory]'"
        raise UserError(f"training.optimizer=adamw_8bit: {why}") from error
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
