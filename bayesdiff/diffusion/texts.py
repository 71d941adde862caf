"""Texts as the pipeline encodes them, kept for as long as the text encoders' weights stay.

A checkpoint is sampled with the prompts of the one before it. What was encoded is a function of the words and of the text encoders,
so that a frozen encoder reads them once a run. A batch of texts is kept as it was encoded: alone, a text may round otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")
Known = dict[Any, Any]
"""What was encoded, by what it was asked for, and the state of the weights that encoded it."""
NAMES = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
"""Arguments of the pipelines, in the order in which they encode a prompt; only SDXL has the last two."""


def encoded_once(pipe: Any, known: Known, key: object, encode: Callable[[], T]) -> T:
    """What ``encode`` gives, from ``known`` where the text encoders are as they were then; trained ones are asked every time."""
    state = _state(pipe)
    if state is None:
        return encode()
    if known.get(_state) != state:
        known.clear()
        known[_state] = state
    if key not in known:
        known[key] = encode()
    found: T = known[key]
    return found


def told(pipe: Any, texts: list[str], guided: bool, known: Known) -> dict[str, Any]:
    """The pipeline's arguments for a batch of texts: encoded ones, or the words where its text encoders are trained.

    Args:
        guided: whether the pipeline reads the empty prompt too.
    """
    if _state(pipe) is None:
        return {"prompt": texts}
    return encoded_once(pipe, known, (*texts, guided), lambda: _encoded(pipe, texts, guided))


@torch.no_grad()
def _encoded(pipe: Any, texts: list[str], guided: bool) -> dict[str, Any]:
    found = pipe.encode_prompt(prompt=texts, device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=guided)
    return {name: value for name, value in zip(NAMES, found, strict=False) if value is not None}


def _encoders(pipe: Any) -> Iterator[nn.Module]:
    parts = (getattr(pipe, name, None) for name in ("text_encoder", "text_encoder_2"))
    return (part for part in parts if part is not None)


def _state(pipe: Any) -> tuple[Any, ...] | None:
    """Changes with every change in place of the text encoders' weights; None where they are trained, or where there are none."""
    tensors = [tensor for part in _encoders(pipe) for tensor in (*part.parameters(), *part.buffers())]
    if not tensors or any(tensor.requires_grad for tensor in tensors):
        return None
    return tuple((id(tensor), tensor.data_ptr(), tensor._version) for tensor in tensors)
