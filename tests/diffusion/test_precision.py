"""The arithmetic that a run asks for is what torch is told, whatever it was told before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tiny import Make, tiny_unet

from bayesdiff.diffusion.precision import use_arithmetic


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("words", "wanted"), [([], False), (["training.tf32=true"], True)])
def test_products_and_convolutions_round_alike(make_config: Make, words: list[str], wanted: bool, before: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, before
    use_arithmetic(tiny_unet(), make_config("+experiment=smoke", *words).training)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (wanted, wanted)


def test_channels_last_is_the_layout_of_the_weights(make_config: Make) -> None:
    for words, layout in ([], torch.contiguous_format), (["training.channels_last=true"], torch.channels_last):
        unet = tiny_unet()
        use_arithmetic(unet, make_config("+experiment=smoke", *words).training)
        assert unet.conv_in.weight.is_contiguous(memory_format=layout)
