"""What a step asks of a device, counted without one: operations that would be launches, and waits for the device.

A fused or ``_foreach_`` operation counts once: on a GPU it is one launch for about a hundred tensors.
"""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch.utils._python_dispatch import TorchDispatchMode

from bayesdiff.arms.protocol import Arm
from bayesdiff.config.schema import Config
from bayesdiff.diffusion.batch import Batch, Conditioning
from bayesdiff.diffusion.schedules import training_scheduler
from bayesdiff.pretraining.denoiser import build_scheduler
from bayesdiff.training.loop import attach_arm, prepare_weights
from bayesdiff.training.objective import training_loss

FREE = {"aten.empty", "aten.empty_like", "aten.new_empty", "aten.empty_strided", "aten.new_empty_strided", "aten.detach", "aten.lift_fresh"}
"""Operations that make memory or names for it."""
WAITS = {"aten._local_scalar_dense", "aten.nonzero", "aten.equal", "aten.is_nonzero", "aten.item"}
"""Operations whose answer the host has to wait for."""


def is_view(operation: Any) -> bool:
    """Whether an operation only names memory anew: it returns its argument's memory and writes to none."""
    returned = [one.alias_info for one in operation._schema.returns]
    return bool(returned) and all(info is not None and not info.is_write for info in returned)


class Launches(TorchDispatchMode):
    """Within the block: ``counts`` of launch-like operations by name, and ``waits`` of the host for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(operation).rpartition(".")[0]
        if (name in WAITS and args[0].device.type != "cpu") or _blocking_copy(name, args, kwargs or {}):
            self.waits[name] += 1
        if name not in FREE and not is_view(operation):
            self.counts[name] += 1
        return operation(*args, **(kwargs or {}))


def _blocking_copy(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    """A copy between devices that is not told to be asynchronous."""
    if name == "aten.copy_":
        return bool(args[0].device != args[1].device) and not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    if name == "aten._to_copy":
        device = kwargs.get("device") or args[0].device
        return torch.device(device).type != args[0].device.type and not kwargs.get("non_blocking", False)
    return False


SD15: dict[str, Any] = {"cross_attention_dim": 768, "sample_size": 64}
"""What ``unet/config.json`` of Stable Diffusion 1.5 sets beside diffusers' defaults."""


def training_on_meta(cfg: Config) -> tuple[Any, Arm, list[torch.nn.Parameter]]:
    """A U-Net of Stable Diffusion 1.5's shape without memory, the run's arm on it, and the method's weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD15).requires_grad_(False)
    pipe: Any = SimpleNamespace(unet=unet, scheduler=build_scheduler("linear"))
    _, trained = prepare_weights(pipe, cfg)
    return pipe, attach_arm(pipe, cfg, trained), trained


def step_on_meta(cfg: Config) -> Launches:
    """Counts of one step's draw, forward and backward pass, one photograph and one class row; clipping and the update are not in it."""
    pipe, arm, _ = training_on_meta(cfg)
    schedule = training_scheduler(pipe.scheduler)
    schedule.alphas_cumprod = schedule.alphas_cumprod.to("meta")
    with torch.device("meta"):
        latents, states = torch.randn(2, 4, 64, 64), torch.randn(2, 77, 768)
        batch = Batch(latents, torch.randn_like(latents), torch.zeros(2, dtype=torch.long), Conditioning(states), 1)
    with Launches() as counted:
        arm.before_step(0)
        training_loss(pipe.unet, schedule, batch, arm.penalty())[0].backward()
    return counted
