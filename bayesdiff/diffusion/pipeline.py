"""Load a text-to-image pipeline: the toybox, a local folder or a hub model, all the same way."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesdiff.config.schema import ModelConf, Precision, SamplerConf, Scheduler
from bayesdiff.core.errors import UserError, first_line
from bayesdiff.core.privacy import at_home
from bayesdiff.core.processes import process_count
from bayesdiff.diffusion.latents import refused_autoencoder
from bayesdiff.diffusion.schedules import build_sampler, check_sampling, check_steps, own_sampler, refused_schedule
from bayesdiff.diffusion.wholeness import refused_files, refused_fit, smallest_side, variant_there

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline


HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
"""What can be the name of a model on the hub; anything else is a folder."""
KINDS = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")


def choose_device(name: str) -> torch.device:
    """``auto`` is the first GPU where there is one, or the process's own where several share a run.

    A GPU becomes torch's current one, on whose streams CUDA graphs are recorded. It computes without TF32 until ``training.tf32``
    asks for it. Raises ``UserError`` for one that is not there.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if process_count() > 1 and name.startswith("cuda"):
        if name != "cuda":
            raise UserError(f"device={name}: several processes share this run, each on a GPU of its own; use device=auto")
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"device={name}: choose auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda":
        if (number := device.index or 0) >= torch.cuda.device_count():
            raise UserError(f"device={name}: this machine has {torch.cuda.device_count()} CUDA device(s); use device=auto or device=cpu")
        torch.cuda.set_device(number)
        torch.backends.cudnn.allow_tf32 = False  # torch's own default is True: encoders would be held against rounded scores
    return device


def model_location(conf: ModelConf) -> str:
    """Folder or hub id behind ``model.path``."""
    if conf.path == "toybox":
        from bayesdiff.toybox.weights import PIPELINE

        return str(PIPELINE)
    return at_home(conf.path)


def fetch_command(location: str, revision: str | None) -> str:
    """The shell command that puts just the files of a hub model that are loaded here into the cache."""
    pinned = f", revision='{revision}'" if revision else ""
    return f"""python -c "from diffusers import DiffusionPipeline as P; P.download('{location}'{pinned}, safety_checker=None)\""""


def remedy(conf: ModelConf, location: str) -> str:
    """How to get, or mend, a model that cannot be loaded."""
    if conf.path == "toybox":
        from bayesdiff.toybox.weights import RESTORE

        return RESTORE
    if Path(location).exists():
        if conf.variant is None and (variant := variant_there(location)):
            return f"its files are of a variant: add model.variant={variant}"
        return "download it again or correct model.path"
    if not HUB_ID.fullmatch(location):
        return "there is no such folder; correct model.path"
    size = f" ({conf.size})" if conf.size else ""
    gate = f"; accept its licence on huggingface.co/{location} and log in with 'hf auth login' first" if conf.gated else ""
    return f"fetch it{size} with {fetch_command(location, conf.revision)}{gate}, or set model.path to a local folder"


