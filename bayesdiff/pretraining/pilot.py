"""A first look at how a base fine-tunes: one photograph, a constant rate, the paper's sampler, a curve.

Command:  python -m bayesdiff.pretraining.pilot FOLDER --output DIR --minutes 2
Cost:     about 40 s a run of 3,000 steps on one H100 (an estimate); hours on a CPU

Training and sampling are one CUDA graph a step each, so that many short runs fit a short loan of a GPU. The
objective is the suite's plain DreamBooth of the U-Net alone (one photograph, batch 1, no class images); the
noise is drawn by the device, so a run is not the same as one of ``bayesdiff.run``, and is no record. Each
checkpoint is seen as raw weights and as their average (0.99), at guidance 7.5 and 1.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from bayesdiff.config.schema import MetricsConf, ModelConf
from bayesdiff.core.seeds import generator
from bayesdiff.diffusion.pipeline import load_pipeline
from bayesdiff.pretraining.dataset import to_pixels
from bayesdiff.pretraining.gap import noise_of
from bayesdiff.pretraining.graphed import Training, advance, captured, copies
from bayesdiff.pretraining.recipe import Recipe
from bayesdiff.scoring.encoders import Encoders, load_encoders
from bayesdiff.scoring.pixels import high_frequency_energy
from bayesdiff.toybox.subjects import SUBJECTS, render_subject
from bayesdiff.toybox.world import contact_sheet

CHECKPOINTS = (0, 50, 100, 200, 300, 450, 600, 800, 1000, 1300, 1600, 2000, 3000)
VIEWS = (("raw", 7.5), ("ema", 7.5), ("raw", 1.0))
PROMPTS = ("a photo of qwe {}", "a qwe {} in the jungle", "a qwe {} on the beach", "a qwe {} on top of a wooden floor")
IMAGES, STEPS = 2, 50
PROBES = (100, 500)
"""Timesteps at which loss and gap on the training photograph are measured."""
RECIPE = Recipe(steps=CHECKPOINTS[-1], learning_rate=1e-4, warmup=0, ema=0.99, cosine=False)
COLUMNS = ["subject", "rate", "step", "weights", "guidance", "dino", "clip_t", "hf", "mse"] + [
    f"{name}_{t}" for t in PROBES for name in ("loss", "loss_empty", "gap")
]
Pair = Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]


@dataclass
class Bench:
    """The loaded base, its buffers and its two steps; a run fills the buffers and starts from ``initial``."""

    pipe: Any
    encoders: Encoders
    training: Training
    run: Callable[[], None]
    predict: Pair
    latents: torch.Tensor
    states: torch.Tensor
    prompts: torch.Tensor
    initial: list[torch.Tensor]


def prediction_pair(pipe: Any, prompts: torch.Tensor, rows: int) -> Pair:
    """Predictions with the prompts and with the empty one, for latents (rows, 4, 32, 32) and a timestep.

    ``prompts`` (2 × rows, L, D) is read anew at every call: prompts first, empty ones after.
    """
    device = prompts.device
    noisy = torch.zeros(2 * rows, *([pipe.unet.config.in_channels] + [pipe.unet.config.sample_size] * 2), device=device)
    at = torch.zeros(2 * rows, dtype=torch.long, device=device)

    @torch.no_grad()
    def forward() -> torch.Tensor:
        predicted: torch.Tensor = pipe.unet(noisy, at, encoder_hidden_states=prompts).sample
        return predicted

    output, replay = forward(), None
    if device.type == "cuda":
        side, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            forward()
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph, stream=side):
            output = forward()
        replay = graph.replay

    @torch.no_grad()
    def predict(x: torch.Tensor, timestep: int) -> tuple[torch.Tensor, torch.Tensor]:
        noisy.copy_(x.repeat(2, 1, 1, 1))
        at.fill_(timestep)
        if replay is None:
            return tuple(forward().chunk(2))  # type: ignore[return-value]
        replay()
        return tuple(output.clone().chunk(2))  # type: ignore[return-value]

    return predict


def load_bench(folder: str, device: torch.device) -> Bench:
    pipe = load_pipeline(ModelConf(name="pilot", path=folder, resolution=64), device)
    encoders = load_encoders(MetricsConf(clip="toybox", dino="toybox"), device)
    pipe.unet.requires_grad_(True).train()
    width, tokens = pipe.unet.config.cross_attention_dim, pipe.tokenizer.model_max_length
    latents = torch.zeros(1, 4, 32, 32, device=device)
    states = torch.zeros(1, tokens, width, device=device)
    prompts = torch.zeros(2 * len(PROMPTS) * IMAGES, tokens, width, device=device)
    scheduler = pipe.scheduler

    def loss() -> torch.Tensor:
        noise = torch.randn_like(latents)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (1,), device=device)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        return F.mse_loss(pipe.unet(noisy, timesteps, encoder_hidden_states=states).sample, noise)

    initial = [p.detach().clone() for p in pipe.unet.parameters()]
    training = Training(pipe.unet, loss, RECIPE, device, betas=(0.9, 0.999), autocast=False)
    run = captured(training)
    advance(training, run, 1)  # so that the moments exist
    return Bench(pipe, encoders, training, run, prediction_pair(pipe, prompts, len(prompts) // 2), latents, states, prompts, initial)


@torch.no_grad()
def start(bench: Bench, subject: str, rate: float) -> Image.Image:
    """Put the base, one subject's first photograph and a rate on the bench; returns the photograph."""
    photo, pipe = render_subject(subject)[0], bench.pipe
    t = bench.training
    count = len(bench.initial)
    torch._foreach_copy_(copies(t)[: 2 * count], bench.initial * 2)
    torch._foreach_zero_(copies(t)[2 * count :])
    for state in t.optimizer.state.values():
        state["step"].zero_()
    t.step, t.recipe = 0, replace(t.recipe, learning_rate=rate)
    texts = [text.format(SUBJECTS[subject]) for text in PROMPTS for _ in range(IMAGES)]
    hidden = pipe.encode_prompt([*texts, *[""] * len(texts)], pipe.device, 1, False)[0]
    bench.prompts.copy_(hidden)
    bench.states.copy_(hidden[:1])
    bench.latents.copy_(pipe.vae.encode(to_pixels(photo[None]).to(pipe.device)).latent_dist.mean * pipe.vae.config.scaling_factor)
    return Image.fromarray(photo)


