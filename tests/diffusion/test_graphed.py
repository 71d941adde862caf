"""Recording a CUDA graph, without a GPU: what is done on which stream, in which order; and what stays eager."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tiny import tiny_inputs, tiny_unet

from bayesdiff.diffusion import graphed
from bayesdiff.diffusion.graphed import graphed_forward, recorded


class Stream:
    def __init__(self, name: str, done: list[str]):
        self.name, self.done = name, done

    def wait_stream(self, other: Stream) -> None:
        self.done.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a device would have been told."""
    told: list[str] = []
    main, side = Stream("main", told), Stream("side", told)

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        told.append(f"on {stream.name}")
        yield
        told.append("off")

    @contextmanager
    def capture(graph: str, stream: Stream) -> Iterator[None]:
        told.append(f"record {graph} on {stream.name}")
        yield
        told.append("recorded")

    fakes: dict[str, Any] = {
        "Stream": lambda: side, "current_stream": lambda: main, "stream": on, "CUDAGraph": lambda: "graph", "graph": capture,
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return told


def test_a_step_is_warmed_up_and_recorded_on_one_side_stream(done: list[str]) -> None:
    def step() -> int:
        done.append("step")
        return 7

    assert recorded(step, lambda: done.append("warm up")) == ("graph", 7)
    assert done == [
        "side waits for main", "on side", "warm up", "off", "main waits for side", "record graph on side", "step", "recorded",
    ]  # fmt: skip


def test_on_a_cpu_nothing_is_recorded() -> None:
    unet, graphs = tiny_unet(), dict[Any, Any]()
    with torch.no_grad():
        expected = unet(**tiny_inputs()).sample
        with graphed_forward(unet, graphs):
            assert torch.equal(unet(**tiny_inputs()).sample, expected)
    assert graphs == {}
    assert "forward" not in vars(unet)


def test_a_pass_that_cannot_be_recorded_runs_eagerly_and_says_why_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def fails(step: Any, warm_up: Any) -> Any:
        asked.append(step)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(graphed, "recorded", fails)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    unet, given = tiny_unet(), tiny_inputs()
    inputs = [given["sample"], given["timestep"], given["encoder_hidden_states"]]
    with torch.no_grad():
        with pytest.warns(UserWarning, match=r"auto: sampling could not be recorded \(operation not permitted when stream is capturing\)"):
            run = graphed.tried(unet.forward, inputs, ())
        assert torch.equal(run([one + 1 for one in inputs]), unet(*[one + 1 for one in inputs]).sample)
    assert len(asked) == 1
