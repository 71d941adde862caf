"""Which layers a preset or an expression takes, on a small model and on the true shapes of Stable Diffusion."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from tiny import tiny_unet
from torch import nn

from bayesdiff.arms.layers import PRESETS, select_layers, select_names
from bayesdiff.core.errors import UserError

PRESET = "linear_no_cross_attention"
SHAPES: dict[str, dict[str, Any]] = {
    "sd15": {"cross_attention_dim": 768},
    "sd20": {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    "sdxl": {
        "block_out_channels": (320, 640, 1280), "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048, "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816, "use_linear_projection": True,
    },
}  # fmt: skip
"""U-Nets of the published models (1.4 is 1.5, 2.1 is 2.0): what their ``unet/config.json`` sets beside the library's defaults."""
TOTALS = {"sd15": 859_520_964, "sd20": 865_910_724, "sdxl": 2_567_463_684}
COUNTS: dict[str, dict[tuple[str, bool], tuple[int, int]]] = {
    "sd15": {
        ("linear_no_cross_attention", False): (96, 198_371_200), ("linear_no_cross_attention", True): (120, 226_246_720),
        ("linear_up_blocks", False): (54, 103_286_400), ("linear_up_blocks", True): (68, 118_864_320),
        ("linear_with_cross_attention", False): (160, 242_333_760), ("norms", False): (109, 200_320),
        ("conv", False): (98, 589_111_364), ("all", False): (367, 831_645_444), ("all", True): (391, 859_520_964),
    },
    "sd20": {
        ("linear_no_cross_attention", False): (128, 223_176_960), ("linear_up_blocks", False): (72, 116_202_240),
        ("linear_with_cross_attention", False): (192, 273_529_280), ("norms", False): (109, 200_320),
        ("conv", False): (66, 564_305_604), ("all", True): (391, 865_910_724),
    },
    "sdxl": {
        ("linear_no_cross_attention", False): (442, 1_663_010_560), ("linear_up_blocks", False): (228, 838_475_520),
        ("linear_with_cross_attention", False): (722, 2_208_680_960), ("norms", False): (256, 588_160),
        ("conv", False): (51, 333_272_004), ("all", True): (1_050, 2_567_463_684),
    },
}  # fmt: skip
"""(preset, time layers) to (modules, weights): the table of ``docs/deviations.md``."""


@cache
def on_meta(name: str) -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel(**SHAPES[name])


def weights_of(unet: nn.Module, names: list[str]) -> int:
    return sum(p.numel() for name in names for p in unet.get_submodule(name).parameters())


@pytest.mark.parametrize("name", SHAPES)
def test_the_shapes_are_those_of_the_published_models(name: str) -> None:
    assert sum(p.numel() for p in on_meta(name).parameters()) == TOTALS[name]


@pytest.mark.parametrize(("model", "preset", "time"), [(m, *key) for m, rows in COUNTS.items() for key in rows])
def test_a_preset_takes_the_counted_layers(model: str, preset: str, time: bool) -> None:
    names = select_layers(on_meta(model), preset, time)
    assert (len(names), weights_of(on_meta(model), names)) == COUNTS[model][preset, time]


def test_time_layers_give_the_fractions_that_the_paper_prints() -> None:
    unet, total = on_meta("sd15"), TOTALS["sd15"]
    shares = [weights_of(unet, select_layers(unet, preset, True)) / total for preset in ("linear_up_blocks", "norms")]
    assert [round(100 * share, 1) for share in shares] == [13.8, 0.0]
    assert round(100 * shares[1], 2) == 0.02


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_takes_its_own_types_and_the_time_only_when_asked(preset: str) -> None:
    unet = tiny_unet()
    names = select_layers(unet, preset)
    assert all(isinstance(unet.get_submodule(name), PRESETS[preset].types) for name in names)
    assert not any("time_emb" in name for name in names)
    added = set(select_layers(unet, preset, True)) - set(names)
    assert all("time_emb" in name for name in added)
    assert bool(added) == (nn.Linear in PRESETS[preset].types)


def test_the_preset_takes_self_attention_and_feed_forward_of_every_block() -> None:
    unet = tiny_unet()
    blocks = [name for name, module in unet.named_modules() if isinstance(module, BasicTransformerBlock)]
    parts = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2")
    assert len(blocks) == 4
    assert set(select_layers(unet, PRESET)) == {f"{block}.{part}" for block in blocks for part in parts}


def test_the_preset_takes_a_quarter_of_stable_diffusion() -> None:
    unet = on_meta("sd15")
    names = select_layers(unet, PRESET)
    chosen = [unet.get_submodule(name) for name in names]
    assert len(names) == len(set(names)) == 96
    assert not any("attn2" in name or "time" in name for name in names)
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964
    assert sum(module.weight.numel() for module in chosen) == 198_246_400
    assert sum(p.numel() for module in chosen for p in module.parameters()) == 198_371_200


def test_the_presets_of_linear_layers_are_nested() -> None:
    unet = tiny_unet()
    up, default, cross, everything = (
        set(select_layers(unet, name)) for name in ("linear_up_blocks", PRESET, "linear_with_cross_attention", "all")
    )
    assert up < default < cross < everything
    assert {name for name in default if name.startswith("up_blocks")} == up
    assert all(".attn2." in name for name in cross - default)


def test_an_expression_selects_layers_by_name() -> None:
    names = select_layers(tiny_unet(), r"mid_block.*attn2\.to_(k|v)$")
    assert names == [f"mid_block.attentions.0.transformer_blocks.0.attn2.to_{key}" for key in "kv"]


def test_an_expression_reaches_every_kind_of_layer_with_weights() -> None:
    unet = tiny_unet()
    kinds = {type(unet.get_submodule(name)).__name__ for name in select_layers(unet, ".")}
    assert kinds == {"Conv2d", "GroupNorm", "LayerNorm", "Linear"}
    assert select_layers(unet, "^conv_in$") == ["conv_in"]


def test_names_are_selected_by_a_methods_own_presets() -> None:
    names, presets = ["up.a", "down.a", "down.b"], {"default": "^up", "all": ""}
    assert select_names(names, "default", presets) == ["up.a"]
    assert select_names(names, "all", presets) == names
    assert select_names(names, r"\.b$", presets) == ["down.b"]
    for bad in ("(", "mid"):
        with pytest.raises(UserError, match=r"bnn\.layers=.*default, all"):
            select_names(names, bad, presets)


@pytest.mark.parametrize("layers", ["(", "no_such_layer"])
def test_a_bad_or_empty_selection_is_named(layers: str) -> None:
    with pytest.raises(UserError, match=r"bnn\.layers=.*linear_no_cross_attention"):
        select_layers(tiny_unet(), layers)
