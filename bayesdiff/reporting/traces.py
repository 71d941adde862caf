"""One curve on a page: a run, an evaluation of it, a collected record, or the samples of another trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from bayesdiff.config.identity import arm_name
from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import EVALUATIONS, GRID, MAIN, RECORD, SCORES, image_name, images_folder
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.corruption.shape import Array
from bayesdiff.readings import Naming
from bayesdiff.readings.runs import is_run, read_run
from bayesdiff.recording.archive import UNJUDGED, evaluations_in, judge
from bayesdiff.recording.columns import Images
from bayesdiff.recording.record import RunRecord, lacking, load_record, missing_scores

Place = tuple[int, int]
"""Numbers of prompt and image."""


@dataclass(frozen=True)
class Trace:
    """What a page needs of one curve."""

    name: str
    """Of the folder."""
    metric: str
    """The judged one; always among the columns, where there are any."""
    steps: tuple[int, ...] = ()
    columns: dict[str, Array] = field(default_factory=dict)
    """(T, images) scores by metric."""
    places: tuple[Place, ...] = ()
    """(images,) prompt and number of each."""
    verdict: CorruptionVerdict | None = None
    record: RunRecord | None = None
    label: str = ""
    """Short, and its own on a page."""
    evaluation: str = MAIN
    files: dict[int, dict[Place, Path]] = field(default_factory=dict)
    """Step -> the samples that are there."""
    prompts: dict[int, str] = field(default_factory=dict)
    photos: tuple[Image.Image, ...] = ()
    """The training images, as squares."""
    ceilings: dict[str, float] = field(default_factory=dict)
    """Similarity of different photographs by metric."""
    notes: tuple[str, ...] = ()
    """What a reader of the page should know, whole sentences or fragments."""
    grid: Path | None = None
    """The committed picture of prompts by steps."""
    command: str = ""
    """What repeats it, where its record does not say."""

    @property
    def judged(self) -> bool:
        """Whether the verdict says anything of the curve's shape."""
        return self.verdict is not None and self.verdict.kind not in UNJUDGED


SHOWN = (
    "detector.metric", "shots.count", "method.name", "method.learning_rate", "bnn.kind", "bnn.sigma", "data.subject", "seed",
    "model.resolution",
)  # fmt: skip
"""Settings of a record that a page names."""


def arms_of(folder: Path) -> list[Trace]:
    """A run folder or a collected record, and after it each further evaluation that has scores.

    Raises:
        UserError: a damaged record, or scores without the judged metric.
    """
    record = load_record(folder)
    if record is not None and (key := lacking(record.config, SHOWN)):
        raise UserError(f"{folder / RECORD}: config has no {key}; repeat the run with this version, or remove the folder")
    photos, prompts, notes = _about(folder)
    main = _read(folder, record, Trace(folder.name, "dino", record=record, photos=photos, prompts=prompts, notes=notes))
    found = [main]
    for name in evaluations_in(folder) if record is not None else []:
        place = folder / EVALUATIONS / name
        if is_run(place):
            words = _evaluated_prompts(folder, name) or prompts
            found.append(_read(place, record, Trace(f"{folder.name}/{name}", "dino", evaluation=name, photos=photos, prompts=words)))
    return [replace(one, record=record) for one in found]


def _read(place: Path, record: RunRecord | None, arm: Trace) -> Trace:
    """An arm with its scores, verdict and samples; without them where there are none yet."""
    metric = str(record.config["detector"]["metric"]) if record is not None else arm.metric
    grid = place / GRID if (place / GRID).exists() else None
    if not is_run(place):
        return replace(arm, metric=metric, grid=grid)
    reading = read_run(place, Naming(metric=metric))
    gone = missing_scores(record, reading.steps, len(reading.images), arm.evaluation) if record is not None else []
    said = (f"The run is completed, and its table has {' and '.join(gone)}: copy it again, or repeat the run",) if gone else ()
    verdict = _verdict(record, Images(_whole(reading.steps), reading.images, reading.columns)) if record is not None else None
    files = {step: _files(place, step, reading.images) for step in reading.steps} if (place / SCORES).exists() else {}
    return replace(
        arm, metric=metric, steps=reading.steps, columns=reading.columns, places=reading.images, verdict=verdict, grid=grid,
        files={step: there for step, there in files.items() if there}, notes=(*arm.notes, *said),
        ceilings=record.real_to_real if record is not None else {},
    )  # fmt: skip


