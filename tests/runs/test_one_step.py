"""One denoising step of every kept checkpoint of a run, into its folder and beside its record."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
from tiny import Make, load
from transformers import CLIPTextModel
from twins import SCHEDULE, change_scheduler

from bayesdiff.config.schema import ModelConf
from bayesdiff.core.errors import ExitCode
from bayesdiff.diffusion.batch import encode_pictures
from bayesdiff.diffusion.pipeline import load_pipeline
from bayesdiff.diffusion.schedules import training_scheduler
from bayesdiff.diffusion.subject import load_subject
from bayesdiff.recording.export import read_run
from bayesdiff.runs.experiment import run_experiment
from bayesdiff.runs.one_step import main, one_step_table
from bayesdiff.training.one_step import one_step

STEPS = ["schedule.steps=2", "schedule.checkpoints=[0,1,2]"]
KEPT = ["method.learning_rate=0.05", "schedule.keep=all"]


@pytest.mark.parametrize("method", ["dreambooth", "lora"])
def test_every_kept_checkpoint_has_a_row_that_changes_with_training(
    make_config: Make, tiny_smoke: list[str], tmp_path: Path, method: str
) -> None:
    words = [f"method={method}", "method.learning_rate=0.05", "schedule.keep=all"]
    run, _ = run_experiment(make_config(*tiny_smoke, *STEPS, *words))
    assert main([str(run), "--results", str(tmp_path / "results")]) == ExitCode.DONE
    table = pd.read_csv(run / "one_step.csv")
    assert table["step"].tolist() == [0, 1, 2]
    assert np.isfinite(table.drop(columns="sigma_1")).all(axis=None)
    assert (table["error_0"].diff()[1:] != 0).all()
    kept = tmp_path / "results" / "records" / run.name
    assert (kept / "one_step.csv").read_bytes() == (run / "one_step.csv").read_bytes()
    assert (kept / "record.json").exists()


def test_the_table_does_not_depend_on_the_scheduler_that_the_model_was_saved_with(
    make_config: Make, tiny_smoke: list[str], tiny_models: Path, tmp_path: Path
) -> None:
    """Euler's own forward process adds up to 14 deviations of noise, and no U-Net of these models saw that."""
    euler = change_scheduler(Path(shutil.copytree(tiny_models / "pipeline", tmp_path / "euler")), EulerDiscreteScheduler(**SCHEDULE))
    runs = [run_experiment(make_config(*tiny_smoke, *STEPS, *KEPT, *more))[0] for more in ([], [f"model.path={euler}"])]
    pd.testing.assert_frame_equal(*map(one_step_table, runs), check_exact=True)


def test_a_trained_text_encoder_is_the_checkpoints_own(make_config: Make, tiny_smoke: list[str], tiny_models: Path) -> None:
    """The row is that of the checkpoint's parts as stock libraries load them."""
    run, _ = run_experiment(make_config(*tiny_smoke, *STEPS, *KEPT, "method.train_text_encoder=true"))
    kept, pipe = run / "checkpoints" / "step-000002", load(tiny_models / "pipeline")
    pipe.unet, pipe.text_encoder = (
        kind.from_pretrained(kept / name) for kind, name in ((UNet2DConditionModel, "unet"), (CLIPTextModel, "text_encoder"))
    )
    _, cfg, _ = read_run(run, 2)
    subject = load_subject(cfg.data, cfg.shots.count, cfg.seed, cfg.model.resolution)
    shown = encode_pictures(pipe, [subject.photos[0].image], f"a photo of qwe {subject.class_noun}")
    with torch.no_grad():
        expected = one_step(pipe.unet, training_scheduler(pipe.scheduler), shown.mean, shown.text, cfg.sampler.seed)
    found = one_step_table(run).iloc[-1].to_dict()
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_on_the_toybox_it_is_the_forward_process_of_before_bit_for_bit() -> None:
    """Committed tables were made with the scheduler that the toybox was saved with."""
    own = load_pipeline(ModelConf("toybox", "toybox", resolution=64), torch.device("cpu")).scheduler
    schedule, noise = training_scheduler(own), torch.randn(1000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    times = torch.arange(1000)
    assert torch.equal(schedule.alphas_cumprod, own.alphas_cumprod)
    assert torch.equal(schedule.add_noise(noise.flip(0), noise, times), own.add_noise(noise.flip(0), noise, times))
    assert schedule.config.prediction_type == own.config.prediction_type


def test_a_run_that_kept_nothing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == ExitCode.BAD_INPUT
    assert f"{tmp_path}: has no checkpoints; make the run with schedule.keep=all" in capsys.readouterr().err
