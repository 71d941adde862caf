"""A result set, opened once: every record and every file of scores is read one time, as columns.

``open_archive`` reads ``records/``, names what is damaged and goes on. What has to be computed is kept below the set:

    results/<set>/.cache/scores.parquet    verdicts and what tables read off the scores, a row a run and quantity

A line is found again by a hash of the run's files and of the detector's version, so that a cache is never stale: a lost
or damaged one costs time and nothing else. It lies below its set because it is of that set alone and goes where the set
goes; it has a ``.gitignore`` of its own, as the caches of pytest and ruff have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from bayesdiff.core.errors import UserError, first_line
from bayesdiff.core.files import read_file
from bayesdiff.core.layout import CURVE, EVALUATIONS, MAIN, PER_IMAGE, RECORD, RECORDS
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.corruption.detector import stage_depth
from bayesdiff.corruption.diagnosis import judge_run
from bayesdiff.corruption.kinds import is_flat
from bayesdiff.corruption.outcome import DETECTOR_VERSION, belongs_to
from bayesdiff.recording import cache
from bayesdiff.recording.cache import Scores
from bayesdiff.recording.columns import Array, Damaged, Images, check_curve, parse_curve, parse_images
from bayesdiff.recording.record import RunRecord, lacking, missing_scores, parse_record
from bayesdiff.scoring.metrics import SIMILARITIES, in_order
from bayesdiff.scoring.pixels import describe_photos

UNJUDGED = ("too_few_points", "diverged", "broken_sampling")
"""Verdicts that say nothing about a dip."""
ENDED = ("completed", "diverged")
NEEDED = (
    "model.name", "method.name", "method.learning_rate", "bnn.kind", "bnn.sigma", "data.subject", "shots.count", "seed", "schedule.steps",
    "sampler.images_per_prompt", "detector.metric", "detector.alpha", "detector.min_depth", "detector.sampled_prompts",
    "detector.checkpoint_noise",
)  # fmt: skip
"""Settings that a record has to have for tables."""
MANY = 500
"""From so many verdicts on, processes that share them are worth their start."""


@dataclass
class Run:
    """One whole record of a set."""

    folder: Path
    record: RunRecord
    scores: dict[str, Scores] = field(default_factory=dict)
    """By evaluation; ``main`` is the run's own. Empty for a run that diverged before its first checkpoint."""
    _images: dict[str, Images] = field(default_factory=dict, repr=False)

    def images(self, evaluation: str = MAIN) -> Images:
        """All scores of an evaluation, read when they are first asked for."""
        if evaluation not in self._images:
            path = scores_folder(self.folder, evaluation) / PER_IMAGE
            self._images[evaluation] = parse_images(path.read_bytes(), path)
        return self._images[evaluation]


@dataclass(frozen=True)
class Archive:
    """A result set in memory."""

    results: Path
    runs: dict[str, Run]
    """Whole records by folder name, in the order of names."""
    damaged: dict[str, str]
    """Folder name, or ``<name>/<evaluation>`` -> what is wrong with it and the remedy."""


def scores_folder(folder: Path, evaluation: str) -> Path:
    """Where an evaluation's ``curve.csv`` and ``images.csv`` lie in a record."""
    return folder if evaluation == MAIN else folder / EVALUATIONS / evaluation


def detector_version() -> int:
    """Of the detector that judges: verdicts of another one are computed again."""
    return DETECTOR_VERSION


def photo_energy(record: RunRecord) -> float | None:
    """Mean ``hf_energy`` of a run's training photographs."""
    return photo_value(record, "hf_energy")


def photo_value(record: RunRecord, name: str) -> float | None:
    """What ``describe_photos`` says of a run's training photographs; of runs that did not note it, where they can be rendered again."""
    if name in record.photographs or record.config.get("data", {}).get("source") != "toybox":
        return record.photographs.get(name)
    names = tuple(photo["name"] for photo in record.subject.get("photos", []))
    return _rendered(record.config["data"]["subject"], names, int(record.config["model"]["resolution"])).get(name) if names else None


@lru_cache(maxsize=512)
def _rendered(subject: str, names: tuple[str, ...], side: int) -> dict[str, float]:
    from bayesdiff.config.schema import DataConf, DataSource
    from bayesdiff.diffusion.subject import load_subject

    try:
        photos = load_subject(DataConf(DataSource.toybox, subject), None, 0, side).photos
    except UserError:  # a subject that is not the toybox's own
        return {}
    chosen = [photo.image for photo in photos if photo.name in names]
    return describe_photos(chosen) if chosen else {}


