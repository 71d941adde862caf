"""The exceptions that reach the command line, and the exit codes of every command."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from enum import IntEnum
from functools import wraps
from typing import ParamSpec

from bayesdiff.core.output import say, steady_output
from bayesdiff.core.privacy import redacted

P = ParamSpec("P")


class ExitCode(IntEnum):
    """How every command ends; docs/guarantees.md has the same table."""

    DONE = 0
    """What was asked for is there; ``verdict``: nothing was found."""
    FAILED = 1
    """Runs of a study failed; ``python -m bayesdiff.status`` names them."""
    BAD_INPUT = 2
    """The command can do nothing with what it was given; one line names the remedy."""
    DIVERGED = 3
    """Training ended without finite weights; record and curve up to there are kept."""
    FOUND = 10
    """``verdict`` and ``judge``: a corruption stage was found."""
    NOT_JUDGED = 11
    """``verdict`` and ``judge``: no stage was found, and at least one curve cannot be judged."""
    STOPPED = 130
    """Ctrl-C; the same command resumes."""
    TERMINATED = 143
    """SIGTERM or SIGHUP; the step was finished and saved, and the same command resumes."""


class UserError(Exception):
    """Bad input. The message is one line that names the file or key and the remedy; exit code 2."""


def first_line(error: Exception) -> str:
    """What an exception says first, at most 160 characters; its kind where it says nothing.

    Of an error of the operating system the words alone: neither its number nor the path, which the message around it names.
    """
    text = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).strip()
    if isinstance(error, KeyError) and text:  # which says the key alone
        text = f"no key {text}"
    return text.splitlines()[0][:160] if text else type(error).__name__


MOST = 80
"""Letters of a value that a message shows."""


def shortened(value: object) -> str:
    """A value as a message shows it: on one line, its middle left out where it is long."""
    text = " ".join(str(value).split())
    return text if len(text) <= MOST else f"{text[: MOST - 20]} … {text[-15:]}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A clause that ends an error about an unknown name: ``; did you mean dino?``, or nothing where no name is near.

    Names are near by ``difflib``'s ratio (0.7 or more), whatever their case.
    """
    by_lower = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.7)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""


class RunDiverged(Exception):
    """A run ended without finite weights; its record and its curve up to there are kept."""


def complain(message: object) -> None:
    """Say what is wrong on stderr, in one line without secrets and control characters: a log may keep it."""
    say(f"bayesdiff: {redacted(str(message))}", error=True)


def bad_input_in_one_line(main: Callable[P, int]) -> Callable[P, int]:
    """A command that says a ``UserError`` in one line on stderr and ends with ``ExitCode.BAD_INPUT``, without a traceback.

    A reader of its words that goes (``| head``, a closed terminal) changes neither its work nor its exit code.
    """

    @wraps(main)
    def command(*args: P.args, **kwargs: P.kwargs) -> int:
        with steady_output():
            try:
                return main(*args, **kwargs)
            except UserError as error:
                complain(error)
            except OSError as error:
                if error.filename is None:
                    raise
                complain(f"{error.filename}: {first_line(error)}; choose another place, or make this one usable")
            return ExitCode.BAD_INPUT

    return command
