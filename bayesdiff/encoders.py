"""CLIP and DINO as functions from images to unit vectors: toybox, local folder or published weights.

Images are resized to a square without cropping, as the paper's evaluation does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bayesdiff.config import MetricsConf
from bayesdiff.errors import UserError, first_line

if TYPE_CHECKING:
    import torch
    from PIL import Image

ImageEncoder = Callable[["list[Image.Image]"], "torch.Tensor"]
TextEncoder = Callable[["list[str]"], "torch.Tensor"]


@dataclass(frozen=True)
class Encoders:
    """Each returns L2-normalised float32 features (N, D) on the CPU."""

    clip_image: ImageEncoder
    clip_text: TextEncoder
    dino: ImageEncoder


def _image_encoder(
    forward: Callable[[torch.Tensor], torch.Tensor], side: int, mean: tuple[float, ...], std: tuple[float, ...],
    device: torch.device, batch_size: int,
) -> ImageEncoder:  # fmt: skip
    import torch
    from torchvision.transforms import v2

    preprocess = v2.Compose(
        [
            v2.ToImage(), v2.Resize((side, side), interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std)),
        ]
    )  # fmt: skip

    @torch.inference_mode()
    def encode(images: list[Image.Image]) -> torch.Tensor:
        chunks = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
        features = [forward(torch.stack([preprocess(i) for i in chunk]).to(device)).float().cpu() for chunk in chunks]
        return torch.nn.functional.normalize(torch.cat(features), dim=-1)

    return encode


def load_clip(name: str, device: torch.device, batch_size: int = 32) -> tuple[ImageEncoder, TextEncoder]:
    """An open_clip model: ``toybox``, ``local-dir:FOLDER`` or ``ARCHITECTURE/PRETRAINED``. Raises ``UserError``."""
    import open_clip
    import torch

    if name == "toybox":
        from bayesdiff.toybox.weights import CLIP

        name = f"local-dir:{CLIP}"
    architecture, _, pretrained = (name, "", "") if name.startswith("local-dir:") else name.partition("/")
    try:
        model, _, _ = open_clip.create_model_and_transforms(architecture, pretrained=pretrained or None)
        tokenizer = open_clip.get_tokenizer(architecture)
    except Exception as error:  # loaders raise many kinds for a bad or missing file
        raise UserError(f"metrics.clip={name}: cannot be loaded ({first_line(error)}); {_remedy(name)}") from error
    model = model.eval().requires_grad_(False).to(device).float()
    visual = model.visual
    side = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size

    @torch.inference_mode()
    def encode_text(texts: list[str]) -> torch.Tensor:
        features = model.encode_text(tokenizer(texts).to(device)).float().cpu()
        return torch.nn.functional.normalize(features, dim=-1)

    return _image_encoder(model.encode_image, side, visual.image_mean, visual.image_std, device, batch_size), encode_text


def load_dino(name: str, device: torch.device, batch_size: int = 32) -> ImageEncoder:
    """A timm vision transformer's class token: ``toybox``, ``local-dir:FOLDER`` or a timm name. Raises ``UserError``."""
    import timm
    from timm.data import resolve_model_data_config

    if name == "toybox":
        from bayesdiff.toybox.weights import DINO

        name = f"local-dir:{DINO}"
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # as above; timm's FileNotFoundError has an empty message
        raise UserError(f"metrics.dino={name}: cannot be loaded ({first_line(error)}); {_remedy(name)}") from error
    model = model.eval().requires_grad_(False).to(device).float()
    data = resolve_model_data_config(model)
    return _image_encoder(model, data["input_size"][-1], data["mean"], data["std"], device, batch_size)


def load_encoders(conf: MetricsConf, device: torch.device) -> Encoders:
    clip_image, clip_text = load_clip(conf.clip, device, conf.batch_size)
    return Encoders(clip_image, clip_text, load_dino(conf.dino, device, conf.batch_size))


def _remedy(name: str) -> str:
    if "toybox" in name:
        from bayesdiff.toybox.weights import RESTORE

        return RESTORE
    return "name a published model (its weights are downloaded once) or local-dir:FOLDER"