def names_its_folder(record: RunRecord, folder: Path) -> bool:
    """Whether a record is the one of the run that its folder is named after."""
    return folder.name == record.run_key or folder.name.endswith(f"-{record.run_key}")


def read_record(folder: Path) -> tuple[RunRecord, bytes]:
    """The record in a folder, and its file's bytes.

    Raises:
        Damaged: no record, a file that is not one, or the record of another run.
    """
    path = folder / RECORD
    try:
        content = read_file(path)
        record = parse_record(content)
    except FileNotFoundError as error:
        raise Damaged(f"{path}: missing; copy it again, or remove the folder") from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise Damaged(f"{path}: damaged ({first_line(error)}); copy it again, or remove the folder {folder} and repeat its run") from error
    if not names_its_folder(record, folder):
        raise Damaged(f"{path}: of another run ({record.run_key}); name the folder as its run was, or remove it")
    return record, content


def whole_record(folder: Path) -> RunRecord | None:
    """The record of a collected run that has ended and has its files; None where there is none, or not all of it.

    A folder that another machine sends may come file by file, in any order.
    """
    try:
        return _whole(folder)
    except Damaged:
        return None


def _whole(folder: Path) -> RunRecord:
    record, _ = read_record(folder)
    if record.status not in ENDED:
        raise Damaged(f"{folder / RECORD}: its run has not ended (status {record.status}); end it, then collect it again")
    for name in (CURVE, PER_IMAGE):
        if record.status != "diverged" and not (folder / name).is_file():
            raise Damaged(f"{folder / name}: missing; copy it again, or collect its run again")
    return record


def whats_wrong(folder: Path) -> str:
    """What keeps a collected record from being whole, and the remedy; empty for one that is, or where there is no folder."""
    try:
        if folder.is_dir():
            _whole(folder)
    except Damaged as damaged:
        return str(damaged)
    return ""


def _checked(record: RunRecord, folder: Path) -> RunRecord:
    """A record with everything that tables ask for; raises ``Damaged``."""
    path = folder / RECORD
    if record.status not in ENDED:
        raise Damaged(f"{path}: its run has not ended (status {record.status}); end it, then collect it again")
    if key := lacking(record.config, NEEDED):
        raise Damaged(f"{path}: config has no {key}; repeat the run with this version, or remove the folder")
    return record


def judge(record: RunRecord, images: Images) -> CorruptionVerdict:
    """This detector's verdict on collected scores, by the run's own settings."""
    finite = {name: images.columns[name] for name in in_order(set(images.columns))}
    columns = {name: scores for name, scores in finite.items() if name in SIMILARITIES or np.isfinite(scores).all()}
    prompts = [prompt for prompt, _ in images.places]
    return judge_run(
        images.steps.tolist(),
        columns,
        prompts,
        record.config["detector"],
        record.real_to_real,
        record.config["seed"],
        photo_hf=photo_energy(record),
    )


def recorded_verdict(record: RunRecord, steps: Sequence[int]) -> CorruptionVerdict | None:
    """The verdict that a run left in its record, where this detector made it and it can be one on the curve's checkpoints, steps (T,)."""
    said = dict(record.verdict) if isinstance(record.verdict, dict) else {}
    if said.pop("detector_version", None) != detector_version():
        return None
    try:
        verdict = CorruptionVerdict.from_dict(said)
    except (TypeError, KeyError):
        return None
    return verdict if belongs_to(verdict, steps) and not is_flat(record.photographs.get("hf_energy")) else None


def read_off(record: RunRecord, curve: dict[str, Array], images: Images, verdict: CorruptionVerdict | None = None) -> Scores:
    """What tables need of an evaluation's scores, curves (T,) by name; the verdict is computed where none is given."""
    verdict = verdict or judge(record, images)
    fidelity = SIMILARITIES[0]
    judged = str(record.config["detector"]["metric"])
    over = {}
    if len(images.steps) > 1:
        over[fidelity] = np.trapezoid(images.columns[fidelity], images.steps, axis=0) / (images.steps[-1] - images.steps[0])
    dip = np.nan
    if verdict.kind not in UNJUDGED:  # as fitted, whether flagged or not: a verdict's depth is less what noise adds
        dip = max(stage_depth(images.columns[judged].mean(1)), 0.0)
    return Scores(curve, {name: scores[-1] for name, scores in images.columns.items()}, over, float(dip), verdict)


@dataclass(frozen=True)
class _Job:
    """The files of one evaluation, as they were read."""

    name: str
    """Of the record's folder."""
    evaluation: str
    key: str
    record: RunRecord
    folder: Path
    curve: bytes
    images: bytes


