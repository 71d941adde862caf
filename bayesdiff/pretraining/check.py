"""Measure the shipped toybox against its bars, on pictures and prompts that pretraining never saw.

Command:  python -m bayesdiff.pretraining.check      (make pretrain-check)
Cost:     about 2 minutes on 2 CPU cores
Expected: every line says pass; exit code 1 otherwise
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from bayesdiff.config.prompts import Prompt
from bayesdiff.config.schema import MetricsConf, ModelConf, SamplerConf, SamplerPrecision, Scheduler
from bayesdiff.diffusion.pipeline import load_pipeline, use_sampler
from bayesdiff.diffusion.sampling import sample_prompts
from bayesdiff.pretraining.dataset import HELD_OUT_SEED, to_pixels
from bayesdiff.scoring.encoders import Encoders, ImageEncoder, load_encoders
from bayesdiff.scoring.pixels import high_frequency_energy
from bayesdiff.toybox.objects import Instance, sample_instance
from bayesdiff.toybox.pictures import Picture, render
from bayesdiff.toybox.subjects import SUBJECTS, render_subject
from bayesdiff.toybox.vocabulary import CLASSES, COLOURS, CONTEXTS
from bayesdiff.toybox.world import sample

HELD_OUT = 128
NOISE_STD, SHIFT = 0.2, 4
CAST = (0.35, -0.15, -0.25)
"""Strong colour cast: added per channel in the pixel range [-1, 1]."""
SEEDS, RENDERS = 4, 8
TIMESTEPS = tuple(range(10, 1000, 45))


@dataclass(frozen=True)
class Bar:
    """One measured figure and what it has to reach."""

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def passed(self) -> bool:
        return (self.at_least is None or self.value >= self.at_least) and (self.at_most is None or self.value <= self.at_most)

    @property
    def wanted(self) -> str:
        bounds = [f">= {self.at_least}"] * (self.at_least is not None) + [f"<= {self.at_most}"] * (self.at_most is not None)
        return " and ".join(bounds) or "reported"


def _images(arrays: list[np.ndarray]) -> list[Image.Image]:
    return [Image.fromarray(a) for a in arrays]


def _energy(arrays: list[np.ndarray]) -> float:
    return float(np.mean([high_frequency_energy(image) for image in _images(arrays)]))


def _to_uint8(pixels: torch.Tensor) -> list[np.ndarray]:
    """(B, 3, H, W) in [-1, 1] to arrays (H, W, 3) uint8."""
    return list(((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())


@torch.no_grad()
def check_autoencoder(vae: torch.nn.Module, held_out: list[np.ndarray]) -> list[Bar]:
    """PSNR and kept texture on held-out renders, each (H, W, 3) uint8; moments of the whitened latents."""
    pixels = to_pixels(np.stack(held_out))
    posterior = vae.encode(pixels).latent_dist  # type: ignore[operator]
    decoded = vae.decode(posterior.mean).sample.clamp(-1, 1)  # type: ignore[operator]
    error = ((decoded - pixels) / 2).square().mean((1, 2, 3))
    std = posterior.mean.std((0, 2, 3))
    return [
        Bar("autoencoder PSNR (dB)", float((-10 * error.log10()).mean()), 28.0),
        Bar("autoencoder texture kept", _energy(_to_uint8(decoded)) / _energy(held_out), 0.8),
        Bar("autoencoder posterior std", float(posterior.std.mean()), None, 0.02),
        Bar("latents: largest |mean| of a channel", float(posterior.mean.mean((0, 2, 3)).abs().max()), None, 0.2),
        Bar("latents: largest |std - 1| of a channel", float((std - 1).abs().max()), None, 0.2),
    ]


def hundred_pictures(rng: np.random.Generator) -> tuple[list[np.ndarray], list[str]]:
    """A hundred pictures (H, W, 3) uint8 whose captions differ in class, colour or context, and the captions."""
    combinations = list(product(CLASSES, COLOURS, CONTEXTS))
    chosen = [combinations[i] for i in rng.choice(len(combinations), 100, replace=False)]
    pictures = [render(rng, Picture(_coloured(rng, noun, colour), context)) for noun, colour, context in chosen]
    return pictures, [f"a photo of a {colour} {noun} {context}" for noun, colour, context in chosen]


def _coloured(rng: np.random.Generator, noun: str, colour: str) -> Instance:
    """An instance of a class whose own colour is ``colour``."""
    while (instance := sample_instance(rng, noun)).colour != colour:
        pass
    return instance


def check_clip(encoders: Encoders, rng: np.random.Generator) -> list[Bar]:
    pictures, captions = hundred_pictures(rng)
    similarity = encoders.clip_image(_images(pictures)) @ encoders.clip_text(captions).T
    return [Bar("CLIP image-to-text recall@1 of 100", float((similarity.argmax(1) == torch.arange(100)).float().mean()), 0.90)]


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive score (P,) exceeds a negative one (N,); ties count half."""
    greater = (positive[:, None] > negative[None]).mean() + 0.5 * (positive[:, None] == negative[None]).mean()
    return float(greater)


