"""One denoising step of models whose answers are known: one that returns the photograph, and one that removes no noise."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler

from bayesdiff.diffusion.batch import Conditioning
from bayesdiff.training.one_step import FACTORS, coefficient, one_step, sigma_of

SCHEDULE = DDIMScheduler(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
LATENTS = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
TEXT = Conditioning(torch.zeros(1, 3, 8))


class Known(torch.nn.Module):
    """Predicts the noise that makes x̂0 = x' + c (x_t - √ā x'), by the paper's coefficient of a deviation ``s``."""

    def __init__(self, s: float) -> None:
        super().__init__()
        self.s = s

    def forward(self, noisy: torch.Tensor, times: torch.Tensor, **_: object) -> SimpleNamespace:
        alpha = float(SCHEDULE.alphas_cumprod[int(times[0])])
        clean = LATENTS + coefficient(alpha, self.s) * (noisy - alpha**0.5 * LATENTS)
        return SimpleNamespace(sample=(noisy - alpha**0.5 * clean) / (1 - alpha) ** 0.5)


def test_a_model_that_has_collapsed_returns_the_photograph() -> None:
    found = one_step(Known(0.0), SCHEDULE, LATENTS, TEXT, seed=0)
    assert found["sigma_1"] == pytest.approx(0.0, abs=1e-3)
    assert found["patch_gain"] == pytest.approx(0.0, abs=1e-6)
    assert [found[f"error_{k:g}"] for k in FACTORS] == pytest.approx([0.0] * len(FACTORS), abs=1e-6)


@pytest.mark.parametrize("s", [0.5, 4.8])
def test_the_papers_own_model_has_the_sigma_that_it_was_made_with(s: float) -> None:
    found = one_step(Known(s), SCHEDULE, LATENTS, TEXT, seed=0)
    alpha = float(SCHEDULE.alphas_cumprod[100])
    assert found["sigma_1"] == pytest.approx(s, rel=0.01)
    assert found["patch_gain"] == pytest.approx(coefficient(alpha, s) ** 2, rel=1e-3)
    assert found["error_0"] == pytest.approx(coefficient(alpha, s) ** 2 * alpha, rel=1e-3)


def test_the_printed_amplification_is_beyond_the_formula() -> None:
    """2.65 at t = 100 and s = 4.8: the formula gives 1.107, and 1.118 for any s."""
    alpha = float(SCHEDULE.alphas_cumprod[100])
    assert coefficient(alpha, 4.8) ** 2 == pytest.approx(1.107, abs=0.002)
    assert coefficient(alpha, 1e6) ** 2 == pytest.approx(1 / alpha, rel=1e-6)
    assert 1 / alpha < 1.12 < 2.65


def test_sigma_is_the_inverse_of_the_coefficient() -> None:
    for alpha in (0.05, 0.5, 0.9):
        for s in (0.1, 1.0, 5.0):
            assert sigma_of(coefficient(alpha, s), alpha) == pytest.approx(s)
    assert sigma_of(-0.1, 0.5) == 0.0 and sigma_of(2.0, 0.5) == float("inf")
