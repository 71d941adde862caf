"""Flat draws: the numbers of committed records on the CPU, a counter's numbers elsewhere, few launches and little memory."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from launches import step_on_meta
from scipy import stats
from tiny import METHOD_NAMES, RANKED, Make, differing, silent, tiny_training, weights
from torch import nn

from bayesdiff.arms import draws, gaussian
from bayesdiff.arms.draws import GAMMA, MIX_1, MIX_2, counter_normal, signed
from bayesdiff.arms.gaussian import draw_weights, make_bayesian, rho_parameters
from bayesdiff.config.schema import BnnConf, Sigma, SigmaParametrization
from bayesdiff.core.seeds import derive
from bayesdiff.runs.sizing import PeakMemory
from bayesdiff.training.loop import Training, train

SIGMAS = ["per_weight", "per_row", "per_tensor", "fixed"]


class Plain(nn.Module):
    """The parametrisation that committed records were made with: autograd through mu + sigma · eps, layer by layer."""

    def __init__(self, made: gaussian.GaussianWeight):
        super().__init__()
        self.direct, self.eps = made.direct, None
        if isinstance(made.rho, nn.Parameter):
            self.rho = made.rho
        else:
            self.register_buffer("rho", made.rho)

    def forward(self, mean: torch.Tensor) -> torch.Tensor:
        sigma = self.rho if self.direct else nn.functional.softplus(self.rho)
        return mean if self.eps is None else torch.addcmul(mean, sigma, self.eps)


def made_plain(state: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exchange a run's parametrisations for the plain ones."""
    plain = {}
    for layer in state.layers:
        chain = layer.module.parametrizations[layer.parameter]
        plain[layer.name] = chain[0] = Plain(layer.gaussian)

    def draw(step: int) -> None:
        for layer in state.layers:
            module = plain[layer.name]
            if module.direct:
                module.rho.data.clamp_(min=draws.SMALLEST)
            seed = derive(state.arm.seed, f"weights/{layer.name}", step)
            module.eps = torch.empty(layer.mean.shape).normal_(generator=torch.Generator().manual_seed(seed))

    monkeypatch.setattr(state.arm, "before_step", draw)
    monkeypatch.setattr(state.arm, "after_training", lambda: None)


@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("arm", [[f"bnn.sigma={kind}"] for kind in SIGMAS] + [["bnn.sigma_parametrization=direct"]])
def test_on_the_cpu_training_has_the_bits_of_the_layer_by_layer_form(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, method: str, arm: list[str]
) -> None:
    cfg = make_config("+experiment=smoke", "bnn=on", *RANKED[method], *arm)
    flat, plain = tiny_training(cfg), tiny_training(cfg)
    made_plain(plain, monkeypatch)
    for state in (flat, plain):
        train(state, cfg, 0, 4, silent)
    assert differing(weights(flat), weights(plain)) == []
    assert differing(weights(flat), weights(tiny_training(cfg))) != []


def test_micro_batches_share_a_draw_whose_noise_is_made_again(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = make_config("+experiment=smoke", "bnn=on", "training.gradient_accumulation_steps=3")
    flat, plain = tiny_training(cfg), tiny_training(cfg)
    made_plain(plain, monkeypatch)
    for state in (flat, plain):
        train(state, cfg, 0, 3, silent)
    assert differing(weights(flat), weights(plain)) == []


def two_layers(**options: Any) -> tuple[nn.Sequential, list[gaussian.BayesianLayer]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))
    return model, make_bayesian(model, ["0", "2"], BnnConf("gaussian", sigma_init=0.1, **options))


