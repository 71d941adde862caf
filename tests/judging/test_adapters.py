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


def test_numbers_of_a_lora_that_find_no_place_are_not_left_out_in_silence(twin: Path, adapters: Path) -> None:
    file = adapters / "step-2" / "pytorch_lora_weights.safetensors"
    save_file({**load_file(file), "unet.no_such_layer.to_q.lora_A.weight": torch.ones(2, 8)}, file)
    pipe = load_pipeline(ModelConf("twin", str(twin), resolution=64), torch.device("cpu"))
    (one,) = [one for one in find_checkpoints(adapters).found if one.kind == "lora"]
    with pytest.raises(UserError, match=r"step-2: .*correct --model"), weights_in(pipe, one):
        pass


def test_peft_reads_what_the_test_wrote(adapters: Path, twin: Path) -> None:
    """The adapter of these tests is one that stock peft loads."""
    assert PeftModel.from_pretrained(UNet2DConditionModel.from_pretrained(twin / "unet"), adapters / "step-1")
