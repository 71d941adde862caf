"""An end that somebody else asks for: SIGTERM (a scheduler, ``kill``) and SIGHUP (a closed terminal).

Outside ``held`` such a signal raises ``Terminated`` where the program stands. Inside it the signal waits for the end of the block.
SIGUSR1 and SIGUSR2 mean what others make of them: submitit requeues its Slurm job and leaves. Their handlers wait too.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bayesdiff.core.errors import ExitCode

NAMES = ("SIGTERM", "SIGHUP")
OF_OTHERS = ("SIGUSR1", "SIGUSR2")
_WAITING: list[str] = []
"""Signals that came inside ``held``."""
_HELD: list[bool] = []
SOON = 0.1
"""Seconds until a signal that could raise nothing comes again."""


class Terminated(BaseException):
    """A signal asks for the end; the message is its name. As with Ctrl-C, no handler of faults may catch it."""


def _received(number: int, frame: Any) -> None:
    name = signal.Signals(number).name
    if not _HELD:
        raise Terminated(name)
    _WAITING.append(name)


def _send(number: int) -> None:
    time.sleep(SOON)
    os.kill(os.getpid(), number)


@contextmanager
def _sent_again() -> Iterator[None]:
    """Within the block a signal or Ctrl-C is not lost where nothing can be raised, as when garbage is collected: it comes once more.

    Python would print a traceback there, and go on.
    """
    before = sys.unraisablehook

    def hook(unraised: Any) -> None:
        if not issubclass(unraised.exc_type, Terminated | KeyboardInterrupt):
            before(unraised)
            return
        name = str(unraised.exc_value) if issubclass(unraised.exc_type, Terminated) else "SIGINT"
        _thread.start_new_thread(_send, (getattr(signal, name),))  # a Thread's start waits, and the signal could come within

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def heeded() -> Iterator[None]:
    """Within the block the signals raise ``Terminated``; one that is ignored already (``nohup``) or handled by others stays so."""
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]  # Windows has no SIGHUP
    here = threading.current_thread() is threading.main_thread()  # Python sets handlers in no other thread
    ours = [number for number in numbers if here and signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _received)
    try:
        with _sent_again():
            yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _others_held() -> Iterator[None]:
    """Handlers of others that are called in the block are called behind it."""
    numbers = [getattr(signal, name) for name in OF_OTHERS if hasattr(signal, name)]
    here = threading.current_thread() is threading.main_thread()
    theirs = {number: handler for number in numbers if here and callable(handler := signal.getsignal(number)) and handler is not _received}
    for number in theirs:
        signal.signal(number, _received)
    try:
        yield
    finally:
        for number, handler in theirs.items():
            signal.signal(number, handler)
    for number, handler in theirs.items():
        if (name := signal.Signals(number).name) in _WAITING:
            _WAITING[:] = [one for one in _WAITING if one != name]
            handler(number, None)


def resumable(action: Callable[[], int]) -> int:
    """The exit code of ``action``, or of its stop by Ctrl-C or a signal; then the person is told how to go on."""
    try:
        with heeded():
            return action()
    except KeyboardInterrupt:
        print("\nStopped. Give the same command again to go on.", file=sys.stderr)
        return ExitCode.STOPPED
    except Terminated as name:
        print(f"\nStopped by {name}: runs saved their steps. Give the same command again to go on.", file=sys.stderr)
        return ExitCode.TERMINATED


def waiting() -> bool:
    """Whether a signal came inside ``held``."""
    return bool(_WAITING)


@contextmanager
def held() -> Iterator[None]:
    """Within the block a signal waits; behind it handlers of others are called, or ``Terminated`` is raised.

    Where the block failed of itself, neither is done.
    """
    _HELD.append(True)
    names: list[str] = []
    try:
        with _others_held():
            try:
                yield
            finally:
                _HELD.pop()
        names = _WAITING[:]
    finally:
        _WAITING.clear()
    if names:
        raise Terminated(names[0])