@pytest.mark.parametrize("sigma", list(Sigma))
@pytest.mark.parametrize("kind", list(SigmaParametrization))
def test_whole_buffers_do_what_slices_do(monkeypatch: pytest.MonkeyPatch, sigma: Sigma, kind: SigmaParametrization) -> None:
    """What a GPU runs, on the CPU: the same noise gives the same weights and gradients, to rounding."""
    found = []
    x = torch.randn(4, 7, generator=torch.Generator().manual_seed(1))
    for by_slice in (True, False):
        model, layers = two_layers(sigma=sigma, sigma_parametrization=kind)
        draw = layers[0].gaussian.draw
        monkeypatch.setattr(draw, "_fill", lambda eps: eps.copy_(torch.linspace(-2, 2, len(eps))))
        draw.by_slice = by_slice
        draw_weights(layers, 0, 0)
        (model(x) ** 2).sum().backward()
        (model(x) ** 2).sum().backward()
        found.append([layer.mean.grad for layer in layers] + [rho.grad for rho in rho_parameters(layers)] + [model(x).detach()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_sigma_that_several_weights_share_stands_at_each_of_them() -> None:
    _, layers = two_layers(sigma=Sigma.per_row)
    draw = layers[0].gaussian.draw
    with torch.no_grad():
        for rho in draw.rhos:
            rho.copy_(torch.arange(rho.numel()).view(rho.shape))
    wide = draw._views(draw._wide(draw.rho))
    assert all(torch.equal(view, rho.expand_as(view)) for view, rho in zip(wide, draw.rhos, strict=True))


def splitmix(key: int, place: int) -> int:
    """SplitMix64's output function of the state ``key + place · GAMMA``, in integers without end."""
    z = (key + place * GAMMA) % 2**64
    z = (z ^ (z >> 30)) * MIX_1 % 2**64
    z = (z ^ (z >> 27)) * MIX_2 % 2**64
    return z ^ (z >> 31)


def test_the_mix_is_the_published_one() -> None:
    """First outputs of SplitMix64 from seed 1234567, as its reference code (Vigna, prng.di.unimi.it/splitmix64.c) gives them."""
    outputs = [splitmix(1234567, i + 1) for i in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("chunk", [2**27, 32])
def test_counters_are_splitmix64_by_slice_and_place(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(draws, "CHUNK", chunk)
    seen: list[torch.Tensor] = []
    mixed = draws._mixed
    monkeypatch.setattr(draws, "_mixed", lambda state: seen.append(mixed(state)) or seen[-1])
    starts, keys = [0, 16, 80], [5, 2**63 - 1, derive(0, "weights/a", 3)]
    counter_normal(torch.empty(96), starts, keys)
    expected = [
        signed(splitmix(key, i)) for start, stop, key in zip(starts, [16, 80, 96], keys, strict=True) for i in range((stop - start) // 2)
    ]
    assert torch.cat(seen).tolist() == expected


def test_counter_noise_is_normal_and_independent() -> None:
    out = torch.empty(400_000)
    counter_normal(out, [0, 200_000], [derive(0, "a"), derive(0, "b")])
    assert torch.isfinite(out).all()
    assert stats.kstest(out.numpy(), "norm").pvalue > 1e-3
    for lag in (1, 2, 3, 200_000):
        assert abs(float((out[lag:] * out[:-lag]).mean())) < 4 / (len(out) - lag) ** 0.5
    assert abs(float((out**4).mean()) - 3) < 0.1


@pytest.mark.parametrize("ends", [-(2**31), 2**31 - 1])
def test_the_ends_of_the_integers_are_finite(monkeypatch: pytest.MonkeyPatch, ends: int) -> None:
    monkeypatch.setattr(draws, "_mixed", lambda state: torch.full((2 * len(state),), ends, dtype=torch.int32).view(torch.int64))
    out = torch.empty(16)
    counter_normal(out, [0], [1])
    assert 5.2 < float(out.abs().max()) < 5.6


def test_counter_noise_of_a_slice_does_not_depend_on_its_place() -> None:
    alone, among = torch.empty(32), torch.empty(96)
    counter_normal(alone, [0], [7])
    counter_normal(among, [0, 48], [3, 7])
    assert torch.equal(alone, among[48:80])


ADDED = {
    ("dreambooth", "bnn=on"): 60, ("dreambooth", "bnn=weight_noise"): 60, ("dreambooth", "bnn=released"): 60,
    ("dreambooth", "bnn=on bnn.layers=norms"): 60, ("dreambooth", "bnn=on bnn.sigma=per_tensor"): 220,
    ("lora", "bnn=on"): 60, ("oft", "bnn=on"): 60,
}  # fmt: skip
"""Launch-like operations that an arm may add to a step at Stable Diffusion 1.5's shape; layer by layer ``bnn=on`` added 864.

A sigma that a tensor shares needs a sum a tensor, of which there are 144.
"""


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_gaussian_weights_add_few_launches(make_config: Make, method: str) -> None:
    off = step_on_meta(make_config("+experiment=smoke", f"method={method}", "bnn=off"))
    assert sum(off.counts.values()) > 2000
    for (owner, words), most in ADDED.items():
        if owner == method:
            on = step_on_meta(make_config("+experiment=smoke", f"method={method}", *words.split()))
            added = sum(on.counts.values()) - sum(off.counts.values())
            assert 10 < added <= most, (words, on.counts - off.counts)
            assert not on.waits


def peak_bytes(device: str, conf: BnnConf | None) -> tuple[int, int]:
    """Peak of two whole steps on a stack of linear layers, and the number of its weights."""
    with PeakMemory() as memory, torch.device(device):
        model = nn.Sequential(*(nn.Linear(256, 256, bias=False) for _ in range(8)))
        layers = [] if conf is None else make_bayesian(model, [str(i) for i in range(8)], conf)
        if layers:
            layers[0].gaussian.draw.by_slice = False
        optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
        for step in range(2):
            if layers:
                draw_weights(layers, 0, step)
            model(torch.ones(2, 256)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    return memory.peak, 8 * 256 * 256


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("sigma", "most"), [(Sigma.per_weight, 20), (Sigma.fixed, 15), (Sigma.per_tensor, 15)])
def test_gaussian_weights_add_few_bytes(monkeypatch: pytest.MonkeyPatch, device: str, sigma: Sigma, most: int) -> None:
    """In bytes a weight: the weights in use and the noise 4 each, rho 4, its moments 8.

    A sigma that weights share is widened while they are drawn: 4, and 8 for the places. The layer-by-layer form took 24.
    """
    monkeypatch.setattr(draws, "CHUNK", 2**12)
    plain, count = peak_bytes(device, None)
    bayesian, _ = peak_bytes(device, BnnConf("gaussian", sigma=sigma))
    assert most - 1.5 < (bayesian - plain) / count < most + 0.5


COLD_OR_WARM = """
import time, torch
from bayesdiff.arms.draws import Draw
torch.set_num_threads(1)
rho = torch.full((300_000,), -4.6)
{made}
def quickest(f):
    times = []
    for _ in range(9):
        begun = time.process_time()
        f()
        times.append(time.process_time() - begun)
    return min(times)
print(quickest(lambda: torch.nn.functional.softplus(rho)) / quickest(lambda: torch.exp(rho)), torch.nn.functional.softplus(rho[:1]).item())
"""


def softplus_over_exp(made: str) -> list[float]:
    """In a new process, whose pages of the library nobody read: the ratio of times, and a value."""
    words = [sys.executable, "-c", COLD_OR_WARM.format(made=made)]
    return [float(word) for word in subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()]


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="other kernels load no constant under a mask")
def test_softplus_is_quick_once_a_draw_was_made() -> None:
    """2 where log1p's rare constants were read, 17 where they never were. The value is the same.

    Another Xeon has 6 to 7 and 7 to 11: it hardly shows the fault, so that nothing can be told there but the value.
    """
    warm, value = min(softplus_over_exp("Draw(['one'], [torch.zeros(4)], [torch.zeros(4)], False)") for _ in range(3))
    cold, same = min(softplus_over_exp("") for _ in range(3))
    assert warm < 6 or cold < 12
    assert value == same
