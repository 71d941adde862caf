"""Sample the evaluation prompts with fixed seeds, at the posterior mean, by the stock pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bayesdiff.config.prompts import Prompt
from bayesdiff.config.schema import SamplerConf, SamplerPrecision
from bayesdiff.core.files import atomic_write
from bayesdiff.core.layout import image_name
from bayesdiff.core.machine import cores
from bayesdiff.core.processes import gather, process_count, share
from bayesdiff.core.seeds import generator
from bayesdiff.diffusion.decoding import decoded_in_parts
from bayesdiff.diffusion.texts import Known, told

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


WRITERS = 8
"""Threads that write pictures, at most."""


@dataclass(frozen=True)
class Sample:
    """One sampled image; ``failed`` when the model's output was not finite (the image is black then)."""

    prompt: int
    index: int
    image: Image.Image
    failed: bool


def _to_image(pixels: np.ndarray) -> tuple[Image.Image, bool]:
    """(H, W, 3) float in [0, 1] to an image, and whether it had values that are not finite."""
    failed = not bool(np.isfinite(pixels).all())
    clean = np.zeros_like(pixels) if failed else pixels
    return Image.fromarray((clean * 255).round().clip(0, 255).astype(np.uint8)), failed


def _batches(prompts: int, conf: SamplerConf, shares: int = 1) -> list[list[tuple[int, int]]]:
    """(prompt, index) of every image in order, in batches small enough that every one of ``shares`` gets work."""
    jobs = [(p, i) for p in range(prompts) for i in range(conf.images_per_prompt)]
    size = min(conf.batch_size, -(-len(jobs) // shares))
    return [jobs[start : start + size] for start in range(0, len(jobs), size)]


def _sample(
    pipe: StableDiffusionPipeline, prompts: list[Prompt], conf: SamplerConf, resolution: int, batches: Sequence[list[tuple[int, int]]],
    known: Known,
) -> list[Sample]:  # fmt: skip
    from torch.nn.utils import parametrize

    samples: list[Sample] = []
    with parametrize.cached(), _in_precision(pipe, conf.precision), decoded_in_parts(getattr(pipe, "vae", None)):
        for batch in batches:  # within, a weight is asked for once, not at every step
            arrays = pipe(
                **told(pipe, [prompts[p].text for p, _ in batch], conf.guidance_scale > 1, known),
                generator=[generator(conf.seed, f"sample/{prompts[p].text}", i) for p, i in batch],
                num_inference_steps=conf.steps, guidance_scale=conf.guidance_scale, height=resolution, width=resolution, output_type="np",
            ).images  # fmt: skip
            samples += [Sample(p, i, *_to_image(array)) for (p, i), array in zip(batch, arrays, strict=True)]
    return samples


def _in_precision(pipe: StableDiffusionPipeline, precision: SamplerPrecision) -> AbstractContextManager[None]:
    from bayesdiff.diffusion.precision import resolved, unet_in

    used = resolved(precision, pipe.device)
    return nullcontext() if used is SamplerPrecision.fp32 else unet_in(pipe.unet, used)


def sample_prompts(
    pipe: StableDiffusionPipeline, prompts: list[Prompt], conf: SamplerConf, resolution: int, known: Known | None = None
) -> list[Sample]:  # fmt: skip
    """Sample ``images_per_prompt`` images of every prompt, in order.

    The initial noise of an image is a function of (sampler.seed, prompt, index): checkpoints and runs
    are compared on the same noise.

    Args:
        known: encoded texts, kept for the next call (``diffusion.texts``); None keeps them for this one alone.
    """
    return _sample(pipe, prompts, conf, resolution, _batches(len(prompts), conf), {} if known is None else known)


def sample_together(
    pipe: StableDiffusionPipeline, prompts: list[Prompt], conf: SamplerConf, resolution: int, known: Known | None = None
) -> list[Sample]:  # fmt: skip
    """``sample_prompts``, divided among the processes of the run; every one of them gets all images."""
    batches = _batches(len(prompts), conf, process_count())
    return sorted(
        gather(_sample(pipe, prompts, conf, resolution, share(batches), {} if known is None else known)), key=lambda s: (s.prompt, s.index)
    )


def save_samples(samples: list[Sample], folder: Path) -> None:
    """Write the images of one checkpoint; the folder is whole or absent."""
    with atomic_write(folder) as part:
        part.mkdir()
        with ThreadPoolExecutor(min(WRITERS, cores())) as pool:  # compressing a picture takes a tenth of a second, without the GIL
            list(pool.map(lambda sample: sample.image.save(part / image_name(sample.prompt, sample.index)), samples))
