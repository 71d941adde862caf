"""Pretrain the toybox's DINO encoder: self-distillation without labels on the procedural world.

Command:  python -m bayesdiff.toybox.dino
Cost:     about 12 minutes on 2 CPU cores
Expected: same-subject against other-subject-of-the-class AUC above 0.95; similarity of a render with
          itself falls by 0.15 or more under pixel noise of std 0.2, and by less than 0.10 under a shift

Views are crops and flips only, never resized, blurred, noised or recoloured: the encoder has to see
corruption, so nothing may teach it to look away.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from bayesdiff.files import staged
from bayesdiff.toybox.autoencoder import TRAIN_IMAGES
from bayesdiff.toybox.dataset import WorldData, render_world
from bayesdiff.toybox.pretraining import WORK, Recipe, fit
from bayesdiff.toybox.weights import DINO

ARCHITECTURE = "vit_tiny_patch16_224"
MODEL_ARGS = {"img_size": 64, "patch_size": 8, "embed_dim": 128, "depth": 6, "num_heads": 4, "num_classes": 0, "dynamic_img_size": True}
PROTOTYPES, BATCH, GLOBAL, LOCAL, LOCAL_VIEWS = 1024, 64, 64, 40, 3
PADDING = 8
"""Reflected border, so that full-size crops can be shifted."""
RECIPE = Recipe(steps=1_500, learning_rate=1e-3, warmup=150, weight_decay=0.04, ema=0.99)


class Student(nn.Module):
    """Backbone, projection onto normalised prototypes, and the loss with its running centre."""

    def __init__(self) -> None:
        super().__init__()
        from lightly.loss import DINOLoss

        self.backbone = timm.create_model(ARCHITECTURE, pretrained=False, **MODEL_ARGS)
        width = MODEL_ARGS["embed_dim"]
        self.head = nn.Sequential(nn.Linear(width, 512), nn.GELU(), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 128))
        self.prototypes = nn.Linear(128, PROTOTYPES, bias=False)
        self.criterion = DINOLoss(PROTOTYPES, teacher_temp=0.05, student_temp=0.1, center_momentum=0.9)

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in [-1, 1] to prototype scores (B, PROTOTYPES)."""
        projected = F.normalize(self.head(self.backbone(views)).float(), dim=-1)
        return F.linear(projected, F.normalize(self.prototypes.weight, dim=-1))


def crop(pixels: torch.Tensor, side: int, generator: torch.Generator) -> torch.Tensor:
    """One random square of ``side`` from each (mirrored or not) image of the batch, unscaled."""
    count, span = len(pixels), pixels.shape[-1] - side + 1
    corners = torch.randint(span, (count, 2), generator=generator).tolist()
    mirrored = torch.rand(count, generator=generator) < 0.5
    squares = [image[:, y : y + side, x : x + side] for image, (y, x) in zip(pixels, corners, strict=True)]
    views = torch.stack(squares)
    return torch.where(mirrored[:, None, None, None], views.flip(-1), views)


def distillation_loss(student: Student, teacher: Student, data: WorldData, g: torch.Generator) -> torch.Tensor:
    """DINO (arXiv 2104.14294, eq. 3): every view of the student against both full views of the teacher."""
    pixels = data.batch(torch.randint(len(data.captions), (BATCH,), generator=g))
    padded = F.pad(pixels, (PADDING,) * 4, mode="reflect")
    full = torch.cat([crop(padded, GLOBAL, g) for _ in range(2)])
    small = torch.cat([crop(pixels, LOCAL, g) for _ in range(LOCAL_VIEWS)])
    with torch.no_grad():
        target = teacher(full).chunk(2)
    views = [*student(full).chunk(2), *student(small).chunk(LOCAL_VIEWS)]
    return student.criterion(list(target), views)


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
    data = render_world(work, TRAIN_IMAGES)
    torch.manual_seed(0)
    student = Student().train()
    teacher = fit("dino", student, lambda g, average: distillation_loss(student, average, data, g), RECIPE, work)
    save(teacher.backbone)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    main(parser.parse_args().work)
