"""Pretrain the toybox's DINO encoder: self-distillation without labels on films of the procedural world.

Command:  python -m bayesdiff.toybox.dino
Cost:     about 12 minutes on 2 CPU cores
Expected: same-subject against other-subject-of-the-class AUC above 0.95; similarity of a render with
          itself falls by 0.15 or more under pixel noise of std 0.2, and by less than 0.10 under a shift

Views are crops and flips of two frames of a film: the same thing through the same camera, elsewhere.
No class, colour or name is used. Views are never resized, blurred, noised or recoloured, and cameras
differ between films (grain, colour), never within one: the encoder has to see corruption, so nothing
may teach it to look away. (Crops of single pictures were tried first: the encoder then knew the scene
by its colours and nothing of the subject, AUC 0.48.)
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from bayesdiff.files import staged
from bayesdiff.toybox.dataset import render_films, to_pixels
from bayesdiff.toybox.pretraining import WORK, Recipe, fit
from bayesdiff.toybox.weights import DINO

ARCHITECTURE = "vit_tiny_patch16_224"
MODEL_ARGS = {"img_size": 64, "patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4, "num_classes": 0, "dynamic_img_size": True}
FILMS = 16_000
PROTOTYPES, BATCH, GLOBAL, LOCAL = 1024, 64, 64, 40
SPREAD = 0.1
"""Weight of the KoLeo term, which spreads the features of a batch apart (DINOv2, arXiv 2304.07193)."""
PADDING = 8
"""Reflected border, so that full-size crops can be shifted."""
RECIPE = Recipe(steps=900, learning_rate=1e-3, warmup=100, weight_decay=0.04, ema=0.99)


class Student(nn.Module):
    """Backbone, projection onto normalised prototypes, and the loss with its running centre."""

    def __init__(self) -> None:
        super().__init__()
        from lightly.loss import DINOLoss, KoLeoLoss

        self.backbone = timm.create_model(ARCHITECTURE, pretrained=False, **MODEL_ARGS)
        width = MODEL_ARGS["embed_dim"]
        self.head = nn.Sequential(nn.Linear(width, 512), nn.GELU(), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 128))
        self.prototypes = nn.Linear(128, PROTOTYPES, bias=False)
        self.criterion = DINOLoss(PROTOTYPES, teacher_temp=0.05, student_temp=0.1, center_momentum=0.9)
        self.spread = KoLeoLoss()

    def scores(self, features: torch.Tensor) -> torch.Tensor:
        """Backbone features (B, D) to prototype scores (B, PROTOTYPES)."""
        projected = F.normalize(self.head(features).float(), dim=-1)
        return F.linear(projected, F.normalize(self.prototypes.weight, dim=-1))


def crop(pixels: torch.Tensor, side: int, generator: torch.Generator) -> torch.Tensor:
    """One random square of ``side`` from each (mirrored or not) image of the batch, unscaled."""
    count, span = len(pixels), pixels.shape[-1] - side + 1
    corners = torch.randint(span, (count, 2), generator=generator).tolist()
    mirrored = torch.rand(count, generator=generator) < 0.5
    squares = [image[:, y : y + side, x : x + side] for image, (y, x) in zip(pixels, corners, strict=True)]
    views = torch.stack(squares)
    return torch.where(mirrored[:, None, None, None], views.flip(-1), views)


def distillation_loss(student: Student, teacher: Student, films: np.ndarray, g: torch.Generator) -> torch.Tensor:
    """DINO (arXiv 2104.14294, eq. 3): every view of the student against both full views of the teacher."""
    chosen = films[torch.randint(len(films), (BATCH,), generator=g).numpy()]
    frames = [to_pixels(chosen[:, i]) for i in range(2)]
    full = torch.cat([crop(F.pad(frame, (PADDING,) * 4, mode="reflect"), GLOBAL, g) for frame in frames])
    small = torch.cat([crop(frame, LOCAL, g) for frame in frames])
    with torch.no_grad():
        target = teacher.scores(teacher.backbone(full)).chunk(2)
    features = student.backbone(full)
    views = [*student.scores(features).chunk(2), *student.scores(student.backbone(small)).chunk(2)]
    spread = sum(student.spread(half.float()) for half in features.chunk(2))
    return student.criterion(list(target), views) + SPREAD * spread


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
    with staged(folder) as part:
        part.mkdir()
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file({k: v.half().contiguous() for k, v in backbone.state_dict().items()}, part / "model.safetensors")


def main(work: Path = WORK) -> None:
    films = render_films(work, FILMS)
    torch.manual_seed(0)
    student = Student().train()
    teacher = fit("dino", student, lambda g, average: distillation_loss(student, average, films, g), RECIPE, work)
    save(teacher.backbone)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    main(parser.parse_args().work)
