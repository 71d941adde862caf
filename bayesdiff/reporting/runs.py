"""The page of a run, written where the run is."""

from __future__ import annotations

from pathlib import Path

from bayesdiff.core.layout import REPORT
from bayesdiff.reporting.pages import MOST_ARMS, write_runs
from bayesdiff.reporting.traces import arms_of


def write_run_page(folder: Path, target: Path | None = None) -> Path:
    """Write ``report.html`` of a run folder or a collected record: its own curve, and those of its first further evaluations.

    Raises:
        UserError: a damaged record, or a place that cannot be written to.
    """
    return write_runs(arms_of(folder)[:MOST_ARMS], target or folder / REPORT)
