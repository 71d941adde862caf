"""What differs between the arms of a page: their settings, and their scores where samples are paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesdiff.config.identity import usual
from bayesdiff.corruption.shape import Array
from bayesdiff.recording.pairs import sampling
from bayesdiff.reporting.traces import Trace
from bayesdiff.stats import paired_difference

IGNORED = ("paths", "tracker", "evaluations", "device", "experiment_name", "report")
"""Settings that change nothing of a result."""
OF_ARMS = {
    "bnn.ema_decay": "ema", "bnn.input_noise": "input_noise", "bnn.dropout": "dropout", "bnn.l2_weight": "l2_to_pretrained",
    "bnn.prompt_dropout": "prompt_dropout",
    **dict.fromkeys((
        "bnn.layers", "bnn.time_layers", "bnn.sigma", "bnn.sigma_init", "bnn.sigma_parametrization", "bnn.sigma_learning_rate_factor",
        "bnn.prior_sigma", "bnn.kl", "bnn.kl_weight", "model.sigma_learning_rate_factor",
    ), "gaussian"),
}  # fmt: skip
"""Settings that one kind of arm alone reads."""
UNUSED = "–"


@dataclass(frozen=True)
class Gap:
    """An arm less the first one, at the checkpoints that both have; arrays are (steps,)."""

    steps: tuple[int, ...]
    mean: Array
    low: Array
    """NaN, as ``high``, where one image has no interval."""
    high: Array
    images: int


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return found


def settings(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a record that count: none that its arm does not use, and the default of those that it is too old to name."""
    arm = str(config["bnn"]["kind"])
    known = {key: value for key, value in usual().items() if value != "???" and key.partition(".")[0] not in IGNORED}
    found = known | flat({key: value for key, value in config.items() if key not in IGNORED})
    return {key: said(value) for key, value in found.items() if OF_ARMS.get(key, arm) == arm}


def differing(arms: Sequence[Trace]) -> list[tuple[str, list[str]]]:
    """(key, value of each arm) of every setting that two arms have otherwise; a dash stands where an arm does not use it."""
    configs = [settings(arm.record.config) if arm.record else {} for arm in arms]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    rows = [(key, [config.get(key, UNUSED) for config in configs]) for key in keys]
    rows.append(("evaluation", [arm.evaluation for arm in arms]))
    rows.append(("training images", [", ".join(_photos(arm)) or UNUSED for arm in arms]))
    return [(key, values) for key, values in rows if len(set(values) - {UNUSED}) > 1]


def said(value: Any) -> str:
    """A setting as the command line has it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _photos(arm: Trace) -> list[str]:
    return [str(photo.get("name", "")) for photo in arm.record.subject.get("photos", [])] if arm.record is not None else []


def why_not_paired(first: Trace, other: Trace) -> str:
    """Why the samples of two arms are not paired; empty where they are."""
    if first.record is None or other.record is None:
        return f"{other.label} has no record, so that its samples are not paired with those of {first.label}"
    mine, theirs = sampling(first.record), sampling(other.record)
    changed = [key for key in mine if mine[key] != theirs.get(key)]
    if first.prompts != other.prompts and "sampler.prompts" not in changed:
        changed.append("prompts")
    if changed:
        return f"{other.label} was sampled otherwise than {first.label} ({', '.join(changed)})"
    common = set(first.steps) & set(other.steps), set(first.places) & set(other.places)
    return "" if all(common) else f"{other.label} shares no checkpoint and sample with {first.label}"


def gap(first: Trace, other: Trace, metric: str) -> Gap | None:
    """The paired difference of a metric; None where one of the arms lacks it, or where no score is finite.

    Its 95 % interval is over prompts and images: it says nothing of other seeds and subjects.
    """
    if metric not in first.columns or metric not in other.columns:
        return None
    steps = [step for step in first.steps if step in other.steps]
    places = [place for place in first.places if place in other.places]
    pair = [_at(arm, metric, steps, places) for arm in (other, first)]
    whole = [bool(np.isfinite(both).all()) for both in zip(*pair, strict=True)]
    if not any(whole):
        return None
    on, off = (values[whole][None, None] for values in pair)
    found = paired_difference(on, off, prompts=[prompt for prompt, _ in places])
    kept = tuple(step for step, good in zip(steps, whole, strict=True) if good)
    low, high = (end if found.levels else np.full(len(kept), np.nan) for end in (found.low, found.high))
    return Gap(kept, found.mean, low, high, len(places))


def _at(arm: Trace, metric: str, steps: Sequence[int], places: Sequence[tuple[int, int]]) -> Array:
    """(steps, places) scores of an arm."""
    rows, columns = [arm.steps.index(step) for step in steps], [arm.places.index(place) for place in places]
    return arm.columns[metric][np.ix_(rows, columns)]