@torch.no_grad()
def draw(bench: Bench, subject: str, guidance: float) -> list[Image.Image]:
    """``IMAGES`` samples of every prompt by PNDM as Stable Diffusion 1 sets it, from the same noise at every checkpoint."""
    from diffusers import PNDMScheduler

    pipe, scheduler = bench.pipe, PNDMScheduler.from_config(bench.pipe.scheduler.config, skip_prk_steps=True)
    texts = [text.format(SUBJECTS[subject]) for text in PROMPTS]
    x = torch.cat([torch.randn(1, 4, 32, 32, generator=generator(0, f"sample/{text}", i)) for text in texts for i in range(IMAGES)])
    x = x.to(pipe.device)
    scheduler.set_timesteps(STEPS)
    for timestep in scheduler.timesteps.tolist():
        given, empty = bench.predict(x, timestep)
        x = scheduler.step(empty + guidance * (given - empty), timestep, x).prev_sample
    pixels = pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample.nan_to_num(-1).clamp(-1, 1)
    arrays = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(array) for array in arrays]


def probes(bench: Bench) -> list[float]:
    """Loss with the prompt, loss with the empty one and their gap on the photograph, at ``PROBES``."""
    found: list[float] = []
    rows, scheduler = len(bench.prompts) // 2, bench.pipe.scheduler
    noise = torch.randn(rows, 4, 32, 32, generator=generator(0, "probe")).to(bench.latents.device)
    for t in PROBES:
        noisy = scheduler.add_noise(bench.latents.expand(rows, -1, -1, -1), noise, torch.tensor([t], device=noise.device))
        given, empty = (noise_of(scheduler, output, noisy, t)[:IMAGES] for output in bench.predict(noisy, t))
        pairs = ((given, noise[:IMAGES]), (empty, noise[:IMAGES]), (given, empty))
        found += [float((a - b).square().mean()) for a, b in pairs]
    return found


