"""Claim by claim: what the paper says, and what the records of a set of results show.

``results/claims.yaml`` lists the claims; each is judged by the study that speaks to it, and the page goes
to ``results/<set>/claims.md`` and between the marks of that set in ``results/README.md``. A claim about a
difference *holds* when the paired difference has the claimed sign and its p-value, corrected over the page
(Holm), is at most 0.05; it is *contradicted* when the sign is the other one. Of the others, one whose own interval
lies below the paper's difference *excludes the paper's size*. The rest is *not decided*, and the page says how large
a difference these runs would have found in spite of the correction.

All of it is exploratory. The claims that were registered before their runs have a page of their own (``primary_page``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from bayesdiff.config.structured import read_entries
from bayesdiff.core import escape
from bayesdiff.core.errors import UserError
from bayesdiff.core.files import write_text
from bayesdiff.core.layout import CLAIMS
from bayesdiff.corruption import detect_corruption
from bayesdiff.corruption.power import detectable_depth
from bayesdiff.corruption.shape import Array
from bayesdiff.recording.archive import UNJUDGED
from bayesdiff.stats import Difference, detectable, holm, paired_difference, power
from bayesdiff.studies.contrasts import at_shared_steps
from bayesdiff.studies.measures import AT_STEP, CLAIM, COSINES, COST, CURVE, LAST, MEASURES, of
from bayesdiff.studies.rows import Found, Row, pair_of, prompts_of, read

LEVEL, POWER = 0.05, 0.8
HOLDS, AGAINST, SMALLER, OPEN = "holds", "contradicted", "excludes the paper's size", "not decided"
MISSING, DIVERGED, UNMEASURED = "runs missing", "runs diverged", "not measured"
LACKING = {MISSING, DIVERGED, UNMEASURED}
STAGE = "stage"
DIRECTIONS = ("higher", "lower", "same")


@dataclass
class Claim:
    """One claim, and the numbers that decide it."""

    claim: str
    paper: str = ""
    """The paper's own words or number; empty for a question of ours."""
    study: str = "???"
    measure: str = "???"
    """One of ``MEASURES``, or ``stage``: do the runs of a row show one together?"""
    row: dict[str, str] = field(default_factory=dict)
    against: dict[str, str] = field(default_factory=dict)
    """Labels in which the reference row differs from ``row``."""
    expected: str = "higher"
    within: float = 0.05
    """How large a difference still is none, for ``expected: same``."""
    effect: float | None = None
    """The paper's own difference in units of the measure, where it has one."""


@dataclass(frozen=True)
class Finding:
    """What the records show of one claim."""

    claim: Claim
    runs: str
    effect: str = ""
    p_value: float = float("nan")
    std_error: float = float("nan")
    freedom: float = float("nan")
    sign: int = 0
    """1 as claimed, -1 against it, 0 neither."""
    largest: float = COSINES
    """How far apart two runs can be."""
    curves: Array | None = None
    """(runs, checkpoints) of a stage that was looked for."""
    lacking: str = ""
    """Why nothing can be said."""
    planned: int = 0
    """Pairs that the study would have, where runs are missing."""
    smaller: bool = False
    """Whether the interval, taken alone, ends before the paper's difference."""
    p_smaller: float = float("nan")
    """Two-sided, of a difference as large as the paper's; NaN where it has none, or ours is at least as large."""


KNOWN = (STAGE, *(measure.name for measure in (*of(CLAIM), *of(LAST, CURVE, COST))))
"""What a claim can be about."""


def load_claims(path: Path) -> list[Claim]:
    """Read the list; raises ``UserError`` for an unknown key, direction or measure, or for nothing to compare with."""
    claims = read_entries(path, Claim, "claims", "give a list of claims such as results/claims.yaml with --claims")
    for claim in claims:
        for key, value, known in (("expected", claim.expected, DIRECTIONS), ("measure", claim.measure, KNOWN)):
            if value not in known:
                raise UserError(f"{path}: {key}: {value} of {claim.claim!r}; choose one of {', '.join(known)}")
        if not claim.against and claim.measure != STAGE:
            raise UserError(f"{path}: {claim.claim!r} names no row that it is against; give against: {{axis: label}}")
    return claims


