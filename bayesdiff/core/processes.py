"""One run shared by several processes, through accelerate: work is divided, what comes out is the same.

``accelerate launch --multi_gpu --num_processes 4 -m bayesdiff.run …`` starts the same command once a GPU.
Each process takes its share of a step's micro-batches and of a checkpoint's images, as they are functions
of (seed, step) wherever they are computed; gradients are added up. The first process leads: it alone
writes. Without a launcher there is one process, and everything here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from bayesdiff.core.errors import UserError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def process_count() -> int:
    """Processes that share this run; the launcher says so in the environment."""
    return int(os.environ["WORLD_SIZE"]) if "LOCAL_RANK" in os.environ else 1


def process_index() -> int:
    return int(os.environ["RANK"]) if "LOCAL_RANK" in os.environ else 0


def is_main_process() -> bool:
    return process_index() == 0


def join_processes(device: torch.device) -> None:
    """Wait for the other processes of this run; before anything below is used. They may wait for the first one for hours."""
    if process_count() > 1:
        from accelerate import PartialState

        PartialState(cpu=device.type == "cpu", timeout=timedelta(hours=6))


def check_shares(gradient_accumulation_steps: int) -> None:
    """Raises ``UserError`` where a step's micro-batches cannot be divided evenly among the processes."""
    count, micro = process_count(), gradient_accumulation_steps
    if micro % count:
        raise UserError(
            f"training.gradient_accumulation_steps={micro}: {count} processes divide a step's micro-batches; give a multiple of {count}"
        )


def share(items: Sequence[T]) -> Sequence[T]:
    """Every ``process_count``-th of the items, from this process's own number on."""
    return items[process_index() :: process_count()]


def all_reduce(tensors: Iterable[torch.Tensor]) -> None:
    """Replace each tensor, of any shape (…), by its sum over the processes, in place: the same bits on all of them.

    A run of one process does not ask for them.
    """
    if process_count() == 1:
        return
    from accelerate.utils import reduce

    for tensor in tensors:
        tensor.copy_(reduce(tensor, "sum"))


def gather(items: list[T]) -> list[T]:
    """The items of all processes, on every one of them: first those of the first process."""
    if process_count() == 1:
        return items
    from accelerate.utils import gather_object

    found: list[T] = gather_object(items)
    return found


def broadcast(value: Any = None) -> Any:
    """The value that the first process gives; the others wait for it."""
    if process_count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]
