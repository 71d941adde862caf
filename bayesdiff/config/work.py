"""How a run's work spreads over its steps, so that a person can be told how long it still takes.

The unit is a pass of the U-Net over one image. A training step is a forward and a backward pass, which costs twice as much as
the forward pass; on small batches the fixed costs of a step add as much again.
"""

from __future__ import annotations

from dataclasses import dataclass

from bayesdiff.config.prompts import image_count
from bayesdiff.config.schema import Config, EvaluationConf

PASSES_OF_A_STEP = 4
"""Of one image; measured on the toybox, a step of batch 1 takes 5 passes of sampling."""


@dataclass(frozen=True)
class Work:
    """Passes of a step, of a checkpoint with all its evaluations, and where the checkpoints are."""

    steps: int
    of_step: float
    of_checkpoint: float
    checkpoints: tuple[int, ...]

    def until(self, step: int) -> float:
        """Passes up to a step, those of its own checkpoint among them."""
        return self.of_step * step + self.of_checkpoint * sum(at <= step for at in self.checkpoints)

    def seconds_left(self, start: int, step: int, seconds: float) -> float | None:
        """After so many seconds from ``start`` to ``step``; None before a step is done.

        Training stands at ``step``: its own checkpoint, if it has one, comes next.
        """
        if step <= start:
            return None
        done = self.of_step * (step - start) + self.of_checkpoint * sum(start <= at < step for at in self.checkpoints)
        left = self.of_step * (self.steps - step) + self.of_checkpoint * sum(at >= step for at in self.checkpoints)
        return seconds * left / done


def work_of(cfg: Config) -> Work:
    """What a run with this configuration does."""
    batch = cfg.training.batch_size * cfg.training.gradient_accumulation_steps * (2 if cfg.method.prior_preservation else 1)
    sampled = sum(_passes(cfg, one) for one in (EvaluationConf(), *cfg.evaluations.values()))
    return Work(cfg.schedule.steps, PASSES_OF_A_STEP * batch, sampled, tuple(cfg.schedule.checkpoints))


def _passes(cfg: Config, one: EvaluationConf) -> float:
    """Of one evaluation at one checkpoint."""
    sampler = cfg.sampler
    scale = sampler.guidance_scale if one.guidance_scale is None else one.guidance_scale
    images = image_count(one.prompts or sampler.prompts, one.images_per_prompt or sampler.images_per_prompt)
    return images * (one.steps or sampler.steps) * (2 if scale > 1 else 1)


def spoken(seconds: float) -> str:
    """A time as a person says it: 40 s, 12 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
