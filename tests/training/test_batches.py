"""What a step sees: which pictures, which posterior draws, which noise, which timesteps."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from tiny import encoded, load

from bayesdiff.diffusion.batch import Batch, Conditioning, Encoded, encode_pictures, encode_text, to_tensor
from bayesdiff.training.batches import batch_at, picture_order

FIELDS = ("latents", "noise", "timesteps", "states")


def at(step: int, seed: int = 0, size: int = 2, classes: Encoded | None = None, instance: Encoded | None = None) -> Batch:
    return batch_at(step, seed, size, 1000, encoded(5) if instance is None else instance, classes)


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    return dict(zip(FIELDS, (batch.latents, batch.noise, batch.timesteps, batch.text.states), strict=True))


def same(a: Batch, b: Batch) -> list[bool]:
    return [torch.equal(value, tensors(b)[name]) for name, value in tensors(a).items()]


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(count)]


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    first = at(7, seed=3)
    torch.manual_seed(99)
    for step in (8, 0, 6):
        at(step, seed=3)
    assert all(same(first, at(7, seed=3)))


@pytest.mark.gpu
def test_a_gpu_gets_the_draws_of_the_cpu_to_the_bit() -> None:
    photos = encoded(5)
    there = Encoded(photos.mean.cuda(), photos.std.cuda(), Conditioning(photos.text.states.cuda()))
    ours, theirs = at(7, seed=3), at(7, seed=3, instance=there)
    assert torch.equal(ours.noise, theirs.noise.cpu())
    assert torch.equal(ours.timesteps, theirs.timesteps.cpu())
    torch.testing.assert_close(ours.latents, theirs.latents.cpu())


@pytest.mark.parametrize(("step", "seed"), [(8, 3), (7, 4)])
def test_another_step_or_seed_gives_other_draws(step: int, seed: int) -> None:
    assert same(at(7, seed=3), at(step, seed=seed)) == [False, False, False, True]


def test_a_batch_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    at(0, classes=encoded(4))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("count", "size"), [(5, 1), (5, 2), (3, 7), (4, 4), (1, 2)])
def test_every_picture_comes_equally_often(count: int, size: int) -> None:
    seen = [i for step in range(count) for i in picture_order(count, size, 0, "order/instance", step)]
    assert all(sorted(seen[start : start + count]) == list(range(count)) for start in range(0, len(seen), count))


def test_every_pass_is_shuffled_anew() -> None:
    passes = [tuple(picture_order(6, 6, 0, "order/instance", step)) for step in range(20)]
    assert len(set(passes)) > 15


def test_the_rows_of_a_batch_are_the_pictures_of_the_order() -> None:
    order = picture_order(5, 3, 0, "order/instance", 4)
    rows = at(4, size=3, instance=encoded(5, std=0.0)).latents
    assert rows[:, 0, 0, 0].tolist() == order


def test_class_rows_come_last() -> None:
    of_class = replace(encoded(4, std=0.0), mean=encoded(4).mean - 50, text=Conditioning(torch.full((1, 5, 8), 7.0)))
    both, alone = at(3, size=2, instance=encoded(5, std=0.0), classes=of_class), at(3, size=2, instance=encoded(5, std=0.0))
    assert (both.prior, alone.prior) == (2, 0)
    assert [len(value) for value in tensors(both).values()] == [4, 4, 4, 4]
    assert (both.latents[2:] < -40).all()
    assert (both.text.states[2:] == 7).all()
    for name in FIELDS:
        assert torch.equal(tensors(both)[name][:2], tensors(alone)[name]), f"class rows change the instance rows: {name}"


def test_class_rows_have_draws_of_their_own() -> None:
    both = at(3, size=2, instance=encoded(5), classes=encoded(5))
    assert not torch.equal(both.noise[:2], both.noise[2:])
    assert not torch.equal(both.timesteps[:2], both.timesteps[2:])


def test_latents_are_draws_from_the_posterior() -> None:
    wide = Encoded(torch.full((2, 4, 32, 32), 3.0), torch.full((2, 4, 32, 32), 0.5), Conditioning(torch.zeros(1, 5, 8)))
    z = (torch.cat([at(step, instance=wide).latents for step in range(20)]) - 3.0) / 0.5
    assert abs(float(z.mean())) < 4 / math.sqrt(z.numel())
    assert abs(float(z.std()) - 1) < 4 / math.sqrt(2 * z.numel())


def test_noise_is_standard_normal_and_independent_of_the_posterior_draw() -> None:
    wide = Encoded(torch.zeros(2, 4, 32, 32), torch.ones(2, 4, 32, 32), Conditioning(torch.zeros(1, 5, 8)))
    batches = [at(step, instance=wide) for step in range(20)]
    noise, draw = (torch.cat([getattr(b, name) for b in batches]).flatten().double() for name in ("noise", "latents"))
    assert abs(float(noise.mean())) < 4 / math.sqrt(len(noise))
    assert abs(float(noise.std()) - 1) < 4 / math.sqrt(2 * len(noise))
    assert abs(float((noise * draw).mean())) < 4 / math.sqrt(len(noise))


def test_timesteps_are_uniform_over_the_schedule() -> None:
    times = torch.cat([at(step, size=10).timesteps for step in range(300)])
    assert (int(times.min()), int(times.max())) >= (0, 990)
    assert times.max() < 1000
    counts = torch.bincount(times // 100, minlength=10)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_pixels_become_the_range_from_minus_one_to_one() -> None:
    tensor = to_tensor([Image.new("RGB", (4, 2), "white"), Image.new("RGB", (4, 2), (0, 0, 255))])
    assert tensor.shape == (2, 3, 2, 4)
    assert tensor[0].unique().tolist() == [1.0]
    assert [channel.unique().item() for channel in tensor[1]] == [-1.0, -1.0, 1.0]


def test_pictures_are_encoded_to_scaled_posteriors(random_pipeline: Path) -> None:
    pipe = load(random_pipeline)
    pipe.vae.register_to_config(scaling_factor=0.18215)
    images = pictures(2)
    got = encode_pictures(pipe, images, "a photo")
    with torch.no_grad():
        posterior = pipe.vae.encode(to_tensor(images)).latent_dist
    torch.testing.assert_close(got.mean, 0.18215 * posterior.mean)
    torch.testing.assert_close(got.std, 0.18215 * posterior.std)
    assert not got.mean.requires_grad


def test_text_states_are_the_ones_that_sampling_uses(random_pipeline: Path) -> None:
    pipe = load(random_pipeline)
    text = "a photo of qwe backpack"
    tokens = pipe.tokenizer(text, padding="max_length", max_length=pipe.tokenizer.model_max_length, truncation=True, return_tensors="pt")
    states = encode_text(pipe, text, 64).states
    with torch.no_grad():
        assert torch.equal(states, pipe.text_encoder(tokens.input_ids)[0])
        assert torch.equal(states, pipe.encode_prompt(text, pipe.device, 1, True)[0])