def look(bench: Bench, subject: str, photo: Image.Image, guidance: float) -> tuple[list[float], list[Image.Image]]:
    """DINO to the photograph, CLIP-T, high-frequency energy over the photograph's, mean squared error in [-1, 1]."""
    images, encoders = draw(bench, subject, guidance), bench.encoders
    dino = float((encoders.dino(images) @ encoders.dino([photo]).T).mean())
    texts = encoders.clip_text([text.replace("qwe ", "").format(SUBJECTS[subject]) for text in PROMPTS for _ in range(IMAGES)])
    clip_t = float((encoders.clip_image(images) * texts).sum(-1).mean())
    energy = float(np.mean([high_frequency_energy(i) for i in images])) / high_frequency_energy(photo)
    arrays = np.stack([np.asarray(i, np.float64) for i in images[:IMAGES]])
    mse = float((((arrays - np.asarray(photo, np.float64)) / 127.5) ** 2).mean())
    return [dino, clip_t, energy, mse], images


def checkpoint(bench: Bench, subject: str, photo: Image.Image) -> Iterator[tuple[tuple[str, float], list[float], list[Image.Image]]]:
    """Every view of the weights as they are now."""
    t = bench.training
    raw = [p.detach().clone() for p in t.parameters]
    for weights, guidance in VIEWS:
        with torch.no_grad():
            torch._foreach_copy_(t.parameters, t.average if weights == "ema" else raw)
        scores, images = look(bench, subject, photo, guidance)
        yield (weights, guidance), scores + probes(bench), images
    with torch.no_grad():
        torch._foreach_copy_(t.parameters, raw)


def one_run(bench: Bench, subject: str, rate: float, marks: tuple[int, ...], output: Path, deadline: float) -> list[list[np.ndarray]]:
    """Fine-tune and write rows as they come; returns a column of images for every checkpoint there was time for.

    A column is the photograph, and for every view a sample of the first prompt and one of the second; each (H, W, 3).
    """
    photo, columns = start(bench, subject, rate), []
    for mark in marks:
        if time.perf_counter() > deadline:
            break
        advance(bench.training, bench.run, mark - bench.training.step)
        column = [np.asarray(photo)]
        for view, values, images in checkpoint(bench, subject, photo):
            with (output / "pilot.csv").open("a", newline="") as file:
                csv.writer(file).writerow([subject, rate, mark, *view, *(f"{v:.5g}" for v in values)])
            column += [np.asarray(images[0]), np.asarray(images[IMAGES])]
            print(subject, rate, mark, *view, *(f"{v:.3f}" for v in values), flush=True)
        columns.append(column)
    return columns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a pipeline folder, or 'toybox'")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=["toy_backpack", "toy_robot", "toy_vase", "toy_cat"])
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-4, 3e-5])
    parser.add_argument("--checkpoints", nargs="+", type=int, default=CHECKPOINTS)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    deadline = time.perf_counter() + 60 * args.minutes
    args.output.mkdir(parents=True, exist_ok=True)
    torch.set_float32_matmul_precision("high")
    (args.output / "pilot.csv").write_text(",".join(COLUMNS) + "\n")
    bench = load_bench(args.model, torch.device(args.device))
    sheet: list[list[np.ndarray]] = []
    for subject, rate in product(args.subjects, args.rates):
        if time.perf_counter() > deadline:
            break
        columns = one_run(bench, subject, rate, tuple(args.checkpoints), args.output, deadline)
        sheet += [list(row) for row in zip(*columns, strict=True)]
        if sheet:
            contact_sheet(sheet, 1).save(args.output / "pilot.png")


if __name__ == "__main__":
    main()
