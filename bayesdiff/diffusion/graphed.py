"""The U-Net's forward pass as a CUDA graph while sampling: small models are bound by launches, and a graph launches once.

One graph is recorded for every shape of input. It reads the weights where they lie, so that later checkpoints, whose weights
are written in place, need no new recording. On a CPU, with gradients, or with arguments that are not recorded, the module's own
forward pass runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import nn

from bayesdiff.core.errors import first_line

T = TypeVar("T")
WARM_UP = 2
Recorded = Callable[[list[torch.Tensor]], torch.Tensor]


@contextmanager
def graphed_forward(unet: nn.Module, graphs: dict[Any, Recorded] | None) -> Iterator[None]:
    """Within the block the U-Net replays recorded forward passes on a GPU; ``graphs`` keeps them for the next block, None records none.

    A pass that cannot be recorded runs eagerly from then on, with one warning.
    """
    device = next(unet.parameters()).device
    if graphs is None or device.type != "cuda" or "forward" in vars(unet):
        yield
        return
    own = unet.forward

    def forward(sample: torch.Tensor, timestep: Any, encoder_hidden_states: torch.Tensor, **named: Any) -> Any:
        given = {key: value for key, value in named.items() if value is not None and key != "return_dict"}
        if torch.is_grad_enabled() or set(given) - {"added_cond_kwargs"}:
            return own(sample, timestep, encoder_hidden_states, **named)
        added = given.get("added_cond_kwargs", {})
        times = torch.as_tensor(timestep, device=device)
        inputs = [sample, times, encoder_hidden_states, *added.values()]
        key = (tuple(added), torch.is_autocast_enabled("cuda"), *((tuple(one.shape), one.dtype) for one in inputs))
        if key not in graphs:
            graphs[key] = tried(own, inputs, tuple(added))
        predicted = graphs[key](inputs)
        return (predicted,) if named.get("return_dict") is False else SimpleNamespace(sample=predicted)

    unet.forward = forward
    try:
        yield
    finally:
        del unet.forward


def recorded(step: Callable[[], T], warm_up: Callable[[], object]) -> tuple[torch.cuda.CUDAGraph, T]:
    """A CUDA graph of ``step``, and what the step returned: its memory is the graph's.

    Args:
        warm_up: runs the step a few times and leaves everything as the recording needs it: libraries choose their kernels and
            allocate in it. It runs on the stream that records.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        warm_up()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        result = step()
    return graph, result


def tried(own: Callable[..., Any], inputs: list[torch.Tensor], added: tuple[str, ...]) -> Recorded:
    """The recorded pass of a forward function, or the eager one where it cannot be recorded.

    ``inputs`` are latents (B, C, H, W), timestep (), text states (B, L, D), and the further conditions that ``added`` names.
    """

    def eager(given: list[torch.Tensor]) -> torch.Tensor:
        conditions = {"added_cond_kwargs": dict(zip(added, given[3:], strict=True))} if added else {}
        predicted: torch.Tensor = own(given[0], given[1], encoder_hidden_states=given[2], return_dict=False, **conditions)[0]
        return predicted

    try:
        return _record(eager, inputs)
    except RuntimeError as error:  # an operation that no graph can hold
        given_up("sampling", error)
        return eager


def given_up(what: str, error: RuntimeError) -> str:
    """Warn that something runs eagerly, once the device has ended what it was told; why it could not be recorded."""
    why = f"{what} could not be recorded ({first_line(error)})"
    warnings.warn(f"training.graph=auto: {why}; it runs eagerly", stacklevel=3)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return why


def _record(eager: Recorded, inputs: list[torch.Tensor]) -> Recorded:
    static = [one.clone() for one in inputs]
    graph, out = recorded(lambda: eager(static), lambda: [eager(static) for _ in range(WARM_UP)])

    def replay(given: list[torch.Tensor]) -> torch.Tensor:
        for buffer, value in zip(static, given, strict=True):
            buffer.copy_(value)
        graph.replay()
        return out.clone()

    return replay
