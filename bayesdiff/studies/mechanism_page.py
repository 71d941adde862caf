"""The page of the contrasts that take the stage apart: a sentence and a figure each, ``results/<set>/mechanism/README.md``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from bayesdiff.core import escape
from bayesdiff.core.files import write_text
from bayesdiff.core.layout import MECHANISM
from bayesdiff.recording.plots import panels, save_figure
from bayesdiff.studies.contrasts import GRAIN, Estimate
from bayesdiff.studies.measures import p_text
from bayesdiff.studies.mechanism import (
    CONTRADICTS,
    DOES_NOT_DECIDE,
    EXPLANATIONS,
    LEVEL,
    OPEN,
    PHOTOGRAPH,
    SUPPORTS,
    Contrast,
    Pair,
    Plan,
    Question,
    curve_in,
    judge,
    mediated,
    outcome,
    pair_of,
    said,
)
from bayesdiff.studies.rows import Row
from bayesdiff.studies.timing import Agreement, Timing, agreement

BESIDE = {"grain": GRAIN, "DINO": "dino", "CLIP-I": "clip_i", "CLIP-T": "clip_t"}
"""Column -> measure, of the table that says what else a contrast changed."""
BESIDE_EXPLAINED = (
    "Each difference with an interval of 95 % of its own, exploratory: over the window of the contrast, and at the last checkpoint."
)
EXPLAINED = (
    "Made by `make paper-tables` from `results/mechanism.yaml` and the records. H1: fine-tuning narrows the distribution (the paper). "
    "H2: noise of the optimiser. H4: guidance on a model whose conditional prediction has collapsed and whose unconditional one has not. "
    "A difference is the mean over subjects, paired, over a window of steps. Its interval is simultaneous over all contrasts that "
    "predict something. A contrast *supports* an explanation where it shows what that predicted, and *contradicts* it where it shows "
    "something else. It *does not decide* where the interval allows both."
)


def write_mechanism(plan: Plan, rows: Mapping[str, Sequence[Row]], results: Path) -> Path:
    """Write the page, and a figure for every contrast that has pairs; returns the page."""
    folder = results / MECHANISM
    pairs = [pair_of(one, rows) for one in plan.contrasts]
    judged = [judge(one, pair, len(pairs)) for one, pair in zip(plan.contrasts, pairs, strict=True)]
    read = zip(plan.contrasts, pairs, judged, strict=True)
    sections = [_section(one, pair, found, len(pairs), folder, i) for i, (one, pair, found) in enumerate(read, 1)]
    questions = [_mediation(one, pair_of(one, rows)) for one in plan.mediations]
    timed = [_timed(one, rows[one.study], folder, i) for i, one in enumerate(plan.timings, len(sections) + 1)]
    first = len(sections) + len(timed) + 1
    further = [(one, pair_of(one, rows)) for one in plan.exploratory]
    explored = [_section(one, pair, judge(one, pair, 1), 1, folder, i) for i, (one, pair) in enumerate(further, first)]
    text = "\n\n".join(
        [
            "# What changes the grain",
            EXPLAINED,
            scoreboard(plan, judged),
            *sections,
            *timed,
            "## What carries the effect",
            *questions,
            *explored,
            beside([*zip(plan.contrasts, pairs, strict=True), *further]),
        ]
    )
    write_text(folder / "README.md", text + "\n")
    return folder / "README.md"


def scoreboard(plan: Plan, judged: Sequence[Estimate | None]) -> str:
    """A line a contrast: its difference, what was seen, and what each explanation had predicted and what became of that."""
    lines = []
    for contrast, found in zip(plan.contrasts, judged, strict=True):
        seen = None if found is None else outcome(found, contrast.smallest)
        line = {"contrast": f"{contrast.arm}: {contrast.name}", "measure": contrast.measure,
                "difference": "not measured yet" if found is None else found.text, "seen": seen or "-"}  # fmt: skip
        lines.append(line | {name: _against(contrast.predicts.get(name), seen) for name in EXPLANATIONS})
    kept = {name: [line[name] for line in lines] for name in EXPLANATIONS}
    summed = "; ".join(
        f"{name} predicted {sum(map(bool, words))}: {sum(SUPPORTS in word for word in words)} supported, "
        f"{sum(CONTRADICTS in word for word in words)} contradicted" for name, words in kept.items()
    )  # fmt: skip
    table = pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)
    said_of = f"{summed}. {_told_apart(plan)} A line that one explanation alone predicted does not tell it from the others."
    return f"## All contrasts at once\n\n{said_of}\n\n{table}"


def beside(read: Sequence[tuple[Contrast, Pair]]) -> str:
    """A line a pair of rows and a window: what it changed in every measure, there and at the end of training."""
    lines, seen = [], set()
    for contrast, pair in read:
        asked = (contrast.study, str(contrast.row), str(contrast.against), contrast.span)
        if not pair.complete or asked in seen:
            continue
        seen.add(asked)
        last = _last(contrast, pair)
        spans = {"": contrast, ", end": replace(contrast, window=[last, last])}
        measured = {
            f"{name}{at}": judge(replace(one, measure=measure), pair, 1) for name, measure in BESIDE.items() for at, one in spans.items()
        }
        lines.append({"contrast": f"{contrast.arm}: {_words(contrast.row)}", "against": _words(contrast.against), "window": contrast.span}
                     | {name: "-" if found is None else found.text for name, found in measured.items()})  # fmt: skip
    table = pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True) if lines else "No contrast has its runs."
    return f"## Beside the contrasts: other measures, and the end of training\n\n{BESIDE_EXPLAINED}\n\n{table}"


def _last(contrast: Contrast, pair: Pair) -> int:
    """The last checkpoint that all runs of a pair have, in the units of the contrast's window."""
    ends = [int(found.images.steps[-1]) for row in (pair.row, pair.against) for found in row.found]
    return 100 if contrast.percent else min(ends, default=0)


