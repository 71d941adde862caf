"""Blocks that are compiled train as the others do; where they cannot be compiled the run says so and goes on."""

from __future__ import annotations

from functools import partialmethod

import pytest
import torch
from diffusers import UNet2DConditionModel
from tiny import ARMS, Make, differing, tiny_training, tiny_unet, trained, weights
from torch import nn

from bayesdiff.config.schema import TrainingConf
from bayesdiff.core.errors import UserError
from bayesdiff.recording.record import load_record
from bayesdiff.runs.experiment import run_experiment
from bayesdiff.training import compiling
from bayesdiff.training.compiling import BLOCKS, compile_unet, no_compiler
from bayesdiff.training.graph import obstacle

BLOCKWISE = TrainingConf(compile_blocks=True)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are traced and run as PyTorch runs them: no kernels are made, which takes minutes."""
    own = UNet2DConditionModel.compile_repeated_blocks
    monkeypatch.setattr(UNet2DConditionModel, "compile_repeated_blocks", partialmethod(own, backend="eager"))
    torch._dynamo.reset()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("arm", ARMS)
def test_traced_blocks_train_to_the_same_weights(make_config: Make, arm: str) -> None:
    """Every block is one graph: drawn weights break none, and no limit sends a block back to eager."""
    torch._dynamo.utils.counters.clear()
    compiled = trained(make_config("+experiment=smoke", arm, "training.compile_blocks=true"), 3)
    assert compiled.compiled == BLOCKS
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
    assert not torch._dynamo.utils.counters["graph_break"]
    assert not torch._dynamo.utils.counters["unimplemented"]
    assert differing(weights(trained(make_config("+experiment=smoke", arm), 3)), weights(compiled)) == []


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_compiled_blocks_train_to_the_same_weights(make_config: Make, arm: str) -> None:
    """Within rounding; making the kernels takes minutes on a CPU."""
    eager, compiled = (
        weights(trained(make_config("+experiment=smoke", arm, *words), 3)) for words in ([], ["training.compile_blocks=true"])
    )
    assert eager.keys() == compiled.keys()
    assert max(float((eager[name] - compiled[name]).abs().max()) for name in eager) < 1e-4


def test_a_model_without_repeated_blocks_is_left_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert compile_unet(nn.Linear(2, 2), BLOCKWISE) == "nothing: Linear names no repeated blocks, or has none of them"
    assert "training.compile_blocks=true: nothing is compiled: Linear" in capsys.readouterr().out


def test_without_a_compiler_the_run_goes_on_and_the_record_says_why(
    make_config: Make, smoke: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> str:
        raise RuntimeError("no g++")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", none)
    folder, _ = run_experiment(make_config(*smoke, "training.compile_blocks=true", "schedule.steps=1", "schedule.checkpoints=[1]"))
    record = load_record(folder)
    assert record is not None
    assert (record.status, record.environment["compiled"]) == ("completed", "nothing: there is no C++ compiler (no g++)")


def test_on_a_gpu_triton_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, said in ((True, ""), (False, "Triton is not installed, or does not know this GPU")):
        monkeypatch.setattr("torch.utils._triton.has_triton", lambda there=there: there)
        assert no_compiler(torch.device("cuda")) == said


def test_nothing_is_compiled_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "no_compiler", None)
    unet = tiny_unet()
    assert compile_unet(unet, TrainingConf()) == ""
    assert all(module._compiled_call_impl is None for module in unet.modules())


@pytest.mark.parametrize("words", [[], ["training.compile=true"], ["training.compile_blocks=true"]])
def test_sampling_records_no_graph_of_what_is_compiled(make_config: Make, words: list[str]) -> None:
    state = tiny_training(make_config("+experiment=smoke", *words))
    assert state.forwards == ({} if not words else None)


def test_compiled_blocks_and_a_recorded_step_or_a_whole_compiled_model_exclude_each_other(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "no_compiler", lambda _: "not here")
    cfg = make_config("+experiment=smoke", "training.compile_blocks=true", "training.graph=auto")
    state = tiny_training(cfg)
    state.trained = [nn.Parameter(torch.empty(1, device="meta"))]
    assert state.forwards is None
    assert obstacle(state, cfg) in ("the device is no GPU", "torch.compile records graphs of its own")
    with pytest.raises(UserError, match=r"training.compile_blocks=true: training.compile=true compiles the whole"):
        make_config("+experiment=smoke", "training.compile_blocks=true", "training.compile=true")
