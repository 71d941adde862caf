"""The command of record: ``python -m bayesdiff.run +experiment=corruption_curve``.

``bayesdiff run`` is the same. Hydra composes the configuration, ``resolve`` checks it, ``run_experiment`` does it.
The exit code is one of ``ExitCode``: 0 done, 2 bad input, 3 diverged, 130 stopped by Ctrl-C, 143 by SIGTERM or SIGHUP.
The same command resumes. With ``--dry-run`` it prints the run's name, what its verdict can show and the memory it needs, and stops.
"""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import nullcontext
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from bayesdiff.config.checks import check_words
from bayesdiff.config.compose import CONF, check_groups, check_options, resolve
from bayesdiff.config.help import print_help
from bayesdiff.config.suggestions import explain
from bayesdiff.config.words import override, parsed
from bayesdiff.core.errors import ExitCode, RunDiverged, UserError, complain, first_line
from bayesdiff.core.output import steady_output
from bayesdiff.core.privacy import without_home
from bayesdiff.core.processes import process_count
from bayesdiff.core.signals import Terminated, heeded
from bayesdiff.recording.tracker import without_echo

DRY_RUN = "--dry-run"
_asked: set[str] = set()
"""Options of our own, which Hydra does not know."""
HELP = " (all keys: --cfg job; all groups: --help)"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _job(raw: DictConfig) -> None:
    if HydraConfig.get().mode is RunMode.MULTIRUN and process_count() > 1:
        _end(UserError("--multirun: several processes share one run at a time; start the runs one after the other"))
    try:
        _run(raw)
    except (UserError, RunDiverged) as error:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise  # the other jobs go on; Hydra tells at the end
        _end(error)


def _run(raw: DictConfig) -> None:
    cfg = resolve(raw)
    if DRY_RUN in _asked:
        from bayesdiff.runs.sizing import planned

        print(planned(cfg))
        return
    from bayesdiff.runs.experiment import run_experiment

    folder, record = run_experiment(cfg, f"python -m bayesdiff.run {shlex.join(map(_portable, HydraConfig.get().overrides.task))}")
    if record.status == "diverged":
        raise RunDiverged(f"{folder}: {record.message}")


def _portable(word: str) -> str:
    """A word as the record keeps it: the home folder is ``~``, in the quotes that Hydra wants around it."""
    if without_home(word) == word or not isinstance(value := parsed(word).value(), str):
        return word
    return override(word.partition("=")[0], without_home(value))


def main() -> None:
    """Run the job. An error that the reader can repair is printed in one line, without a traceback."""
    with steady_output():
        _main()


def _main() -> None:
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    if print_help("config", sys.argv[1:]):
        return
    try:
        sys.argv[1:] = without_echo(_without_dry_run(sys.argv[1:]))
        check_words(sys.argv[1:])
        check_options(sys.argv[1:], "run")
        check_groups(sys.argv[1:])
        with heeded() if process_count() == 1 else nullcontext():  # of several processes one cannot pause alone
            _job()
    except (UserError, RunDiverged, HydraException, OmegaConfBaseException) as error:
        _end(error)
    except OSError as error:  # of Hydra's own folder
        if error.filename is None:
            raise
        _end(UserError(f"{error.filename}: {first_line(error)}; choose another place, or make this one usable"))
    except KeyboardInterrupt:
        print("\nStopped. Give the same command again to resume.", file=sys.stderr)
        sys.exit(ExitCode.STOPPED)
    except Terminated as signal:
        print(f"\nStopped by {signal}. Give the same command again to resume.", file=sys.stderr)
        sys.exit(ExitCode.TERMINATED)


def _without_dry_run(arguments: list[str]) -> list[str]:
    _asked.clear()
    _asked.update(word for word in arguments if word == DRY_RUN)
    return [word for word in arguments if word != DRY_RUN]


def _end(error: Exception) -> NoReturn:
    """Leave with the error's own exit code; a diverged run has said so where it happened."""
    if isinstance(error, RunDiverged):
        sys.exit(ExitCode.DIVERGED)
    complain(error if isinstance(error, UserError) else f"configuration: {explain(error)}{HELP}")
    sys.exit(ExitCode.BAD_INPUT)


if __name__ == "__main__":
    main()
