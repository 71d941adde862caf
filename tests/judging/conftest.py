"""A random twin of Stable Diffusion, and three checkpoints of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from twins import build_twin


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_twin("sd15", tmp_path_factory.mktemp("twin"))


@pytest.fixture
def adapters(twin: Path, tmp_path: Path) -> Path:
    """Three checkpoints of one rank-2 update: as a whole model, as peft saves an adapter, and as a LoRA of diffusers."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_pretrained(twin / "unet")
    wrapped = get_peft_model(unet, LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"]))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    wrapped.save_pretrained(tmp_path / "out" / "step-1")
    layers = {key.removeprefix("base_model.model."): value for key, value in get_peft_model_state_dict(wrapped).items()}
    StableDiffusionPipeline.save_lora_weights(tmp_path / "out" / "step-2", unet_lora_layers=layers)
    wrapped.merge_and_unload().save_pretrained(tmp_path / "out" / "step-3" / "unet")
    return tmp_path / "out"
