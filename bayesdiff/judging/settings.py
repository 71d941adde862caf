"""What samples are judged by: encoders and detector, photographs, and prompts; for a run of this package, from its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from PIL import Image

from bayesdiff.config.compose import of_record, options_of, resolve
from bayesdiff.config.derive import derive
from bayesdiff.config.prompts import Prompt, evaluation_prompts
from bayesdiff.config.schema import Config, ModelConf
from bayesdiff.config.suggestions import explain
from bayesdiff.core.errors import UserError, did_you_mean, first_line, shortened
from bayesdiff.core.files import sha256
from bayesdiff.core.layout import CHECKPOINTS, EVALUATIONS, RECORD, SAMPLES
from bayesdiff.diffusion.photos import KOHYA, check_picture, check_pixels, read_folder, skipped_line
from bayesdiff.diffusion.subject import Subject, load_subject
from bayesdiff.judging.captions import as_prompts, literal, read_prompts, texts_of
from bayesdiff.judging.pairing import Paired
from bayesdiff.judging.sampling import OWN_SIDE
from bayesdiff.recording.record import RunRecord, load_record

T = TypeVar("T")
DEFAULT_METRICS = "dinov2"
ENLARGED = 1.25
"""A photograph that is enlarged so many times has .57 of its high-frequency energy left, measured on noise of the spectrum 1/f."""


@dataclass(frozen=True)
class Asked:
    """What a person says beside the folder."""

    photos: Path | None = None
    """None only for a run of this package, whose record knows them."""
    class_noun: str = ""
    identifier: str = ""
    metrics: str | None = None
    prompts: Path | None = None
    pattern: str | None = None
    model: str | None = None
    """The base model that checkpoints are sampled with: a name of ``conf/model``, a folder or a hub id; None judges samples."""
    words: tuple[str, ...] = ()
    """Further settings, ``key=value``."""


@dataclass(frozen=True)
class Run:
    """The run of this package that samples belong to."""

    record: RunRecord
    cfg: Config
    evaluation: str
    """Empty for the run's own samples."""


def run_of(folder: Path) -> Run | None:
    """The run that a folder is, or is the ``images``, the ``checkpoints`` or an evaluation of; None for what others wrote.

    Raises ``UserError``.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder that the trainer wrote its samples or checkpoints to")
    place = folder.resolve()
    place = place.parent if place.name in (SAMPLES, CHECKPOINTS) else place
    inside = place.parent.name == EVALUATIONS
    record = load_record(place.parent.parent if inside else place)
    return None if record is None else Run(record, of_record(record.config, place / RECORD), place.name if inside else "")


def configured(asked: Asked, run: Run | None) -> Config:
    """The configuration of the judgement: a run's own, and for others the defaults, with what is asked for. Raises ``UserError``."""
    metrics, known = DEFAULT_METRICS if asked.metrics is None else asked.metrics, options_of("metrics")
    if metrics not in known:
        raise UserError(f"--metrics {metrics}: choose one of {', '.join(known)}{did_you_mean(metrics, known)}")
    try:
        if run is not None:
            return _of_run(run, asked)
        named = [f"model={asked.model}"] if asked.model in options_of("model") else []
        return _with_model(derive((f"metrics={metrics}", "sampler=fast", *named, *asked.words)), asked)
    except UserError:
        raise
    except Exception as error:  # Hydra's parser and OmegaConf raise many kinds
        said = explain(error)
        names = tuple(word.partition("=")[0] for word in asked.words)
        own_words = said.startswith(names) or "did you mean" in said
        example = "give settings as KEY=VALUE, such as detector.alpha=0.01"
        raise UserError(said if own_words else f"{' '.join(asked.words)}: {said}; {example}") from error


def _of_run(run: Run, asked: Asked) -> Config:
    """A run's own configuration with other encoders and settings."""
    from omegaconf import DictConfig, OmegaConf

    if asked.metrics is None and not asked.words:
        return run.cfg
    other = derive((f"metrics={asked.metrics}",)).metrics if asked.metrics else run.cfg.metrics
    own = OmegaConf.structured(replace(run.cfg, metrics=other))
    merged = OmegaConf.merge(own, OmegaConf.from_dotlist(list(asked.words)))
    assert isinstance(merged, DictConfig)
    return resolve(merged)


