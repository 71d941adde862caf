"""The gap of text: zero without an influence of the words, and of known size with one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bayesdiff.pretraining.denoiser import build_scheduler
from bayesdiff.pretraining.gap import FIRST, TIMESTEPS, held_out, noise_of, text_gaps
from bayesdiff.toybox.vocabulary import COLOURS, CONTEXTS, PATTERNS
from bayesdiff.toybox.world import describe, sample

LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))


class Words(torch.nn.Module):
    """A U-Net that predicts zero plus the mean of the hidden states."""

    def forward(self, noisy: torch.Tensor, at: torch.Tensor, encoder_hidden_states: torch.Tensor) -> SimpleNamespace:
        assert at.shape == (len(noisy),)
        return SimpleNamespace(sample=encoder_hidden_states.mean((1, 2))[:, None, None, None].expand_as(noisy))


def test_the_gap_is_the_squared_difference_that_the_words_make() -> None:
    states = {"full": torch.full((2, 3, 5), 0.5), "other": torch.zeros(2, 3, 5)}
    gaps = text_gaps(Words(), build_scheduler(), LATENTS, states, torch.zeros(1, 3, 5))
    assert [(gap.timestep, gap.captions) for gap in gaps] == [(t, sort) for t in TIMESTEPS for sort in states]
    for gap in gaps:
        assert gap.gap == pytest.approx(0.25 if gap.captions == "full" else 0.0, abs=1e-6)
        assert gap.unconditional_loss == pytest.approx(1.0, abs=0.2)


def test_noise_is_recovered_from_a_velocity() -> None:
    scheduler, at = build_scheduler("zero_snr_v"), torch.tensor([500, 500])
    noise = torch.randn(LATENTS.shape, generator=torch.Generator().manual_seed(2))
    noisy, velocity = scheduler.add_noise(LATENTS, noise, at), scheduler.get_velocity(LATENTS, noise, at)
    assert torch.allclose(noise_of(scheduler, velocity, noisy, 500), noise, atol=1e-4)


def test_full_captions_speak_of_the_same_picture_and_fix_colours_and_pattern() -> None:
    images, captions = held_out(4)
    assert images.shape == (4, 64, 64, 3)
    assert captions["other"] == captions["full"][1:] + captions["full"][:1]
    for i, (short, full) in enumerate(zip(captions["caption"], captions["full"], strict=True)):
        image, text = sample(2, FIRST + i)
        assert np.array_equal(image, images[i])
        assert text == short
        words = set(full.split())
        assert set(short.split()) <= words | {"picture", "the", "a", "of", "photo"}
        assert words & set(COLOURS)
        assert words & set(PATTERNS)


def test_no_full_caption_is_longer_than_the_text_encoder_reads() -> None:
    texts = [describe(1, i) for i in range(3000)]
    assert max(len(text.split()) for text in texts) <= 26
    assert any(context in text for text in texts for context in CONTEXTS)