def _told_apart(plan: Plan) -> str:
    """On how many lines two explanations predicted different things: these alone can tell them apart."""
    both = {
        (one, other): [(predicts[one], predicts[other]) for predicts in (contrast.predicts for contrast in plan.contrasts)
                       if one in predicts and other in predicts]
        for one, other in combinations(EXPLANATIONS, 2)
    }  # fmt: skip
    counted = ", ".join(f"{one} and {other} on {sum(a != b for a, b in lines)} of {len(lines)}" for (one, other), lines in both.items())
    return f"Of the lines that two of them predicted, they differ so: {counted}. Lines of one letter share runs."


def _against(predicted: str | None, seen: str | None) -> str:
    """What an explanation predicted of a contrast, and what the runs say of that; empty where it predicted nothing."""
    return "" if predicted is None else predicted if seen is None else f"{predicted}: {said(predicted, seen)}"


def _section(contrast: Contrast, pair: Pair, found: Estimate | None, contrasts: int, folder: Path, number: int) -> str:
    """One contrast: its heading, one sentence, and its figure."""
    name = f"{number:02d}.png"
    drawn = draw_pair(contrast, pair, folder / name)
    picture = f"\n\n![{contrast.name}: every run, and the difference of every subject]({name})" if drawn else ""
    return f"## {contrast.arm}: {contrast.name}\n\n{sentence(contrast, pair, found, contrasts)}{picture}"


def sentence(contrast: Contrast, pair: Pair, found: Estimate | None, contrasts: int) -> str:
    """What a contrast says, in one sentence and what it rests on."""
    if not pair.complete:
        return f"Not measured yet: {pair.count} runs (`python -m bayesdiff.study {contrast.study} --results results/toybox`)."
    if found is None:
        return f"Not measured: the runs have no {contrast.measure} in {contrast.span}."
    seen = outcome(found, contrast.smallest)
    shown = "neither told from none nor shown to be small" if seen == OPEN else seen
    return (
        f"**{_decided(contrast.predicts, seen)}** {contrast.measure} differs by {found.text} ({1 - LEVEL / contrasts:.2%} interval, "
        f"{len(found.subjects)} subjects, {contrast.span}): {shown}. The smallest size of interest is {contrast.smallest:g}."
    )


def _decided(predicts: Mapping[str, str], seen: str) -> str:
    """What a result says of every explanation that predicted one."""
    if not predicts:
        return "Exploratory."
    verdicts = {name: said(predicted, seen) for name, predicted in predicts.items()}
    if set(verdicts.values()) <= {DOES_NOT_DECIDE}:
        return "It does not decide."
    return "It " + ", ".join(f"{word} {name}" for name, word in verdicts.items()) + "."


