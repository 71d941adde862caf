"""Tab completion of the command line: options and file names by argcomplete, words of a run by Hydra.

A command's parser is completed where the command would parse: nothing of a command is done before that.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Container
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import argcomplete
from argcomplete.completers import FilesCompleter
from argcomplete.lexers import split_line

Call = Callable[[str, list[str]], Any]
"""Calls a command by its name, with its words."""
HYDRA = ("run", "worker")
"""Commands whose words are Hydra's, and completed by it."""


def complete(top: argparse.ArgumentParser, commands: Container[str], call: Call, studies: Callable[[], list[str]]) -> None:
    """Answer the shell that asks by argcomplete's variables, and end the process.

    Args:
        top: the parser of ``bayesdiff`` itself.
        studies: gives the names that complete an argument called ``name`` or ``names``.
    """
    line, point = os.environ["COMP_LINE"], int(os.environ["COMP_POINT"])
    _, prefix, _, words, _ = split_line(line, point)
    name = words[1] if len(words) > 1 else ""
    if name in commands:
        os.environ["_ARGCOMPLETE"] = str(int(os.environ["_ARGCOMPLETE"]) + 1)  # the program is now the second word
        _hydra(name, line[:point].split(name, 1)[1], call) if name in HYDRA else _argparse(name, call, studies)
    if name or "=" in prefix or prefix.startswith("+"):
        _hydra("run", line[:point].split(maxsplit=1)[1], call)
    argcomplete.autocomplete(top)


def _argparse(name: str, call: Call, studies: Callable[[], list[str]]) -> None:
    """Let the command build its parser, and complete instead of parsing."""
    parsing = {way: getattr(argparse.ArgumentParser, way) for way in ("parse_known_args", "parse_known_intermixed_args")}

    def names(prefix: str, action: argparse.Action, **_: Any) -> list[str]:
        return studies() if action.dest in ("name", "names") else list(FilesCompleter()(prefix))

    def instead(parser: argparse.ArgumentParser, *args: Any, **options: Any) -> None:
        for way, parse in parsing.items():
            setattr(argparse.ArgumentParser, way, parse)
        argcomplete.autocomplete(parser, default_completer=names)  # type: ignore[arg-type]

    for way in parsing:
        setattr(argparse.ArgumentParser, way, instead)
    call(name, [])


def _hydra(name: str, typed: str, call: Call) -> None:
    """Hydra's own answer to what was typed behind the command."""

    def asked(**_: Any) -> list[str]:
        os.environ["COMP_LINE"] = f"bayesdiff {typed.lstrip()}"
        with redirect_stdout(StringIO()) as said:
            call(name, ["--shell-completion", "query=bash"])
        return said.getvalue().split()

    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*").completer = asked  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, append_space=False, always_complete_options=False)
