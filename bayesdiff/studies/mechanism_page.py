"""The page of the contrasts that take the stage apart: a sentence and a figure each, ``results/<set>/mechanism/README.md``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bayesdiff.core import escape
from bayesdiff.core.files import write_text
from bayesdiff.core.layout import MECHANISM
from bayesdiff.recording.plots import panels, save_figure
from bayesdiff.studies.contrasts import Estimate, curve_of
from bayesdiff.studies.mechanism import (
    DOES_NOT_DECIDE,
    LEVEL,
    OPEN,
    Contrast,
    Pair,
    Plan,
    Question,
    judge,
    mediated,
    outcome,
    pair_of,
    said,
)
from bayesdiff.studies.rows import Row

EXPLAINED = (
    "Made by `make paper-tables` from `results/mechanism.yaml` and the records. H1: fine-tuning narrows the distribution (the paper). "
    "H2: noise of the optimiser. H4: guidance on a model whose conditional prediction has collapsed and whose unconditional one has not. "
    "A difference is the mean over subjects, paired, over a window of steps. Its interval is simultaneous over all contrasts of "
    "this page. A contrast *supports* an explanation where it shows what that predicted, and *contradicts* it where it shows something "
    "else. It *does not decide* where the interval allows both."
)


def write_mechanism(plan: Plan, rows: Mapping[str, Sequence[Row]], results: Path) -> Path:
    """Write the page, and a figure for every contrast that has pairs; returns the page."""
    folder = results / MECHANISM
    sections = [_section(one, pair_of(one, rows), len(plan.contrasts), folder, i) for i, one in enumerate(plan.contrasts, 1)]
    questions = [_mediation(one, pair_of(one, rows)) for one in plan.mediations]
    text = "\n\n".join(["# The stage taken apart", EXPLAINED, *sections, "## What carries the effect", *questions])
    write_text(folder / "README.md", text + "\n")
    return folder / "README.md"


def _section(contrast: Contrast, pair: Pair, contrasts: int, folder: Path, number: int) -> str:
    """One contrast: its heading, one sentence, and its figure."""
    name = f"{number:02d}.png"
    drawn = draw_pair(contrast, pair, folder / name)
    picture = f"\n\n![{contrast.name}: every run, and the difference of every subject]({name})" if drawn else ""
    return f"## {contrast.arm}: {contrast.name}\n\n{sentence(contrast, pair, judge(contrast, pair, contrasts), contrasts)}{picture}"


def sentence(contrast: Contrast, pair: Pair, found: Estimate | None, contrasts: int) -> str:
    """What a contrast says, in one sentence and what it rests on."""
    if not pair.complete:
        return f"Not measured yet: {pair.count} runs (`python -m bayesdiff.study {contrast.study} --results results/toybox`)."
    if found is None:
        return f"Not measured: the runs have no {contrast.measure} in steps {contrast.window[0]} to {contrast.window[1]}."
    seen = outcome(found, contrast.smallest)
    verdicts = {name: said(predicted, seen) for name, predicted in contrast.predicts.items()}
    open_ones = list(verdicts.values()).count(DOES_NOT_DECIDE) == len(verdicts)
    words = "It does not decide." if open_ones else "It " + ", ".join(f"{word} {name}" for name, word in verdicts.items()) + "."
    shown = "neither told from none nor shown to be small" if seen == OPEN else seen
    first, last = contrast.window
    return (
        f"**{words}** {contrast.measure} differs by {found.text} ({1 - LEVEL / contrasts:.2%} interval, {len(found.subjects)} subjects, "
        f"steps {first} to {last}): {shown}. The smallest size of interest is {contrast.smallest:g}."
    )


def _mediation(question: Question, pair: Pair) -> str:
    if not pair.complete:
        return f"**{question.name}** Not measured yet: {pair.count} runs."
    if (found := mediated(question, pair)) is None:
        return f"**{question.name}** Not measured: too few runs have {question.mediator} and {question.outcome}."
    answer = "Yes" if found.p_value <= LEVEL else "Not shown"
    without, with_it = (f"{one.mean[0]:+.2f} (p = {one.p_value[0]:.3f})" for one in (found.slope, found.slope_with))
    return (
        f"**{question.name}** {answer}: the indirect effect is {found.indirect:+.3f} (p = {found.p_value:.3f}), "
        f"the total {found.total.mean[0]:+.3f}. "
        f"{question.mediator} changes by {found.mediator.mean[0]:+.3f} (p = {found.mediator.p_value[0]:.3f}). "
        f"Within runs {question.outcome} follows it with slope {without}, and with the intervention {with_it}."
    )


def draw_pair(contrast: Contrast, pair: Pair, target: Path) -> bool:
    """Every run of both rows over steps, and the difference of every pair over steps; False without a pair."""
    ours, theirs = ({run.place: curve_of(run, contrast.measure) for run in row.found} for row in (pair.row, pair.against))
    pairs = [(mine, other) for place, mine in ours.items() if mine is not None and (other := theirs.get(place)) is not None]
    if not pairs:
        return False
    figure, (curves, differences) = panels(2, 2, (5.2, 3.2))
    for colour, which, labels in (("C3", 1, contrast.against), ("C0", 0, contrast.row)):
        for i, pair_ in enumerate(pairs):
            steps, values = pair_[which]
            curves.plot(steps, values, color=colour, linewidth=0.9, alpha=0.7, label=_labels(labels) if i == 0 else None)
    for mine, other in pairs:
        shared, at, where = np.intersect1d(mine[0], other[0], return_indices=True)
        differences.plot(shared, mine[1][at] - other[1][where], color="0.4", linewidth=0.9, alpha=0.7)
    differences.axhline(0, color="black", linewidth=0.6)
    differences.axhspan(-contrast.smallest, contrast.smallest, color="0.5", alpha=0.15, linewidth=0)
    for place, label in ((curves, contrast.measure), (differences, "difference of each pair")):
        place.axvspan(*contrast.window, color="C2", alpha=0.08, linewidth=0)
        place.set(xlabel="training step", ylabel=escape.plot(label))
    curves.legend(fontsize=7)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, target)
    return True


def _labels(labels: Mapping[str, str]) -> str:
    return escape.plot(", ".join(f"{axis} {label}" for axis, label in labels.items()))
