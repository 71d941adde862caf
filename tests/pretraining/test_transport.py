"""Weights in parts: what comes out is what went in, but for a rounding of known size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from bayesdiff.core.errors import UserError
from bayesdiff.pretraining import transport
from bayesdiff.pretraining.transport import pack, quantised, restored, unpack


@pytest.mark.parametrize("shape", [(3, 5), (64, 32, 3, 3), (1, 1)])
def test_a_weight_is_rounded_by_half_a_step_at_most(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.03
    integers, scale = quantised(weight)
    back = restored(integers, scale).float()
    assert integers.dtype == torch.int8
    assert back.shape == weight.shape
    assert float((back - weight).abs().max()) <= 0.51 * float(scale.max()) + 1e-4 * float(weight.abs().max()) + 1e-4 * 0.03 * 5
    assert torch.count_nonzero(restored(*quantised(torch.zeros(shape)))) == 0


def test_a_pipeline_survives_the_journey(random_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PART_BYTES", 2**15)
    files = pack(random_pipeline, tmp_path / "parts")
    assert len(files) > 2
    assert max(file.stat().st_size for file in files) < 2 * 2**15  # with its header
    unpack(tmp_path / "parts", tmp_path / "back")
    for part, name in transport.WEIGHTS.items():
        before, after = (load_file(root / part / name) for root in (random_pipeline, tmp_path / "back"))
        assert before.keys() == after.keys()
        for key, value in before.items():
            assert after[key].dtype == value.dtype
            assert float((after[key] - value).float().abs().max()) <= 0.005 * float(value.float().abs().max())
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "back", safety_checker=None, local_files_only=True)
    assert pipe.scheduler.config.prediction_type == "epsilon"


def test_a_missing_part_is_named(random_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PART_BYTES", 2**15)
    pack(random_pipeline, tmp_path)[0].unlink()
    with pytest.raises(UserError, match="copy all of them"):
        unpack(tmp_path, tmp_path / "back")