def _row(rows: list[Row], labels: dict[str, str], claim: Claim) -> Row:
    found = [row for row in rows if row.labels.items() >= labels.items()]
    if len(found) != 1:
        raise UserError(f"claim {claim.claim!r}: {len(found)} rows of {claim.study} are {labels}; name one")
    return found[0]


def judge(claim: Claim, rows: list[Row]) -> Finding:
    """What the complete rows of the claim's study show; raises ``UserError`` for a row the study does not have."""
    row = _row(rows, claim.row, claim)
    if claim.measure == STAGE:
        return _stage(claim, row)
    reference = _row(rows, {**claim.row, **claim.against}, claim)
    count = f"{len(row.found)} + {len(reference.found)} of {len(row.cells)} + {len(reference.cells)}"
    measure = MEASURES[claim.measure]
    pair = pair_of(row, reference, lambda found: read(found, measure)) if row.complete and reference.complete else None
    if pair is None:
        lacking = _lacking(row, reference)
        return Finding(claim, count, lacking=lacking, planned=_planned(row) if lacking == MISSING else 0)
    found = _difference(claim, count, paired_difference(*pair, prompts=prompts_of(row, pair[0].shape[3])))
    return replace(found, largest=_largest(claim.measure, row))


def _largest(measure: str, row: Row) -> float:
    """Beyond this no difference can be."""
    if measure == AT_STEP:
        return float(max(found.record.config["schedule"]["steps"] for found in row.found))
    return MEASURES[measure].largest


def _planned(row: Row) -> int:
    """Pairs of a row's runs that differences are taken over: subjects, or seeds of one."""
    subjects, seeds = ({cell.labels.get(axis) for cell in row.cells} for axis in ("data.subject", "seed"))
    return len(subjects) if len(subjects) > 1 else len(seeds)


def _lacking(*rows: Row) -> str:
    if any(row.diverged for row in rows):
        return DIVERGED
    return UNMEASURED if all(row.complete for row in rows) else MISSING


def _stage(claim: Claim, row: Row) -> Finding:
    """The runs of a row judged together, by the test of one run; their scatter is the noise."""
    count = f"{len(row.found)} of {len(row.cells)}"
    if not row.complete:
        return Finding(claim, count, lacking=_lacking(row))
    steps, scores = scores_together(row)
    verdict = detect_corruption(steps, scores)
    alone = sum(found.verdict is not None and found.verdict.flagged for found in row.found)
    low, high = verdict.depth_interval
    effect = f"depth {verdict.depth:.3f} [{low:.3f}, {high:.3f}]; {alone} of {len(row.found)} runs flagged alone"
    several = scores.mean(2) if len(scores) > 1 and verdict.kind not in UNJUDGED else None
    return Finding(claim, count, effect, verdict.p_value, sign=int(verdict.flagged), curves=several)


def scores_together(row: Row) -> tuple[list[int], Array]:
    """Steps that all runs of a row share, and their scores (runs, steps, images)."""
    steps, scores = at_shared_steps([(np.asarray(steps), scores) for steps, scores in map(fidelity_of, row.found)])
    return steps.tolist(), scores


def fidelity_of(found: Found) -> tuple[list[int], Array]:
    """Steps (T,) and fidelity (T, images) of a run."""
    return found.images.steps.tolist(), found.images.columns["dino"]


def _difference(claim: Claim, runs: str, found: Difference) -> Finding:
    mean, low, high = float(found.mean[0]), float(found.low[0]), float(found.high[0])
    digits = 0 if claim.measure == AT_STEP else 3
    effect = f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
    if not found.of_runs:
        return Finding(claim, runs, f"{effect} (these runs)")
    error, freedom = float(found.std_error[0]), float(found.freedom[0])
    if claim.expected == "same":
        sign, p = (1 if abs(mean) < claim.within else -1), _p_beyond(claim.within - abs(mean), error, freedom)
    else:
        sign, p = int(np.sign(mean)) * (1 if claim.expected == "higher" else -1), float(found.p_value[0])
    judged = Finding(claim, runs, effect, p, error, freedom, sign)
    return judged if claim.effect is None else _against_the_paper(judged, claim.effect, mean, (low, high))


