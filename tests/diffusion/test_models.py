"""Every model of ``conf/model`` trains, samples, scores, exports and reloads: on its random twin, by the same code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from tiny import BNN_ON, Make, stop_at
from transformers import CLIPTextModel, CLIPTextModelWithProjection
from twins import SCHEDULE, SIDE, TWINS, build_twin

from bayesdiff.arms.layers import select_layers
from bayesdiff.config.compose import CONF
from bayesdiff.core.seeds import generator
from bayesdiff.recording.export import export
from bayesdiff.recording.record import RunRecord
from bayesdiff.runs.experiment import run_experiment

SHORT = ["schedule.steps=2", "schedule.checkpoints=[0,2]", "sampler.batch_size=2", "method.learning_rate=1e-2"]
LAYERS = {"sd14": 96, "sd15": 96, "sd20": 128, "sd21": 128, "sdxl": 442}
"""What the default preset takes from the true model (see ``test_layers``): a twin has the same layers."""
PROMPT = "a photo of qwe backpack"


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: build_twin(name, tmp_path_factory.mktemp(name)) for name in TWINS}


def run_on(make_config: Make, smoke: list[str], twin: Path, name: str, *overrides: str) -> tuple[Path, RunRecord]:
    place = [f"model={name}", f"model.path={twin}", "model.revision=null", f"model.resolution={SIDE}"]
    kept = [o for o in smoke if not o.startswith("model.path=")]
    return run_experiment(make_config(*kept, *SHORT, *place, *overrides))


def test_every_model_has_a_twin() -> None:
    assert {path.stem for path in (CONF / "model").glob("*.yaml")} == set(TWINS) | {"toybox", "wide"}  # these two are of our own world


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_has_the_layers_of_the_true_model(twins: dict[str, Path], name: str) -> None:
    unet = UNet2DConditionModel.from_pretrained(twins[name] / "unet")
    assert len(select_layers(unet, "linear_no_cross_attention")) == LAYERS[name]


def largest_gap(a: list[np.ndarray], b: list[np.ndarray]) -> int:
    """Largest difference of two lists of images, in levels of 255.

    One level is allowed where images are compared: in products as small as a twin's the CPU's result
    depends on where in memory a weight was loaded to. ``test_export`` compares bit for bit.
    """
    return max(int(np.abs(x.astype(int) - y).max()) for x, y in zip(a, b, strict=True))


def stock_images(pipe: DiffusionPipeline, own: bool = False) -> list[np.ndarray]:
    """By diffusers alone: with DDIM as Stable Diffusion's papers have it, or with the scheduler that is in the folder."""
    if not own:
        kind = pipe.scheduler.config.prediction_type
        pipe.scheduler = DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=False, prediction_type=kind)
    noise = [generator(1000, f"sample/{PROMPT}", i) for i in range(2)]
    found = pipe(prompt=[PROMPT] * 2, generator=noise, num_inference_steps=2, guidance_scale=7.5, height=SIDE, width=SIDE).images
    return [np.asarray(image) for image in found]


@pytest.mark.parametrize(("name", "scheduler"), [*((name, "ddim") for name in TWINS), ("sd15", "model"), ("sdxl", "model")])
def test_a_model_goes_the_whole_way_and_its_export_gives_the_same_images(
    make_config: Make, smoke: list[str], twins: dict[str, Path], tmp_path: Path, name: str, scheduler: str
) -> None:
    run, record = run_on(make_config, smoke, twins[name], name, BNN_ON, f"sampler.scheduler={scheduler}")
    assert record.status == "completed"
    assert record.bayesian["layers"] == LAYERS[name]
    assert np.isfinite(pd.read_csv(run / "scores.csv")["value"]).all()
    export(run, 2, tmp_path / "export")
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "export" / "unet")
    stock = DiffusionPipeline.from_pretrained(twins[name], unet=unet, safety_checker=None, dtype=torch.float32)
    ours = [np.asarray(Image.open(path)) for path in sorted((run / "images" / "step-000002").glob("*.png"))]
    before = [np.asarray(Image.open(path)) for path in sorted((run / "images" / "step-000000").glob("*.png"))]
    assert largest_gap(stock_images(stock, own=scheduler == "model"), ours) <= 1 < largest_gap(ours, before)


