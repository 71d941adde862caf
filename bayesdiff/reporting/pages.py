"""Arms to one HTML file: what the template shows, and the data that the page's script draws from.

Text is escaped by Jinja's autoescape, and data by its ``tojson``, which writes ``<``, ``>``, ``&`` and ``'`` as escapes: no text of a
user's can end a script or be read as markup.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdiff import __version__
from bayesdiff.config.identity import arm_name
from bayesdiff.core import escape
from bayesdiff.core.errors import UserError, first_line
from bayesdiff.core.files import write_text
from bayesdiff.core.layout import MAIN
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.corruption.words import NAMES
from bayesdiff.recording.record import RunRecord, repeat_command
from bayesdiff.reporting import charts
from bayesdiff.reporting.contrasts import differing, flat, gap, why_not_paired
from bayesdiff.reporting.pictures import BUDGET, Plan, data_uri, plan, samples_of
from bayesdiff.reporting.traces import Trace, named
from bayesdiff.scoring.curve import half_band
from bayesdiff.scoring.metrics import in_order, known

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
MOST_ARMS = 6
"""Curves of one page: more have no marker and dash of their own."""
MOST_PHOTOS = 8
DIGITS = 5
KINDS = {
    "corruption": ("Corruption stage", "bad"), "in_progress": ("Fallen, and not back", "bad"), "unstable": ("Unstable", "warn"),
    "overfit": ("Overfit", "warn"), "none": ("No corruption stage", "good"), "undertrained": ("Still rising", "plain"),
    "nothing_better_than_base": ("Nothing beats the base model", "warn"), "broken_sampling": ("Broken sampling", "bad"),
    "too_few_points": ("Too few checkpoints", "plain"), "diverged": ("Diverged", "bad"),
}  # fmt: skip
"""What a kind of verdict is called on a page, and its tone: good, plain, warn or bad."""
PHASES = {
    "train": "training", "sample": "sampling", "score": "scoring", "probe": "probes", "load": "loading", "save": "saving",
    "plot": "pictures", "draws": "weight draws",
}  # fmt: skip
"""What a phase of a run is called, in the order of the table."""
BETTER = {True: "higher is better", False: "lower is better", None: "neither direction is better"}


@cache
def environment() -> Environment:
    """Jinja with every text escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["plain"] = escape.plain
    made.policies["json.dumps_kwargs"] = {"sort_keys": False}  # Bokeh's models are defined where they first stand
    return made


