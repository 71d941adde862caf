"""Latents that are trained on are those that the stock pipeline decodes; what it would not undo is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from twins import build_twin, change_config

from bayesdiff.config.schema import ModelConf
from bayesdiff.core.errors import UserError
from bayesdiff.diffusion.latents import encode_latents
from bayesdiff.diffusion.pipeline import load_pipeline

CPU = torch.device("cpu")
MEAN, STD = [-1.0, 1.0, -1.0, 0.5], [4.0, 3.0, 2.0, 5.0]


def load(folder: Path) -> Any:
    return load_pipeline(ModelConf("mine", str(folder), resolution=64), CPU)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sd15", {}),
        ("sd15", {"scaling_factor": 0.5, "shift_factor": 0.0}),
        ("sdxl", {}),
        ("sdxl", {"latents_mean": MEAN, "latents_std": STD, "scaling_factor": 0.5}),
    ],
)
@torch.no_grad()
def test_the_stock_pipeline_decodes_the_latents_to_what_the_autoencoder_makes_of_the_picture(
    tmp_path: Path, name: str, values: dict[str, Any]
) -> None:
    pipe = load(change_config(build_twin(name, tmp_path / "model"), "vae", **values))
    posterior = pipe.vae.encode(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1).latent_dist
    mean, std = encode_latents(pipe, posterior)
    pixels = pipe.vae.decode(posterior.mean).sample
    expected = (pixels / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    decoded = _stock_decode(pipe, mean)
    np.testing.assert_allclose(decoded, expected, atol=1e-5)
    shifted, _ = encode_latents(pipe, _Moved(posterior))
    torch.testing.assert_close(shifted - mean, std)


class _Moved:
    """A posterior whose mean is one standard deviation further."""

    def __init__(self, posterior: Any):
        self.mean, self.std = posterior.mean + posterior.std, posterior.std


def _stock_decode(pipe: Any, latents: torch.Tensor) -> np.ndarray:
    """What the pipeline makes of final latents: its last denoising step is replaced by them."""

    def end(_pipe: Any, _step: int, _time: Any, _state: dict[str, Any]) -> dict[str, Any]:
        return {"latents": latents}

    found = pipe("a photo of qwe backpack", num_inference_steps=1, height=64, width=64, output_type="np", callback_on_step_end=end)
    return np.asarray(found.images[0])


REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("sdxl", "vae", {"latents_mean": MEAN}, "one of latents_mean and latents_std"),
    ("sdxl", "vae", {"latents_std": STD}, "one of latents_mean and latents_std"),
    ("sdxl", "vae", {"latents_mean": MEAN[:3], "latents_std": STD[:3]}, "are not 4 numbers each"),
    ("sdxl", "vae", {"latents_mean": MEAN, "latents_std": [0.0, *STD[1:]]}, "are not 4 numbers each"),
    ("sd15", "vae", {"latents_mean": MEAN, "latents_std": STD}, "which StableDiffusionPipeline does not undo"),
    ("sd15", "vae", {"shift_factor": 0.0609}, "shift_factor=0.0609, which StableDiffusionPipeline"),
    ("sdxl", "vae", {"shift_factor": 0.1}, "shift_factor=0.1, which StableDiffusionXLPipeline"),
    ("sd15", "vae", {"scaling_factor": 0.0}, "scaling_factor=0.0"),
]


@pytest.mark.parametrize(("name", "part", "values", "why"), REFUSED)
def test_an_autoencoder_that_the_pipeline_does_not_undo_is_refused_by_name(
    tmp_path: Path, name: str, part: str, values: dict[str, Any], why: str
) -> None:
    folder = change_config(build_twin(name, tmp_path / "model"), part, **values)
    with pytest.raises(UserError) as caught:
        load(folder)
    assert why in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_kind_of_autoencoder_is_refused_by_name(tmp_path: Path) -> None:
    pipe = load(build_twin("sd15", tmp_path / "model"))
    pipe.vae = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    pipe.save_pretrained(tmp_path / "tiny")
    with pytest.raises(UserError, match="its autoencoder is a AutoencoderTiny"):
        load(tmp_path / "tiny")


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("sd15", {"in_channels": 9}, "9 channels in and 4 out for 4"),
        ("sd15", {"time_cond_proj_dim": 16}, "told the guidance scale"),
        ("sd15", {"class_embed_type": "timestep"}, "class_embed_type=timestep"),
    ],
)
def test_a_unet_that_training_would_not_condition_is_refused_by_name(tmp_path: Path, name: str, values: dict[str, Any], why: str) -> None:
    from diffusers import UNet2DConditionModel

    folder = build_twin(name, tmp_path / "model")
    config = UNet2DConditionModel.load_config(folder / "unet")
    UNet2DConditionModel.from_config({**config, **values}).save_pretrained(folder / "unet")
    with pytest.raises(UserError, match=why):
        load(folder)
