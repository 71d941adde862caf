"""A model's shape without its weights: what settings ask of it is looked at before gigabytes are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesdiff.config.schema import ModelConf
from bayesdiff.diffusion.pipeline import model_location

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Blueprint:
    """The parts of a model that limits depend on."""

    unet: nn.Module
    """On the meta device: layers with names and shapes, and no numbers in them."""
    pixels_a_latent: int
    timesteps: int


def blueprint(conf: ModelConf) -> Blueprint | None:
    """A model's shape from its configuration files; None where they cannot be read, which loading the model tells of."""
    import torch
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

    location = model_location(conf)
    where: dict[str, Any] = {"revision": conf.revision, "local_files_only": Path(location).exists()}
    try:
        unet, vae, scheduler = (
            kind.load_config(location, subfolder=part, **where)
            for kind, part in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae"), (DDPMScheduler, "scheduler"))
        )
        with torch.device("meta"):
            made = UNet2DConditionModel.from_config(unet)
        return Blueprint(made, 2 ** (len(vae["block_out_channels"]) - 1), int(scheduler["num_train_timesteps"]))
    except Exception:  # the loaders raise many kinds for a bad folder
        return None