def render(template: str, title: str, data: dict[str, Any], stores: dict[str, Any] | None = None, **content: Any) -> str:
    """A whole page; ``data`` is what its script reads at once, ``stores`` what it reads later. Without charts it has no library."""
    asset = {name: (TEMPLATES / f"report.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    palette = {"light": charts.LIGHT, "dark": charts.DARK, "markers": charts.MARKERS, "dashes": charts.DASHES}
    return environment().get_template(template).render(
        title=escape.plain(title), data={**data, "palette": palette}, assets=asset, version=__version__,
        library="" if data["kind"] == "index" else charts.library(), stores=stores or {}, **content,
    )  # fmt: skip


def write_runs(arms: Sequence[Trace], target: Path, title: str = "", budget: int = BUDGET) -> Path:
    """Write the page of one run, or of several beside each other; returns ``target``.

    Raises:
        UserError: more than ``MOST_ARMS`` curves, none, or a place that cannot be written to.
    """
    return write_page(target, runs_page(arms, title, budget))


def write_page(target: Path, text: str) -> Path:
    """Write a page whole or not at all; raises ``UserError`` where that cannot be done."""
    try:
        write_text(target, text)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({first_line(error)}); give another place with --output FILE.html") from error
    return target


def runs_page(arms: Sequence[Trace], title: str = "", budget: int = BUDGET) -> str:
    """The page of one run, or of several beside each other. Raises ``UserError``."""
    if not arms:
        raise UserError("no run to report; give a run folder, a study's name, or a folder of samples")
    if len(arms) > MOST_ARMS:
        raise UserError(f"{len(arms)} curves, and a page shows at most {MOST_ARMS}; give fewer runs, or the name of their study")
    arms = named(arms)
    chosen = plan(arms, budget)
    metrics = metrics_of(arms)
    data = {
        "kind": "runs", "metric": arms[0].metric, "metrics": metrics, "arms": [arm_data(arm) for arm in arms],
        "prompts": [{"text": prompt_at(arms, at), "place": list(at)} for at in chosen.places],
        "photos": [data_uri(photo) for photo in _photos(arms)[:MOST_PHOTOS]],
        "curve": charts.curve_chart(len(arms)), **_gaps(arms, [metric["name"] for metric in metrics]),
    }  # fmt: skip
    return render(
        "runs.html", title or _title(arms), data, cards=[card(arm) for arm in arms], several=len(arms) > 1, settings=differing(arms),
        details=[_detail(arm, metrics) for arm in arms], costs=costs(arms), absent=absent(arms, chosen), encoding=chosen.encoding.words,
        shown=len(chosen.places), total=chosen.total, metrics=metrics, unpaired=_unpaired(arms), labels=[arm.label for arm in arms],
        has_curve=any(arm.steps for arm in arms), has_pictures=bool(chosen.places), has_gaps=bool(data["gaps"]),
        unrecorded=[arm.label for arm in arms if arm.record is None], about=about(arms[0]) if len(arms) == 1 else "",
        stores=stores_of(arms, chosen),
    )  # fmt: skip


def _title(arms: Sequence[Trace]) -> str:
    """What the arms have in common."""
    record = arms[0].record
    subjects = {str(arm.record.config["data"]["subject"]) for arm in arms if arm.record is not None}
    if record is None or len(subjects) != 1:
        return arms[0].name if len(arms) == 1 else f"{len(arms)} runs"
    methods = {str(arm.record.config["method"]["name"]) for arm in arms if arm.record is not None}
    return f"{subjects.pop()}, {' and '.join(sorted(methods))}"


def about(arm: Trace) -> str:
    """What was done, in a line below the title; empty without a record, whose notes say as much."""
    if arm.record is None:
        return ""
    counted = f"{len(arm.steps)} checkpoints of {len(arm.places)} samples" if arm.steps else ""
    config, photos = arm.record.config, len(arm.record.subject.get("photos", []))
    trained = f"{photos} training image{'s' if photos != 1 else ''}" if photos else ""
    steps, seed = f"{config['schedule']['steps']} steps", f"seed {config['seed']}"
    words = [str(config["model"]["name"]), arm_name(config["bnn"]), trained, steps, seed, counted]
    return escape.plain(" · ".join(word for word in words if word))


def _photos(arms: Sequence[Trace]) -> list[Any]:
    return list(next((arm.photos for arm in arms if arm.photos), ()))


def prompt_at(arms: Sequence[Trace], at: tuple[int, int]) -> str:
    """A prompt with the number of its image, for a list to choose from."""
    text = next((arm.prompts[at[0]] for arm in arms if at[0] in arm.prompts), f"prompt {at[0]}")
    return f"{escape.plain(text)}, image {at[1]}"


def metrics_of(arms: Sequence[Trace]) -> list[dict[str, Any]]:
    """Every metric that an arm has, in the suite's order: name, label, and what its numbers mean."""
    found = []
    for name in in_order({name for arm in arms for name in arm.columns}):
        record = next((arm.record for arm in arms if arm.record is not None and name in arm.record.custom_metrics), None)
        said = known(name, record.custom_metrics if record is not None else {})
        label, unit = (said.label, f"{said.unit}; {BETTER[said.higher_is_better]}") if said is not None else (name, "")
        found.append({"name": name, "label": escape.plain(label), "unit": escape.plain(unit)})
    return found


def numbers(values: Any) -> list[Any]:
    """An array as JSON has it: rounded, and null for what is not finite."""
    rounded = np.round(np.asarray(values, dtype=np.float64), DIGITS)
    plain = rounded.astype(object)
    plain[~np.isfinite(rounded)] = None
    found: list[Any] = plain.tolist()
    return found


def curves(arm: Trace) -> dict[str, dict[str, list[Any]]]:
    """Metric -> mean (T,) with its 95 % band over images."""
    found = {}
    for name, scores in arm.columns.items():
        count = scores.shape[1]
        half = half_band(scores.std(1, ddof=min(count - 1, 1)) / math.sqrt(count), count)
        mean = scores.mean(1)
        found[name] = {"mean": numbers(mean), "low": numbers(mean - half), "high": numbers(mean + half)}
    return found


def arm_data(arm: Trace) -> dict[str, Any]:
    """What the script reads of an arm when the page opens."""
    verdict = arm.verdict
    judged = verdict if verdict is not None and len(verdict.labels) == len(arm.steps) else None
    return {
        "name": escape.plain(arm.name), "label": escape.plain(arm.label), "metric": arm.metric,
        "steps": list(arm.steps), "images": len(arm.places), "curves": curves(arm),
        "stages": list(judged.labels) if judged is not None else [],
        "keep": kept_step(verdict), "avoid": spans_to_avoid(verdict), "stage": _stage(verdict),
        "ceilings": {name: round(value, DIGITS) for name, value in arm.ceilings.items()},
        "pictures": sorted(arm.files),
    }  # fmt: skip


def stores_of(arms: Sequence[Trace], chosen: Plan | None = None) -> dict[str, Any]:
    """What the script reads when it is asked for, by the name of the block: the scores of an arm, and its samples at a step.

    A page opens as soon without them as if it had none: the browser only passes over their text.
    """
    scores = {
        f"scores-{i}": {"places": [list(at) for at in arm.places], "scores": {name: numbers(of) for name, of in arm.columns.items()}}
        for i, arm in enumerate(arms)
    }
    pictures = {
        f"pictures-{i}-{step}": uris
        for i, arm in enumerate(arms) if chosen is not None for step, uris in samples_of(arm, chosen).items()
    }  # fmt: skip
    return scores | pictures


def kept_step(verdict: CorruptionVerdict | None) -> int | None:
    """The checkpoint to keep; None where nothing is judged, or nothing beats the base model."""
    return verdict.best_step if verdict is not None and verdict.better_than_base else None


def spans_to_avoid(verdict: CorruptionVerdict | None) -> list[list[Any]]:
    """[first step, last step, why] of every range that the first level, or grain alone, says to avoid."""
    if verdict is None:
        return []
    kinds = verdict.avoid_kinds or ("",) * len(verdict.avoid)
    told = [[*span, NAMES.get(kind, kind)] for span, kind in zip(verdict.avoid, kinds, strict=False)]
    return told + [[*span, "noise pattern"] for span in verdict.grainy]


def _stage(verdict: CorruptionVerdict | None) -> list[int] | None:
    """First and last step of the third level's stage."""
    if verdict is None or not verdict.flagged or verdict.onset_step is None:
        return None
    return [verdict.onset_step, verdict.recovery_step if verdict.recovery_step is not None else verdict.onset_step]


def sentences(verdict: CorruptionVerdict) -> tuple[str, str]:
    """The verdict's first sentence, and the others."""
    first, stop, rest = verdict.sentence.partition(". ")
    return escape.plain(first + (stop.strip() or "")), escape.plain(rest)


def card(arm: Trace) -> dict[str, Any]:
    """The answer of one arm."""
    status = arm.record.status if arm.record is not None else ""
    badge, tone = KINDS.get(arm.verdict.kind, (arm.verdict.kind, "plain")) if arm.verdict is not None else ("Not judged", "plain")
    first, rest = sentences(arm.verdict) if arm.verdict is not None else (_no_verdict(arm, status), "")
    message = escape.plain(arm.record.message) if arm.record is not None else ""
    return {
        "label": arm.label, "badge": badge, "tone": tone, "first": first, "rest": rest, "status": status, "message": message,
        "notes": arm.notes,
    }  # fmt: skip


def _no_verdict(arm: Trace, status: str) -> str:
    if status == "diverged":
        return "Training diverged before its first checkpoint."
    return "No checkpoint is scored yet." if not arm.steps else "There is no verdict on this curve."


def absent(arms: Sequence[Trace], chosen: Plan) -> list[str]:
    """What a reader might look for and not find, and why."""
    lines = []
    if not chosen.places:
        lines.append("Samples are not shown: a committed record has the scores of every image, and not the images.")
    elif without := [arm.label for arm in arms if not arm.files]:
        lines.append(f"Samples of {', '.join(without)} are not here.")
    if chosen.places and len(chosen.places) < chosen.total:
        lines.append(f"Of {chosen.total} samples a checkpoint, {len(chosen.places)} are shown; scores are of all.")
    if not _photos(arms):
        lines.append("The training images are not shown.")
    hidden = max(len(_photos(arms)) - MOST_PHOTOS, 0)
    return lines + ([f"{hidden} more training images are not shown."] if hidden else [])


def _gaps(arms: Sequence[Trace], metrics: Sequence[str]) -> dict[str, Any]:
    """Paired differences from the first arm, by metric; empty where no arm is paired with it."""
    paired = [i for i, arm in enumerate(arms) if i and not why_not_paired(arms[0], arm)]
    found: dict[str, Any] = {}
    for name in metrics if paired else ():
        of_arms = {i: gap(arms[0], arms[i], name) for i in paired}
        found[name] = {
            i: {"steps": list(one.steps)} | {end: numbers(getattr(one, end)) for end in ("mean", "low", "high")}
            for i, one in of_arms.items() if one is not None
        }  # fmt: skip
    return {"gaps": found, "gap_chart": charts.gap_chart(len(arms)) if found else None}


def _unpaired(arms: Sequence[Trace]) -> list[str]:
    return [why for arm in arms[1:] if (why := why_not_paired(arms[0], arm))]


def table_of(arm: Trace, metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The scores of every checkpoint: heads, and rows of (step, stage, [mean ± standard error], whether it is kept)."""
    shown = [metric for metric in metrics if metric["name"] in arm.columns]
    labels = arm.verdict.labels if arm.verdict is not None and len(arm.verdict.labels) == len(arm.steps) else ("",) * len(arm.steps)
    keep = kept_step(arm.verdict)
    rows = [
        {"step": step, "stage": label, "cells": [_mean(arm.columns[metric["name"]][i]) for metric in shown], "kept": step == keep}
        for i, (step, label) in enumerate(zip(arm.steps, labels, strict=True))
    ]
    return {"heads": shown, "rows": rows}


def _mean(scores: Any) -> str:
    if not np.isfinite(scores).all():
        return "–"
    error = f" ± {scores.std(ddof=1) / math.sqrt(len(scores)):.3f}" if len(scores) > 1 else ""
    return f"{scores.mean():.3f}{error}"


def _detail(arm: Trace, metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Scores, settings and commands of one arm."""
    config = flat({k: v for k, v in arm.record.config.items() if k != "paths"}) if arm.record is not None else {}
    return {
        "label": arm.label, "name": escape.plain(arm.name), "table": table_of(arm, metrics), "commands": commands(arm),
        "settings": [(key, "null" if value is None else str(value)) for key, value in config.items()],
    }  # fmt: skip


def commands(arm: Trace) -> list[tuple[str, str]]:
    """(what for, command line) to repeat an arm."""
    if arm.command:
        return [("Judge it again", escape.plain(arm.command))]
    if arm.record is None or arm.evaluation != MAIN:
        return []
    found = [("Run it again", command)] if (command := repeat_command(arm.record)) else []
    if (keep := kept_step(arm.verdict)) is not None and arm.files:
        what = f"Export step {keep} for diffusers, from the folder that the run is in"
        found.append((what, f"bayesdiff export {shlex.quote(escape.plain(arm.name))} --step {keep}"))
    return [(what, escape.plain(command)) for what, command in found]


def costs(arms: Sequence[Trace]) -> dict[str, Any]:
    """Seconds by phase and memory in ``rows``, where it ran in ``place``: (what, value of each arm)."""
    found = [(arm.label, arm.record) for arm in arms if arm.record is not None and arm.evaluation == MAIN]
    records = [record for _, record in found]
    phases = [phase for phase in PHASES if any(phase in record.seconds for record in records)]
    rows = [(PHASES[phase], [time_words(record.seconds.get(phase)) for record in records]) for phase in phases]
    if phases:
        rows.append(("all", [time_words(sum(record.seconds.values())) for record in records]))
        rows.append(("memory of the process", [memory_words(record.peak_memory_mb, gpu=False) for record in records]))
    if any(key.endswith("_gpu") for record in records for key in record.peak_memory_mb):
        rows.append(("memory of the GPU", [memory_words(record.peak_memory_mb, gpu=True) for record in records]))
    return {"labels": [label for label, _ in found], "rows": rows, "place": _place(records)}


def _place(records: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """Device, threads, commit and versions."""
    about = {"device": "device", "gpu": "GPU", "threads": "threads", "python": "Python", "git_commit": "commit"}
    known_of = [word for word in about if any(record.environment.get(word) for record in records)]
    rows = [(about[word], [str(record.environment.get(word) or "–")[:16] for record in records]) for word in known_of]
    versions = [dict(record.environment.get("versions", {})) for record in records]
    return rows + [(name, [str(own.get(name, "–")) for own in versions]) for name in sorted({name for own in versions for name in own})]


def time_words(seconds: float | None) -> str:
    """Seconds as a person says them; a dash for None."""
    if seconds is None:
        return "–"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def memory_words(megabytes: dict[str, float], gpu: bool) -> str:
    """The highest of a record's peaks, of the GPU or of the process; a dash where there is none."""
    found = [value for key, value in megabytes.items() if key.endswith("_gpu") == gpu]
    return f"{max(found) * 2**20 / 1e9:.2f} GB" if found else "–"
