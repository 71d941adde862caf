"""The fused kernels draw what the plain operations draw, and where they do not, nothing uses them."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bayesdiff import arms
from bayesdiff.arms import draws
from bayesdiff.arms.draws import GAMMA, MIX_1, MIX_2, counter_normal
from bayesdiff.arms.gaussian import make_bayesian
from bayesdiff.config.schema import BnnConf, Sigma, SigmaParametrization

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Kernels are chosen on the CPU as on a GPU, anew."""
    draws._verified.cache_clear()
    monkeypatch.setattr(draws, "_kernels", lambda out: draws._verified(out.device))
    yield
    draws._verified.cache_clear()


def plain(starts: list[int], size: int, keys: list[int], monkeypatch: pytest.MonkeyPatch, device: Any = CPU) -> torch.Tensor:
    """What the plain operations draw."""
    out = torch.empty(size, device=device)
    with monkeypatch.context() as patch:
        patch.setattr(draws, "_kernels", lambda out: None)
        counter_normal(out, starts, keys)
    return out


LAYOUTS = [
    ([0], 16, [7]), ([0, 16, 80], 96, [5, 2**63 - 1, 0]), ([0, 16, 16, 2080, 4144], 9_984, [1, 2, 3, 2**62, 2**63 - 1]),
    ([0, 2048, 4096], 4112, [2**63 - 1, 2**63 - 2, 12345678901234567]),
]  # fmt: skip
"""Starts, lengths and keys: slices of a block, none, just a tile, a block more than a tile, and several."""


def equal_draws(monkeypatch: pytest.MonkeyPatch, device: Any) -> None:
    for starts, size, keys in LAYOUTS:
        out = torch.full((size,), float("nan"), device=device)
        counter_normal(out, starts, keys)
        assert draws._same_bits(out, plain(starts, size, keys, monkeypatch, device)), starts


def equal_weights(monkeypatch: pytest.MonkeyPatch, device: Any) -> None:
    """Layers drawn whole, with and without the kernels."""
    for sigma in Sigma:
        for kind in SigmaParametrization:
            with device:
                model = nn.Sequential(nn.Linear(70, 90), nn.Tanh(), nn.Linear(90, 3))
            conf = BnnConf("gaussian", sigma_init=0.1, sigma=sigma, sigma_parametrization=kind)
            draw = make_bayesian(model, ["0", "2"], conf)[0].gaussian.draw
            draw.by_slice = False
            found = []
            for choice in (draws._kernels, lambda out: None):
                with monkeypatch.context() as patch:
                    patch.setattr(draws, "_kernels", choice)
                    draw.weights.fill_(float("nan"))
                    draw.new([2**63 - 1, 3, 2**62, 0])
                found.append(draw.weights.clone())
            assert draws._same_bits(*found), (sigma, kind)


def spied(monkeypatch: pytest.MonkeyPatch, device: Any) -> list[str]:
    """The names of kernels that are asked from now on."""
    kernels, asked = draws._verified(device), []
    for name in ("uniform", "scaled"):
        real = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda *given, name=name, real=real: (asked.append(name), real(*given)))
    return asked


def test_interpreted_kernels_draw_what_the_plain_operations_draw(chosen: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, because Triton asks once whether it is to interpret."""
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__, "-k", "interpreted"]
        done = subprocess.run(words, cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        assert "1 passed" in done.stdout
        return
    asked = spied(monkeypatch, CPU)
    equal_draws(monkeypatch, CPU)
    equal_weights(monkeypatch, CPU)
    assert asked.count("uniform") == len(LAYOUTS) + len(Sigma) * len(SigmaParametrization)
    assert asked.count("scaled") == 2 * len(SigmaParametrization), "sigma of a tensor, trained or fixed"


@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_for_cards_that_are_not_here(capability: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from bayesdiff.arms import fused

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tables = {"places": "*i64", "owners": "*i32"}
    constants = {"SCALE": draws.SCALE, "GAMMA": GAMMA, "MIX_1": MIX_1, "MIX_2": MIX_2, "TILE": fused.TILE}
    for kernel, pointers, fixed in (
        (fused._write_uniform, {"out": "*i64", "bases": "*i64", **tables}, constants),
        (fused._write_scaled, {"out": "*fp32", "eps": "*fp32", "sigmas": "*fp32", **tables}, {"STRIDE": 16, "TILE": fused.TILE}),
    ):
        signature = {name: pointers.get(name, "constexpr") for name in kernel.arg_names}
        made = triton.compile(ASTSource(kernel, signature, fixed), target=GPUTarget("cuda", capability, 32))
        assert "shr.s64" not in made.asm["ptx"], "shifts are logical"
        assert "fma" not in made.asm["ptx"], "every product is rounded"
        assert made.asm["cubin"]


def right(out: torch.Tensor, starts: list[int], bases: torch.Tensor, *_: Any) -> None:
    draws._uniform(out, starts, bases.tolist())


def raising(*_: Any) -> None:
    raise RuntimeError("Failed to find C compiler.\nAnd more.")


def one_bit_off(out: torch.Tensor, starts: list[int], bases: torch.Tensor, *_: Any) -> None:
    right(out, starts, bases)
    out[-1:].view(torch.int32).bitwise_xor_(1)


def nearly(out: torch.Tensor, eps: torch.Tensor, sigmas: torch.Tensor, starts: list[int]) -> None:
    out.copy_(eps)


FAULTY = {
    "Failed to find C compiler.$": SimpleNamespace(uniform=raising), "their draw is another one": SimpleNamespace(uniform=one_bit_off),
    "their products are other ones": SimpleNamespace(uniform=right, scaled=nearly),
}  # fmt: skip


@pytest.mark.parametrize("why", FAULTY)
def test_kernels_that_fail_or_draw_otherwise_are_not_used_and_are_told_once(
    chosen: None, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(arms, "fused", FAULTY[why], raising=False)
    _drawn_plainly_with_a_warning(why, monkeypatch)


def test_without_triton_the_plain_operations_draw(chosen: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(arms, "fused", raising=False)
    monkeypatch.delitem(sys.modules, "bayesdiff.arms.fused", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    _drawn_plainly_with_a_warning("import of triton halted", monkeypatch)


def _drawn_plainly_with_a_warning(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = torch.empty(96)
    with pytest.warns(UserWarning, match=f"cpu: Gaussian weights are drawn without the fused kernels, which takes longer: .*{why}") as told:
        counter_normal(out, [0, 16], [3, 4])
    assert len(told) == 1
    assert torch.equal(out, plain([0, 16], 96, [3, 4], monkeypatch))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counter_normal(out, [0, 16], [3, 4])


def test_nothing_of_triton_is_asked_off_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "_verified", lambda device: pytest.fail("kernels were asked for"))
    for device in ("cpu", "meta"):
        counter_normal(torch.empty(32, device=device), [0], [1])


@pytest.mark.gpu
def test_a_gpu_draws_by_kernels_what_the_plain_operations_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.empty(0, device="cuda").device
    draws._verified.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked = spied(monkeypatch, device)
    equal_draws(monkeypatch, device)
    assert len(asked) == len(LAYOUTS)
    equal_weights(monkeypatch, device)
    assert "scaled" in asked
    size = 50_000_000
    long = torch.empty(size, device=device)
    counter_normal(long, [0, 16_000_000], [5, 2**63 - 1])
    assert draws._same_bits(long, plain([0, 16_000_000], size, [5, 2**63 - 1], monkeypatch, device))
