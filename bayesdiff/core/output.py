"""Words to a terminal or pipe never end the work: nobody may be listening any more, and not every terminal has every letter."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from bayesdiff.core import escape


def say(line: object, error: bool = False) -> None:
    """Print one line that may hold a user's text, such as a file's name: no control character of it reaches the terminal."""
    print(escape.plain(line), file=sys.stderr if error else sys.stdout, flush=True)


class _Steady:
    """A text stream whose reader may go (``| head``, a closed terminal): from then on everything is written to nowhere."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._to_nowhere()
        except UnicodeEncodeError:  # a stream that ``reconfigure`` does not know
            return self._stream.write(text.encode("ascii", "replace").decode())
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._to_nowhere()

    def _to_nowhere(self) -> None:
        """What the stream still holds, and what Python flushes at its end, has to go somewhere."""
        with suppress(OSError, ValueError):
            number, nowhere = self._stream.fileno(), os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)


@contextmanager
def steady_output() -> Iterator[None]:
    """Within the block writing to standard output and standard error raises nothing; letters that they lack become question marks."""
    before = sys.stdout, sys.stderr
    for stream in before:
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.stdout, sys.stderr = _Steady(before[0]), _Steady(before[1])
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
