"""Samples depend on prompt, index and seed; failures are shown; the stock pipeline gives the same pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from tiny import load

from bayesdiff.arms.gaussian import draw_weights, make_bayesian, use_mean
from bayesdiff.arms.layers import select_layers
from bayesdiff.config.prompts import Prompt
from bayesdiff.config.schema import BnnConf, SamplerConf, SamplerPrecision, Scheduler
from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import image_name
from bayesdiff.core.seeds import generator
from bayesdiff.diffusion.pipeline import use_sampler
from bayesdiff.diffusion.precision import resolved
from bayesdiff.diffusion.sampling import Sample, sample_prompts, save_samples
from bayesdiff.methods.dreambooth import export

CONF = SamplerConf(scheduler=Scheduler.ddim, steps=2, prompts=[], images_per_prompt=2, batch_size=2)
FIRST, SECOND = Prompt("a photo of qwe backpack", "", ""), Prompt("a qwe backpack in the jungle", "", "")


@pytest.fixture
def pipe(random_pipeline: Path) -> StableDiffusionPipeline:
    pipeline = load(random_pipeline)
    use_sampler(pipeline, CONF)
    return pipeline


def sampled(pipe: StableDiffusionPipeline, *prompts: Prompt, **changes: Any) -> list[np.ndarray]:
    return [np.asarray(s.image) for s in sample_prompts(pipe, list(prompts), replace(CONF, **changes), 64)]


def equal(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def canned(pixels: np.ndarray) -> Any:
    """A pipeline that always returns the same pixels."""

    def call(prompt: list[str], **_: Any) -> SimpleNamespace:
        return SimpleNamespace(images=np.stack([pixels] * len(prompt)))

    return on_cpu(call)


def on_cpu(call: Any) -> Any:
    call.unet, call.device = None, torch.device("cpu")
    return call


def recording(calls: list[dict[str, Any]]) -> Any:
    """A pipeline that remembers how it was called."""

    def call(**arguments: Any) -> SimpleNamespace:
        calls.append(arguments)
        return SimpleNamespace(images=np.zeros((len(arguments["prompt"]), 8, 8, 3)))

    return on_cpu(call)


def test_every_call_gives_the_same_images(pipe: StableDiffusionPipeline) -> None:
    first = sampled(pipe, FIRST)
    torch.manual_seed(99)
    assert equal(first, sampled(pipe, FIRST))


def test_a_prompt_gives_the_same_images_whatever_stands_beside_it(pipe: StableDiffusionPipeline) -> None:
    alone, after, before = sampled(pipe, FIRST), sampled(pipe, SECOND, FIRST), sampled(pipe, FIRST, SECOND)
    assert equal(alone, after[2:])
    assert equal(alone, before[:2])


def test_images_differ_between_prompts_indices_and_seeds(pipe: StableDiffusionPipeline) -> None:
    pictures = [*sampled(pipe, FIRST, SECOND), *sampled(pipe, FIRST, seed=CONF.seed + 1)]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures) == 6


def test_the_initial_noise_depends_on_prompt_and_index_not_on_the_batch() -> None:
    calls: list[dict[str, Any]] = []
    for size in (1, 3, 8):
        sample_prompts(recording(calls), [FIRST, SECOND], replace(CONF, batch_size=size), 8)
    noise = [tuple(torch.randn(3, generator=g).tolist()) for call in calls for g in call["generator"]]
    assert [len(call["prompt"]) for call in calls] == [1, 1, 1, 1, 3, 1, 4]
    assert noise[:4] == noise[4:8] == noise[8:]
    assert noise[0] == tuple(torch.randn(3, generator=generator(CONF.seed, f"sample/{FIRST.text}", 0)).tolist())


def test_samples_come_prompt_by_prompt_in_order() -> None:
    calls: list[dict[str, Any]] = []
    samples = sample_prompts(recording(calls), [FIRST, SECOND], replace(CONF, images_per_prompt=3, batch_size=4), 8)
    assert [(s.prompt, s.index) for s in samples] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert [text for call in calls for text in call["prompt"]] == [FIRST.text] * 3 + [SECOND.text] * 3


def test_the_settings_reach_the_pipeline() -> None:
    calls: list[dict[str, Any]] = []
    sample_prompts(recording(calls), [FIRST], replace(CONF, steps=7, guidance_scale=3.0), 48)
    chosen = {key: calls[0][key] for key in ("num_inference_steps", "guidance_scale", "height", "width")}
    assert chosen == {"num_inference_steps": 7, "guidance_scale": 3.0, "height": 48, "width": 48}


def test_images_have_the_asked_size(pipe: StableDiffusionPipeline) -> None:
    assert {picture.shape for picture in sampled(pipe, FIRST)} == {(64, 64, 3)}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_make_a_failed_black_image(value: float) -> None:
    pixels = np.full((8, 8, 3), 0.5)
    pixels[3, 4, 1] = value
    (sample, _) = sample_prompts(canned(pixels), [FIRST], CONF, 8)
    assert sample.failed
    assert not np.asarray(sample.image).any()


def test_a_broken_model_gives_failed_black_images(pipe: StableDiffusionPipeline) -> None:
    with torch.no_grad():
        pipe.unet.conv_out.bias[0] = torch.nan
    samples = sample_prompts(pipe, [FIRST], CONF, 64)
    assert [s.failed for s in samples] == [True, True]
    assert not any(np.asarray(s.image).any() for s in samples)


def test_only_the_failed_image_of_a_batch_is_black() -> None:
    images = np.stack([np.full((8, 8, 3), np.nan), np.full((8, 8, 3), 1.0)])
    samples = sample_prompts(on_cpu(lambda **_: SimpleNamespace(images=images)), [FIRST], CONF, 8)
    assert [(s.failed, np.asarray(s.image).max()) for s in samples] == [(True, 0), (False, 255)]


def test_pixels_are_rounded_to_eight_bits() -> None:
    pixels = np.zeros((8, 8, 3))
    pixels[0, 0] = (0.5, 1.0, 0.999)
    assert np.asarray(sample_prompts(canned(pixels), [FIRST], CONF, 8)[0].image)[0, 0].tolist() == [128, 255, 255]


def test_samples_at_the_mean_are_those_of_the_plain_model(pipe: StableDiffusionPipeline) -> None:
    plain = sampled(pipe, FIRST)
    layers = make_bayesian(pipe.unet, select_layers(pipe.unet, "linear_no_cross_attention"), BnnConf("gaussian", sigma_init=0.1))
    assert equal(plain, sampled(pipe, FIRST))
    draw_weights(layers, 0, 0)
    assert not equal(plain, sampled(pipe, FIRST))
    use_mean(layers)
    assert equal(plain, sampled(pipe, FIRST))


def test_gaussian_weights_are_computed_once_while_sampling(pipe: StableDiffusionPipeline) -> None:
    """Not at every denoising step; and no longer than that: the next step of training draws others."""
    layers = make_bayesian(pipe.unet, select_layers(pipe.unet, "linear_no_cross_attention"), BnnConf("gaussian", sigma_init=0.1))
    computed: list[torch.nn.Module] = []
    for layer in layers:
        layer.gaussian.register_forward_hook(lambda module, _inputs, _output: computed.append(module))
    sampled(pipe, FIRST, steps=4)
    assert len(computed) == len(set(computed)) == len(layers)
    draw_weights(layers, 0, 0)
    first = layers[0]
    torch.testing.assert_close(getattr(first.module, first.parameter), first.mean + first.gaussian.sigma * first.gaussian.eps)


def test_a_stock_pipeline_with_the_exported_mean_gives_the_same_images(
    pipe: StableDiffusionPipeline, random_pipeline: Path, tmp_path: Path
) -> None:
    with torch.no_grad():
        for parameter in pipe.unet.parameters():
            parameter.add_(0.01)
    make_bayesian(pipe.unet, select_layers(pipe.unet, "linear_no_cross_attention"), BnnConf("gaussian", sigma_init=0.1))
    export({"unet": pipe.unet}, tmp_path)
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    stock = StableDiffusionPipeline.from_pretrained(random_pipeline, unet=unet, safety_checker=None, dtype=torch.float32)
    stock.scheduler = DDIMScheduler.from_config(stock.scheduler.config)
    images = stock(
        prompt=[FIRST.text] * 2, generator=[generator(CONF.seed, f"sample/{FIRST.text}", i) for i in range(2)],
        num_inference_steps=CONF.steps, guidance_scale=CONF.guidance_scale, height=64, width=64,
    ).images  # fmt: skip
    assert equal([np.asarray(image) for image in images], sampled(pipe, FIRST))


def test_saved_samples_are_the_samples_by_name(tmp_path: Path) -> None:
    samples = [Sample(p, i, Image.new("RGB", (4, 4), (p, i, 7)), False) for p in range(2) for i in range(2)]
    save_samples(samples, tmp_path / "images" / "step-000004")
    assert len(list((tmp_path / "images" / "step-000004").iterdir())) == 4
    for sample in samples:
        with Image.open(tmp_path / "images" / "step-000004" / image_name(sample.prompt, sample.index)) as image:
            assert image.getpixel((0, 0)) == (sample.prompt, sample.index, 7)


def test_image_names_sort_as_the_samples() -> None:
    names = [image_name(p, i) for p in range(25) for i in range(20)]
    assert names == sorted(names)


@pytest.mark.parametrize("precision", [SamplerPrecision.auto, SamplerPrecision.fp32])
def test_on_a_cpu_samples_are_in_float32(pipe: StableDiffusionPipeline, precision: SamplerPrecision) -> None:
    assert resolved(precision, torch.device("cpu")) is SamplerPrecision.fp32
    assert equal(sampled(pipe, FIRST), sampled(pipe, FIRST, precision=precision))


def test_in_bf16_the_unet_alone_is_rough(pipe: StableDiffusionPipeline) -> None:
    seen: dict[str, set[torch.dtype]] = {"unet": set(), "vae": set(), "text": set()}
    pipe.unet.conv_out.register_forward_hook(lambda _, __, out: seen["unet"].add(out.dtype))
    pipe.vae.decoder.conv_out.register_forward_hook(lambda _, __, out: seen["vae"].add(out.dtype))
    pipe.text_encoder.register_forward_hook(lambda _, __, out: seen["text"].add(out[0].dtype))
    exact, rough = sampled(pipe, FIRST), sampled(pipe, FIRST, precision=SamplerPrecision.bf16)
    assert seen == {"unet": {torch.float32, torch.bfloat16}, "vae": {torch.float32}, "text": {torch.float32}}
    differences = [np.abs(a.astype(int) - b.astype(int)) for a, b in zip(exact, rough, strict=True)]
    assert max(float(one.mean()) for one in differences) < 5
    assert any(one.any() for one in differences)
    assert "forward" not in vars(pipe.unet)
    assert equal(exact, sampled(pipe, FIRST))


def test_a_precision_that_the_device_lacks_is_refused() -> None:
    with pytest.raises(UserError, match=r"sampler.precision=fp16: needs a CUDA device"):
        resolved(SamplerPrecision.fp16, torch.device("cpu"))


def test_a_picture_that_cannot_be_written_leaves_no_folder(tmp_path: Path) -> None:
    broken = SimpleNamespace(save=lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_samples([Sample(0, 0, Image.new("RGB", (8, 8)), False), Sample(0, 1, broken, False)], tmp_path / "images")  # type: ignore[arg-type]
    assert not (tmp_path / "images").exists()
