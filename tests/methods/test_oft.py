"""OFT: rotations that stay rotations, the identity at the start, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import OFTConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from tiny import tiny_inputs, tiny_unet
from torch import nn

from bayesdiff.arms.gaussian import draw_weights, make_bayesian, use_mean
from bayesdiff.config.schema import BnnConf, MethodConf
from bayesdiff.core.errors import UserError
from bayesdiff.core.seeds import generator
from bayesdiff.methods import oft

CONF = MethodConf("oft", 1e-4, rank=2)
BNN = BnnConf("gaussian", sigma_init=0.1)


def adapted(conf: MethodConf = CONF) -> UNet2DConditionModel:
    unet = tiny_unet()
    oft.build({"unet": unet}, conf, 0)
    return unet


def moved(unet: nn.Module, size: float = 0.5) -> nn.Module:
    """Large rotations, where a series would no longer be one."""
    with torch.no_grad():
        for name, p in unet.named_parameters():
            if ".oft_R." in name:
                p.copy_(size * torch.randn(p.shape, generator=generator(0, name)))
    return unet


def output(unet: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return unet(**tiny_inputs()).sample


def effective_weight(module: nn.Module, base: nn.Linear) -> torch.Tensor:
    """The matrix that the adapted layer multiplies with."""
    with torch.no_grad():
        shift = base.bias if base.bias is not None else 0.0
        return (module(torch.eye(base.in_features)) - shift).T


def test_only_the_rotations_are_trained() -> None:
    unet = tiny_unet()
    trained = oft.build({"unet": unet}, CONF, 0)
    assert len(trained) == 32
    assert {id(p) for p in trained} == {id(p) for n, p in unet.named_parameters() if ".oft_R." in n}
    assert all(p.shape[0] == CONF.rank for p in trained)


def test_the_adapter_starts_as_the_identity() -> None:
    assert torch.equal(output(adapted()), output(tiny_unet()))
    assert not torch.equal(output(moved(adapted())), output(tiny_unet()))


def test_the_rotation_is_block_diagonal_and_orthogonal_however_far_it_is() -> None:
    unet = moved(adapted())
    for name, base in tiny_unet().named_modules():
        if name.endswith(("attn1.to_q", "attn2.to_k")):
            rotated = effective_weight(unet.get_submodule(name), base)
            inputs = base.in_features
            rotation = torch.linalg.lstsq(base.weight, rotated).solution if base.out_features >= inputs else None
            torch.testing.assert_close(rotated @ rotated.T, (base.weight @ base.weight.T).detach(), rtol=0, atol=1e-5)
            if rotation is not None:
                torch.testing.assert_close(rotation.T @ rotation, torch.eye(inputs), rtol=0, atol=1e-4)
                blocks = torch.block_diag(*[torch.ones(inputs // CONF.rank, inputs // CONF.rank)] * CONF.rank)
                assert float((rotation * (1 - blocks)).abs().max()) < 1e-4


def test_r_r_transposed_is_the_identity_within_1e_5() -> None:
    for size in (0.01, 1.0, 3.0):
        unet = moved(adapted(), size)
        rotations = [module.get_weight().detach() for name, module in unet.named_modules() if name.endswith(".oft_R.default")]
        assert len(rotations) == 32
        for r in rotations:
            torch.testing.assert_close(r @ r.T, torch.eye(len(r)), rtol=0, atol=1e-5)


def test_the_draw_is_one_although_the_layer_reads_its_weight_often() -> None:
    unet = adapted()
    layers = make_bayesian(unet, oft.bayesian_targets(unet, BNN), BNN, oft.SIGMA_SCALE)
    draw_weights(layers, 0, 0)
    assert torch.equal(output(unet), output(unet))
    assert not torch.equal(output(unet), output(tiny_unet()))
    use_mean(layers)
    assert torch.equal(output(unet), output(tiny_unet()))


def skew_part(rotation: torch.Tensor) -> torch.Tensor:
    """The skew matrix of a Cayley rotation (up to its sign), (I + Q)(I - Q)^-1 solved for Q."""
    one = torch.eye(len(rotation))
    return torch.linalg.solve(rotation + one, rotation - one, left=False)


def test_sigma_on_the_skew_entries_is_that_of_the_released_codes_full_matrix() -> None:
    """Read off the rotations that peft makes of a draw: what it does with the numbers it stores is seen, not assumed."""
    unet, bnn = adapted(), BnnConf("gaussian", sigma_init=0.01)
    draw_weights(make_bayesian(unet, oft.bayesian_targets(unet, BnnConf(layers="all")), bnn, oft.SIGMA_SCALE), 0, 0)
    entries = []
    for name, module in unet.named_modules():
        if name.endswith(".oft_R.default"):
            rotation = module.get_weight().detach()
            side = len(rotation) // CONF.rank
            for start in range(0, len(rotation), side):
                block = skew_part(rotation[start : start + side, start : start + side])
                torch.testing.assert_close(block, -block.T, rtol=0, atol=1e-6)
                entries.append(block[torch.triu_indices(side, side, 1).unbind()])
    full = 0.01 * torch.randn(200_000, 2, generator=generator(0, "full matrix"))  # of which the released code takes 0.5 (R - R^T)
    assert float(torch.cat(entries).std()) == pytest.approx(float((0.5 * (full[:, 0] - full[:, 1])).std()), rel=0.05)


def test_the_bayesian_rotations_are_those_of_the_up_blocks_or_all() -> None:
    unet = adapted()
    up, everything = (oft.bayesian_targets(unet, BnnConf(layers=layers)) for layers in ("default", "all"))
    assert len(everything) == 32
    assert up == oft.bayesian_targets(unet, BnnConf(layers="up_blocks")) == [n for n in everything if n.startswith("up_blocks.")]
    assert any(n.startswith("mid_block.") for n in everything)
    with pytest.raises(UserError, match=r"bnn\.layers='conv'.*up_blocks, all"):
        oft.bayesian_targets(unet, BnnConf(layers="conv"))


def test_stable_diffusion_has_72_bayesian_projections_in_18_processors() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768).requires_grad_(False)
        oft.build({"unet": unet}, MethodConf("oft", 1e-4), 0)
    names = oft.bayesian_targets(unet, BNN)
    assert len(names) == 72
    assert len({name.rpartition(".to_")[0] for name in names}) == 18
    assert len(oft.bayesian_targets(unet, BnnConf(layers="all"))) == 128


@pytest.mark.parametrize(("targets", "size"), [(["conv1"], "3×3"), (["proj_in"], "1×1"), (["to_q", "conv_in"], "3×3")])
def test_convolutions_are_refused_with_the_reason(targets: list[str], size: str) -> None:
    with pytest.raises(UserError, match=rf"method\.targets: .* is a {size} convolution"):
        adapted(MethodConf("oft", 1e-4, rank=2, targets=targets))


def test_a_number_of_blocks_that_does_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match=r"method\.rank=3: does not divide the \d+ inputs of "):
        adapted(MethodConf("oft", 1e-4, rank=3))


def test_merged_equals_unmerged() -> None:
    unet = moved(adapted())
    unmerged = output(unet)
    for module in unet.modules():
        if isinstance(module, BaseTunerLayer):
            module.merge()
    torch.testing.assert_close(output(unet), unmerged, rtol=0, atol=1e-5)


def test_the_export_is_a_folder_that_stock_peft_reads(tmp_path: Path) -> None:
    unet = moved(adapted())
    make_bayesian(unet, oft.bayesian_targets(unet, BNN), BNN, oft.SIGMA_SCALE)
    oft.export({"unet": unet}, tmp_path)
    stock = PeftModel.from_pretrained(tiny_unet(), str(tmp_path / "unet"))
    assert torch.equal(output(stock), output(unet))
    assert OFTConfig.from_pretrained(str(tmp_path / "unet")).use_cayley_neumann is False