@pytest.mark.parametrize(
    ("name", "method"), [("sd15", "oft"), ("sd21", "lora"), ("sdxl", "lora"), pytest.param("sdxl", "oft", marks=pytest.mark.slow)]
)
def test_adapters_and_trained_text_encoders_work_on_published_structures(
    make_config: Make, smoke: list[str], twins: dict[str, Path], tmp_path: Path, name: str, method: str
) -> None:
    options = [f"method={method}", "method.train_text_encoder=true", "method.prior_preservation=true", "method.class_images=2"]
    run, record = run_on(make_config, smoke, twins[name], name, *options, BNN_ON)
    assert record.status == "completed"
    export(run, 2, tmp_path / "export")
    ours, before = (
        [np.asarray(Image.open(path)) for path in sorted((run / "images" / step).glob("*.png"))] for step in ("step-000002", "step-000000")
    )
    if method == "lora":
        stock = DiffusionPipeline.from_pretrained(twins[name], safety_checker=None, dtype=torch.float32)
        stock.load_lora_weights(tmp_path / "export")
    else:
        merged = {"unet": UNet2DConditionModel.from_pretrained(tmp_path / "export" / "unet_merged")}
        merged["text_encoder"] = CLIPTextModel.from_pretrained(tmp_path / "export" / "text_encoder_merged")
        if name == "sdxl":
            merged["text_encoder_2"] = CLIPTextModelWithProjection.from_pretrained(tmp_path / "export" / "text_encoder_2_merged")
        stock = DiffusionPipeline.from_pretrained(twins[name], safety_checker=None, dtype=torch.float32, **merged)
    assert largest_gap(stock_images(stock), ours) <= 1 < largest_gap(ours, before)


def test_a_trained_text_encoder_changes_and_is_exported(
    make_config: Make, smoke: list[str], twins: dict[str, Path], tmp_path: Path
) -> None:
    run, _ = run_on(make_config, smoke, twins["sdxl"], "sdxl", "method.train_text_encoder=true")
    export(run, 2, tmp_path / "export")
    for name in ("text_encoder", "text_encoder_2"):
        trained, before = (sorted((root / name).glob("*.safetensors"))[0].read_bytes() for root in (tmp_path / "export", twins["sdxl"]))
        assert trained != before


EVERYTHING = [
    "method.train_text_encoder=true", "bnn.kl_weight=1e-6", "bnn.kl=reverse", "bnn.sigma_parametrization=direct",
    "training.gradient_accumulation_steps=2", "training.lr_schedule=cosine", "training.min_snr_gamma=5",
    "training.gradient_checkpointing=true", "schedule.keep=all",
]  # fmt: skip


def test_an_interrupted_run_with_every_option_ends_as_if_it_had_not_been(
    make_config: Make, smoke: list[str], twins: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*EVERYTHING, BNN_ON, "schedule.steps=3", "schedule.checkpoints=[0,1,3]"]
    whole, _ = run_on(make_config, smoke, twins["sd15"], "sd15", *options, f"paths.runs={tmp_path / 'whole'}")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, "bayesdiff.diffusion.sampling.save_samples", 3)
        run_on(make_config, smoke, twins["sd15"], "sd15", *options)
    resumed, record = run_on(make_config, smoke, twins["sd15"], "sd15", *options)
    assert record.status == "completed"
    for name in ("scores.csv", "train.jsonl", "checkpoints/step-000003/rho.safetensors"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()
    for part in ("unet", "text_encoder"):
        ours, theirs = (load_file(next((run / "checkpoints" / "step-000003" / part).glob("*.safetensors"))) for run in (resumed, whole))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.gpu
@pytest.mark.parametrize("arm", ["bnn=off", BNN_ON, "bnn=prompt_dropout"])
@pytest.mark.parametrize("method", ["dreambooth", "lora", "oft"])
def test_every_method_and_arm_works_on_a_gpu(make_config: Make, smoke: list[str], tmp_path: Path, method: str, arm: str) -> None:
    twin = build_twin("sd15", tmp_path / "twin")
    folder, record = run_on(make_config, smoke, twin, "sd15", f"method={method}", arm, "device=cuda", "training.graph=auto")
    assert (record.status, record.environment["device"]) == ("completed", "cuda")
    scores = pd.read_csv(folder / "scores.csv")
    assert set(scores["step"]) == {0, 2}
    assert np.isfinite(scores["value"]).all()
