"""What a probe says of models whose answers are known."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import tiny_unet

from bayesdiff.diffusion.batch import Conditioning
from bayesdiff.pretraining.denoiser import build_scheduler
from bayesdiff.training.probes import COLUMNS, SHARES, probe

Predict = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
WIDTH = 8


@pytest.fixture
def latents() -> torch.Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))


def words(seed: int) -> Conditioning:
    return Conditioning(torch.randn(1, 5, WIDTH, generator=torch.Generator().manual_seed(seed)))


def rows_of(unet: Any, latents: torch.Tensor) -> list[dict[str, float]]:
    return probe(unet, build_scheduler("linear"), latents, words(0), words(1), 0)


def model(predict: Predict) -> Any:
    return lambda noisy, times, encoder_hidden_states: SimpleNamespace(sample=predict(noisy, times, encoder_hidden_states))


def alphas(times: torch.Tensor) -> torch.Tensor:
    return build_scheduler("linear").alphas_cumprod[times][:, None, None, None]


def test_a_model_that_returns_the_photograph_passes_nothing_on(latents: torch.Tensor) -> None:
    """Predicts the noise that leads from its one image to what it is shown."""
    rows = rows_of(model(lambda x, t, _: (x - alphas(t).sqrt() * latents) / (1 - alphas(t)).sqrt()), latents)
    for row in rows:
        assert [row[name] for name in ("loss", "gap", "g", "rho", "rho_empty")] == pytest.approx([0] * 5, abs=2e-4)


def test_a_model_that_sees_no_noise_passes_everything_on(latents: torch.Tensor) -> None:
    rows = rows_of(model(lambda x, t, _: torch.zeros_like(x)), latents)
    for row in rows:
        alpha = float(build_scheduler("linear").alphas_cumprod[int(row["timestep"])])
        assert [row["rho"], row["rho_empty"], row["gap"]] == pytest.approx([1, 1, 0], abs=1e-3)
        assert row["g"] == pytest.approx(alpha**-0.5, rel=1e-3)
        assert row["loss"] == pytest.approx(1, abs=0.25)  # the mean square of the noise itself, 512 numbers


def test_each_prompt_is_read_with_its_own_text(latents: torch.Tensor) -> None:
    """The prediction is the text's first number everywhere: the gap is the squared difference of the two."""
    rows = rows_of(model(lambda x, t, states: states[:, 0, 0, None, None, None].expand_as(x)), latents)
    text, empty = (float(words(seed).states[0, 0, 0]) for seed in (0, 1))
    assert [row["gap"] for row in rows] == pytest.approx([(text - empty) ** 2] * len(SHARES), rel=1e-5)
    assert all(row["loss"] != row["loss_empty"] for row in rows)


def test_rows_have_all_columns_and_do_not_change_when_repeated(latents: torch.Tensor) -> None:
    unet = tiny_unet()
    first, again = rows_of(unet, latents), rows_of(unet, latents)
    assert first == again
    assert [row["timestep"] for row in first] == [100, 300, 500, 700, 900]
    assert all(row.keys() == set(COLUMNS) for row in first)
