"""The recorded step does what the eager one does, and says why where it cannot be recorded."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tiny import Make, differing, silent, stop_at, tiny_training, trained, weights

from bayesdiff.config.schema import Config
from bayesdiff.diffusion.batch import encode_pictures
from bayesdiff.diffusion.pipeline import load_pipeline
from bayesdiff.diffusion.subject import load_subject
from bayesdiff.runs.experiment import run_experiment
from bayesdiff.training import graph, loop
from bayesdiff.training.graph import obstacle
from bayesdiff.training.loop import Diverged, Training, prepare, train

ARMS = ["bnn=off", "bnn=on", "bnn=prompt_dropout", "bnn=ema", "bnn=l2_to_pretrained"]


@pytest.mark.parametrize("overrides", [[], ["training.graph=auto"], ["training.graph=auto", "bnn=dropout"]])
def test_on_a_cpu_the_step_is_eager_and_the_reason_is_said(make_config: Make, overrides: list[str]) -> None:
    cfg = make_config("+experiment=smoke", *overrides)
    assert obstacle(tiny_training(cfg), cfg) in ("training.graph=off", "the device is no GPU")


def test_what_no_graph_can_hold_is_known_before_it_is_tried(make_config: Make) -> None:
    """A GPU refused the linear systems of OFT in the middle of a recording."""
    reasons = {}
    for method in ("dreambooth", "lora", "oft"):
        cfg = make_config("+experiment=smoke", f"method={method}", "training.graph=auto")
        state = tiny_training(cfg)
        assert (state.forwards is None) == (method == "oft")
        on_gpu: Any = SimpleNamespace(device=torch.device("cuda"))
        reasons[method] = obstacle(replace(state, trained=[on_gpu]), cfg)
    assert reasons == {"dreambooth": "", "lora": "", "oft": "OFT solves linear systems, which no graph can hold"}


def as_on_a_gpu(cfg: Config, patch: pytest.MonkeyPatch, recorded: Any) -> Training:
    """A training whose steps are recorded as if the CPU were a GPU."""
    patch.setattr(loop, "obstacle", lambda state, cfg: state.unrecorded)
    patch.setattr(graph, "recorded", recorded)
    return tiny_training(cfg)


@pytest.mark.parametrize("arm", ["bnn=off", "bnn=on"])
def test_a_step_that_cannot_be_recorded_runs_eagerly_and_says_why(make_config: Make, arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, asked = make_config("+experiment=smoke", arm), []

    def fails(step: Any, warm_up: Any) -> Any:
        asked.append(step)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    with pytest.warns(UserWarning, match=r"auto: the step could not be recorded \(operation not permitted when stream is capturing\)"):
        state = as_on_a_gpu(cfg, monkeypatch, fails)
        train(state, cfg, 0, 2, silent)
        train(state, cfg, 2, 3, silent)
    assert len(asked) == 1
    assert differing(weights(state), weights(trained(cfg, 3))) == []


def test_a_step_is_recorded_without_the_draw_that_was_made_for_it(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradients of that draw would be added on the stream that made it, which a recording cannot wait for."""
    uses: list[Any] = []

    def looks(step: Any, warm_up: Any) -> Any:
        uses.extend(layer.gaussian.drawn for layer in state.layers)
        raise RuntimeError("enough")

    cfg = make_config("+experiment=smoke", "bnn=on")
    state = as_on_a_gpu(cfg, monkeypatch, looks)
    with pytest.warns(UserWarning, match="enough"):
        train(state, cfg, 0, 1, silent)
    assert uses
    assert all(drawn is None for drawn in uses)


def toybox(cfg: Config, device: str = "cuda") -> Training:
    """The shipped toybox on a device, ready to be trained on one photograph."""
    pipe = load_pipeline(cfg.model, torch.device(device))
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
    assert moved < 2 * 6 * 1e-4, "Adam moves a weight by about a learning rate a step, up or down, whatever the rounding"
    assert max(float((a - b).abs().mean()) for a, b in zip(graphed.trained, eager.trained, strict=True)) < 2e-5 * scale


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", ["off", "auto"])
def test_the_steps_of_a_gpu_have_the_draws_of_the_cpu(make_config: Make, graphs: str) -> None:
    """Photograph, noise and timestep: another draw of any of them would be another loss. Gaussian weights have draws of their own there."""
    cfg, told = make_config("+experiment=smoke", f"training.graph={graphs}", "method.learning_rate=1e-6"), {}
    for device in ("cpu", "cuda"):
        losses: list[float] = []
        train(toybox(cfg, device), cfg, 0, 3, lambda _, parts, losses=losses: losses.append(parts["loss"]))
        told[device] = losses
    assert told["cuda"] == pytest.approx(told["cpu"], rel=1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", ["off", "auto"])
def test_a_run_of_a_gpu_resumes_where_it_was_stopped(
    make_config: Make, tmp_path: Path, graphs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU adds in no fixed order, so that the two agree to rounding; a step too many or another draw is far beyond it."""
    words = ["+experiment=smoke", "bnn=on", f"training.graph={graphs}", "schedule.steps=6", "schedule.checkpoints=[0,3,6]", "device=cuda"]
    whole, _ = run_experiment(make_config(*words, f"paths.runs={tmp_path / 'whole'}"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, "bayesdiff.diffusion.sampling.save_samples", 3)
        run_experiment(make_config(*words, f"paths.runs={tmp_path / 'parts'}"))
    resumed, record = run_experiment(make_config(*words, f"paths.runs={tmp_path / 'parts'}"))
    assert record.status == "completed"
    ours, theirs = (load_file(next((run / "checkpoints/step-000006/unet").glob("*.safetensors"))) for run in (resumed, whole))
    assert max(float((ours[key] - theirs[key]).abs().mean()) for key in theirs) < 2e-5
    assert len(pd.read_csv(resumed / "scores.csv")) == len(pd.read_csv(whole / "scores.csv"))


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