def _with_model(cfg: Config, asked: Asked) -> Config:
    """The configuration with a base model that is named by a folder or a hub id; its pictures have the model's own side."""
    if asked.model is None or asked.model in options_of("model"):
        return cfg
    given = any(word.startswith("model.resolution=") for word in asked.words)
    side = cfg.model.resolution if given else OWN_SIDE
    return replace(cfg, model=ModelConf(Path(asked.model).name, asked.model, cfg.model.revision, cfg.model.variant, resolution=side))


def photos_asked(folder: Path, asked: Asked, side: int) -> tuple[Subject, list[str]]:
    """The photographs of ``--photos`` as squares of ``side`` pixels, and notes. Raises ``UserError``."""
    if not folder.is_dir():
        raise UserError(f"--photos {folder}: no such folder; give the folder of the photographs that were trained on")
    try:
        found = read_folder(folder, side, nested=True)
    except UserError as error:
        raise UserError(str(error).replace("correct data.path", "correct --photos").replace("data.path", "--photos")) from error
    notes = [note for note in found.notes if "frames" in note]
    places = Counter(photo.name.rpartition("/")[0] for photo in found.photos)
    if set(places) != {""}:
        notes.append(f"photographs of {', '.join(f'{name or folder.name}/ ({count})' for name, count in sorted(places.items()))}")
    if found.skipped:
        left_out = skipped_line(found.skipped).removeprefix("not trained on: ").replace("data.path=", "--photos ")
        notes.append(f"photographs left out: {left_out}")
    small = [photo for photo in found.photos if photo.enlarged >= ENLARGED]
    if not (fine := 2 * len(small) < len(found.photos)):
        least = min(round(side / photo.enlarged) for photo in small)
        said = f"{len(small)} of {len(found.photos)} photographs are smaller than the samples ({least} of {side} pixels)"
        notes.append(f"{said}: enlarged they lack fine detail, so that grain is compared between checkpoints alone")
    return Subject(folder.name, asked.class_noun, asked.identifier, tuple(found.photos), fine=fine), notes


def subject_of(asked: Asked, run: Run | None, paired: Paired) -> tuple[Subject, list[str]]:
    """The photographs as squares with the side of the samples, so that their grain compares, and notes.

    Raises:
        UserError: no photographs, ones that cannot be used, or samples among them.
    """
    if asked.photos is not None:
        side, size_notes = _side_of(paired)
        subject, notes = photos_asked(asked.photos, asked, side)
        return subject, [*notes, *size_notes, *_apart(asked.photos, subject, paired)]
    if run is None:
        raise UserError("--photos is missing: give the folder of the photographs that were trained on, --photos FOLDER")
    cfg = run.cfg
    seed = cfg.seed if cfg.shots.seed is None else cfg.shots.seed
    return load_subject(cfg.data, cfg.shots.count, seed, cfg.model.resolution), []


def with_words_of(asked: Asked) -> tuple[Asked, list[str]]:
    """What is asked, with identifier and class noun from kohya's folder of photographs (``10_sks dog``) where none is given."""
    if asked.photos is None or asked.identifier or asked.class_noun or not asked.photos.is_dir():
        return asked, []
    names = [path.name for path in (asked.photos, *sorted(asked.photos.iterdir())) if path.is_dir() and KOHYA.fullmatch(path.name)]
    if len(names) != 1 or len(words := names[0].partition("_")[2].split(maxsplit=1)) != 2:
        return asked, []
    note = f"identifier {words[0]} and class noun {words[1]} from the folder {names[0]} (--identifier and --class-noun say others)"
    return replace(asked, identifier=words[0], class_noun=words[1]), [note]


def prompts_to_sample(asked: Asked, run: Run | None, cfg: Config) -> tuple[list[Prompt], str]:
    """The prompts that checkpoints are sampled with, and where they come from. Raises ``UserError``."""
    with_identifier = cfg.metrics.identifier_in_clip_text
    if asked.prompts is not None:
        given = read_prompts(asked.prompts)
        texts = list(given.values()) if isinstance(given, dict) else given
        if not texts:
            raise UserError(f"--prompts {asked.prompts}: no prompt in it; give one a line")
        return as_prompts(texts, asked.identifier, asked.class_noun, with_identifier), asked.prompts.name
    word, noun = asked.identifier, asked.class_noun
    if run is not None:
        word, noun = run.cfg.data.identifier, str(run.record.subject.get("class_noun") or run.cfg.data.class_noun or "")
    if not word or not noun:
        raise UserError("no prompts to sample with: give --identifier WORD and --class-noun NOUN as in training, or --prompts FILE")
    made = evaluation_prompts(list(cfg.sampler.prompts), word, noun, with_identifier)
    return made, "sampler.prompts" if run is None else "the run's record"


