"""Random twins of the published models: their structure (blocks, attention, conditioning), a few thousand weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from bayesdiff.pretraining.tokenizer import build_tokenizer
from bayesdiff.toybox.vocabulary import BOS, EOS, MAX_TOKENS, PAD, vocabulary

SIDE = 64
"""Pixels of a twin's images; its autoencoder has factor 8, as the true ones have."""
SCHEDULE: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
"""The published models'; beside it stands what each of them was saved with, as its own scheduler file has it."""
PNDM = partial(PNDMScheduler, skip_prk_steps=True, set_alpha_to_one=False)
DDIM = partial(DDIMScheduler, clip_sample=False, set_alpha_to_one=False)


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(8, 8, 8, 8),
        layers_per_block=1, norm_num_groups=4, latent_channels=4, sample_size=SIDE,
    )  # fmt: skip


def _text_config(width: int, activation: str, **more: Any) -> CLIPTextConfig:
    words = vocabulary()
    return CLIPTextConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS, bos_token_id=words[BOS], eos_token_id=words[EOS], pad_token_id=words[PAD],
        hidden_act=activation, **more,
    )  # fmt: skip


def _stable_diffusion(folder: Path, activation: str, scheduler: Any, unet: dict[str, Any]) -> None:
    StableDiffusionPipeline(
        vae=_vae(), text_encoder=CLIPTextModel(_text_config(16, activation)), tokenizer=build_tokenizer(), scheduler=scheduler,
        unet=UNet2DConditionModel(sample_size=8, block_out_channels=(8, 16, 16, 16), norm_num_groups=4, cross_attention_dim=16, **unet),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


def _sdxl(folder: Path) -> None:
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16, 16), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(1, 2, 2), cross_attention_dim=32, norm_num_groups=4, use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 16,
    )  # fmt: skip
    StableDiffusionXLPipeline(
        vae=_vae(), text_encoder=CLIPTextModel(_text_config(16, "quick_gelu")), tokenizer=build_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(16, "gelu", projection_dim=16)), tokenizer_2=build_tokenizer(),
        unet=unet, scheduler=EulerDiscreteScheduler(timestep_spacing="leading", **SCHEDULE), add_watermarker=False,
    ).save_pretrained(folder)  # fmt: skip


SD1 = {"attention_head_dim": 2}
SD2 = {"attention_head_dim": (1, 2, 2, 2), "use_linear_projection": True}
VELOCITY = {**SCHEDULE, "prediction_type": "v_prediction"}
TWINS: dict[str, Callable[[Path], None]] = {
    "sd14": partial(_stable_diffusion, activation="quick_gelu", scheduler=PNDM(**SCHEDULE), unet=SD1),
    "sd15": partial(_stable_diffusion, activation="quick_gelu", scheduler=PNDM(**SCHEDULE), unet=SD1),
    "sd20": partial(_stable_diffusion, activation="gelu", scheduler=PNDM(**SCHEDULE), unet=SD2),
    "sd21": partial(_stable_diffusion, activation="gelu", scheduler=DDIM(**VELOCITY), unet=SD2),
    "sdxl": _sdxl,
}


def build_twin(name: str, folder: Path) -> Path:
    """Write a twin's pipeline folder; the weights are random but always the same."""
    torch.manual_seed(0)
    TWINS[name](folder)
    return folder


def change_scheduler(folder: Path, scheduler: Any) -> Path:
    """Give a pipeline folder another scheduler, as ``save_pretrained`` writes it."""
    scheduler.save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", type(scheduler).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def change_config(folder: Path, part: str, **values: Any) -> Path:
    """Set keys of a part's ``config.json``."""
    config = folder / part / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **values}))
    return folder
