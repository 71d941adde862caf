"""DreamBooth trains everything it is given, and exports it as stock libraries write it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from tiny import differing, tiny_text_encoder, tiny_unet
from transformers import CLIPTextModel

from bayesdiff.arms.gaussian import draw_weights, make_bayesian
from bayesdiff.arms.layers import select_layers
from bayesdiff.config.schema import BnnConf, MethodConf
from bayesdiff.methods import dreambooth

CONF = MethodConf("dreambooth", 1e-4)
BNN = BnnConf("gaussian")


def test_all_weights_of_all_parts_are_trained() -> None:
    parts = {"unet": tiny_unet(), "text_encoder": tiny_text_encoder()}
    trained = dreambooth.build(parts, CONF, 0)
    assert [id(p) for p in trained] == [id(p) for part in parts.values() for p in part.parameters()]
    assert all(p.requires_grad for p in trained)


def test_the_bayesian_targets_are_the_configured_layers() -> None:
    unet = tiny_unet()
    assert dreambooth.bayesian_targets(unet, BNN) == select_layers(unet, "linear_no_cross_attention")
    assert dreambooth.bayesian_targets(unet, BnnConf(layers="norms")) == select_layers(unet, "norms")
    assert len(dreambooth.bayesian_targets(unet, BnnConf(time_layers=True))) > len(dreambooth.bayesian_targets(unet, BNN))
    assert all("attn2" in name for name in dreambooth.bayesian_targets(unet, BnnConf(layers=r"attn2\.to_q$")))


@pytest.mark.parametrize("bayesian", [False, True])
def test_the_export_loads_as_a_stock_unet_with_the_mean_weights(tmp_path: Path, bayesian: bool) -> None:
    unet = tiny_unet()
    if bayesian:
        draw_weights(make_bayesian(unet, dreambooth.bayesian_targets(unet, BNN), BNN), 0, 0)
    dreambooth.export({"unet": unet}, tmp_path)
    stock = UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    assert differing(dict(stock.state_dict()), dict(tiny_unet().state_dict())) == []
    assert stock.dtype == torch.float32


def test_the_export_has_the_files_and_the_configuration_that_diffusers_writes(tmp_path: Path) -> None:
    dreambooth.export({"unet": tiny_unet()}, tmp_path / "ours")
    tiny_unet().save_pretrained(tmp_path / "stock")
    ours, stock = (sorted(p.name for p in (tmp_path / name).iterdir()) for name in ("ours/unet", "stock"))
    assert ours == stock
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("ours/unet", "stock")]
    assert configs[0] == configs[1]


def test_an_exported_text_encoder_loads_as_a_stock_one(tmp_path: Path) -> None:
    text_encoder = tiny_text_encoder()
    dreambooth.export({"unet": tiny_unet(), "text_encoder": text_encoder}, tmp_path)
    stock = CLIPTextModel.from_pretrained(tmp_path / "text_encoder")
    assert differing(dict(stock.state_dict()), dict(text_encoder.state_dict())) == []
