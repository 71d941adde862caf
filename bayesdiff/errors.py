"""The exceptions that reach the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")
BAD_INPUT = 2
"""Exit code of a command that was given something it can do nothing with."""


class UserError(Exception):
    """Bad input. The message is one line that names the file or key and the remedy; exit code 2."""


def first_line(error: Exception) -> str:
    """What an exception says first, at most 160 characters; its kind where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__


class RunDiverged(Exception):
    """A run ended without finite weights; its record and its curve up to there are kept."""


def bad_input_in_one_line(main: Callable[P, int]) -> Callable[P, int]:
    """A command that says a ``UserError`` in one line on stderr and ends with ``BAD_INPUT``, without a traceback."""

    @wraps(main)
    def command(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f"bayesdiff: {error}", file=sys.stderr)
            return BAD_INPUT

    return command