def subject_auc(dino: ImageEncoder, rng: np.random.Generator) -> float:
    """Same-subject pairs against pairs with other instances of the same class, pooled over classes."""
    same, other = [], []
    for name, noun in SUBJECTS.items():
        own = dino(_images(render_subject(name)))
        contexts = rng.permutation(len(CONTEXTS))
        strangers = dino(_images([render(rng, Picture(sample_instance(rng, noun), CONTEXTS[c])) for c in contexts[:12]]))
        inside = (own @ own.T).numpy()
        same.append(inside[np.triu_indices(len(own), 1)])
        other.append((own @ strangers.T).numpy().ravel())
    return auc(np.concatenate(same), np.concatenate(other))


def similarity_loss(dino: ImageEncoder, held_out: list[np.ndarray], change: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """1 minus the mean cosine between renders, each (H, W, 3) uint8, and the same after ``change`` of (B, 3, H, W) in [-1, 1]."""
    changed = _to_uint8(change(to_pixels(np.stack(held_out))))
    return float(1 - (dino(_images(held_out)) * dino(_images(changed))).sum(-1).mean())


def check_dino(dino: ImageEncoder, held_out: list[np.ndarray], rng: np.random.Generator) -> list[Bar]:
    """What DINO has to tell apart and what it may not see, on renders (H, W, 3) uint8."""
    noise = torch.Generator().manual_seed(0)
    padding = (SHIFT, SHIFT, SHIFT, SHIFT)

    def shift(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(x, padding, mode="reflect")[..., : x.shape[-2], : x.shape[-1]]

    return [
        Bar("DINO same-subject AUC", subject_auc(dino, rng), 0.95),
        Bar(
            "DINO drop under noise", similarity_loss(dino, held_out, lambda x: x + NOISE_STD * torch.randn(x.shape, generator=noise)), 0.15
        ),
        Bar("DINO drop under colour cast", similarity_loss(dino, held_out, lambda x: x + torch.tensor(CAST)[:, None, None]), 0.10),
        Bar(f"DINO drop under a {SHIFT}-pixel shift", similarity_loss(dino, held_out, shift), None, 0.10),
    ]


@torch.no_grad()
def check_loss(pipe: object, rng: np.random.Generator) -> list[Bar]:
    """Mean epsilon error over timesteps on held-out pictures, and its shape."""
    pairs = [sample(HELD_OUT_SEED, 10_000 + i) for i in range(32)]
    latents = pipe.vae.encode(to_pixels(np.stack([image for image, _ in pairs]))).latent_dist.mean  # type: ignore[attr-defined]
    states, _ = pipe.encode_prompt([text for _, text in pairs], pipe.device, 1, False)  # type: ignore[attr-defined]
    g, scheduler, errors = torch.Generator().manual_seed(0), pipe.scheduler, []  # type: ignore[attr-defined]
    for t in TIMESTEPS:
        noise, at = torch.randn(latents.shape, generator=g), torch.full((len(latents),), t)
        noisy = scheduler.add_noise(latents, noise, at)
        output = pipe.unet(noisy, at, encoder_hidden_states=states).sample  # type: ignore[attr-defined]
        if scheduler.config.prediction_type == "v_prediction":
            alpha = scheduler.alphas_cumprod[t]
            output = alpha.sqrt() * output + (1 - alpha).sqrt() * noisy
        errors.append(float((output - noise).square().mean()))
    curve = dict(zip(TIMESTEPS, errors, strict=True))
    early, late = np.mean([v for t, v in curve.items() if t < 100]), np.mean([v for t, v in curve.items() if t > 600])
    return [
        Bar("epsilon loss, mean over timesteps", float(np.mean(errors))),
        Bar("  below t = 100", float(early)),
        Bar("  above t = 600", float(late)),
    ]


def check_samples(pipe: object, encoders: Encoders, rng: np.random.Generator) -> list[Bar]:
    """Samples at guidance 7.5 against renders of the same prompts."""
    nouns = [CLASSES[i] for i in rng.permutation(len(CLASSES))[:12]]
    colours, contexts = list(COLOURS), [CONTEXTS[i] for i in rng.permutation(len(CONTEXTS))[:12]]
    wanted = [(noun, colours[i % len(colours)], contexts[i]) for i, noun in enumerate(nouns)]
    texts = [f"a photo of a {colour} {noun} {context}" for noun, colour, context in wanted]
    conf = SamplerConf(
        scheduler=Scheduler.ddim, steps=25, guidance_scale=7.5, prompts=texts, images_per_prompt=SEEDS, batch_size=16,
        precision=SamplerPrecision.fp32,
    )  # fmt: skip
    use_sampler(pipe, conf)
    samples = [np.asarray(s.image) for s in sample_prompts(pipe, [Prompt(t, t, t) for t in texts], conf, 64)]
    renders = [render(rng, Picture(_coloured(rng, n, c), x)) for n, c, x in wanted for _ in range(RENDERS)]
    text = encoders.clip_text(texts)
    drawn = (encoders.clip_image(_images(samples)) * text.repeat_interleave(SEEDS, 0)).sum(-1).mean()
    real = (encoders.clip_image(_images(renders)) * text.repeat_interleave(RENDERS, 0)).sum(-1).mean()
    tint, spread, off = _colours(np.stack(samples), np.stack(renders), len(texts))
    energy = _energy(samples) / _energy(renders)
    return [
        Bar("samples: CLIP-T over that of renders", float(drawn / real), 0.90),
        Bar("samples: high-frequency energy over renders'", energy, 1 / 1.25, 1.25),
        Bar("samples: mean colour, distance over renders' spread", off / spread, None, 2.0),
        Bar("samples: tint between seeds (std, range -1 to 1)", tint),
    ]


def _colours(samples: np.ndarray, renders: np.ndarray, prompts: int) -> tuple[float, float, float]:
    """Per prompt: std of mean colour over seeds, over renders, and RMS distance of samples to the renders' mean."""
    mean_sample = samples.reshape(prompts, SEEDS, -1, 3).mean(2) / 127.5
    mean_render = renders.reshape(prompts, RENDERS, -1, 3).mean(2) / 127.5
    centre = mean_render.mean(1, keepdims=True)
    tint, spread = mean_sample.std(1, ddof=1), mean_render.std(1, ddof=1)
    return tuple(float(np.sqrt((v**2).mean())) for v in (tint, spread, mean_sample - centre))  # type: ignore[return-value]


def measure(model: str = "toybox") -> list[Bar]:
    """All bars, in the order of the pipeline; ``model`` can be another folder of the same layout."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    held_out = [sample(HELD_OUT_SEED, i)[0] for i in range(HELD_OUT)]
    device = torch.device("cpu")
    encoders = load_encoders(MetricsConf(clip="toybox", dino="toybox"), device)
    pipe = load_pipeline(ModelConf(name="toybox", path=model, resolution=64), device)
    return [
        *check_autoencoder(pipe.vae, held_out), *check_clip(encoders, rng), *check_dino(encoders.dino, held_out, rng),
        *check_loss(pipe, rng), *check_samples(pipe, encoders, rng),
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="toybox", help="a pipeline folder to measure instead of the shipped one")
    bars = measure(parser.parse_args().model)
    table = Table("figure", "measured", "wanted", "")
    for bar in bars:
        table.add_row(bar.name, f"{bar.value:.3f}", bar.wanted, "pass" if bar.passed else "FAIL")
    Console(emoji=False, width=None if Console().is_terminal else 100).print(table)
    return 0 if all(bar.passed for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
