"""Folders that a command names are looked at before the first run, and before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bayesdiff.config.words import override
from bayesdiff.core.errors import UserError
from bayesdiff.core.files import check_writable
from bayesdiff.core.layout import LOGS, RECORDS
from bayesdiff.studies.study_file import check_word


def check_extra(words: Sequence[Any]) -> None:
    """Raises ``UserError`` for a word beside a study's name that no run of it can have, before any run is composed."""
    for word in words:
        if not isinstance(word, str):
            raise UserError(f"{word}: no override; give a text such as 'shots.count=4'")
        if word.lstrip("+~").startswith("paths.runs="):
            raise UserError(f"{word}: a study's folder of runs is --runs (of a worker runs=…); give it so")
        check_word(word)


def check_worker(cfg: Mapping[str, Any]) -> None:
    """Raises ``UserError`` for a value of another kind than its key takes."""
    for key in ("study", "base_model", "runs", "results"):
        if not isinstance(cfg[key], str) and not (cfg[key] is None and key in ("runs", "results")):
            raise UserError(f"{key}={cfg[key]}: not a text; give one, in quotes where it looks like a number: {key}='…'")
    if cfg["threads"] is not None and (not isinstance(cfg["threads"], int) or cfg["threads"] < 1):
        raise UserError(f"threads={cfg['threads']}: not a whole number from 1 on; give one, or null")
    if not isinstance(cfg["overrides"], Sequence) or isinstance(cfg["overrides"], str):
        raise UserError(f"overrides={cfg['overrides']}: not a list; give one such as overrides=['schedule.keep=best']")
    try:
        check_extra(list(cfg["overrides"]))
    except UserError as error:
        raise UserError(f"overrides: {error}") from error


def check_runs(root: Path, write: bool = False) -> None:
    """Raises ``UserError`` for a folder of runs that is a file, cannot be named to Hydra, or (``write``) cannot be written to."""
    override("--runs", str(root))
    if root.exists() and not root.is_dir():
        raise UserError(f"--runs={root}: is a file; give the folder of the run folders")
    if write:
        check_writable(root / LOGS, "--runs")


def check_results(results: Path | None, write: bool = False) -> None:
    """Raises ``UserError`` for a result set that is a file, or that (``write``) cannot be written to."""
    if results is None:
        return
    for part in (results, results / RECORDS):
        if part.exists() and not part.is_dir():
            raise UserError(f"--results={results}: {part} is a file; give the folder of a result set, such as results/mine")
    if write:
        check_writable(results / RECORDS, "--results")
