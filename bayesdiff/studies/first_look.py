"""What the runs of the demo showed, in words: measured from their tables, never assumed.

Grain is high-frequency energy as a multiple of the photograph's own (``hf_relative``). Its middle is read between two shares of
the training, where pilot runs had it; its end is the mean of the last ``LAST`` checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from bayesdiff.config.identity import arm_name
from bayesdiff.core.layout import CURVE, MAIN
from bayesdiff.corruption.words import NAMES
from bayesdiff.recording.archive import evaluations_in, scores_folder
from bayesdiff.recording.record import load_record

MIDDLE = (0.12, 0.35)
"""From and to which share of the training; steps 252 to 735 of 2,100."""
LAST = 3
CLEAR = 0.1
"""Of the photograph's own grain; smaller differences are called none."""
ARMS = {"plain": "plain", "bnn": "Bayesian weights", "prompt_dropout": "empty prompt in 30 %"}
EVALUATED = {MAIN: "guidance 7.5", "guidance_1": "guidance 1", "ema": "averaged weights, guidance 7.5"}


@dataclass(frozen=True)
class Look:
    """One arm in one evaluation."""

    arm: str
    evaluation: str
    grain: float
    """In the middle."""
    grain_at_end: float
    dino: float
    """In the middle."""
    dino_at_end: float
    avoid: str
    """The steps that the verdict names; empty where it names none."""


def looks_of(folder: Path) -> list[Look]:
    """A finished run by each of its evaluations; none where it has no verdict."""
    record = load_record(folder)
    if record is None or record.verdict is None:
        return []
    arm = arm_name(record.config["bnn"])
    others = {name: record.evaluations.get(name, {}).get("verdict") or {} for name in evaluations_in(folder)}
    return [
        _look(arm, name, pd.read_csv(scores_folder(folder, name) / CURVE), verdict)
        for name, verdict in {MAIN: record.verdict, **others}.items()
    ]


def _look(arm: str, evaluation: str, curve: pd.DataFrame, verdict: Mapping[str, Any]) -> Look:
    share = curve["step"] / curve["step"].max()
    middle, end = curve[share.between(*MIDDLE)], curve.tail(LAST)
    return Look(
        arm, evaluation, float(middle["hf_relative"].mean()), float(end["hf_relative"].mean()), float(middle["dino"].mean()),
        float(end["dino"].mean()), ", ".join(_avoided(verdict)),
    )  # fmt: skip


def _avoided(verdict: Mapping[str, Any]) -> list[str]:
    """``360 to 600 (noise pattern)`` for each stretch that the verdict names."""
    kinds = verdict.get("avoid_kinds") or [""] * len(verdict.get("avoid", []))
    named = [(tuple(span), NAMES.get(kind, kind)) for span, kind in zip(verdict.get("avoid", []), kinds, strict=True)]
    named += [(tuple(span), "noise pattern") for span in verdict.get("grainy", [])]
    return [f"{first} to {last}" + (f" ({kind})" if kind else "") for (first, last), kind in sorted(named)]


def table_of(looks: Sequence[Look], steps: int) -> Table:
    """A row an arm and evaluation."""
    first, last = (round(share * steps) for share in MIDDLE)
    table = Table("arm", "sampled with", f"grain, steps {first} to {last}", "at the end", "DINO there", "at the end", "steps to avoid")
    for one in looks:
        numbers = (f"{value:.2f}" for value in (one.grain, one.grain_at_end, one.dino, one.dino_at_end))
        table.add_row(ARMS.get(one.arm, one.arm), EVALUATED.get(one.evaluation, one.evaluation), *numbers, one.avoid or "none")
    return table


def sentences_of(looks: Sequence[Look]) -> list[str]:
    """What was seen, how sure it is, and what to do with a model of one's own; empty without the plain run."""
    found = {(one.arm, one.evaluation): one for one in looks}
    plain = found.get(("plain", MAIN))
    if plain is None:
        return []
    low = found.get(("plain", "guidance_1"))
    return [*_seen(plain, low, found.get(("plain", "ema"))), *_arms(plain, found), _sure(plain), *_next(plain, low)]


def _seen(plain: Look, low: Look | None, averaged: Look | None) -> list[str]:
    grainy = plain.grain - max(plain.grain_at_end, 1.0) > CLEAR
    said = [
        f"Sampled as the paper does, plain fine-tuning has {plain.grain:.2f} times the photograph's grain in the middle of training, "
        f"and {plain.grain_at_end:.2f} times at the end: {'a stage of grain' if grainy else 'no clear stage of grain'}."
    ]
    if low is not None:
        gap = plain.grain - low.grain
        cause = "the grain comes with guidance" if gap > CLEAR else "guidance does not explain what grain there is"
        said.append(
            f"The same weights sampled at guidance 1 have {low.grain:.2f}: {cause}. Their DINO is {low.dino:.2f}, not {plain.dino:.2f}."
        )
    if averaged is not None:
        said.append(f"Averaging the weights leaves {averaged.grain:.2f}.")
    return said


def _arms(plain: Look, found: Mapping[tuple[str, str], Look]) -> list[str]:
    """The other arms beside the plain one, each with what it costs in DINO."""
    others = [one for (_, evaluation), one in found.items() if evaluation == MAIN and one is not plain]
    return [
        f"{ARMS.get(one.arm, one.arm).capitalize()}: grain {one.grain:.2f} ({one.grain - plain.grain:+.2f}), DINO {one.dino:.2f} "
        f"({one.dino - plain.dino:+.2f})."
        for one in others
    ]


def _sure(plain: Look) -> str:
    told = f"tell steps {plain.avoid} from those before and after" if plain.avoid else "tell no steps from those before and after"
    return (
        f"How sure: of the plain run the images {told}, at an error rate of 5 %. One run an arm does not tell the arms apart; "
        "results/primary.md has the registered test on 16 subjects."
    )


def _next(plain: Look, low: Look | None) -> list[str]:
    helps = low is not None and plain.grain - low.grain > CLEAR
    lower = "sample the same checkpoint at a lower guidance scale first. It needs no training; look whether the likeness stays. "
    first = f"If its samples are grainy, {lower}" if helps else ""
    return [
        "With a model of your own: bayesdiff judge SAMPLES --photos PHOTOS names the checkpoint to keep and the ones to avoid. "
        f"{first}docs/judge.md has each trainer's folder."
    ]
