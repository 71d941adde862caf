"""The exceptions that reach the command line."""

from __future__ import annotations


class UserError(Exception):
    """Bad input. The message is one line that names the file or key and the remedy; exit code 2."""


def first_line(error: Exception) -> str:
    """What an exception says first, at most 160 characters; its kind where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__


class RunDiverged(Exception):
    """A run ended without finite weights; its record and its curve up to there are kept."""
