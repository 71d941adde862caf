"""One worker of a study as a Hydra job, so that Hydra's launchers start many: joblib, submitit (Slurm), Ray.

Workers share a folder and nothing else: a run is claimed by a lock that dies with its process, so that how
many there are, when they start and whether one is killed changes only how long the study takes. Each run takes a
GPU of its own where there are enough (``machine.claim_gpu``). The command is in ``conf/worker.yaml``.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from bayesdiff.config.checks import check_words
from bayesdiff.config.compose import CONF, check_options
from bayesdiff.config.help import print_help
from bayesdiff.config.suggestions import explain
from bayesdiff.core.errors import ExitCode, UserError, complain
from bayesdiff.core.layout import FAILURES, LOGS
from bayesdiff.core.machine import cores
from bayesdiff.studies.checks import check_results, check_runs, check_worker
from bayesdiff.studies.plan import load_study, runs_of

APART = ("basic", "submitit_slurm")
"""Launchers whose jobs do not share this machine's cores: one after the other, or each where Slurm puts it."""


def jobs_at_once(config: DictConfig) -> int:
    """Jobs of a multirun that work at once: all of them, or as many as joblib's ``n_jobs`` lets."""
    words = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    jobs = math.prod(len(list(word.sweep_iterator())) for word in words if word.is_sweep_override())
    most = config.hydra.launcher.get("n_jobs") or -1
    return min(jobs, most) if most > 0 else jobs


class RunsFailed(Exception):
    """Runs failed while this worker was at work; what each said is noted beside the run folders."""


class ShareCores(Callback):
    """Gives the jobs of a multirun on this machine an equal share of its cores, unless ``OMP_NUM_THREADS`` is set.

    Hydra tells a job nothing of the others, so that it is done in the environment they inherit, before they start.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if config.hydra.runtime.choices["hydra/launcher"] not in APART:
            os.environ.setdefault("OMP_NUM_THREADS", str(max(cores() // jobs_at_once(config), 1)))


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="worker")
def work(cfg: DictConfig) -> None:
    """One worker; bad input ends it in one line, where Hydra would put its own above it."""
    try:
        _work(cfg)
    except (UserError, OmegaConfBaseException) as error:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise  # the launcher tells of the job
        _complain(error)
        sys.exit(ExitCode.BAD_INPUT)


def _complain(error: Exception) -> None:
    complain(error if isinstance(error, UserError) else f"{explain(error)}; all keys: python -m bayesdiff.worker --cfg job")


def _work(cfg: DictConfig) -> None:
    """Work on a study until nothing is left to claim; raises ``RunsFailed`` when runs failed, also elsewhere meanwhile, or stopped."""
    from bayesdiff.studies.engine import run_study  # pandas with it, which --help does without
    from bayesdiff.studies.state import DAMAGED

    check_worker(cfg)
    start = Path(HydraConfig.get().runtime.cwd)  # a cluster's worker may start elsewhere
    if cfg.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(cfg.threads)
    root = start / (cfg.runs or runs_of(cfg.base_model))
    results = None if cfg.results is None else start / cfg.results
    check_runs(root, write=True)
    check_results(results, write=True)
    found = run_study(load_study(cfg.study, cfg.base_model), root, 1, tuple(cfg.overrides), results)
    print(f"worker {cfg.worker}: " + ", ".join(f"{number} {state}" for state, number in found.items()), flush=True)
    if failed := sum(found.get(state, 0) for state in ("failed", DAMAGED, "stopped")):
        raise RunsFailed(f"{failed} runs failed, are damaged or were stopped; {root / FAILURES} and {root / LOGS} have what they said")


def main() -> int:
    """Start the worker, or as many as ``-m`` and a launcher ask for; what a person can mend is said in one line."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    if print_help("worker", sys.argv[1:]):
        return ExitCode.DONE
    try:
        check_words(sys.argv[1:])
        check_options(sys.argv[1:], "worker")
        work()
    except RunsFailed as error:
        complain(error)
        return ExitCode.FAILED
    except (UserError, HydraException, OmegaConfBaseException) as error:
        _complain(error)
        return ExitCode.BAD_INPUT
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
