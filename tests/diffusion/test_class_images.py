"""Class images are made once and shared by every run that wants the same ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import Make

from bayesdiff.config.identity import key_content
from bayesdiff.config.schema import SamplerPrecision
from bayesdiff.core.errors import UserError
from bayesdiff.diffusion.class_images import class_images, digest_of


class CountingPipeline:
    """Returns pictures of its own noise and counts them."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.scheduler = SimpleNamespace(config={"clip_sample": False, "beta_end": 0.012, "_class_name": "DDIMScheduler"})
        self.unet, self.device = None, torch.device("cpu")

    def __call__(self, prompt: list[str], generator: list[Any], **_: Any) -> SimpleNamespace:
        self.prompts += prompt
        pixels = [np.random.default_rng(g.initial_seed()).random((8, 8, 3)) for g in generator]
        return SimpleNamespace(images=np.stack(pixels))


@pytest.fixture
def pipe() -> CountingPipeline:
    return CountingPipeline()


def made(pipe: Any, make_config: Make, cache: Path, *overrides: str) -> list[Image.Image]:
    cfg = make_config("+experiment=smoke", "method.prior_preservation=true", "method.class_images=3", f"paths.cache={cache}", *overrides)
    return class_images(pipe, cfg, "backpack")


def same(a: list[Image.Image], b: list[Image.Image]) -> bool:
    return len(a) == len(b) and all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def test_images_are_made_once(pipe: CountingPipeline, make_config: Make, tmp_path: Path) -> None:
    first = made(pipe, make_config, tmp_path)
    assert pipe.prompts == ["a photo of backpack"] * 3
    second = made(pipe, make_config, tmp_path)
    assert len(pipe.prompts) == 3
    assert len(first) == 3
    assert same(first, second)


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.identifier=xyz"],
        ["data.subject=toy_dog"],
        ["seed=5"],
        ["shots.count=4"],
        ["bnn=on"],
        ["method.learning_rate=1"],
        ["tracker=none"],
    ],
)
def test_what_the_set_does_not_depend_on_shares_it(pipe: CountingPipeline, make_config: Make, tmp_path: Path, overrides: list[str]) -> None:
    first = made(pipe, make_config, tmp_path)
    assert same(first, made(pipe, make_config, tmp_path, *overrides))
    assert len(pipe.prompts) == 3


@pytest.mark.parametrize(
    "override",
    [
        "method.class_images=4",
        "model.path=other",
        "model.revision=v2",
        "data.class_prompt='one {class_noun}'",
        "sampler.steps=3",
        "training.tf32=true",
        "training.channels_last=true",
    ],
)
def test_another_count_model_prompt_or_sampler_makes_another_set(
    pipe: CountingPipeline, make_config: Make, tmp_path: Path, override: str
) -> None:
    made(pipe, make_config, tmp_path)
    made(pipe, make_config, tmp_path, override)
    assert len(pipe.prompts) == 3 + (4 if "class_images" in override else 3)
    assert len(list(tmp_path.glob("class-*[0-9a-f]"))) == 2


def test_another_scheduler_makes_another_set(pipe: CountingPipeline, make_config: Make, tmp_path: Path) -> None:
    made(pipe, make_config, tmp_path)
    pipe.scheduler.config["clip_sample"] = True
    made(pipe, make_config, tmp_path)
    assert len(pipe.prompts) == 6


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:40]), lambda path: path.write_text("")])
def test_a_damaged_set_is_made_again(pipe: CountingPipeline, make_config: Make, tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    first = made(pipe, make_config, tmp_path)
    damage(next(tmp_path.glob("class-*/*.png")))
    assert same(first, made(pipe, make_config, tmp_path))
    assert len(pipe.prompts) == 6


def test_images_of_a_set_differ(pipe: CountingPipeline, make_config: Make, tmp_path: Path) -> None:
    assert len({image.tobytes() for image in made(pipe, make_config, tmp_path)}) == 3


def test_a_set_that_was_not_finished_is_made_again(make_config: Make, tmp_path: Path) -> None:
    class Interrupted(CountingPipeline):
        def __call__(self, prompt: list[str], generator: list[Any], **_: Any) -> SimpleNamespace:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(Interrupted(), make_config, tmp_path)
    pipe = CountingPipeline()
    assert len(made(pipe, make_config, tmp_path)) == 3
    assert len(pipe.prompts) == 3


def test_class_images_that_are_not_finite_are_refused_and_not_kept(
    pipe: CountingPipeline, make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_nothing(self: CountingPipeline, prompt: list[str], **_: Any) -> SimpleNamespace:
        return SimpleNamespace(images=np.full((len(prompt), 8, 8, 3), np.nan))

    broken = CountingPipeline()
    monkeypatch.setattr(CountingPipeline, "__call__", of_nothing)
    with pytest.raises(UserError, match="3 of 3 are not finite"):
        made(broken, make_config, tmp_path)
    monkeypatch.undo()
    assert len(made(pipe, make_config, tmp_path)) == len(pipe.prompts) == 3


def test_a_set_in_another_precision_is_another_and_float32_keeps_its_name(make_config: Make) -> None:
    from bayesdiff.diffusion.class_images import _sampler

    cfg, pipe = make_config("+experiment=smoke"), CountingPipeline()
    settings = key_content(cfg)["sampler"]
    usual = _sampler(settings, cfg.sampler, pipe)
    assert "precision" not in usual
    assert _sampler(settings, replace(cfg.sampler, precision=SamplerPrecision.bf16), pipe) == {**usual, "precision": "bf16"}


def test_a_set_with_usual_arithmetic_keeps_its_name(make_config: Make) -> None:
    from bayesdiff.diffusion.class_images import _arithmetic

    assert _arithmetic(make_config("+experiment=smoke").training) == {}


def test_a_digest_is_of_pixels_and_their_order(tmp_path: Path) -> None:
    red, blue = Image.new("RGB", (4, 8), "red"), Image.new("RGB", (4, 8), "blue")
    red.save(tmp_path / "red.png", compress_level=0)
    again = Image.open(tmp_path / "red.png").convert("RGB")
    assert digest_of([red, blue]) == digest_of([again, blue])
    others = [[blue, red], [red], [red, blue, blue], [red.resize((8, 4)), blue]]
    assert digest_of([red, blue]) not in [digest_of(one) for one in others]
