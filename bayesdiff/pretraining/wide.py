"""Pretrain the wide base: eight times the toybox's weights, on its world, autoencoder and encoders.

Command:  python -m bayesdiff.pretraining.wide --device cuda --minutes 8 --output FOLDER
Cost:     one H100 for 8 minutes; resumable (the same command goes on from the state file in --work)
Expected: the bars of ``python -m bayesdiff.pretraining.check FOLDER``

What differs from the shipped base, and why:

- 44 M weights in the U-Net, 10,800 for every latent number (the toybox has 1,340, Stable Diffusion 1.5
  52,000). Most sit at 8×8 and 4×4, where they cost little time.
- Cross-attention at every resolution, and a text encoder of 4 layers and width 256.
- Captions name both colours, pattern and context in ``FULL_CAPTIONS`` of the pictures; the others keep the
  words of the evaluation prompts.
- Epsilon on Stable Diffusion's schedule ("sd") from the first step on. The paper's sampler, PNDM, cannot follow a
  schedule of zero terminal SNR, and with velocities no corruption stage was seen (see the model card). Casts come
  from that schedule's leak of signal; more steps were what brought them down in the shipped base.
- 64,000 pictures: at this size 40,000 would be seen too often.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from bayesdiff.core.files import write_text
from bayesdiff.pretraining.dataset import TRAIN_SEED, render_world, to_pixels
from bayesdiff.pretraining.denoiser import Denoiser, build_scheduler, cached_latents, denoising_loss, save
from bayesdiff.pretraining.gap import Gap, held_out, text_gaps
from bayesdiff.pretraining.graphed import Training, fit_on, use_average
from bayesdiff.pretraining.recipe import WORK, Recipe
from bayesdiff.pretraining.tokenizer import tokenize
from bayesdiff.pretraining.transport import pack
from bayesdiff.toybox.vocabulary import BOS, EOS, MAX_TOKENS, PAD, vocabulary
from bayesdiff.toybox.weights import PIPELINE
from bayesdiff.toybox.world import contact_sheet, describe

NAME, IMAGES, BATCH = "wide", 64_000, 128
FULL_CAPTIONS, EMPTY_PROMPTS = 0.7, 0.05
TEXT_WIDTH = 256
RECIPE = Recipe(steps=0, learning_rate=4e-4, warmup=500, ema=0.9995)
"""No number of steps: as many as the minutes allow. At a peak of 6e-4 a net of 84 M weights diverged."""
RESERVE = 5.0
"""Seconds of ``--minutes`` kept for writing the state and the pipeline."""
SHEET = (
    "a photo of a backpack", "a red dog in the snow", "a photo of a blue and white striped mug on the beach", "a robot in the jungle",
    "a photo of a green and black checkered vase on top of a wooden floor", "a photo of a cat wearing a santa hat",
    "a yellow car with a city in the background", "a photo of a teapot",
)  # fmt: skip
"""Prompts of the sheet of samples, short and full."""


@dataclass(frozen=True)
class Size:
    """Channels of the U-Net's levels (32×32 first), heads of each, width and layers of the text encoder."""

    channels: tuple[int, ...] = (64, 128, 256, 384)
    heads: tuple[int, ...] = (2, 4, 8, 8)
    text_width: int = TEXT_WIDTH
    text_layers: int = 4


TINY = Size((16, 32), (1, 2), 32, 1)
"""For tests and dry runs: the same code in seconds."""


def build_unet(size: Size) -> UNet2DConditionModel:
    levels = len(size.channels)
    return UNet2DConditionModel(
        sample_size=32, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=size.channels,
        down_block_types=("CrossAttnDownBlock2D",) * levels, up_block_types=("CrossAttnUpBlock2D",) * levels,
        cross_attention_dim=size.text_width, attention_head_dim=size.heads, norm_num_groups=16,
    )  # fmt: skip


def build_text_encoder(size: Size) -> CLIPTextModel:
    words = vocabulary()
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words), hidden_size=size.text_width, intermediate_size=4 * size.text_width,
            num_hidden_layers=size.text_layers, num_attention_heads=max(size.text_width // 64, 1),
            max_position_embeddings=MAX_TOKENS, bos_token_id=words[BOS], eos_token_id=words[EOS], pad_token_id=words[PAD],
        )
    )  # fmt: skip


def build(size: Size, seed: int = 0) -> Denoiser:
    torch.manual_seed(seed)
    return Denoiser(build_unet(size), build_text_encoder(size)).train()


def drawn_loss(model: Denoiser, latents: torch.Tensor, tokens: torch.Tensor, batch: int) -> Callable[[], torch.Tensor]:
    """The loss of a batch that the device draws for itself, from its default generator.

    Args:
        latents: (N, 4, 32, 32) in half precision, on the device.
        tokens: (3, N, MAX_TOKENS): full captions, short captions, empty prompts.
    """
    scheduler, device, (_, count, _) = build_scheduler(), latents.device, tokens.shape
    bounds = torch.tensor([FULL_CAPTIONS * (1 - EMPTY_PROMPTS), 1 - EMPTY_PROMPTS], device=device)

    def loss() -> torch.Tensor:
        chosen = torch.randint(count, (batch,), device=device)
        sort = torch.bucketize(torch.rand(batch, device=device), bounds)
        return denoising_loss(model, scheduler, latents[chosen].float(), tokens[sort, chosen], None)

    return loss


