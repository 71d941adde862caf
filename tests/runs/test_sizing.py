"""The memory of a run, worked out beforehand: counts by hand, figures of a GPU, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import Make, load
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from twins import build_twin

from bayesdiff import run
from bayesdiff.core.errors import UserError
from bayesdiff.runs import sizing
from bayesdiff.runs.sizing import ENCODERS, GB, PUBLISHED, PeakMemory, Sizes, report, sizes_of

PAPER = ("+experiment=paper", "data.subject=dog")


def test_a_peak_counts_each_memory_once_and_forgets_what_is_gone() -> None:
    with PeakMemory() as memory:
        kept = torch.zeros(1000)
        kept.view(10, 100)
        gone = torch.zeros(500)
        del gone
        torch.zeros(100)
    assert memory.peak == 4 * 1500


@pytest.mark.parametrize("arm", ["off", "on", "weight_noise"])
def test_the_toyboxs_parts_are_those_counted_by_hand(make_config: Make, arm: str) -> None:
    sizes = sizes_of(make_config("+experiment=corruption_curve", f"bnn={arm}"))
    weights, gaussian = 5_464_548, 2_305_920
    assert (sizes.weights, sizes.gradients) == (4 * weights, 4 * weights)
    trained_sigma = gaussian if arm == "on" else 0
    assert (sizes.sigmas, sizes.moments) == (4 * trained_sigma, 8 * (weights + trained_sigma))
    assert sizes.drawn == (0 if arm == "off" else 8 * gaussian)
    assert 0 < sizes.activations < 100e6


def test_other_things_that_are_kept_count(make_config: Make) -> None:
    plain = sizes_of(make_config("+experiment=corruption_curve"))
    ema = sizes_of(make_config("+experiment=corruption_curve", "bnn=ema", "+evaluations={ema:{weights:ema}}"))
    assert ema.averages == 2 * plain.gradients
    quantised = sizes_of(make_config("+experiment=corruption_curve", "training.optimizer=adamw_8bit"))
    assert quantised.moments * 4 == plain.moments


def counted(part: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


@pytest.mark.parametrize(("name", "method"), [("sd15", "dreambooth"), pytest.param("sdxl", "lora", marks=pytest.mark.slow)])
def test_trained_text_encoders_count_as_the_unet_does(make_config: Make, tmp_path: Path, name: str, method: str) -> None:
    """Against the twin's own parts, as they are loaded: what is frozen is the autoencoder alone."""
    model = [f"model={name}", f"model.path={build_twin(name, tmp_path)}", "model.resolution=64"]
    sizes = sizes_of(make_config("+experiment=smoke", *model, f"method={method}", "method.train_text_encoder=true"))
    pipe = load(tmp_path)
    weights = sum(counted(part) for part in (pipe.unet, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)) if part is not None)
    adapters = sizes.gradients if method == "lora" else 0
    assert (sizes.weights, sizes.frozen) == (4 * weights + adapters, 4 * counted(pipe.vae))
    assert sizes.gradients == (adapters or 4 * weights)
    assert (sizes.moments, sizes.activations > 0) == (2 * sizes.gradients, True)


def test_published_text_encoders_and_the_decoder_are_what_is_frozen() -> None:
    """The autoencoder of all of them has 83,653,863 weights."""
    kinds = (CLIPTextModel, CLIPTextModelWithProjection)
    for name, shapes in ENCODERS.items():
        with torch.device("meta"):
            encoders = [kind(CLIPTextConfig(**shape)) for kind, shape in zip(kinds, shapes, strict=False)]
        assert 83_653_863 + sum(map(counted, encoders)) == PUBLISHED[name][1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "measured"),
    [
        (["bnn=off"], 16.3),
        (["bnn=off", "training=gpu_24gb"], 15.2),
        (["method=lora", "training=gpu_24gb"], 7.0),
    ],
)
def test_at_the_true_size_they_are_a_gpus(make_config: Make, words: list[str], measured: float) -> None:
    """Peaks of one H100 80 GB, torch 2.11, in GB, U-Net of Stable Diffusion 1.5 with random weights."""
    assert sizes_of(make_config(*PAPER, *words)).total / GB == pytest.approx(measured, rel=0.12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "room"),
    [(["bnn=on", "training=gpu_24gb"], 24), (["bnn=on", "training=gpu_80gb", "model=sdxl"], 80)],
)
def test_a_recipe_fits_its_card(make_config: Make, words: list[str], room: int) -> None:
    assert sizes_of(make_config(*PAPER, *words)).total / GB + sizing.OF_CUDA < 0.9 * room


def on_a_card(monkeypatch: pytest.MonkeyPatch, total: float, room: float) -> None:
    made = Sizes(int(total * GB), 0, 0, 0, 0, 0, 0, 0)
    monkeypatch.setattr(sizing, "sizes_of", lambda _: made)
    monkeypatch.setattr(sizing, "choose_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, int(room * GB)))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "card")


def test_what_does_not_fit_the_card_is_refused(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_card(monkeypatch, 23.5, 24)
    with pytest.raises(UserError, match=r"needs 24.5 GB with CUDA's own, and card has 24.0; add training.mixed_precision=bf16"):
        report(make_config("+experiment=smoke"))
    on_a_card(monkeypatch, 22.5, 24)
    assert "22.50 GB  in all" in report(make_config("+experiment=smoke"))


def test_the_command_prints_it_and_runs_nothing(
    smoke: list[str], tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bayesdiff.run", *smoke, "--dry-run"])
    run.main()
    said = capsys.readouterr().out
    assert [line.split("GB")[1].strip() for line in said.splitlines() if " GB  " in line] == [
        "weights", "frozen", "gradients", "moments", "sigmas", "drawn", "averages", "activations", "in all",
    ]  # fmt: skip
    assert not list(tmp_path.iterdir())  # type: ignore[attr-defined]
