"""The exceptions that reach the command line."""

from __future__ import annotations


class UserError(Exception):
    """Bad input. The message is one line that names the file or key and the remedy; exit code 2."""


class RunDiverged(Exception):
    """A run ended without finite weights; its record and its curve up to there are kept."""
