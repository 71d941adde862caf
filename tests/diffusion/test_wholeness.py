"""Models that look whole and are not: refused by name before anything is trained, with the remedy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tiny import load
from transformers import CLIPTextConfig, CLIPTextModel
from twins import build_twin, change_config

from bayesdiff.core.errors import UserError
from bayesdiff.diffusion.wholeness import refused_fit, smallest_side, variant_there
from bayesdiff.toybox.weights import PIPELINE

Tensors = dict[str, torch.Tensor]
FILES = {"unet": "diffusion_pytorch_model.safetensors", "vae": "diffusion_pytorch_model.safetensors", "text_encoder": "model.safetensors"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PIPELINE, tmp_path / "model"))


def edit(folder: Path, part: str, change: Callable[[Tensors], None]) -> str:
    """Change a part's tensors on disk; returns the name of its first weight of a norm."""
    path = folder / part / FILES[part]
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    return part


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(folder)
    line = str(caught.value)
    assert line.startswith(f"model {folder}: ")
    assert "\n" not in line
    return line


def without_a_norm(tensors: Tensors) -> None:
    del tensors[next(key for key in sorted(tensors) if "norm" in key and key.endswith("weight"))]


def with_a_nan(tensors: Tensors) -> None:
    tensors[sorted(tensors)[0]].view(-1)[0] = torch.nan


@pytest.mark.parametrize("part", FILES)
def test_a_part_that_lacks_a_weight_is_refused(folder: Path, part: str) -> None:
    """The loader of text encoders makes one up at random and goes on."""
    edit(folder, part, without_a_norm)
    line = refusal(folder)
    assert f"not whole: its {part} lacks the weights " in line
    assert "norm" in line
    assert line.endswith("download it again or correct model.path")


def test_a_second_text_encoder_that_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    folder = build_twin("sdxl", tmp_path / "sdxl")
    path = folder / "text_encoder_2" / "model.safetensors"
    tensors = load_file(path)
    without_a_norm(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    assert "its text_encoder_2 lacks the weights " in refusal(folder)


@pytest.mark.parametrize("part", FILES)
def test_a_part_with_a_number_that_is_not_finite_is_refused(folder: Path, part: str) -> None:
    edit(folder, part, with_a_nan)
    assert f"its {part} has weights that are not finite (" in refusal(folder)


def test_weights_in_half_precision_and_in_shards_are_read(folder: Path) -> None:
    edit(folder, "vae", lambda tensors: tensors.update({key: value.half() for key, value in tensors.items()}))
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    (folder / "unet" / FILES["unet"]).unlink()
    unet.save_pretrained(folder / "unet", max_shard_size="2MB")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    load(folder)


def test_files_of_a_variant_name_their_remedy(folder: Path) -> None:
    for part, name in FILES.items():
        (folder / part / name).rename(folder / part / name.replace(".safetensors", ".fp16.safetensors"))
    assert variant_there(str(folder)) == "fp16"
    assert refusal(folder).endswith("add model.variant=fp16")


def test_plain_files_beside_a_variant_are_plain(folder: Path) -> None:
    assert variant_there(str(folder)) == ""
    plain = folder / "unet" / FILES["unet"]
    shutil.copy(plain, plain.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert variant_there(str(folder)) == ""


def with_text_encoder(folder: Path, **sizes: int) -> None:
    config = CLIPTextConfig.from_pretrained(folder / "text_encoder")
    for key, value in sizes.items():
        setattr(config, key, value)
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")


def with_unet(folder: Path, **changed: object) -> None:
    config = {**UNet2DConditionModel.load_config(folder / "unet"), **changed}
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")


def with_vae(folder: Path, **changed: object) -> None:
    config = {**AutoencoderKL.load_config(folder / "vae"), **changed}
    AutoencoderKL.from_config(config).save_pretrained(folder / "vae")


MISFITS: dict[str, Callable[[Path], None]] = {
    "a text encoder of another width": lambda f: with_text_encoder(f, hidden_size=64, num_attention_heads=2),
    "a text encoder of fewer tokens": lambda f: with_text_encoder(f, max_position_embeddings=4),
    "a text encoder of fewer words": lambda f: with_text_encoder(f, vocab_size=10),
    "a U-Net that wants labels": lambda f: with_unet(f, num_class_embeds=10),
    "a U-Net of two texts": lambda f: with_unet(f, dual_cross_attention=True),
    "an autoencoder of four colours": lambda f: with_vae(f, in_channels=4, out_channels=4),
    "an autoencoder with a wide end": lambda f: with_vae(f, out_channels=6),
    "a tokenizer without its settings": lambda f: (f / "tokenizer" / "tokenizer_config.json").unlink(),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_parts_that_do_not_fit_together_are_refused(folder: Path, name: str) -> None:
    MISFITS[name](folder)
    assert "its parts do not fit together (" in refusal(folder)


def test_a_unet_that_wants_other_sizes_is_refused(tmp_path: Path) -> None:
    folder = change_config(build_twin("sdxl", tmp_path / "sdxl"), "unet", addition_time_embed_dim=16)
    assert "its parts do not fit together (" in refusal(folder)


def test_the_trial_draws_no_random_numbers() -> None:
    pipe = load(PIPELINE)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert refused_fit(pipe) == ""
    assert torch.equal(torch.get_rng_state(), before)


def test_the_smallest_side_is_what_the_unet_halves() -> None:
    assert smallest_side(SimpleNamespace(block_out_channels=(1, 1, 1, 1)), 8) == 64
    assert smallest_side(SimpleNamespace(block_out_channels=(1,)), 1) == 8
