"""Frozen text encoders read a prompt once; trained or changed ones read it again. Samples are those of the stock pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import load
from twins import build_twin

from bayesdiff.config.prompts import Prompt
from bayesdiff.config.schema import SamplerConf, Scheduler
from bayesdiff.core.seeds import generator
from bayesdiff.diffusion.pipeline import use_sampler
from bayesdiff.diffusion.sampling import sample_prompts
from bayesdiff.diffusion.texts import Known, encoded_once, told

CONF = SamplerConf(scheduler=Scheduler.ddim, steps=2, prompts=[], images_per_prompt=2, batch_size=3)
PROMPTS = [Prompt("a photo of qwe backpack", "", ""), Prompt("a qwe backpack in the jungle", "", "")]


def counted(pipe: Any) -> list[int]:
    """Grows by one with every pass of the first text encoder."""
    passes: list[int] = []
    pipe.text_encoder.register_forward_hook(lambda *_: passes.append(1))
    return passes


def pixels(pipe: Any, known: Known | None = None, **changes: Any) -> list[bytes]:
    conf = SamplerConf(**{**vars(CONF), **changes})
    return [sample.image.tobytes() for sample in sample_prompts(pipe, PROMPTS, conf, 64, known)]


@pytest.fixture
def pipe(random_pipeline: Path) -> Any:
    pipeline = load(random_pipeline)
    use_sampler(pipeline, CONF)
    return pipeline


def stock_pixels(pipe: Any, scale: float) -> list[bytes]:
    """What the pipeline makes of the words themselves."""
    found = []
    for batch in ([(0, 0), (0, 1), (1, 0)], [(1, 1)]):
        arrays = pipe(
            prompt=[PROMPTS[p].text for p, _ in batch], generator=[generator(CONF.seed, f"sample/{PROMPTS[p].text}", i) for p, i in batch],
            num_inference_steps=2, guidance_scale=scale, height=64, width=64, output_type="np",
        ).images  # fmt: skip
        found += [(array * 255).round().clip(0, 255).astype(np.uint8).tobytes() for array in arrays]
    return found


@pytest.mark.parametrize("scale", [7.5, 1.0])
def test_pictures_are_those_of_the_words_bit_for_bit(pipe: Any, scale: float) -> None:
    expected, known = stock_pixels(pipe, scale), {}
    assert pixels(pipe, known, guidance_scale=scale) == expected
    assert pixels(pipe, known, guidance_scale=scale) == expected


@pytest.mark.parametrize("scale", [7.5, 1.0])
def test_sdxl_is_told_its_pooled_texts_too(tmp_path: Path, scale: float) -> None:
    pipe: Any = load(build_twin("sdxl", tmp_path))
    use_sampler(pipe, CONF)
    expected, known = stock_pixels(pipe, scale), {}
    assert pixels(pipe, known, guidance_scale=scale) == expected
    passes = counted(pipe)
    assert pixels(pipe, known, guidance_scale=scale) == expected
    assert passes == []


def test_a_second_checkpoint_reads_no_text(pipe: Any) -> None:
    passes, known = counted(pipe), {}
    pixels(pipe, known)
    first = len(passes)
    with torch.no_grad():
        pipe.unet.conv_out.weight.add_(0.01)
    pixels(pipe, known)
    assert first == len(passes) == 4, "two batches, with the empty prompt each"


def test_changed_weights_read_it_again(pipe: Any) -> None:
    known: Known = {}
    before = pixels(pipe, known)
    with torch.no_grad():
        next(pipe.text_encoder.parameters()).mul_(1.5)
    after = pixels(pipe, known)
    assert after != before
    assert after == stock_pixels(pipe, 7.5)
    assert len(known) == 3, "what the old weights encoded is forgotten"


def test_a_trained_encoder_reads_it_every_time(pipe: Any) -> None:
    """Also where a recorded step moves its weights, which no counter of changes sees."""
    pipe.text_encoder.requires_grad_(True)
    known: Known = {}
    passes = counted(pipe)
    pixels(pipe, known)
    pixels(pipe, known)
    assert (len(passes), known) == (8, {})
    assert told(pipe, ["a"], True, known) == {"prompt": ["a"]}


def test_another_encoder_is_asked_itself(pipe: Any, random_pipeline: Path) -> None:
    known: Known = {}
    assert encoded_once(pipe, known, "key", lambda: 1) == 1
    assert encoded_once(pipe, known, "key", lambda: 2) == 1
    pipe.text_encoder = load(random_pipeline).text_encoder
    assert encoded_once(pipe, known, "key", lambda: 2) == 2
