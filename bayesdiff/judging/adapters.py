"""A checkpoint of any trainer put into the base model's pipeline, and taken out again: the libraries' own loaders do both.

The converters of diffusers read kohya's and ai-toolkit's names of layers. What a loader would leave out with a warning is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesdiff.core.errors import UserError, first_line
from bayesdiff.judging.checkpoints import PARTS, Checkpoint, header_of

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from torch import nn

SCALES = (".alpha", ".dora_scale", ".lora_magnitude_vector")
"""Parts of the names of tensors in a LoRA file that are no matrices of it."""


@contextmanager
def weights_in(pipe: StableDiffusionPipeline, checkpoint: Checkpoint) -> Iterator[None]:
    """Within the block the pipeline has a checkpoint's weights; afterwards it is the base model again, bit for bit.

    Raises:
        UserError: a checkpoint of another model, or one of a kind that no loader knows.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(_LOADERS[checkpoint.kind](pipe, checkpoint))
        except UserError:
            raise
        except Exception as error:  # the loaders raise many kinds for a checkpoint of another model
            raise UserError(f"{checkpoint.name}: cannot be loaded into this model ({first_line(error)}); correct --model") from error
        yield


@contextmanager
def _lora(pipe: StableDiffusionPipeline, checkpoint: Checkpoint) -> Iterator[None]:
    from diffusers.utils import logging

    file, level = checkpoint.parts["unet"], logging.get_verbosity()
    logging.set_verbosity_error()  # of models that the file does not change; what finds no place is refused below
    try:
        pipe.load_lora_weights(file.parent, weight_name=file.name)
    finally:
        logging.set_verbosity(level)
    try:
        _check_whole(pipe, checkpoint.name, file)
        for _, parameter in _placed(pipe):
            parameter.data = parameter.data.float()  # trainers save halves, and the base model computes in single precision
        yield
    finally:
        pipe.unload_lora_weights()


def _placed(pipe: StableDiffusionPipeline) -> list[tuple[str, nn.Parameter]]:
    """The parameters of LoRA in all models of a pipeline."""
    parts = [part for part in (getattr(pipe, key, None) for key in PARTS) if part is not None]
    return [(name, parameter) for part in parts for name, parameter in part.named_parameters() if ".lora_" in name]


def _check_whole(pipe: StableDiffusionPipeline, name: str, file: Path) -> None:
    """Raises ``UserError`` where some of a file's numbers found no place."""
    header = header_of(file)
    matrices = [key for key in header if key != "__metadata__" and not any(scale in key for scale in SCALES)]
    stored = sum(math.prod(header[key]["shape"]) for key in matrices)
    placed = sum(parameter.numel() for name, parameter in _placed(pipe) if ".lora_A." in name or ".lora_B." in name)
    if placed != stored:
        raise UserError(f"{name}: only {placed:,} of its {stored:,} numbers belong to layers of this model; correct --model")


@contextmanager
def _peft(pipe: StableDiffusionPipeline, checkpoint: Checkpoint) -> Iterator[None]:
    """peft changes the model in place, and takes its layers off again."""
    wrapped = []
    try:
        for part, folder in checkpoint.parts.items():
            wrapped.append(_adapted(getattr(pipe, part), folder))
        yield
    finally:
        for model in wrapped:
            model.unload()


def _adapted(model: nn.Module, folder: Path) -> Any:
    import warnings

    from peft import PeftModel

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = PeftModel.from_pretrained(model, folder).eval()
    if missing := [str(one.message) for one in said if "missing adapter keys" in str(one.message)]:
        found.unload()
        raise ValueError(missing[0])
    return found


@contextmanager
def _full(pipe: StableDiffusionPipeline, checkpoint: Checkpoint) -> Iterator[None]:
    """Whole models stand in for the base model's, which wait on the CPU meanwhile."""
    device, base = pipe.device, {part: getattr(pipe, part) for part in checkpoint.parts}
    try:
        for part, folder in checkpoint.parts.items():
            base[part].to("cpu")
            setattr(pipe, part, _whole(base[part], folder).to(device))
        yield
    finally:
        for part, model in base.items():
            setattr(pipe, part, model.to(device))


def _whole(base: nn.Module, folder: Path) -> nn.Module:
    import torch

    model = type(base).from_pretrained(folder, dtype=torch.float32, local_files_only=True)  # type: ignore[attr-defined]
    shapes, own = ({key: value.shape for key, value in one.state_dict().items()} for one in (base, model))
    if shapes != own:
        raise ValueError("its layers are not those of the base model")
    frozen: nn.Module = model.requires_grad_(False).eval()
    return frozen


_LOADERS: dict[str, Callable[[StableDiffusionPipeline, Checkpoint], Any]] = {"lora": _lora, "peft": _peft, "full": _full}