def check_photos(asked: Asked, run: Run | None) -> None:
    """Raises ``UserError`` for photographs that cannot be used, before anything is sampled."""
    if asked.photos is not None:
        photos_asked(asked.photos, asked, 64)
    elif run is None:
        raise UserError("--photos is missing: give the folder of the photographs that were trained on, --photos FOLDER")


def _apart(folder: Path, subject: Subject, paired: Paired) -> list[str]:
    """A note of photographs that are samples too, byte for byte: a sample is like itself.

    Raises ``UserError`` where all samples of a step, different ones, are among them: the folder is not one of photographs.
    """
    of_photo = {photo.digest: photo.name for photo in subject.photos}
    sizes = {(folder / name).stat().st_size for name in of_photo.values() if (folder / name).is_file()}
    digests = {step: [sha256(path) if path.stat().st_size in sizes else "" for path in paths] for step, paths in paired.paths.items()}
    among = sorted({of_photo[digest] for found in digests.values() for digest in found if digest in of_photo})
    if not among:
        return []
    count = f"{len(among)} of its {len(subject.photos)} pictures are samples that are judged ({shortened(among[0])})"
    if any(len(set(found)) == len(found) > 1 and all(digest in of_photo for digest in found) for found in digests.values()):
        raise UserError(f"--photos {folder}: {count}; give a folder with the photographs alone")
    return [f"--photos {folder}: {count}, each like itself; take them out if they are no photographs"]


def _side_of(paired: Paired) -> tuple[int, list[str]]:
    """The shorter side in pixels that most samples have, the larger of two as frequent, and a note of several."""
    of_step = {step: Counter(map(_side, paths)) for step, paths in paired.paths.items()}
    sides = sum(of_step.values(), Counter[int]())
    most = max(sides, key=lambda side: (sides[side], side))
    if len(sides) == 1:
        return most, []
    counted = ", ".join(f"{sides[side]} of {side} pixels" for side in sorted(sides))
    steps = [step for step, own in of_step.items() if own != next(iter(of_step.values()))]
    changed = f"; they change at step {steps[0]}, and so may the scores" if steps else ""
    return most, [
        f"samples of several sizes ({counted}){changed}: photographs are scaled to {most}, where grain compares; sample in one size"
    ]


def _side(sample: Path) -> int:
    """The shorter side of a sample in pixels, from its header."""
    return _opened(sample, lambda image: min(image.size))


def open_picture(path: Path) -> Image.Image:
    """A sample as RGB, decoded; raises ``UserError``."""
    return _opened(path, lambda image: image.convert("RGB"))


def _opened(path: Path, read: Callable[[Image.Image], T]) -> T:
    """What is read off a picture; raises ``UserError`` for one that cannot be read."""
    try:
        check_picture(path)
        with Image.open(path) as image:
            check_pixels(image)
            return read(image)
    except Exception as error:  # decoders raise many kinds for a damaged file
        why = first_line(error).replace(repr(str(path)), "it").replace(str(path), "it")
        raise UserError(f"cannot read the sample {path} ({why}): wait until it is written, or take it out of the folder") from error


def prompts_of(paired: Paired, asked: Asked, run: Run | None, cfg: Config) -> tuple[dict[int, Prompt], str]:
    """Number of a prompt -> the prompt, and where they come from; nothing where they are not known. Raises ``UserError``."""
    with_identifier = cfg.metrics.identifier_in_clip_text
    if run is not None and asked.prompts is None:
        changed = run.cfg.evaluations[run.evaluation].prompts if run.evaluation in run.cfg.evaluations else None
        noun = str(run.record.subject.get("class_noun") or run.cfg.data.class_noun or "")
        listed = evaluation_prompts(list(changed or run.cfg.sampler.prompts), run.cfg.data.identifier, noun, with_identifier)
        return {number: listed[number] for number in paired.prompts if number < len(listed)}, "the run's record"
    texts, source = texts_of(paired.prompts, asked.prompts)
    given = [text if asked.prompts is not None else literal(text) for text in texts.values()]
    made = as_prompts(given, asked.identifier, asked.class_noun, with_identifier)
    return dict(zip(texts, made, strict=True)), source


def in_order(prompts: dict[int, Prompt]) -> Sequence[Prompt]:
    """Prompts as a list in which each stands at its number; numbers between them are empty."""
    empty = Prompt("", "", "")
    return [prompts.get(number, empty) for number in range(max(prompts, default=-1) + 1)]
