"""Pretrain the toybox's DINO-style encoder: a vision transformer trained without labels on films.

Command:  python -m bayesdiff.pretraining.dino
Cost:     about 8 minutes on 2 CPU cores, and 2 to render the films
Expected: same-subject against other-subject-of-the-class AUC above 0.95; similarity of a render with
          itself falls by 0.15 or more under pixel noise of std 0.2, and by less than 0.10 under a shift

It stands where DINO ViT-S/16 stands for Stable Diffusion: its class tokens are compared by cosine. Two
frames of a film (the same thing through the same camera, elsewhere) attract, everything else in the
batch repels (NT-Xent, arXiv 2002.05709). No class, colour or name is used. Views are shifted and
mirrored only, never resized, blurred or recoloured, and every film is in the batch once more through a
grainier, miscoloured camera, as *another* film: the encoder is taught to see corruption, not to look
away. Self-distillation (the DINO loss) was tried first and learns too slowly for a laptop: AUC 0.48 with
crops of single pictures after 500 steps, 0.64 with films after 250.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from bayesdiff.core.files import atomic_write
from bayesdiff.pretraining.dataset import render_films, to_pixels
from bayesdiff.pretraining.recipe import WORK, Recipe, fit, work_folder
from bayesdiff.toybox.weights import DINO

ARCHITECTURE = "vit_tiny_patch16_224"
MODEL_ARGS = {"img_size": 64, "patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4, "num_classes": 0, "dynamic_img_size": True}
FILMS = 16_000
BATCH, GLOBAL = 48, 64
TEMPERATURE = 0.1
OTHER_GAIN, OTHER_GRAIN = (0.75, 1.25), (0.08, 0.30)
"""The other camera: factor of each channel, and standard deviation of its grain in the range [-1, 1]."""
PADDING = 8
"""Reflected border, so that full-size crops can be shifted."""
RECIPE = Recipe(steps=900, learning_rate=1e-3, warmup=100, weight_decay=0.04, ema=0.99)


def build() -> nn.Module:
    """ViT with 8-pixel patches, 4 layers, width 128: 0.8 M weights; (B, 3, 64, 64) in [-1, 1] to (B, 128)."""
    model: nn.Module = timm.create_model(ARCHITECTURE, pretrained=False, **MODEL_ARGS)
    return model


def crop(pixels: torch.Tensor, side: int, generator: torch.Generator) -> torch.Tensor:
    """One random square from each image of a batch, mirrored or not, unscaled: (B, C, H, W) to (B, C, side, side)."""
    count, span = len(pixels), pixels.shape[-1] - side + 1
    corners = torch.randint(span, (count, 2), generator=generator).tolist()
    mirrored = torch.rand(count, generator=generator) < 0.5
    squares = [image[:, y : y + side, x : x + side] for image, (y, x) in zip(pixels, corners, strict=True)]
    views = torch.stack(squares)
    return torch.where(mirrored[:, None, None, None], views.flip(-1), views)


def other_camera(frames: list[torch.Tensor], g: torch.Generator) -> list[torch.Tensor]:
    """The same frames (B, 3, H, W) through another camera each: one gain and one grain a film, fresh grain a frame."""
    count = len(frames[0])
    low, high = OTHER_GAIN
    gain = low + (high - low) * torch.rand(count, 3, 1, 1, generator=g)
    grain = OTHER_GRAIN[0] + (OTHER_GRAIN[1] - OTHER_GRAIN[0]) * torch.rand(count, 1, 1, 1, generator=g)
    return [((frame + 1) * gain - 1 + grain * torch.randn(frame.shape, generator=g)).clamp(-1, 1) for frame in frames]


def contrastive_loss(model: nn.Module, films: np.ndarray, g: torch.Generator) -> torch.Tensor:
    """NT-Xent between the first and second frames of 2 · BATCH films (B, 2, 64, 64, 3) uint8."""
    from lightly.loss import NTXentLoss

    chosen = films[torch.randint(len(films), (BATCH,), generator=g).numpy()]
    frames = [to_pixels(chosen[:, i]) for i in range(2)]
    views = [torch.cat(pair) for pair in zip(frames, other_camera(frames, g), strict=True)]
    shifted = [crop(F.pad(view, (PADDING,) * 4, mode="reflect"), GLOBAL, g) for view in views]
    first, second = model(torch.cat(shifted)).float().chunk(2)
    contrast: torch.Tensor = NTXentLoss(TEMPERATURE)(first, second)
    return contrast


def save(backbone: nn.Module, folder: Path = DINO) -> None:
    """Write a timm ``local-dir`` folder in half precision."""
    config = {
        "architecture": ARCHITECTURE, "num_classes": 0, "num_features": MODEL_ARGS["embed_dim"], "global_pool": "token",
        "model_args": MODEL_ARGS,
        "pretrained_cfg": {
            "input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "crop_pct": 1.0,
            "num_classes": 0, "pool_size": None, "first_conv": "patch_embed.proj", "classifier": "head",
        },
    }  # fmt: skip
    with atomic_write(folder) as part:
        part.mkdir()
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file({k: v.half().contiguous() for k, v in backbone.state_dict().items()}, part / "model.safetensors")


def main(work: Path = WORK) -> None:
    films = render_films(work, FILMS)
    torch.manual_seed(0)
    model = build().train()
    save(fit("dino", model, lambda g: contrastive_loss(model, films, g), RECIPE, work))


if __name__ == "__main__":
    main(work_folder(__doc__))