def _whole(steps: Sequence[int]) -> Any:
    import numpy as np

    return np.array(steps, dtype=np.int64)


def _verdict(record: RunRecord, images: Images) -> CorruptionVerdict | None:
    """Of the scores that are shown, which may have changed since the record was written; None where they cannot be judged."""
    try:
        return judge(record, images)
    except (ValueError, KeyError):
        return None


def _files(place: Path, step: int, places: Sequence[Place]) -> dict[Place, Path]:
    named = {at: images_folder(place, step) / image_name(*at) for at in places}
    return {at: path for at, path in named.items() if path.exists()}


def _about(folder: Path) -> tuple[tuple[Image.Image, ...], dict[int, str], tuple[str, ...]]:
    """Training images and prompts of a run as its settings give them, and what could not be read."""
    from bayesdiff.core.errors import first_line
    from bayesdiff.judging.settings import run_of

    try:
        run = run_of(folder)
        return ((), {}, ()) if run is None else (_photos(run.cfg), _prompts(run.cfg, run.record, None), ())
    except Exception as error:  # a page is shown also where photographs were moved, or settings have changed since
        return (), {}, (f"The training images cannot be shown: {first_line(error)}",)


def _photos(cfg: Any) -> tuple[Image.Image, ...]:
    from bayesdiff.diffusion.subject import load_subject

    seed = cfg.seed if cfg.shots.seed is None else cfg.shots.seed
    return tuple(photo.image for photo in load_subject(cfg.data, cfg.shots.count, seed, cfg.model.resolution).photos)


def _prompts(cfg: Any, record: RunRecord, templates: list[str] | None) -> dict[int, str]:
    from bayesdiff.config.prompts import evaluation_prompts

    noun = str(record.subject.get("class_noun") or cfg.data.class_noun or "")
    with_identifier = cfg.metrics.identifier_in_clip_text
    found = evaluation_prompts(list(templates or cfg.sampler.prompts), cfg.data.identifier, noun, with_identifier)
    return {number: prompt.text for number, prompt in enumerate(found)}


def _evaluated_prompts(folder: Path, name: str) -> dict[int, str]:
    """The prompts of a further evaluation that has its own; empty where it has the run's."""
    from bayesdiff.judging.settings import run_of

    run = run_of(folder)
    conf = run.cfg.evaluations.get(name) if run is not None else None
    return {} if run is None or conf is None or conf.prompts is None else _prompts(run.cfg, run.record, list(conf.prompts))


def named(arms: Sequence[Trace]) -> list[Trace]:
    """The arms with labels that tell them apart, as short as they can be; each is its own."""
    words = [_words(arm) for arm in arms]
    told = [own[:1] for own in words]
    for i in range(1, len(words[0]) if words else 0):
        if len({tuple(parts) for parts in told}) < len(arms) and len({own[i] for own in words}) > 1:
            told = [[*parts, own[i]] for parts, own in zip(told, words, strict=True)]
    labels = [", ".join(part for part in parts if part) for parts in told]
    return [
        replace(arm, label=label if labels.count(label) == 1 else f"{label} ({arm.name[-6:]}, {i + 1})")
        for i, (arm, label) in enumerate(zip(arms, labels, strict=True))
    ]


def _words(arm: Trace) -> list[str]:
    """What an arm is called by: its kind first, then what may tell it from others."""
    if arm.record is None:
        return [arm.name, "", "", "", "", "", ""]
    config = arm.record.config
    shots = config["shots"]["count"]
    return [
        arm_name(config["bnn"]), str(config["method"]["name"]), str(config["data"]["subject"]),
        "all images" if shots is None else f"{shots} shot", f"lr {config['method']['learning_rate']:g}", f"seed {config['seed']}",
        "" if arm.evaluation == MAIN else arm.evaluation,
    ]  # fmt: skip
