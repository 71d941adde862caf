"""Exports load with stock libraries, to the images of the run, and say what they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from markdown_it import MarkdownIt
from PIL import Image
from safetensors.torch import load_file
from tiny import ARMS, BNN_OFF, BNN_ON, METHOD_NAMES, Make

from bayesdiff.core.errors import UserError
from bayesdiff.core.seeds import generator
from bayesdiff.export import main
from bayesdiff.recording.export import export
from bayesdiff.runs.experiment import run_experiment

SHORT = ["schedule.steps=3", "schedule.checkpoints=[0,3]", "sampler.batch_size=2", "method.learning_rate=1e-2"]


@pytest.fixture(scope="module")
def store() -> dict[str, Path]:
    return {}


@pytest.fixture
def run_of(store: dict[str, Path], make_config: Make, smoke: list[str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run folder of a method and an arm, made once."""

    def make(method: str, arm: str) -> Path:
        key = f"{method}-{arm}"
        if key not in store:
            cfg = make_config(*smoke, *SHORT, f"method={method}", arm, f"paths.runs={tmp_path_factory.mktemp(method)}")
            store[key], _ = run_experiment(cfg, "python -m bayesdiff.run +experiment=smoke")
        return store[key]

    return make


def stock_pipeline(base: Path, folder: Path, method: str) -> StableDiffusionPipeline:
    """The export in a stock pipeline, loaded as the model card says."""
    if method == "lora":
        pipe = StableDiffusionPipeline.from_pretrained(base, safety_checker=None, dtype=torch.float32)
        pipe.load_lora_weights(folder)
    else:
        unet = UNet2DConditionModel.from_pretrained(folder / ("unet" if method == "dreambooth" else "unet_merged"))
        pipe = StableDiffusionPipeline.from_pretrained(base, unet=unet, safety_checker=None, dtype=torch.float32)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    return pipe


def images_of(pipe: StableDiffusionPipeline) -> list[np.ndarray]:
    text = "a photo of qwe backpack"
    noise = [generator(1000, f"sample/{text}", i) for i in range(2)]
    found = pipe(prompt=[text] * 2, generator=noise, num_inference_steps=2, guidance_scale=7.5, height=64, width=64).images
    return [np.asarray(image) for image in found]


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("method", METHOD_NAMES)
def test_a_stock_pipeline_with_the_export_gives_the_images_of_the_run(
    run_of: Any, random_pipeline: Path, tmp_path: Path, method: str, arm: str
) -> None:
    run = run_of(method, arm)
    assert export(run, 3, tmp_path / "export") == 3
    shown = images_of(stock_pipeline(random_pipeline, tmp_path / "export", method))
    ours = [np.asarray(Image.open(path)) for path in sorted((run / "images" / "step-000003").glob("*.png"))]
    before = [np.asarray(Image.open(path)) for path in sorted((run / "images" / "step-000000").glob("*.png"))]
    largest = max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(shown, ours, strict=True))
    assert largest <= (1 if method == "oft" else 0)  # a merged rotation rounds otherwise than an unmerged one
    assert not np.array_equal(ours[0], before[0])
    assert (tmp_path / "export" / "bnn_state.safetensors").exists() == (arm == BNN_ON)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_the_bayesian_state_holds_mu_and_sigma_of_every_gaussian_tensor(run_of: Any, tmp_path: Path, method: str) -> None:
    run = run_of(method, BNN_ON)
    export(run, 3, tmp_path / "export")
    state, rho = (
        load_file(path) for path in (tmp_path / "export" / "bnn_state.safetensors", run / "checkpoints/step-000003/rho.safetensors")
    )
    assert set(state) == {f"{name}.{kind}" for name in rho for kind in ("mu", "sigma")}
    for name, value in rho.items():
        torch.testing.assert_close(state[f"{name}.sigma"], torch.nn.functional.softplus(value))
        assert state[f"{name}.mu"].shape == state[f"{name}.sigma"].shape
    if method == "dreambooth":
        unet = load_file(tmp_path / "export" / "unet" / "diffusion_pytorch_model.safetensors")
        assert all(torch.equal(state[f"{name}.mu"], unet[name]) for name in rho)