def _timed(timing: Timing, rows: Sequence[Row], folder: Path, number: int) -> str:
    """One question of time: its heading, its answer, and the centres of both orders."""
    found, name = agreement(timing, rows), f"{number:02d}.png"
    heading = f"## {timing.arm}: {timing.name}\n\n"
    if found is None:
        return f"{heading}Not measured yet (`python -m bayesdiff.study {timing.study} --results results/toybox`)."
    _draw_centres(timing, found, folder / name)
    return f"{heading}{timing_sentence(timing, found)}\n\n![{timing.name}: the centre of every subject's curve in both orders]({name})"


def timing_sentence(timing: Timing, found: Agreement) -> str:
    """What a question of time says; no agreement is no evidence for the order with so few subjects."""
    seen = PHOTOGRAPH if found.p_value <= LEVEL else OPEN
    shown = "the photograph sets the time" if seen == PHOTOGRAPH else "not shown that the photograph sets the time"
    ordered = "Subjects share part" if found.order_p <= LEVEL else "It is not shown that subjects share any"
    so = ", so that the order sets part of the curve" if found.order_p <= LEVEL else ""
    apart = float(np.abs(np.diff(found.centres, axis=0)).mean())
    first, last = timing.window
    return (
        f"**{_decided(timing.predicts, seen)}** The centres of {timing.measure} above its lowest value in steps {first} to {last} lie "
        f"{apart:.0f} steps apart in two orders of one photograph. Over {len(found.subjects)} subjects they go together with "
        f"r = {found.correlation:.2f} (one-sided p {p_text(found.p_value, 3, '= ')}, all permutations of subjects): {shown}. "
        f"{ordered} of what the two orders differ in (p {p_text(found.order_p, 3, '= ')}, swaps of the two orders){so}."
    )


def _draw_centres(timing: Timing, found: Agreement, target: Path) -> None:
    """One point a subject: the centre in the first order, and in the second."""
    figure, axes = panels(1, 1, (4.2, 4.0))
    axes[0].scatter(*found.centres, color="C0")
    for subject, (x, y) in zip(found.subjects, found.centres.T, strict=True):
        axes[0].annotate(escape.plot(subject), (x, y), textcoords="offset points", xytext=(4, 3), fontsize=7)
    axes[0].axline((float(found.centres.mean()),) * 2, slope=1, color="0.6", linewidth=0.8)
    axes[0].set(xlabel=f"centre of {escape.plot(timing.measure)} in one order (step)", ylabel="in the other order (step)")
    target.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, target)


def _mediation(question: Question, pair: Pair) -> str:
    if not pair.complete:
        return f"**{question.name}** Not measured yet: {pair.count} runs."
    if (found := mediated(question, pair)) is None:
        return f"**{question.name}** Not measured: too few runs have {question.mediator} and {question.outcome}."
    answer = "Yes" if found.p_value <= LEVEL else "Not shown"
    without, with_it = (f"{one.mean[0]:+.2f} (p {p_text(one.p_value[0], 3, '= ')})" for one in (found.slope, found.slope_with))
    return (
        f"**{question.name}** {answer}: the indirect effect is {found.indirect:+.3f} (p {p_text(found.p_value, 3, '= ')}), "
        f"the total {found.total.mean[0]:+.3f}. "
        f"{question.mediator} changes by {found.mediator.mean[0]:+.3f} (p {p_text(found.mediator.p_value[0], 3, '= ')}). "
        f"Within runs {question.outcome} follows it with slope {without}, and with the intervention {with_it}."
    )


def draw_pair(contrast: Contrast, pair: Pair, target: Path) -> bool:
    """Every run of both rows over steps, and the difference of every pair over steps; False without a pair."""
    ours, theirs = ({run.place: curve_in(contrast, run) for run in row.found} for row in (pair.row, pair.against))
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
        place.set(xlabel="% of training" if contrast.percent else "training step", ylabel=escape.plot(label))
    curves.legend(fontsize=7)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, target)
    return True


def _labels(labels: Mapping[str, str]) -> str:
    return escape.plot(_words(labels))


def _words(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{axis} {label}" for axis, label in labels.items())
