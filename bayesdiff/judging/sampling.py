"""Samples of checkpoints that exist: the same prompts and seeds at every step, one checkpoint in memory at a time.

A picture is known again by the hash of the checkpoint, the base model, its prompt, and the settings of the sampler. Where every
picture is known, neither the base model nor the libraries behind it are loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bayesdiff.config.prompts import Prompt
from bayesdiff.config.schema import Config, ModelConf, SamplerPrecision
from bayesdiff.core.digests import fingerprint
from bayesdiff.core.errors import UserError, first_line
from bayesdiff.core.files import atomic_write
from bayesdiff.core.garbage import seldom_collected
from bayesdiff.core.layout import image_name
from bayesdiff.core.output import say
from bayesdiff.diffusion.pipeline import model_location
from bayesdiff.judging.adapters import weights_in
from bayesdiff.judging.checkpoints import Checkpoint, Checkpoints
from bayesdiff.judging.pairing import Paired

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

VERSION = 1
"""Counted up whenever the same checkpoint may give other pictures."""
OWN_SIDE = 0
"""``model.resolution`` that stands for the base model's own."""


@dataclass(frozen=True)
class Plan:
    """What is sampled: by step the checkpoint (None for the base model), the prompts, and where each picture is kept."""

    checkpoints: dict[int, Checkpoint | None]
    prompts: Sequence[Prompt]
    folders: dict[int, tuple[Path, ...]]
    """By step, a folder a prompt."""
    images: int
    """Of each prompt."""

    def missing(self, step: int) -> list[int]:
        """Numbers of the prompts that are not sampled yet."""
        return [number for number, folder in enumerate(self.folders[step]) if not folder.is_dir()]


def plan_samples(found: Checkpoints, prompts: Sequence[Prompt], cfg: Config, with_base: bool, store: Path) -> Plan:
    """The samples of all checkpoints, and of the base model as step 0 where it is asked for and no checkpoint has that step."""
    steps: dict[int, Checkpoint | None] = {one.step: one for one in found.found}
    if with_base and 0 not in steps:
        steps = {0: None, **steps}
    basis = [VERSION, _base(cfg.model), cfg.model.resolution, *_sampler(cfg)]
    folders = {
        step: tuple(store / _key(basis, one.digest if one else "", one.kind if one else "", prompt.text) for prompt in prompts)
        for step, one in steps.items()
    }
    return Plan(steps, prompts, folders, cfg.sampler.images_per_prompt)


def _key(*content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:40]


def _base(conf: ModelConf) -> list[str]:
    location = model_location(conf)
    return [fingerprint(Path(location)) or location, conf.revision or "", conf.variant or ""]


def _sampler(cfg: Config) -> list[object]:
    """Of ``precision`` what it is on this device, where it is not float32."""
    left_out = ("prompts", "batch_size", "sample_weights", "precision")
    kept = {name: value for name, value in asdict(cfg.sampler).items() if name not in left_out}
    return [json.loads(json.dumps(kept | _half(cfg)))]


def _half(cfg: Config) -> dict[str, str]:
    from bayesdiff.diffusion.pipeline import choose_device
    from bayesdiff.diffusion.precision import resolved

    precision = resolved(cfg.sampler.precision, choose_device(cfg.device))
    return {} if precision is SamplerPrecision.fp32 else {"precision": precision.value}


def sample_missing(plan: Plan, cfg: Config) -> int:
    """Sample what is not known yet; returns the number of new pictures. Raises ``UserError``."""
    todo = [step for step in plan.checkpoints if plan.missing(step)]
    if not todo:
        return 0
    pipe, side = _loaded(cfg)
    count = 0
    for place, step in enumerate(todo, 1):
        numbers, one = plan.missing(step), plan.checkpoints[step]
        what = "the base model" if one is None else one.name
        say(f"sampling {what}: {len(numbers) * plan.images} images ({place} of {len(todo)})", error=True)
        with nullcontext() if one is None else weights_in(pipe, one):
            count += _sample(plan, step, numbers, pipe, cfg, side)
    return count


@seldom_collected()
def _loaded(cfg: Config) -> tuple[StableDiffusionPipeline, int]:
    """The base model with the sampler that is asked for, and the side of its pictures in pixels."""
    from bayesdiff.diffusion.pipeline import check_limits, choose_device, load_pipeline, use_sampler

    pipe = load_pipeline(cfg.model, choose_device(cfg.device))
    side = cfg.model.resolution or int(pipe.unet.config.sample_size * pipe.vae_scale_factor)
    check_limits(pipe, replace(cfg.model, resolution=side), cfg.sampler)
    use_sampler(pipe, cfg.sampler)
    return pipe, side


def _sample(plan: Plan, step: int, numbers: Sequence[int], pipe: StableDiffusionPipeline, cfg: Config, side: int) -> int:
    from bayesdiff.diffusion.sampling import sample_prompts

    try:
        samples = sample_prompts(pipe, [plan.prompts[number] for number in numbers], cfg.sampler, side)
    except Exception as error:  # a checkpoint of another model fails in the middle of it
        raise UserError(f"step {step}: cannot be sampled ({first_line(error)}); correct --model, or lower sampler.batch_size") from error
    for place, number in enumerate(numbers):
        with atomic_write(plan.folders[step][number]) as part:
            part.mkdir()
            for sample in samples:
                if sample.prompt == place:
                    sample.image.save(part / image_name(0, sample.index))
    return len(samples)


def as_paired(plan: Plan) -> Paired:
    """The sampled pictures as samples of every checkpoint, in one order of (prompt, image)."""
    keys = tuple((number, index) for number in range(len(plan.prompts)) for index in range(plan.images))
    paths = {step: tuple(_files(plan, step)) for step in plan.checkpoints}
    return Paired(keys, paths, dict.fromkeys(range(len(plan.prompts)), ()), ())


def _files(plan: Plan, step: int) -> Iterator[Path]:
    for folder in plan.folders[step]:
        yield from (folder / image_name(0, index) for index in range(plan.images))
