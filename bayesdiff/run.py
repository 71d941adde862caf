"""The command of record: ``python -m bayesdiff.run +experiment=corruption_curve``.

Composes the configuration, validates it, runs. Exit codes: 0 done, 2 bad input (one line says what
and how to mend it), 3 the training diverged, 130 stopped by Ctrl-C (the same command goes on).
"""

from __future__ import annotations

import os
import sys

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from bayesdiff.config import CONF, Config, resolve
from bayesdiff.errors import RunDiverged, UserError

EXIT_INPUT, EXIT_DIVERGED, EXIT_STOPPED = 2, 3, 130

ConfigStore.instance().store(name="config_schema", node=Config)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _job(raw: DictConfig) -> None:
    cfg = resolve(raw)
    from bayesdiff.experiment import run_experiment

    folder, record = run_experiment(cfg)
    if record.status == "diverged":
        raise RunDiverged(f"{folder}: {record.message}")


def main() -> None:
    """Run the job; what a person can mend is said in one line, without a traceback."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        _job()
    except UserError as error:
        _fail(str(error))
    except RunDiverged:
        sys.exit(EXIT_DIVERGED)  # said where it happened; the curve up to there is kept
    except (HydraException, OmegaConfBaseException) as error:
        _fail(_one_line(error))
    except KeyboardInterrupt:
        print("\nStopped. Give the same command again to go on.", file=sys.stderr)
        sys.exit(EXIT_STOPPED)


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"configuration: {'; '.join(lines[:3])}. See all keys with --cfg job, all groups with --help"


def _fail(message: str) -> None:
    print(f"bayesdiff: {message}", file=sys.stderr)
    sys.exit(EXIT_INPUT)


if __name__ == "__main__":
    main()
