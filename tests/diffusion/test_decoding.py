"""Decoding takes as many images at once as fit a bound, and stays in float32 whatever surrounds it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from tiny import load, thin_vae
from torch._subclasses.fake_tensor import FakeTensorMode
from twins import build_twin

from bayesdiff.diffusion import decoding
from bayesdiff.diffusion.decoding import HELD, MOST_BYTES, decoded_in_parts, images_at_once
from bayesdiff.runs.sizing import PeakMemory

PUBLISHED: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4, "latent_channels": 4,
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2,
}  # fmt: skip
"""The shape of the decoders of Stable Diffusion and SDXL."""


@pytest.mark.parametrize(("side", "together"), [(64, 3), (128, 1), (256, 1)])
def test_published_decoders_stay_below_the_bound(side: int, together: int) -> None:
    """512 pixels: three at once; 1,024 and more: one."""
    with FakeTensorMode(), torch.no_grad():
        vae = AutoencoderKL(**PUBLISHED).eval()
        count = images_at_once(vae, side, side)
        with PeakMemory() as memory:
            vae.decode(torch.zeros(count, 4, side, side))
    assert count == together
    assert memory.peak < (MOST_BYTES if count > 1 else HELD * 256 * (8 * side) ** 2 * 4)


def test_the_toybox_is_decoded_in_one_piece() -> None:
    vae = SimpleNamespace(config=SimpleNamespace(block_out_channels=(32, 64)))
    assert images_at_once(vae, 32, 32) >= 100


def test_parts_are_the_batch_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, sizes = thin_vae().eval(), []
    latents = torch.randn(5, 4, 8, 8)
    vae.decoder.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    with torch.no_grad():
        whole = vae.decode(latents).sample
        monkeypatch.setattr(decoding, "images_at_once", lambda *_: 2)
        with decoded_in_parts(vae):
            torch.testing.assert_close(vae.decode(latents).sample, whole, rtol=1e-5, atol=1e-5)
            assert torch.equal(vae.decode(latents, return_dict=False)[0], vae.decode(latents).sample)
    assert sizes == [5, *[2, 2, 1] * 3]
    assert "decode" not in vars(vae)


def test_one_part_is_the_decoder_itself() -> None:
    vae, latents = thin_vae().eval(), torch.randn(3, 4, 8, 8)
    with torch.no_grad(), decoded_in_parts(vae):
        inside = vae.decode(latents).sample
    with torch.no_grad():
        assert torch.equal(inside, vae.decode(latents).sample)


def test_sdxls_decoder_stays_in_float32(tmp_path: Path) -> None:
    """Its configuration says ``force_upcast``: in fp16 it overflows."""
    pipe, seen = load(build_twin("sdxl", tmp_path)), set()
    assert pipe.vae.config.force_upcast
    assert {p.dtype for p in pipe.vae.parameters()} == {torch.float32}
    for module in pipe.vae.decoder.modules():
        module.register_forward_hook(lambda _, __, out: seen.add(out.dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), decoded_in_parts(pipe.vae):
        pipe.vae.decode(torch.randn(2, 4, 8, 8))
    assert seen == {torch.float32}
