"""What the U-Net is told where it is told no text: the very tensors that guidance starts from, on every published structure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import Make, load
from twins import SIDE, TWINS, build_twin

from bayesdiff.diffusion import batch
from bayesdiff.diffusion.batch import Conditioning, encode_pictures
from bayesdiff.diffusion.texts import told
from bayesdiff.runs.probing import pretrained_losses
from bayesdiff.training import probes
from bayesdiff.training.loop import prepare


def of_guidance(pipe: Any) -> dict[str, torch.Tensor]:
    """What the stock pipeline is given for the unconditional half of a guided sample, by the names of ``Conditioning``."""
    given = told(pipe, ["a photo"], True, {})
    pooled = {"text_embeds": given["negative_pooled_prompt_embeds"]} if "negative_pooled_prompt_embeds" in given else {}
    return {"states": given["negative_prompt_embeds"], **pooled}


def differing(found: Conditioning, expected: dict[str, torch.Tensor]) -> list[str]:
    has = {"states": found.states, **{name: value for name, value in found.added.items() if name != "time_ids"}}
    assert has.keys() == expected.keys()
    return [name for name in expected if not torch.equal(has[name], expected[name])]


@pytest.mark.parametrize("name", TWINS)
def test_training_and_probes_are_told_what_guidance_starts_from(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pipe, seen, real = load(build_twin(name, tmp_path)), list[Conditioning](), probes.probe

    def watched(unet: Any, schedule: Any, latents: Any, text: Any, empty: Conditioning, seed: int) -> Any:
        seen.append(empty)
        return real(unet, schedule, latents, text, empty, seed)

    monkeypatch.setattr(probes, "probe", watched)
    cfg = make_config("+experiment=smoke", "bnn=prompt_dropout", f"model.resolution={SIDE}")
    picture = Image.new("RGB", (SIDE, SIDE), "red")
    state: Any = prepare(pipe, cfg, encode_pictures(pipe, [picture], "a photo of qwe backpack"), None)
    pretrained_losses(state, cfg)
    expected = of_guidance(pipe)
    assert differing(state.arm.empty, expected) == []
    assert differing(seen[0], expected) == []


def test_sdxls_sizes_stay(tmp_path: Path) -> None:
    """The pipeline tells both halves of a guided sample the same sizes."""
    found = batch.encode_unconditional(load(build_twin("sdxl", tmp_path)), SIDE)
    assert float(found.states.abs().max()) == float(found.added["text_embeds"].abs().max()) == 0
    assert found.added["time_ids"].tolist() == [[SIDE, SIDE, 0, 0, SIDE, SIDE]]


def test_a_pipeline_that_asks_for_no_zeros_has_its_empty_prompt(tmp_path: Path) -> None:
    pipe = load(build_twin("sdxl", tmp_path))
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    found = batch.encode_unconditional(pipe, SIDE)
    assert float(found.states.abs().max()) > 0
    assert differing(found, of_guidance(pipe)) == []
