"""Class images for prior preservation: made once by the base model, cached, shared by runs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from PIL import Image

from bayesdiff.config.identity import key_content
from bayesdiff.config.prompts import Prompt, fill
from bayesdiff.config.schema import Config, SamplerConf, SamplerPrecision, TrainingConf
from bayesdiff.core.digests import fingerprint
from bayesdiff.core.errors import UserError
from bayesdiff.core.files import remove_partial_of
from bayesdiff.diffusion.pipeline import model_location
from bayesdiff.diffusion.precision import resolved
from bayesdiff.diffusion.sampling import sample_prompts, save_samples

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


def class_images(pipe: StableDiffusionPipeline, cfg: Config, class_noun: str) -> list[Image.Image]:
    """The class's images for (model, prompt, count, sampler and its scheduler), from the cache or sampled now.

    Two runs that want the same set at once wait for one of them to make it.

    Raises:
        UserError: the model's images are not finite.
    """
    text = fill(cfg.data.class_prompt, "", class_noun)
    conf = SamplerConf(**{**cfg.sampler.__dict__, "images_per_prompt": cfg.method.class_images})
    settings = key_content(cfg)
    content = {
        "model": settings["model"],
        "weights": fingerprint(Path(model_location(cfg.model))),
        "text": text,
        "sampler": {**_sampler(settings["sampler"], conf, pipe), "prompts": [text], "images_per_prompt": conf.images_per_prompt},
        "scheduler": {key: str(value) for key, value in pipe.scheduler.config.items() if not key.startswith("_")},
        **_arithmetic(cfg.training),
    }
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(cfg.paths.cache) / f"class-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        remove_partial_of(folder)
        if (found := _kept(folder, conf.images_per_prompt)) is None:
            samples = sample_prompts(pipe, [Prompt(text, text, text)], conf, cfg.model.resolution)
            if failed := sum(sample.failed for sample in samples):
                raise UserError(f"class images: {failed} of {len(samples)} are not finite; look at the model and its precision first")
            save_samples(samples, folder)
            found = _kept(folder, conf.images_per_prompt)
    return found or []


def _sampler(settings: dict[str, Any], conf: SamplerConf, pipe: StableDiffusionPipeline) -> dict[str, Any]:
    """The sampler's part of a set's name; float32, in which sets were made before there was a choice, is not named."""
    precision = resolved(conf.precision, pipe.device)
    named = {} if precision is SamplerPrecision.fp32 else {"precision": precision.value}
    return {**{key: value for key, value in settings.items() if key != "precision"}, "sample_weights": 0, **named}


def _arithmetic(conf: TrainingConf) -> dict[str, bool]:
    """What rounds differently, where it is asked for: sets that were made before are not named by it."""
    return {name: True for name in ("tf32", "channels_last") if getattr(conf, name)}


def digest_of(images: list[Image.Image]) -> str:
    """Hex digest of a set's pixels, in its order: the same for a set that was made again, whatever compressed its files."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(repr((image.mode, image.size)).encode() + image.tobytes())
    return digest.hexdigest()


def _kept(folder: Path, count: int) -> list[Image.Image] | None:
    """The images of a set that is whole; None where one is missing or cannot be read."""
    paths = sorted(folder.glob("*.png"))
    try:
        return [Image.open(path).convert("RGB") for path in paths] if len(paths) == count else None
    except (OSError, SyntaxError, ValueError):
        return None