def _do(job: _Job) -> Scores | str:
    """Scores, or what is wrong with the files."""
    try:
        curve, images = parse_curve(job.curve, job.folder / CURVE), parse_images(job.images, job.folder / PER_IMAGE)
        check_curve(curve, images, job.folder / CURVE)
        if gone := missing_scores(job.record, images.steps.tolist(), len(images.places), job.evaluation):
            return f"{job.folder / PER_IMAGE}: has {' and '.join(gone)}; copy it again, or collect its run again"
        kept = recorded_verdict(job.record, images.steps.tolist()) if job.evaluation == MAIN else None
        return read_off(job.record, curve, images, kept)
    except Damaged as damaged:
        return str(damaged)
    except (ValueError, KeyError, TypeError) as error:
        return f"{job.folder / PER_IMAGE}: cannot be judged ({error}); collect its run again, or remove the folder"


def _key(*contents: bytes) -> str:
    digest = hashlib.blake2b(f"{cache.FORMAT} {detector_version()}".encode(), digest_size=16)
    for content in contents:
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def evaluations_in(folder: Path) -> list[str]:
    """The names of the evaluations that a record has besides the run's own."""
    root = folder / EVALUATIONS
    return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def _job(name: str, evaluation: str, folder: Path, record: RunRecord, content: bytes) -> _Job:
    """The files of one evaluation of the record in ``folder``; raises ``Damaged`` where one is missing."""
    place = scores_folder(folder, evaluation)
    try:
        curve, images = read_file(place / CURVE), read_file(place / PER_IMAGE)
    except OSError as error:
        why = "missing" if isinstance(error, FileNotFoundError) else first_line(error)
        raise Damaged(f"{error.filename}: {why}; copy it again, or collect its run again") from error
    return _Job(name, evaluation, _key(content, curve, images), record, place, curve, images)


def record_folders(results: Path) -> list[Path]:
    """Every folder of ``results/records``, in the order of names; raises ``UserError`` where there is no such folder."""
    root = results / RECORDS
    if not root.is_dir():
        raise UserError(f"{root}: no records; run a study with --results {results}")
    return [folder for folder in sorted(root.iterdir()) if folder.is_dir()]


def open_archive(results: Path, workers: int = 1) -> Archive:
    """Read a result set; one damaged record is named in ``damaged`` and costs itself.

    Args:
        workers: processes that share the verdicts to compute, where there are many.

    Raises:
        UserError: no such folder.
    """
    archive = Archive(results, {}, {})
    known, used = cache.load(results), dict[str, Scores]()
    with ExitStack() as stack:
        pool: ProcessPoolExecutor | None = None
        waiting = _all_jobs(record_folders(results), archive)
        while jobs := list(islice(waiting, MANY)):
            new = [job for job in jobs if job.key not in known]
            if workers > 1 and pool is None and len(new) == MANY:
                pool = stack.enter_context(ProcessPoolExecutor(workers, get_context("spawn")))
            done = pool.map(_do, new, chunksize=16) if pool else map(_do, new)
            fresh = dict(zip((job.key for job in new), done, strict=True))
            for job in jobs:
                _take(archive, job, fresh[job.key] if job.key in fresh else known[job.key], used)
    if used.keys() != known.keys():
        cache.save(results, used)
    return archive


def _all_jobs(folders: Iterable[Path], archive: Archive) -> Iterator[_Job]:
    """Read every record, and yield its evaluations; records go to the archive as they are read."""
    for folder in folders:
        try:
            record, content = read_record(folder)
            scored = _checked(record, folder).status != "diverged" or (folder / PER_IMAGE).exists()
            own = [_job(folder.name, MAIN, folder, record, content)] if scored else []
        except Damaged as damaged:
            archive.damaged[folder.name] = str(damaged)
            continue
        archive.runs[folder.name] = Run(folder, record)
        yield from own
        for evaluation in evaluations_in(folder):
            try:
                yield _job(folder.name, evaluation, folder, record, content)
            except Damaged as damaged:
                archive.damaged[f"{folder.name}/{evaluation}"] = str(damaged)


def _take(archive: Archive, job: _Job, scores: Scores | str, used: dict[str, Scores]) -> None:
    """Put what a job gave into the archive; damaged scores of a run cost its record, those of an evaluation themselves."""
    if isinstance(scores, str):
        archive.damaged[job.name if job.evaluation == MAIN else f"{job.name}/{job.evaluation}"] = scores
        if job.evaluation == MAIN:
            archive.runs.pop(job.name, None)
    elif job.name in archive.runs:
        archive.runs[job.name].scores[job.evaluation] = scores
        used[job.key] = scores
