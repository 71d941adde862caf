"""The wide base: its size, its captions, and its command on a tiny network."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from bayesdiff.config.schema import ModelConf
from bayesdiff.diffusion.pipeline import load_pipeline
from bayesdiff.pretraining import wide
from bayesdiff.pretraining.denoiser import Denoiser
from bayesdiff.pretraining.wide import TINY, Size, build, build_unet, drawn_loss

CPU = torch.device("cpu")


def test_the_wide_net_has_cross_attention_everywhere_and_eight_times_the_weights() -> None:
    with torch.device("meta"):
        unet = build_unet(Size())
    assert 8 * 5.4e6 < sum(p.numel() for p in unet.parameters()) < 46e6
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        assert any("attn2" in name for name, _ in block.named_modules())


def test_the_loss_mixes_full_short_and_empty_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(wide, "denoising_loss", lambda model, scheduler, latents, tokens, g: seen.append(tokens) or torch.zeros(()))
    tokens = torch.arange(3)[:, None, None].expand(3, 5, 28).clone()
    torch.manual_seed(0)
    drawn_loss(Denoiser(), torch.zeros(5, 4, 32, 32, dtype=torch.half), tokens, 4000)()
    shares = torch.bincount(seen[0][:, 0], minlength=3) / 4000
    assert shares.tolist() == pytest.approx([0.7 * 0.95, 0.3 * 0.95, 0.05], abs=0.03)


def test_the_loss_falls_on_one_batch() -> None:
    model = build(TINY)
    latents = torch.randn(4, 4, 32, 32, generator=torch.Generator().manual_seed(0)).half()
    loss = drawn_loss(model, latents, torch.full((3, 4, 28), 5), 4)
    optimizer, found = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for step in range(12):
        torch.manual_seed(0)
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        found.append(float(value.detach()))
        assert step == 0 or found[-1] < 1.5 * found[0]
    assert found[-1] < 0.9 * found[0]


def test_the_command_trains_goes_on_and_writes_a_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide, "measured_gaps", partial(wide.measured_gaps, count=2))
    monkeypatch.setattr(wide, "sample_sheet", lambda root, file, device: file.write_bytes(b""))

    def run(steps: int) -> dict[str, object]:
        options = f"--tiny --images 6 --batch 2 --steps {steps} --device cpu --work {tmp_path / 'work'} --output {tmp_path / 'out'}"
        monkeypatch.setattr(sys, "argv", ["wide", *options.split(), "--parts", str(tmp_path / "parts")])
        wide.main()
        return json.loads((tmp_path / "parts" / "pretraining.json").read_text())

    first, second = run(2), run(3)
    assert (first["step"], second["step"]) == (2, 3)
    assert len(second["log"]) == 2  # type: ignore[arg-type]
    assert {row["captions"] for row in second["gaps"]} == {"caption", "full", "other"}  # type: ignore[attr-defined]
    assert list((tmp_path / "parts").glob("weights-*.safetensors"))
    pipe = load_pipeline(ModelConf(name="wide", path=str(tmp_path / "out"), resolution=64), CPU)
    assert pipe.unet.config.cross_attention_dim == 32


def test_a_command_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["wide", "--output", "x"])
    with pytest.raises(SystemExit):
        wide.main()
    assert "--minutes" in capsys.readouterr().err
