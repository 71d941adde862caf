"""The words of a command that argparse reads: a wrong one is said in one line, and help calls the command as it was called."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

from bayesdiff.core.errors import UserError, did_you_mean, shortened
from bayesdiff.core.files import no_path

_KINDS = {"int": "a whole number", "float": "a number"}
_NO_VALUE = re.compile(r"argument ([^:]*): invalid (int|float) value: '(.*)'", re.DOTALL)
_NO_CHOICE = re.compile(r"argument ([^:]*): invalid choice: '(.*)' \(choose from (.*)\)", re.DOTALL)
_UNKNOWN = re.compile(r"unrecognized arguments: (\S+).*", re.DOTALL)


def called(command: str) -> str:
    """How a person calls a command: ``bayesdiff run`` behind the umbrella, else its console script or module."""
    program = Path(sys.argv[0])
    if program.stem == "bayesdiff" or (program.name == "__main__.py" and program.parent.name == "bayesdiff"):
        return f"bayesdiff {command}"
    return program.stem if program.stem == f"bayesdiff-{command}" else f"python -m bayesdiff.{command}"


def path(text: str) -> Path:
    """The type of an argument that is a path; raises ``UserError`` for what no file system can have."""
    if why := no_path(text):
        raise UserError(f"{shortened(text)}: {why}; give another path")
    return Path(text)


class Parser(argparse.ArgumentParser):
    """A command's parser, whose ``error`` raises ``UserError``: argparse itself prints the usage and ends the process."""

    def __init__(self, command: str, description: str | None = None, **options: Any):
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(called(command), description=description, formatter_class=formatter, **options)

    def error(self, message: str) -> NoReturn:
        """Raises ``UserError`` with the word, what is wrong with it, and what it may be."""
        raise UserError(self._said(message))

    def _said(self, message: str) -> str:
        if match := _NO_VALUE.fullmatch(message):
            return f"{match[1]} {match[3]}: not {_KINDS[match[2]]}; give one, as {self.prog} --help says"
        if match := _NO_CHOICE.fullmatch(message):
            known = re.findall(r"'([^']*)'", match[3]) or match[3].split(", ")
            return f"{match[1]} {match[2]}: no such choice; allowed: {', '.join(known)}{did_you_mean(match[2], known)}"
        if match := _UNKNOWN.fullmatch(message):
            options = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
            return f"{match[1]}: no such word or option; {self.prog} takes {', '.join(options)}{did_you_mean(match[1], options)}"
        return f"{message.removeprefix('argument ')}; {self.prog} --help lists what it takes"
