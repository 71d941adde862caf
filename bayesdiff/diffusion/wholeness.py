"""Whether a loaded pipeline is whole: every weight from its files, every number finite, and parts that fit together.

The loaders fill what a file lacks. A text encoder without one of its tensors gets random numbers, and nothing but a log says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from bayesdiff.config.schema import ModelConf
from bayesdiff.core.errors import first_line

if TYPE_CHECKING:
    import torch
    from torch import nn

MODELS = ("unet", "vae", "text_encoder", "text_encoder_2")
TRIAL_TEXT = "a photo"


def models_of(pipe: Any) -> dict[str, nn.Module]:
    """The models of a pipeline by their folders' names."""
    return {name: part for name in MODELS if (part := getattr(pipe, name, None)) is not None}


def smallest_side(unet: Any, pixels_a_latent: int) -> int:
    """Pixels that a picture's side is a multiple of, from the configuration of the U-Net."""
    return max(8, pixels_a_latent * int(2 ** (len(unet.block_out_channels) - 1)))


def refused_files(pipe: Any, conf: ModelConf, location: str) -> str:
    """Why a pipeline's files are not whole; empty where they gave every weight.

    Call it before the pipeline is moved: what no file gave may be without numbers until then.
    """
    for name, part in models_of(pipe).items():
        lacking = [key for key, tensor in part.state_dict().items() if tensor.is_meta]
        if not lacking and name.startswith("text_encoder"):
            lacking = _lacking(type(part), conf, location, name)
        if lacking:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            return f"its {name} lacks the weights {lacking[0]}{more}"
    return ""


def _lacking(kind: Any, conf: ModelConf, location: str, name: str) -> list[str]:
    """Weights of a text encoder that its files do not have, from their heads alone; its loader makes such weights up."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    where = {"subfolder": name, "local_files_only": True, "device_map": "meta", "output_loading_info": True}
    try:
        for variant in dict.fromkeys((conf.variant, None)):
            try:
                _, told = kind.from_pretrained(location, revision=conf.revision, variant=variant, **where)
                return sorted(told["missing_keys"])
            except OSError:  # a part without this variant has its plain file
                continue
    finally:
        logging.set_verbosity(before)
    return []


def not_finite(model: nn.Module) -> str:
    """The name of the first weight of a model that has a number that is not finite; empty where all are."""
    import torch

    return next((key for key, tensor in model.state_dict().items() if not bool(torch.isfinite(tensor).all())), "")


def refused_fit(pipe: Any) -> str:
    """Why a pipeline's parts cannot work together, by the smallest trial of what a run does; empty where they can.

    A picture is encoded, a text is read, the U-Net is asked once, and latents are decoded.
    """
    import torch

    for name, part in models_of(pipe).items():
        if wrong := not_finite(part):
            return f"its {name} has weights that are not finite ({wrong})"
    try:
        latents, predicted, picture = _trial(pipe)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        return f"its parts do not fit together ({first_line(error)})"
    if predicted.shape != latents.shape or picture.shape[1] != 3:
        return "its parts do not fit together (a picture has not the shape of what was encoded)"
    finite = all(bool(torch.isfinite(found).all()) for found in (latents, predicted, picture))
    return "" if finite else "a trial picture has numbers that are not finite"


def _trial(pipe: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents (1, C, h, w) of a grey picture, what the U-Net predicts of them, and the picture that they decode to."""
    import torch

    from bayesdiff.diffusion.batch import encode_pictures

    side = smallest_side(pipe.unet.config, pipe.vae_scale_factor)
    with torch.no_grad():
        made = encode_pictures(pipe, [Image.new("RGB", (side, side), "grey")], TRIAL_TEXT)
        added = {"added_cond_kwargs": made.text.added} if made.text.added else {}
        time = torch.ones(1, dtype=torch.long, device=pipe.device)
        predicted = pipe.unet(made.mean, time, encoder_hidden_states=made.text.states, **added).sample
        return made.mean, predicted, pipe.vae.decode(made.mean).sample


def variant_there(location: str) -> str:
    """The variant that a local model's files are of, such as ``fp16``; empty where they are plain."""
    names = [path.name for path in Path(location).glob("unet/*.safetensors")]
    variants = {parts[1] for name in names if len(parts := name.split(".")) == 3}
    return variants.pop() if len(variants) == 1 and len(names) == sum(name.count(".") == 2 for name in names) else ""