def training_data(work: Path, images: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (N, 4, 32, 32) float16 and tokens (3, N, MAX_TOKENS) on the device; rendered by all cores, once."""
    data = render_world(work, images)
    vae = AutoencoderKL.from_pretrained(PIPELINE / "vae", dtype=torch.float32).eval().to(device)
    full = [describe(TRAIN_SEED, i) for i in range(images)]
    tokens = torch.stack([tokenize(full), tokenize(data.captions), tokenize([""]).expand(images, -1)])
    return cached_latents(work, data, vae).to(device), tokens.to(device)


@torch.no_grad()
def measured_gaps(model: Denoiser, device: torch.device, count: int = 64) -> list[Gap]:
    """Gaps of a model in training on held-out pictures (``gap.text_gaps``)."""
    images, captions = held_out(count)
    vae = AutoencoderKL.from_pretrained(PIPELINE / "vae", dtype=torch.float32).eval().to(device)
    latents = vae.encode(to_pixels(images).to(device)).latent_dist.mean
    states = {sort: model.text_encoder(tokenize(texts).to(device))[0] for sort, texts in captions.items()}
    empty = model.text_encoder(tokenize([""]).to(device))[0]
    return text_gaps(model.unet, build_scheduler(), latents, states, empty)


def write_pipeline(model: Denoiser, root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    shutil.copytree(PIPELINE / "vae", root / "vae", dirs_exist_ok=True)
    save(model.cpu(), "sd", root)


def sample_sheet(root: Path, file: Path, device: torch.device, columns: int = 6) -> None:
    """One row of samples for every sort of prompt, as the paper samples: PNDM, 50 steps, guidance 7.5."""
    from bayesdiff.config.prompts import Prompt
    from bayesdiff.config.schema import ModelConf, SamplerConf, SamplerPrecision, Scheduler
    from bayesdiff.diffusion.pipeline import load_pipeline, use_sampler
    from bayesdiff.diffusion.sampling import sample_prompts

    conf = SamplerConf(
        scheduler=Scheduler.pndm, steps=50, prompts=list(SHEET), images_per_prompt=columns, batch_size=columns * len(SHEET),
        precision=SamplerPrecision.fp32,
    )  # fmt: skip
    pipe = load_pipeline(ModelConf(name="wide", path=str(root), resolution=64), device)
    use_sampler(pipe, conf)
    images = [np.asarray(s.image) for s in sample_prompts(pipe, [Prompt(t, t, t) for t in SHEET], conf, 64)]
    contact_sheet([images[i : i + columns] for i in range(0, len(images), columns)]).save(file)


def pretrain(size: Size, recipe: Recipe, args: argparse.Namespace, deadline: float) -> tuple[Denoiser, dict[str, Any]]:
    """Train until the deadline; returns the weight average and what is known of the training."""
    device = torch.device(args.device)
    latents, tokens = training_data(args.work, args.images, device)
    print(f"data ready, {deadline - time.perf_counter():.0f} s left", flush=True)
    model = build(size, recipe.seed).to(device)
    if device.type == "cuda":
        model.unet.to(memory_format=torch.channels_last)
    training = fit_on(Training(model, drawn_loss(model, latents, tokens, args.batch), recipe, device), NAME, args.work, deadline)
    use_average(training)
    weights = {part: sum(p.numel() for p in getattr(model, part).parameters()) for part in ("unet", "text_encoder")}
    known = {
        "size": asdict(size), "weights": weights, "recipe": asdict(training.recipe), "batch": args.batch, "images": args.images,
        "step": training.step, "best_loss": training.best, "restored": training.restored, "skipped": float(training.skipped),
        "log": [[float(v) for v in line.split(",")] for line in (args.work / f"{NAME}.log.csv").read_text().split()],
        "gaps": [asdict(gap) for gap in measured_gaps(model, device)],
    }  # fmt: skip
    return model, known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--output", type=Path, required=True, help="pipeline folder to write")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop and save after this time, rendering included")
    parser.add_argument("--steps", type=int, default=RECIPE.steps, help="0: as many as the minutes allow")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--learning-rate", type=float, default=RECIPE.learning_rate)
    parser.add_argument("--parts", type=Path, help="also write weights in small parts, figures and samples there (see transport)")
    parser.add_argument("--tiny", action="store_true", help="a very small network, to try the command")
    args = parser.parse_args()
    start = time.perf_counter()
    if not args.steps and args.minutes == float("inf"):
        parser.error("--steps 0 takes the number of steps from --minutes: give one of them")
    torch.backends.cudnn.benchmark = True
    recipe = replace(RECIPE, steps=args.steps, learning_rate=args.learning_rate)
    model, known = pretrain(TINY if args.tiny else Size(), recipe, args, start + 60 * args.minutes - RESERVE)
    write_pipeline(model, args.output)
    known |= {"seconds": time.perf_counter() - start, "device": args.device, "cores": os.cpu_count(), "torch": torch.__version__}
    write_text(args.output / "pretraining.json", json.dumps(known, indent=1) + "\n")
    if args.parts:
        files = pack(args.output, args.parts)
        shutil.copy(args.output / "pretraining.json", args.parts)
        sample_sheet(args.output, args.parts / "samples.png", torch.device(args.device))
        print(f"wrote {len(files)} parts and a sheet of samples to {args.parts}")
    print(f"wrote {args.output} after {known['seconds']:.0f} s and {known['step']} steps")


if __name__ == "__main__":
    main()
