"""Every run's verdict in one table, for a study whose question is what single runs show (``verdicts: true``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.corruption.words import NAMES
from bayesdiff.studies.rows import Found, Row
from bayesdiff.studies.tables import NONE

SUBJECT = "subject"


def verdicts_table(rows: Sequence[Row]) -> pd.DataFrame:
    """A line a run: what to avoid and which kind it is, grain that fidelity does not show, the stage, the checkpoint to keep."""
    judged = [(row, run, run.verdict) for row in rows for run in row.found]
    return pd.DataFrame([_line(row, run, verdict) for row, run, verdict in judged if verdict is not None])


def _line(row: Row, run: Found, verdict: CorruptionVerdict) -> dict[str, object]:
    seed, subject = run.place
    kinds = verdict.avoid_kinds or ("",) * len(verdict.avoid)
    avoid = [f"{first} to {last}" + (f" ({NAMES[kind]})" if kind else "") for (first, last), kind in zip(verdict.avoid, kinds, strict=True)]
    grainy = [f"{first} to {last} ({share:.2f})" for (first, last), share in zip(verdict.grainy, verdict.grainy_shares, strict=True)]
    stage = f"{verdict.depth:.2f} deep, {verdict.onset_step} to {verdict.recovery_step}" if verdict.flagged else NONE
    return {
        **row.labels, SUBJECT: subject, "seed": seed, "1: steps to avoid, and 2: their kind": ", ".join(avoid) or NONE,
        "grain alone, steps (share of the photographs')": ", ".join(grainy) or NONE,
        "3: stage": stage, "p of a stage": f"{verdict.p_value:.4f}", "keep": verdict.best_step if verdict.better_than_base else NONE,
    }  # fmt: skip


def verdicts_line(rows: Sequence[Row]) -> str:
    """How many runs each level of the verdict finds something in."""
    found = [verdict for row in rows for run in row.found if (verdict := run.verdict) is not None]
    avoiding = [verdict for verdict in found if verdict.avoid]
    kinds = Counter(verdict.avoid_kinds[0] for verdict in avoiding if verdict.avoid_kinds)
    named = f" ({', '.join(f'{count} {NAMES[kind]}' for kind, count in kinds.most_common())})" if kinds else ""
    return (
        f"Of {len(found)} curves, each of one run: {len(avoiding)} have steps to avoid (level 1), {kinds.total()} of them a kind "
        f"for the first of these steps (level 2){named}, and {sum(verdict.flagged for verdict in found)} a stage (level 3)."
    )
