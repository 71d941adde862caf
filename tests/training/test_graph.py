"""The recorded step does what the eager one does, and says why where it cannot be recorded."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import Make, silent, tiny_training

from bayesdiff.config.schema import Config
from bayesdiff.diffusion.batch import encode_pictures
from bayesdiff.diffusion.pipeline import load_pipeline
from bayesdiff.diffusion.subject import load_subject
from bayesdiff.training.graph import obstacle
from bayesdiff.training.loop import Diverged, Training, prepare, train

ARMS = ["bnn=off", "bnn=on", "bnn=prompt_dropout", "bnn=ema", "bnn=l2_to_pretrained"]


@pytest.mark.parametrize("overrides", [[], ["training.graph=auto"], ["training.graph=auto", "bnn=dropout"]])
def test_on_a_cpu_the_step_is_eager_and_the_reason_is_said(make_config: Make, overrides: list[str]) -> None:
    cfg = make_config("+experiment=smoke", *overrides)
    assert obstacle(tiny_training(cfg), cfg) in ("training.graph=off", "the device is no GPU")


def toybox(cfg: Config) -> Training:
    """The shipped toybox on the GPU, ready to be trained on one photograph."""
    pipe = load_pipeline(cfg.model, torch.device("cuda"))
    subject = load_subject(cfg.data, 1, 0, cfg.model.resolution)
    return prepare(pipe, cfg, encode_pictures(pipe, [photo.image for photo in subject.photos], "a photo of qwe backpack"), None)


def trained_on_gpu(cfg: Config, steps: int) -> tuple[Training, list[dict[str, float]]]:
    state, told = toybox(cfg), []
    train(state, cfg, 0, steps, lambda _, parts: told.append(parts))
    return state, told


@pytest.mark.gpu
@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_recorded_step_learns_what_the_eager_one_learns(make_config: Make, arm: str, precision: str) -> None:
    cfg = make_config("+experiment=smoke", arm, f"training.mixed_precision={precision}", "training.graph=auto", "method.learning_rate=1e-4")
    assert obstacle(toybox(cfg), cfg) == ""
    graphed, told = trained_on_gpu(cfg, 6)
    eager, expected = trained_on_gpu(replace(cfg, training=replace(cfg.training, graph=type(cfg.training.graph).off)), 6)
    assert [set(row) for row in told] == [set(row) for row in expected]
    scale = 20 if precision == "bf16" else 1
    assert [row["loss"] for row in told] == pytest.approx([row["loss"] for row in expected], rel=1e-3 * scale, abs=2e-4 * scale)
    moved = max(float((a - b).abs().max()) for a, b in zip(graphed.trained, eager.trained, strict=True))
    assert moved < 2e-4, "Adam moves a weight by at most a learning rate a step, whatever the rounding"
    assert max(float((a - b).abs().mean()) for a, b in zip(graphed.trained, eager.trained, strict=True)) < 2e-5 * scale


@pytest.mark.gpu
def test_every_group_of_a_recorded_step_has_a_rate_of_its_own(make_config: Make) -> None:
    cfg = make_config("+experiment=smoke", "training.graph=auto", "bnn=on", "bnn.sigma_learning_rate_factor=100")
    state, _ = trained_on_gpu(cfg, 2)
    assert [float(group["lr"]) for group in state.optimizer.param_groups] == pytest.approx([5e-4, 5e-2])


@pytest.mark.gpu
def test_memory_that_others_take_does_not_reach_a_recorded_step(make_config: Make) -> None:
    """A step counts exactly one, whatever small tensors come and go between the steps."""
    cfg = make_config("+experiment=smoke", "training.graph=auto")
    state, crowd = toybox(cfg), []
    for step in range(12):
        train(state, cfg, step, step + 1, silent)
        crowd = [torch.full((), 7.0, device="cuda") for _ in range(200 + len(crowd) % 7)]
    counts = {float(entry["step"]) for entry in state.optimizer.state.values()}
    assert counts == {12.0}


@pytest.mark.gpu
def test_a_step_that_is_not_finite_moves_no_weight(make_config: Make) -> None:
    cfg = make_config("+experiment=smoke", "training.graph=auto")
    state = toybox(cfg)
    state.instance = replace(state.instance, mean=state.instance.mean * math.nan)
    before = [p.detach().clone() for p in state.trained]
    with pytest.raises(Diverged) as found:
        train(state, cfg, 0, 5, silent)
    assert found.value.step == 1
    assert all(torch.equal(a, b) for a, b in zip(before, state.trained, strict=True))


@pytest.mark.gpu
def test_sampling_by_recorded_passes_makes_the_same_images_also_after_training(make_config: Make) -> None:
    from bayesdiff.config.prompts import Prompt
    from bayesdiff.diffusion.graphed import graphed_forward
    from bayesdiff.diffusion.sampling import sample_prompts

    cfg = make_config("+experiment=smoke", "training.graph=auto", "sampler.steps=5")
    state, prompts, graphs = toybox(cfg), [Prompt("a photo of qwe backpack", "", "")], {}

    def images(recorded: bool) -> list[Any]:
        if not recorded:
            return sample_prompts(state.pipe, prompts, cfg.sampler, 64)
        with graphed_forward(state.pipe.unet, graphs):
            return sample_prompts(state.pipe, prompts, cfg.sampler, 64)

    for start in (0, 4):
        assert [s.image.tobytes() for s in images(True)] == [s.image.tobytes() for s in images(False)]
        train(state, cfg, start, start + 4, silent)
    assert len(graphs) == 1
