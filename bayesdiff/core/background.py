"""Writing while the program goes on: one thread does, in order, what it was given.

A run's checkpoints are hashed, flushed and published behind its back, while it samples and trains. The order stays that of a
program which waits. Behind a failure nothing more is written, and the run ends with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Action = Callable[[], None]
MOST = 64
"""Actions that wait at most; who gives one more waits for the first. Pictures wait in memory."""
_COLLECTED: ContextVar[list[Action] | None] = ContextVar("collected", default=None)


class Writer:
    """One thread that writes, and what failed in it. As a context it ends with everything written, whatever ended the block."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._pending: deque[Future[None]] = deque()
        self._failure: BaseException | None = None

    def submit(self, action: Action) -> None:
        """Do it behind what was given before; raises what failed already."""
        self.check()
        if len(self._pending) >= MOST:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._do, action))

    def _do(self, action: Action) -> None:
        if self._failure is not None:
            return
        try:
            action()
        except BaseException as error:
            self._failure = error

    def check(self) -> None:
        """Raise what failed in the thread, if anything; forgets what is done."""
        while self._pending and self._pending[0].done():
            self._pending.popleft()
        if self._failure is not None:
            raise self._failure

    def wait(self) -> None:
        """Until everything is written; raises what failed."""
        while self._pending:
            self._pending.popleft().result()
        self.check()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown()
        if self._failure is not None and error is not self._failure:
            raise self._failure


@contextmanager
def collected() -> Iterator[list[Action]]:
    """Within the block ``write_tensors`` copies its tensors and writes nothing; the list gets what writes the copies."""
    actions: list[Action] = []
    token = _COLLECTED.set(actions)
    try:
        yield actions
    finally:
        _COLLECTED.reset(token)


def write_tensors(path: Path, tensors: Iterable[tuple[str, torch.Tensor]], metadata: Mapping[str, str] | None = None) -> None:
    """Named tensors of any shapes (…) as a safetensors file, as they are now; at once, or where they are ``collected`` later."""
    actions, content = _COLLECTED.get(), dict(metadata) if metadata else None
    if actions is None:
        _save({name: value.detach().cpu().contiguous() for name, value in tensors}, path, content)
        return
    copies = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors}
    actions.append(lambda: _save(copies, path, content))


def _save(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path, metadata)
