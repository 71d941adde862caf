"""The autoencoder's losses, and whitening that changes the latents and nothing else."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from bayesdiff.pretraining.autoencoder import BATCH, CROP, build, crops, encode_means, gradient_l1, reconstruction_loss, texture, whiten
from bayesdiff.pretraining.dataset import WorldData

DATA = WorldData(np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8), [""] * 5)


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    """Random weights, with an offset and a scale of its own in every latent channel."""
    torch.manual_seed(0)
    model = build().eval().requires_grad_(False)
    model.quant_conv.weight[:4] *= torch.tensor([0.5, 1.0, 3.0, 8.0])[:, None, None, None]
    model.quant_conv.bias[:4] = torch.tensor([2.0, -1.0, 0.5, -6.0])
    return model


@pytest.fixture(scope="module")
def white(vae: AutoencoderKL) -> AutoencoderKL:
    model = copy.deepcopy(vae)
    whiten(model, encode_means(model, DATA, 5))
    return model


@torch.no_grad()
def rebuilt(model: AutoencoderKL, noise: torch.Tensor) -> torch.Tensor:
    """The autoencoder as a whole, with given noise of the posterior."""
    posterior = model.encode(DATA.batch([0, 1])).latent_dist
    return model.decode(posterior.mean + posterior.std * noise).sample


def test_latents_are_half_the_side_in_four_channels(vae: AutoencoderKL) -> None:
    assert encode_means(vae, DATA, 3).shape == (3, 4, 32, 32)
    assert sum(p.numel() for p in vae.parameters()) < 800_000


def test_whitening_gives_zero_mean_and_unit_variance(vae: AutoencoderKL, white: AutoencoderKL) -> None:
    before, after = encode_means(vae, DATA, 5), encode_means(white, DATA, 5)
    assert before.std((0, 2, 3)).max() > 1.5 * before.std((0, 2, 3)).min()
    assert after.mean((0, 2, 3)).numpy() == pytest.approx(np.zeros(4), abs=1e-4)
    assert after.std((0, 2, 3)).numpy() == pytest.approx(np.ones(4), abs=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1.0], ids=["mean", "sample"])
def test_whitening_leaves_the_whole_autoencoder_unchanged(vae: AutoencoderKL, white: AutoencoderKL, scale: float) -> None:
    noise = scale * torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    before, after = rebuilt(vae, noise), rebuilt(white, noise)
    assert before.std() > 1e-3
    assert float((before - after).abs().max()) < 1e-4 * float(before.abs().max())


def test_whitening_is_of_the_weights_and_needs_no_scaling_factor(white: AutoencoderKL) -> None:
    assert white.config.scaling_factor == 1.0
    assert getattr(white.config, "shift_factor", None) is None


def test_the_gradient_loss_sees_differences_and_no_level() -> None:
    a = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert gradient_l1(a, a) == 0
    assert float(gradient_l1(a, a + 0.7)) == pytest.approx(0, abs=1e-6)
    assert gradient_l1(a, 2 * a) == gradient_l1(2 * a, a) > 0.5


def test_the_gradient_loss_of_one_pixel_is_known() -> None:
    dot = torch.zeros(1, 1, 3, 3)
    dot[0, 0, 1, 1] = 1
    assert float(gradient_l1(dot, torch.zeros_like(dot))) == pytest.approx(2 / 6 + 2 / 6)


def test_texture_is_per_image_and_nothing_on_ramps() -> None:
    ramp = torch.arange(8.0)[None, None, None].expand(1, 3, 8, 8)
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    assert texture(torch.cat([ramp, board.expand(1, 3, 8, 8)])).tolist() == pytest.approx([0, 8], abs=1e-5)


def test_crops_are_windows_of_the_pictures_and_a_function_of_the_generator() -> None:
    first, again = (crops(DATA, torch.Generator().manual_seed(4)) for _ in range(2))
    assert first.shape == (BATCH, 3, CROP, CROP)
    assert torch.equal(first, again)
    windows = DATA.batch(list(range(5)))[:, 0].unfold(1, CROP, 1).unfold(2, CROP, 1)
    assert (windows == first[0, 0]).flatten(3).all(-1).any()


def test_the_loss_is_finite_reaches_every_weight_and_is_a_function_of_the_generator() -> None:
    torch.manual_seed(0)
    model, pixels = build(), DATA.batch([0])[..., :16, :16]
    first, again = (reconstruction_loss(model, pixels, torch.Generator().manual_seed(1)) for _ in range(2))
    first.backward()
    assert first == again
    assert torch.isfinite(first)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