def test_the_model_card_carries_verdict_curve_and_command(run_of: Any, tmp_path: Path) -> None:
    export(run_of("lora", ARMS[0]), None, tmp_path / "export")
    card = (tmp_path / "export" / "README.md").read_text()
    assert "python -m bayesdiff.run +experiment=smoke" in card
    assert "2 checkpoints are too few for a verdict" in card
    assert 'pipe.load_lora_weights("export")' in card
    assert (tmp_path / "export" / "curve.png").exists()


def test_a_step_that_was_not_kept_is_refused_with_those_that_were(run_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of("lora", ARMS[0])
    with pytest.raises(UserError, match=r"--step 2: .* keeps the steps (0, )?3"):
        export(run, 2, tmp_path / "export")
    assert not (tmp_path / "export").exists()
    assert main([str(run), "--step", "2"]) == 2
    assert "--step 2" in capsys.readouterr().err


def test_an_export_is_never_overwritten(run_of: Any, tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    with pytest.raises(UserError, match="exists already"):
        export(run_of("lora", ARMS[0]), 3, tmp_path / "export")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "not a run folder with checkpoints" in capsys.readouterr().err


def says(run: Path, **verdict: Any) -> None:
    """Change what a run's record says of its verdict."""
    record = json.loads((run / "record.json").read_text())
    record["verdict"].update(verdict)
    (run / "record.json").write_text(json.dumps(record))


def test_the_command_writes_the_best_step_beside_the_run(run_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(run_of("dreambooth", ARMS[0]), tmp_path / "run")
    says(run, best_step=3, better_than_base=True)  # random weights score by chance
    assert main([str(run)]) == 0
    (folder,) = run.glob("export-*")
    assert f"wrote {folder}" in capsys.readouterr().out


def test_the_base_model_is_never_exported_as_the_best(run_of: Any, tmp_path: Path) -> None:
    run = shutil.copytree(run_of("dreambooth", BNN_OFF), tmp_path / "run")
    says(run, better_than_base=False)
    with pytest.raises(UserError, match=r"no checkpoint is better than the base model yet; train longer, or name one with --step"):
        export(run, None, tmp_path / "export")
    assert export(run, 3, tmp_path / "export") == 3


def test_another_step_is_never_exported_as_the_best(run_of: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(run_of("dreambooth", ARMS[0]), tmp_path / "run")
    says(run, best_step=2, better_than_base=True)
    assert main([str(run)]) == 2
    assert "its best checkpoint, step 2, is not kept; choose by --step" in capsys.readouterr().err
    assert not (run / "export-2").exists()


@pytest.mark.parametrize("text", ["Ca$$h_1 | `x` <script>a()</script> [b]", "```\\ # ![i](j) **k**", "<!-- {~^} & \"'"])
def test_the_card_of_a_run_with_hostile_texts_shows_them(run_of: Any, tmp_path: Path, text: str) -> None:
    """Title, words, verdict, base model and command of a stranger's record; nothing of them is markup, and no fence ends early."""
    run = Path(shutil.copytree(run_of("dreambooth", BNN_OFF), tmp_path / "run"))
    content = json.loads((run / "record.json").read_text())
    content["config"]["data"] |= {"subject": text, "identifier": text}
    content["config"]["model"]["path"] = f"base/{text}"
    content |= {"command": f"x {text}\n```\n# y", "verdict": {**(content["verdict"] or {}), "sentence": f"v {text}", "best_step": 3}}
    content["subject"]["class_noun"] = text
    (run / "record.json").write_text(json.dumps(content))
    export(run, 3, tmp_path / f"out {text.replace('/', ' ')}")
    (card,) = (path.read_text() for path in tmp_path.glob("out*/README.md"))
    tokens = MarkdownIt("commonmark").parse(card)
    kinds = [token.type for token in tokens if token.type.endswith("_open") or token.type in ("fence", "html_block")]
    assert [kind for kind in kinds if kind != "paragraph_open"] == ["heading_open", "fence", "fence"]
    inside = [one for token in tokens for one in (token.children or [])]
    assert {one.type for one in inside} <= {"text", "text_special", "code_inline", "softbreak", "image"}
    assert [one.attrGet("src") for one in inside if one.type == "image"] == ["curve.png"]
    shown = "".join(one.content for one in inside if one.type != "image")
    assert shown.count(text) == 5
    assert [token.content for token in tokens if token.type == "fence"][1] == content["command"] + "\n"