def load_pipeline(conf: ModelConf, device: torch.device) -> StableDiffusionPipeline:
    """Load all parts of a Stable Diffusion or SDXL pipeline in float32, frozen and in evaluation mode.

    Raises:
        UserError: weights missing, truncated, of another layout, or of a model that would be trained wrongly; the message
            names the remedy.
    """
    import torch
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    location = model_location(conf)
    try:
        pipe = DiffusionPipeline.from_pretrained(
            location, revision=conf.revision, variant=conf.variant, dtype=torch.float32, safety_checker=None,
            local_files_only=Path(location).exists() or conf.path == "toybox",
        )  # fmt: skip
        if type(pipe).__name__ not in KINDS:
            raise ValueError(f"it holds a {type(pipe).__name__}; this suite fine-tunes {' and '.join(KINDS)}")
    except Exception as error:  # the loaders raise OSError, ValueError, SafetensorError, KeyError … for a bad folder
        raise UserError(f"model {location}: cannot be loaded ({first_line(error)}); {remedy(conf, location)}") from error
    check_supported(pipe, location)
    if why := refused_files(pipe, conf, location):
        raise UserError(f"model {location}: not whole: {why}; {remedy(conf, location)}")
    for part in (pipe.unet, pipe.vae, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)):
        if part is not None:
            part.requires_grad_(False).eval()
    if hasattr(pipe, "watermark"):
        pipe.watermark = None  # SDXL draws one where an unrelated package is installed
    pipe.set_progress_bar_config(disable=True)
    pipe = pipe.to(device)
    if why := refused_fit(pipe):
        raise UserError(f"model {location}: cannot be fine-tuned here: {why}; {remedy(conf, location)}")
    return pipe


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raises ``UserError`` where the device cannot train in the asked precision."""
    import torch

    if precision is Precision.fp16 and device.type == "cpu":
        raise UserError("training.mixed_precision=fp16: needs a CUDA device; choose bf16 or no")
    if precision is Precision.bf16 and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError("training.mixed_precision=bf16: this GPU has no bf16; choose fp16 or no")


def _refused_parts(pipe: StableDiffusionPipeline) -> str:
    """Why training could not condition this U-Net as the stock pipeline does; empty where it can."""
    config, sdxl = pipe.unet.config, type(pipe).__name__ == "StableDiffusionXLPipeline"
    latents = pipe.vae.config.latent_channels
    if not config.in_channels == config.out_channels == latents:
        return f"its U-Net has {config.in_channels} channels in and {config.out_channels} out for {latents} of latents"
    if config.get("time_cond_proj_dim"):
        return "its U-Net is told the guidance scale (a distilled model)"
    wanted = "text_time" if sdxl else None
    for key, value in {"addition_embed_type": wanted, "class_embed_type": None, "encoder_hid_dim_type": None}.items():
        if config.get(key) != value:
            return f"its U-Net has {key}={config.get(key)}"
    if pipe.text_encoder is None or (sdxl and pipe.text_encoder_2 is None):
        return "it lacks a text encoder (an SDXL refiner has but one)"
    return ""


def check_supported(pipe: StableDiffusionPipeline, location: str) -> None:
    """Raises ``UserError`` for a model that only looks supported: it would be trained on another schedule, latents or conditions."""
    if why := refused_schedule(pipe.scheduler) or refused_autoencoder(pipe) or _refused_parts(pipe):
        raise UserError(f"model {location}: cannot be fine-tuned here: {why}; choose Stable Diffusion 1.x, 2.x or SDXL by model=…")


def check_limits(pipe: StableDiffusionPipeline, conf: ModelConf, sampler: SamplerConf) -> None:
    """Settings that only the loaded model can judge; raises ``UserError``."""
    check_sizes(pipe.unet.config, pipe.vae_scale_factor, pipe.scheduler.config.num_train_timesteps, conf, sampler)
    check_supported(pipe, model_location(conf))
    sampler_for(pipe, sampler)


def check_sizes(unet: Any, pixels_a_latent: int, timesteps: int, conf: ModelConf, sampler: SamplerConf) -> None:
    """Raises ``UserError`` for a resolution or steps that a model with this U-Net's configuration cannot have."""
    multiple = smallest_side(unet, pixels_a_latent)
    if conf.resolution < multiple or conf.resolution % multiple:
        raise UserError(f"model.resolution={conf.resolution}: must be a multiple of {multiple} for this model")
    if sampler.steps > timesteps:
        raise UserError(f"sampler.steps={sampler.steps}: this model has {timesteps} timesteps; give fewer")


def use_sampler(pipe: StableDiffusionPipeline, conf: SamplerConf) -> None:
    """Put the sampler's scheduler on the pipeline, built from the model's noise schedule alone.

    ``model`` keeps the scheduler that the model was saved with; none of them clips latents.

    Raises:
        UserError: the scheduler cannot follow that schedule (PNDM knows no zero terminal SNR), or not in so many steps.
    """
    pipe.scheduler = sampler_for(pipe, conf)


def sampler_for(pipe: StableDiffusionPipeline, conf: SamplerConf) -> Any:
    """What ``use_sampler`` puts on the pipeline, which stays as it is; raises as that does."""
    own = conf.scheduler is Scheduler.model
    scheduler = own_sampler(pipe.scheduler) if own else build_sampler(conf.scheduler, pipe.scheduler)
    check_steps(scheduler, conf.scheduler, conf.steps)
    check_sampling(scheduler, conf.scheduler, conf.steps)
    return scheduler
