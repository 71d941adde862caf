"""LoRA: the identity at the start, the stock file at the end, and the same arithmetic in between."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from tiny import differing, load, tiny_inputs, tiny_text_encoder, tiny_unet
from torch import nn

from bayesdiff.arms.gaussian import draw_weights, make_bayesian
from bayesdiff.config.schema import BnnConf, MethodConf
from bayesdiff.core.errors import UserError
from bayesdiff.core.seeds import generator
from bayesdiff.methods import lora

CONF = MethodConf("lora", 1e-4, rank=2)
BNN = BnnConf("gaussian", sigma_init=0.1)


def adapted(conf: MethodConf = CONF, seed: int = 0) -> tuple[UNet2DConditionModel, list[nn.Parameter]]:
    unet = tiny_unet()
    return unet, lora.build({"unet": unet}, conf, seed)


def moved(unet: nn.Module) -> nn.Module:
    """The adapter somewhere else than at its start."""
    with torch.no_grad():
        for name, p in unet.named_parameters():
            if ".lora_B." in name:
                p.copy_(torch.randn(p.shape, generator=generator(0, name)))
    return unet


def output(unet: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return unet(**tiny_inputs()).sample


def test_only_the_adapter_of_every_attention_projection_is_trained() -> None:
    unet, trained = adapted()
    projections = [n for n, m in tiny_unet().named_modules() if isinstance(m, nn.Linear) and ".attn" in n]
    assert len(trained) == 2 * len(projections) == 2 * 8 * 4
    assert {id(p) for p in trained} == {id(p) for n, p in unet.named_parameters() if ".lora_" in n}
    assert not any(p.requires_grad for n, p in unet.named_parameters() if ".lora_" not in n)


def test_the_adapter_starts_as_the_identity() -> None:
    unet, _ = adapted()
    assert torch.equal(output(unet), output(tiny_unet()))
    assert not torch.equal(output(moved(unet)), output(tiny_unet()))


def test_down_starts_normal_with_one_over_rank_and_is_a_function_of_the_seed() -> None:
    (first, _), (again, _), (other, _) = adapted(), adapted(), adapted(seed=1)
    torch.manual_seed(5)
    down = {n: p for n, p in first.named_parameters() if ".lora_A." in n}
    everything = torch.cat([p.flatten() for p in down.values()])
    assert float(everything.detach().std()) == pytest.approx(1 / CONF.rank, rel=0.1)
    assert differing(dict(first.state_dict()), dict(again.state_dict())) == []
    assert set(differing(dict(first.state_dict()), dict(other.state_dict()))) == set(down)


@pytest.mark.parametrize(("layers", "kinds"), [("default", "B"), ("up", "B"), ("down", "A"), ("both", "AB")])
def test_the_bayesian_side_is_the_asked_one(layers: str, kinds: str) -> None:
    unet, _ = adapted()
    names = lora.bayesian_targets(unet, BnnConf(layers=layers))
    assert len(names) == 32 * len(kinds)
    assert {name.rpartition(".lora_")[2][0] for name in names} == set(kinds)
    assert [len(list(unet.get_submodule(name).parameters())) for name in names] == [1] * len(names)


def test_another_selection_is_refused_with_the_presets() -> None:
    with pytest.raises(UserError, match=r"bnn\.layers='norms'.*up, down, both"):
        lora.bayesian_targets(adapted()[0], BnnConf(layers="norms"))


def test_stable_diffusion_has_128_up_matrices() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768).requires_grad_(False)
        unet.add_adapter(lora._config(MethodConf("lora", 1e-4), CONF.targets))
    names = lora.bayesian_targets(unet, BNN)
    assert len(names) == 128
    assert sum(unet.get_submodule(name).weight.numel() for name in names) == 399_360
    assert sum(p.numel() for p in unet.parameters() if p.requires_grad) == 797_184


@pytest.mark.parametrize(("alpha", "bayesian"), itertools.product([None, 8.0], [False, True]))
def test_the_file_loads_with_the_stock_loader_to_the_same_bits(
    random_pipeline: Path, tmp_path: Path, alpha: float | None, bayesian: bool
) -> None:
    conf = MethodConf("lora", 1e-4, rank=4, alpha=alpha)
    ours, stock = load(random_pipeline), load(random_pipeline)
    lora.build({"unet": ours.unet}, conf, 0)
    moved(ours.unet)
    layers = make_bayesian(ours.unet, lora.bayesian_targets(ours.unet, BNN), BNN) if bayesian else []
    lora.export({"unet": ours.unet}, tmp_path)
    draw_weights(layers, 0, 0)
    lora.export({"unet": ours.unet}, tmp_path / "drawn")
    assert differing(load_file(tmp_path / lora.FILE), load_file(tmp_path / "drawn" / lora.FILE)) == []
    for layer in layers:
        layer.gaussian.drawn = None
    before, _ = images(ours), stock.load_lora_weights(tmp_path)
    assert torch.equal(before, images(stock))
    assert not torch.equal(before, images(load(random_pipeline)))


def images(pipe: object) -> torch.Tensor:
    return pipe("a dog", num_inference_steps=2, generator=generator(0, "test"), output_type="pt").images  # type: ignore[operator]


def test_merged_equals_unmerged() -> None:
    unet = moved(adapted()[0])
    unmerged = output(unet)
    for module in unet.modules():
        if isinstance(module, BaseTunerLayer):
            module.merge()
    torch.testing.assert_close(output(unet), unmerged, rtol=0, atol=1e-5)


def test_a_trained_text_encoder_has_an_adapter_on_its_four_projections() -> None:
    text_encoder = tiny_text_encoder()
    lora.build({"unet": tiny_unet(), "text_encoder": text_encoder}, CONF, 0)
    assert sum(".lora_" in n for n, _ in text_encoder.named_parameters()) == 8