def _against_the_paper(finding: Finding, effect: float, mean: float, interval: tuple[float, float]) -> Finding:
    """Whether the difference is told from the paper's, on the side of a smaller one or none."""
    short = (effect - mean) * np.sign(effect)
    if not short > 0:
        return finding
    nearest = interval[1] if effect > 0 else interval[0]
    p = _p_beyond(short, finding.std_error, finding.freedom)
    return replace(finding, smaller=bool((effect - nearest) * np.sign(effect) > 0), p_smaller=p)


def _p_beyond(distance: float, error: float, freedom: float) -> float:
    """Two-sided p-value of an estimate that lies this far from a bound; 0 where nothing varied."""
    from scipy.stats import t

    return float(2 * t.sf(abs(distance) / error, freedom)) if error > 0 else 0.0


def conclusion(finding: Finding, corrected: float) -> str:
    """``holds``, ``contradicted``, ``excludes the paper's size``, ``not decided``, or why nothing can be said."""
    if finding.lacking:
        return finding.lacking
    if corrected <= LEVEL and finding.sign:
        return HOLDS if finding.sign > 0 else AGAINST
    return SMALLER if finding.smaller else OPEN


def claims_table(findings: list[Finding], options: str = "") -> pd.DataFrame:
    """The page as a table, one line a claim; ``options`` go behind a study's command."""
    p_values = np.array([finding.p_value for finding in findings])
    corrected, tested = holm(p_values), max(int(np.isfinite(p_values).sum()), 1)
    of_paper = holm([finding.p_smaller for finding in findings])
    scatter, lines = _scatter(findings), []
    for finding, p, p_paper in zip(findings, corrected, of_paper, strict=True):
        claim = finding.claim
        lines.append({
            "claim": escape.markdown_cell(claim.claim), "the paper": escape.markdown_cell(claim.paper or "(a question of ours)"),
            "measure": claim.measure, "expected": claim.expected,
            "here": finding.effect or "-", "p (Holm)": _p(p), "verdict": conclusion(finding, p),
            "p of the paper's size (Holm)": _p(p_paper), "detectable": _detectable(finding, LEVEL / tested, scatter),
            "power at the paper's": _power(finding, LEVEL / tested),
            "runs": finding.runs, "command": escape.markdown_code(f"python -m bayesdiff.study {claim.study}{options}"),
        })  # fmt: skip
    return pd.DataFrame(lines)


