"""One command for everything: ``bayesdiff COMMAND …``, which is ``python -m bayesdiff.COMMAND …``.

Only the module of the chosen command is imported. Words of a run without a command (``bayesdiff +experiment=smoke``)
are a run. Tab completion is argcomplete's, and Hydra's for the words of a run.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

from bayesdiff import __version__
from bayesdiff.core.errors import UserError, bad_input_in_one_line, did_you_mean

COMMANDS = {
    "demo": "a first look: three small runs on the toybox, and what they showed",
    "run": "train, sample, score and judge one run; its words are Hydra's overrides",
    "study": "do the runs that a study still needs",
    "status": "show where studies stand",
    "tables": "write tables and figures from the records of a result set",
    "claims": "judge the paper's claims by the records of a result set",
    "compare": "overlay the curves of runs and print their paired differences",
    "report": "write one HTML page of runs, of a study, or of any trainer's samples",
    "verdict": "find the corruption stage in a curve from anywhere",
    "judge": "find the checkpoint to keep from the samples of any trainer",
    "export": "write a checkpoint in the layout that stock diffusers loads",
    "sweep": "write studies as sweeps of Weights & Biases",
    "worker": "work on a study as a job of Hydra's launchers (joblib, Slurm, Ray)",
    "calibration": "measure error rates and power of the verdict by simulation",
}
SHELLS = ("bash", "zsh", "fish")
COMPLETING = "_ARGCOMPLETE"
"""The environment variable by which the shell asks for completions; its number is the place of the program's word."""


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:<13}{does}" for name, does in COMMANDS.items())
    parser = argparse.ArgumentParser(
        "bayesdiff", usage="bayesdiff COMMAND …", formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"commands:\n{listed}",
        epilog="'bayesdiff COMMAND --help' tells more. 'python -m bayesdiff.COMMAND' is the same command.",
    )  # fmt: skip
    parser.add_argument("command", nargs="?", choices=COMMANDS, help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"bayesdiff {__version__}")
    parser.add_argument("--completion", choices=SHELLS, help='print tab completion for a shell: eval "$(bayesdiff --completion bash)"')
    return parser


@bad_input_in_one_line
def main() -> int:
    """Hand the words to their command; the exit code is the command's."""
    if COMPLETING in os.environ:
        from bayesdiff.core.completion import complete

        complete(_parser(), COMMANDS, _call, _studies)
    first = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if first in COMMANDS:
        return _call(first, sys.argv[2:])
    if first in ("-h", "--help", "--version") or first.startswith("--completion"):
        return _about([first, *sys.argv[2:]])
    if "=" in first or first[0] in "-~":
        return _call("run", sys.argv[1:])
    raise UserError(f"{first}: no such command; there are {', '.join(COMMANDS)}{did_you_mean(first, COMMANDS)}")


def _call(name: str, words: list[str]) -> int:
    sys.argv[1:] = words
    return int(import_module(f"bayesdiff.{name}").main() or 0)


def _studies() -> list[str]:
    from bayesdiff.studies.plan import study_names

    return study_names()


def _about(words: list[str]) -> int:
    """Help, version and completion code."""
    shell = _parser().parse_args(words).completion
    if shell:
        from argcomplete.shell_integration import shellcode

        print(shellcode(["bayesdiff"], shell=shell))
    return 0


if __name__ == "__main__":
    sys.exit(main())
