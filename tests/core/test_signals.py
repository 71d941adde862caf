"""A signal ends a program where it stands, or waits for the end of a block."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator

import pytest

from bayesdiff.core.signals import NAMES, Terminated, heeded, held, waiting


@pytest.fixture(autouse=True)
def _as_in_a_terminal() -> Iterator[None]:
    """Under nohup these tests are born deaf to SIGHUP."""
    before = {name: signal.signal(getattr(signal, name), signal.SIG_DFL) for name in NAMES}
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_raises_where_the_program_stands(name: str) -> None:
    with heeded(), pytest.raises(Terminated, match=name):
        signal.raise_signal(getattr(signal, name))
    assert signal.getsignal(getattr(signal, name)) is signal.SIG_DFL


@pytest.mark.parametrize(("name", "ends"), [("SIGTERM", Terminated), ("SIGINT", KeyboardInterrupt)])
def test_one_that_comes_where_nothing_can_be_raised_comes_again(
    name: str, ends: type[BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    class Garbage:
        def __del__(self) -> None:
            signal.raise_signal(getattr(signal, name))

    if name == "SIGINT":  # behind a shell's & these tests are born deaf to it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    with heeded(), pytest.raises(ends):
        Garbage()
        while time.monotonic() < began + 10:
            time.sleep(0.001)
    assert time.monotonic() < began + 5
    assert capfd.readouterr() == ("", "")


def test_other_exceptions_that_cannot_be_raised_are_said_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Faulty:
        def __del__(self) -> None:
            raise ZeroDivisionError

    said: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraised: said.append(unraised.exc_type))
    with heeded():
        Faulty()
    assert said == [ZeroDivisionError]


def test_inside_a_block_it_waits_for_the_end() -> None:
    seen = []
    with heeded(), pytest.raises(Terminated, match="SIGTERM"), held():
        for name in ("SIGTERM", "SIGHUP"):
            signal.raise_signal(getattr(signal, name))
            seen.append(waiting())
    assert (seen, waiting()) == ([True, True], False)


def test_a_fault_inside_the_block_goes_first() -> None:
    with heeded(), pytest.raises(ZeroDivisionError), held():
        signal.raise_signal(signal.SIGTERM)
        raise ZeroDivisionError
    assert not waiting()


def test_a_signal_that_is_ignored_stays_so() -> None:
    """``nohup`` ignores SIGHUP for what it starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with heeded():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_it_is_no_exception_that_a_guard_against_faults_would_catch() -> None:
    assert not issubclass(Terminated, Exception)


def test_a_handler_of_others_is_called_behind_the_block_and_put_back() -> None:
    """submitit requeues its job at SIGUSR2, and leaves."""
    called: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: called.append(number))
    try:
        with held():
            signal.raise_signal(signal.SIGUSR2)
            assert (waiting(), called) == (True, [])
        assert (waiting(), called) == (False, [signal.SIGUSR2])
        signal.raise_signal(signal.SIGUSR2)
        assert len(called) == 2
        with pytest.raises(ZeroDivisionError), held():
            signal.raise_signal(signal.SIGUSR2)
            raise ZeroDivisionError
        assert (waiting(), len(called)) == (False, 2)
    finally:
        signal.signal(signal.SIGUSR2, before)