def _p(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _scatter(findings: list[Finding]) -> dict[str, float]:
    """Measure -> standard deviation of the difference of one pair, the median of the claims about it that were tested."""
    found: dict[str, list[float]] = {}
    for finding in findings:
        if finding.freedom > 0 and finding.std_error > 0:
            found.setdefault(finding.claim.measure, []).append(finding.std_error * float(np.sqrt(finding.freedom + 1)))
    return {measure: float(np.median(values)) for measure, values in found.items()}


def _planned_to_find(finding: Finding, alpha: float, scatter: dict[str, float]) -> str:
    """Of runs that are still to be made: what is worth knowing before them."""
    if (deviation := scatter.get(finding.claim.measure)) is None or finding.planned < 2:
        return "-"
    found = detectable(deviation / np.sqrt(finding.planned), finding.planned - 1, power=POWER, alpha=alpha)
    return f"{found:.3f} (planned)" if found <= finding.largest else "none (planned)"


def _detectable(finding: Finding, alpha: float, scatter: dict[str, float]) -> str:
    """Empty where nothing was tested; "none" where even the largest difference there can be would not be found."""
    if finding.planned:
        return _planned_to_find(finding, alpha, scatter)
    if finding.curves is not None:
        found = detectable_depth(finding.curves, alpha, POWER)
    else:
        found = detectable(finding.std_error, finding.freedom, power=POWER, alpha=alpha)
    return "-" if np.isnan(found) else f"{found:.3f}" if found <= finding.largest else "none"


def _power(finding: Finding, alpha: float) -> str:
    if finding.claim.effect is None or np.isnan(finding.p_value):
        return "-"
    found = power(finding.claim.effect, finding.std_error, finding.freedom, alpha=alpha)
    return "-" if np.isnan(found) else f"{found:.1%}"


EXPLAINED = (
    "Exploratory: these claims were not registered before their runs. "
    f"Made by `make paper-tables` from `results/claims.yaml` and the records beside it. *holds*: the paired difference (last checkpoint "
    f"unless the measure says otherwise) has the claimed sign, and its p-value, corrected over this page (Holm), is at most {LEVEL}; "
    f"*same* holds when the difference is told from {Claim.within} on either side, which is corrected too. *excludes the paper's size*: "
    "the difference itself is not decided, and its own 95 % interval, not corrected, ends before the paper's difference; one such "
    "interval in 40 does so by chance. *p of the paper's size*: of a difference as large, corrected over this page. "
    "*detectable*: the difference that runs like these find in "
    f"{POWER:.0%} of tries at the page's strictest level (of a stage its depth, by simulation with these runs' scatter), *none* "
    "where it would be larger than two runs can differ. *Planned*: the same of runs that are missing, with the median scatter of the "
    "page's other claims about the measure. *Power at the paper's*: how often runs like these find a difference as "
    "large as the paper's, at that level. "
    "*These runs*: one run on each side, nothing to test. "
    "The paper's numbers are its own, for Stable Diffusion 1.5."
)


def counts(findings: list[Finding]) -> dict[str, int]:
    """How many claims have each verdict; the verdicts that say something first."""
    numbers = Counter(claims_table(findings)["verdict"]) if findings else Counter[str]()
    return {verdict: numbers[verdict] for verdict in (HOLDS, AGAINST, SMALLER, OPEN, *sorted(set(numbers) & LACKING))}


def answer(findings: list[Finding]) -> str:
    """The exploratory claims in one line."""
    number = counts(findings)
    lacking, holds = sum(number.get(verdict, 0) for verdict in LACKING), "holds" if number[HOLDS] == 1 else "hold"
    return (
        f"- **The paper's other claims** (exploratory): {number[HOLDS]} of {len(findings)} {holds}, {number[AGAINST]} are contradicted, "
        f"{number[SMALLER]} exclude the paper's size, {number[OPEN]} are not decided, and {lacking} lack runs."
    )


def page(findings: list[Finding], options: str = "") -> str:
    """The claims and what became of them, in Markdown."""
    if not findings:
        return f"{EXPLAINED}\n\nNo claims.\n"
    table = claims_table(findings, options)
    numbers = ", ".join(f"{number} {verdict}" for verdict, number in counts(findings).items())
    return f"{EXPLAINED}\n\n{len(findings)} claims: {numbers}.\n\n{table.to_markdown(index=False)}\n"


def write_page(text: str, results: Path) -> None:
    """``claims.md``, and the same between the marks of this set in the README beside it, where there are some.

    Raises:
        UserError: a README with one of the two marks alone; nothing of it is changed.
    """
    write_text(results / CLAIMS, f"# Claim by claim\n\n{text}")
    write_between(results.parent / "README.md", "claims", results.name, text)


def write_between(readme: Path, what: str, of: str, text: str) -> None:
    """Put ``text`` between the marks ``<!-- what of … -->`` and ``<!-- end of what -->`` of a page that has them.

    Raises:
        UserError: one of the two marks alone; nothing of the page is changed.
    """
    begin, end = f"<!-- {what} of {of} -->\n", f"<!-- end of {what} -->\n"
    if not readme.exists() or begin not in (before := readme.read_text(encoding="utf-8")):
        return
    head, _, rest = before.partition(begin)
    old, found, behind = rest.partition(end)
    if not found or f"<!-- {what} of " in old:
        raise UserError(f"{readme}: {begin.strip()} has no {end.strip()} behind it; add that line where the page of {what} is to end")
    write_text(readme, head + begin + text + end + behind)
