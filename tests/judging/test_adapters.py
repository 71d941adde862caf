"""Checkpoints of every kind go into the base model whole, and come out of it without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import PeftModel
from safetensors.torch import load_file, save_file
from twins import build_twin

from bayesdiff.config.schema import ModelConf
from bayesdiff.core.errors import UserError
from bayesdiff.diffusion.pipeline import load_pipeline
from bayesdiff.judging.adapters import weights_in
from bayesdiff.judging.checkpoints import find_checkpoints


def state(pipe: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in pipe.unet.state_dict().items()}


def test_every_kind_gives_the_same_model_and_leaves_the_base_model_as_it_was(twin: Path, adapters: Path) -> None:
    pipe = load_pipeline(ModelConf("twin", str(twin), resolution=64), torch.device("cpu"))
    before, found = state(pipe), find_checkpoints(adapters).found
    inputs = {"sample": torch.randn(1, 4, 8, 8), "timestep": 500, "encoder_hidden_states": torch.randn(1, 5, 16)}
    with torch.no_grad():
        base, given = pipe.unet(**inputs).sample, []
        for one in (*found, *found):
            with weights_in(pipe, one):
                given.append(pipe.unet(**inputs).sample)
            after = state(pipe)
            assert after.keys() == before.keys()
            assert all(torch.equal(after[key], before[key]) for key in before), one.kind
            assert torch.equal(pipe.unet(**inputs).sample, base)
    assert [one.kind for one in found] == ["peft", "lora", "full"]
    for other in given[1:]:
        torch.testing.assert_close(other, given[0], atol=2e-5, rtol=1e-4)
    assert not torch.allclose(given[0], base, atol=1e-2)


def test_a_checkpoint_of_another_model_is_refused(twin: Path, adapters: Path, tmp_path: Path) -> None:
    pipe = load_pipeline(ModelConf("twin", str(build_twin("sd21", tmp_path / "other")), resolution=64), torch.device("cpu"))
    before = state(pipe)
    pipe.unet.register_to_config(cross_attention_dim=32)
    shrunk = UNet2DConditionModel(**{**pipe.unet.config, "cross_attention_dim": 8})
    pipe.unet = shrunk
    for one in find_checkpoints(adapters).found:
        with pytest.raises(UserError, match=r"^step-\d: .*correct --model$"), weights_in(pipe, one):
            pass
    assert len(before) > 0


def test_halves_are_computed_with_in_single_precision(twin: Path, adapters: Path) -> None:
    file = adapters / "step-2" / "pytorch_lora_weights.safetensors"
    save_file({key: value.half() for key, value in load_file(file).items()}, file)
    pipe = load_pipeline(ModelConf("twin", str(twin), resolution=64), torch.device("cpu"))
    (one,) = [one for one in find_checkpoints(adapters).found if one.kind == "lora"]
    with weights_in(pipe, one):
        assert {parameter.dtype for parameter in pipe.unet.parameters()} == {torch.float32}


def test_numbers_of_a_lora_that_find_no_place_are_not_left_out_in_silence(twin: Path, adapters: Path) -> None:
    file = adapters / "step-2" / "pytorch_lora_weights.safetensors"
    save_file({**load_file(file), "unet.no_such_layer.to_q.lora_A.weight": torch.ones(2, 8)}, file)
    pipe = load_pipeline(ModelConf("twin", str(twin), resolution=64), torch.device("cpu"))
    (one,) = [one for one in find_checkpoints(adapters).found if one.kind == "lora"]
    with pytest.raises(UserError, match=r"step-2: .*correct --model"), weights_in(pipe, one):
        pass


def kohyas_sdxl() -> dict[str, str]:
    """Some layers of SDXL by kohya's names (blocks as in Stability's own code), and by those of diffusers."""
    found = {}
    for block, ours in (("input_blocks_4_1", "down_blocks.1.attentions.0"), ("input_blocks_8_1", "down_blocks.2.attentions.1"),
                        ("middle_block_1", "mid_block.attentions.0"), ("output_blocks_5_1", "up_blocks.1.attentions.2")):  # fmt: skip
        for layer in ("transformer_blocks_0_attn1_to_q", "transformer_blocks_1_attn2_to_out_0"):
            number, attention, rest = layer.split("_")[2], layer.split("_")[3], layer.partition("attn")[2][2:]
            name = {"to_q": "to_q", "to_out_0": "to_out.0"}[rest]
            found[f"lora_unet_{block}_{layer}"] = f"unet.{ours}.transformer_blocks.{number}.{attention}.{name}"
    for encoder, part in (("te1", "text_encoder"), ("te2", "text_encoder_2")):
        for place, layer in (
            ("self_attn_q_proj", "self_attn.q_proj"),
            ("self_attn_out_proj", "self_attn.out_proj"),
            ("mlp_fc1", "mlp.fc1"),
        ):
            found[f"lora_{encoder}_text_model_encoder_layers_1_{place}"] = f"{part}.text_model.encoder.layers.1.{layer}"
    return found


def kohyas_sd15() -> dict[str, str]:
    """Some layers of Stable Diffusion 1.5, a convolution and the text encoder among them."""
    return {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_0_proj":
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj",
        "lora_unet_up_blocks_1_attentions_2_proj_in": "unet.up_blocks.1.attentions.2.proj_in",
        "lora_unet_mid_block_resnets_0_conv1": "unet.mid_block.resnets.0.conv1",
        "lora_te_text_model_encoder_layers_0_self_attn_v_proj": "text_encoder.text_model.encoder.layers.0.self_attn.v_proj",
        "lora_te_text_model_encoder_layers_0_self_attn_out_proj": "text_encoder.text_model.encoder.layers.0.self_attn.out_proj",
    }  # fmt: skip


@pytest.mark.parametrize(("model", "names"), [("sd15", kohyas_sd15()), ("sdxl", kohyas_sdxl())], ids=["sd15", "sdxl"])
def test_kohyas_names_of_layers_are_those_of_the_model(model: str, names: dict[str, str], tmp_path: Path) -> None:
    """Every layer of the U-Net and of the text encoders gets exactly (alpha / rank) · up · down."""
    pipe = load_pipeline(ModelConf(model, str(build_twin(model, tmp_path / "twin")), resolution=64), torch.device("cpu"))
    rank, alpha, g = 2, 1.0, torch.Generator().manual_seed(0)
    stored, wanted = {}, {}
    for theirs, ours in names.items():
        weight = pipe.unet.get_submodule(ours[5:]).weight if ours.startswith("unet.") else layer_of(pipe, ours).weight
        wide, kernel = weight.shape[1:2], weight.shape[2:]
        down, up = torch.randn(rank, *wide, *kernel, generator=g), torch.randn(weight.shape[0], rank, *([1] * len(kernel)), generator=g)
        stored |= {f"{theirs}.lora_down.weight": down, f"{theirs}.lora_up.weight": up, f"{theirs}.alpha": torch.tensor(alpha)}
        wanted[ours] = alpha / rank * torch.einsum("or,r...->o...", up.flatten(1), down)
    save_file(stored, tmp_path / "a-step00000100.safetensors")
    (one,) = find_checkpoints(tmp_path).found
    with weights_in(pipe, one):
        for ours, delta in wanted.items():
            layer = layer_of(pipe, ours)
            torch.testing.assert_close(layer.get_delta_weight(layer.active_adapters[0]), delta, atol=1e-5, rtol=1e-4)
    assert not [name for name, _ in pipe.unet.named_parameters() if "lora" in name]
    assert not [name for name, _ in pipe.text_encoder.named_parameters() if "lora" in name]


def layer_of(pipe: StableDiffusionPipeline, name: str) -> torch.nn.Module:
    part, _, rest = name.partition(".")
    model = getattr(pipe, part)
    try:
        return model.get_submodule(rest)
    except AttributeError:  # newer versions of transformers have no level text_model
        return model.get_submodule(rest.removeprefix("text_model."))


def test_peft_reads_what_the_test_wrote(adapters: Path, twin: Path) -> None:
    """The adapter of these tests is one that stock peft loads."""
    assert PeftModel.from_pretrained(UNet2DConditionModel.from_pretrained(twin / "unet"), adapters / "step-1")
