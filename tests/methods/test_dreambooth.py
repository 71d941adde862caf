"""DreamBooth trains all of the U-Net, and exports it as stock libraries write it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from tiny import differing, tiny_unet

from bayesdiff.bayes import draw_weights, make_bayesian, select_layers
from bayesdiff.config import BnnConf, Method
from bayesdiff.methods import METHODS, dreambooth

CONF = BnnConf(enabled=True)


def test_every_method_offers_the_same_four_names() -> None:
    assert set(METHODS) == set(Method)
    for method in METHODS.values():
        assert all(callable(getattr(method, name)) for name in ("build", "trainable", "bayesian_targets", "export"))


def test_all_weights_of_the_unet_are_trained() -> None:
    unet = tiny_unet()
    assert dreambooth.trainable(unet) == []
    dreambooth.build(unet)
    assert [id(p) for p in dreambooth.trainable(unet)] == [id(p) for p in unet.parameters()]


def test_with_gaussian_weights_every_mean_and_every_rho_is_trained_once() -> None:
    unet = tiny_unet()
    dreambooth.build(unet)
    plain = {id(p) for p in unet.parameters()}
    layers = make_bayesian(unet, dreambooth.bayesian_targets(unet, CONF), 0.01)
    trained = [id(p) for p in dreambooth.trainable(unet)]
    assert len(trained) == len(set(trained))
    assert set(trained) == plain | {id(layer.gaussian.rho) for layer in layers}


def test_the_bayesian_targets_are_the_configured_layers() -> None:
    unet = tiny_unet()
    assert dreambooth.bayesian_targets(unet, CONF) == select_layers(unet, CONF.layers)
    assert all("attn2" in name for name in dreambooth.bayesian_targets(unet, BnnConf(layers=r"attn2\.to_q$")))


@pytest.mark.parametrize("bayesian", [False, True])
def test_the_export_loads_as_a_stock_unet_with_the_mean_weights(tmp_path: Path, bayesian: bool) -> None:
    unet = tiny_unet()
    if bayesian:
        draw_weights(make_bayesian(unet, dreambooth.bayesian_targets(unet, CONF), 0.01), 0, 0)
    dreambooth.export(unet, tmp_path / "unet")
    stock = UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    assert differing(dict(stock.state_dict()), dict(tiny_unet().state_dict())) == []
    assert stock.dtype == torch.float32


def test_the_export_has_the_files_and_the_configuration_that_diffusers_writes(tmp_path: Path) -> None:
    dreambooth.export(tiny_unet(), tmp_path / "ours")
    tiny_unet().save_pretrained(tmp_path / "stock")
    ours, stock = (sorted(p.name for p in (tmp_path / name).iterdir()) for name in ("ours", "stock"))
    assert ours == stock
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("ours", "stock")]
    assert configs[0] == configs[1]
