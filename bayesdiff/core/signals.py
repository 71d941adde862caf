"""An end that somebody else asks for: SIGTERM (a scheduler, ``kill``) and SIGHUP (a closed terminal).

Outside ``held`` such a signal raises ``Terminated`` where the program stands. Inside it the signal waits for the end of the block.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAMES = ("SIGTERM", "SIGHUP")
_WAITING: list[str] = []
"""Signals that came inside ``held``."""
_HELD: list[bool] = []


class Terminated(BaseException):
    """A signal asks for the end; the message is its name. As with Ctrl-C, no handler of faults may catch it."""


def _received(number: int, frame: Any) -> None:
    name = signal.Signals(number).name
    if not _HELD:
        raise Terminated(name)
    _WAITING.append(name)


@contextmanager
def heeded() -> Iterator[None]:
    """Within the block the signals raise ``Terminated``; one that is ignored already (``nohup``) or handled by others stays so."""
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]  # Windows has no SIGHUP
    here = threading.current_thread() is threading.main_thread()  # Python sets handlers in no other thread
    ours = [number for number in numbers if here and signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _received)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def waiting() -> bool:
    """Whether a signal came inside ``held``."""
    return bool(_WAITING)


@contextmanager
def held() -> Iterator[None]:
    """Within the block a signal waits; behind it ``Terminated`` is raised, unless the block failed of itself."""
    _HELD.append(True)
    try:
        yield
    finally:
        _HELD.pop()
        names = _WAITING[:]
        _WAITING.clear()
    if names:
        raise Terminated(names[0])
