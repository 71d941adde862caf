"""The record of a run: what was asked, on what, at what cost, and what came out."""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from bayesdiff.config.checks import out_of_range
from bayesdiff.config.identity import fits, misfit
from bayesdiff.core.errors import UserError, first_line
from bayesdiff.core.files import as_json, from_json, read_file, write_text
from bayesdiff.core.layout import MAIN, RECORD
from bayesdiff.core.privacy import public, redacted
from bayesdiff.core.processes import process_count
from bayesdiff.corruption import CorruptionVerdict

PACKAGES = ("bayesdiff", "torch", "diffusers", "transformers", "peft", "open_clip_torch", "timm", "numpy")

WORDS: dict[type, str] = {str: "text", dict: "mapping"}
STATUSES = ("running", "completed", "diverged")
LONGEST_NUMBER = 20
"""Digits of a whole number of a record: longer ones are damage, and overflow where they are computed with."""


@dataclass
class RunRecord:
    """Everything ``record.json`` holds; ``status`` is running, completed or diverged."""

    run_key: str
    status: str
    config: dict[str, Any]
    command: str = ""
    """The command line that began the run; empty where it was begun from Python."""
    subject: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    """Fingerprints of the local folders that model and encoders came from; empty for the hub's."""
    bayesian: dict[str, Any] = field(default_factory=dict)
    """How many layers and weights are Gaussian, and their share of the U-Net."""
    real_to_real: dict[str, float] = field(default_factory=dict)
    """Similarity of the training images to other photographs of the subject, by metric: above it, samples are copies."""
    photographs: dict[str, float] = field(default_factory=dict)
    """Of the training images: mean ``hf_energy``, which relative high-frequency energy is relative to."""
    custom_metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name, label, unit, direction and source of custom metrics that say them, by name (``scoring.metrics.Metric``)."""
    verdict: dict[str, Any] | None = None
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name, of every further evaluation: its settings, and its verdict once there is one."""
    message: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by phase, summed over the sessions of a resumed run."""
    peak_memory_mb: dict[str, float] = field(default_factory=dict)
    """Largest resident memory (and GPU memory, as ``<phase>_gpu``) seen by the end of a phase."""
    environment: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write ``record.json``, without secrets and home folder."""
        write_text(folder / RECORD, self.text())

    def text(self) -> str:
        """What ``record.json`` holds, as the record is now."""
        return as_json(public(self.__dict__))


@lru_cache(maxsize=1)
def _kinds() -> dict[str, Any]:
    return get_type_hints(RunRecord)


def _refused(word: str) -> float:
    raise ValueError(f"{word} is no number of a record")


def _finite(text: str) -> float:
    return number if math.isfinite(number := float(text)) else _refused(text)


def _whole(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)


def parse_record(content: bytes) -> RunRecord:
    """The record that a file's bytes hold, without secrets that a stranger left in it; raises ``ValueError`` or ``TypeError``."""
    record = RunRecord(**from_json(redacted(content.decode("utf-8")), parse_constant=_refused, parse_float=_finite, parse_int=_whole))
    for name, kind in _kinds().items():
        if not fits(value := getattr(record, name), kind):
            plain = get_origin(kind) or kind
            inside = "; a value in it is of another kind" if isinstance(plain, type) and isinstance(value, plain) else ""
            raise TypeError(f"{name} is no {WORDS.get(plain, 'mapping')}{inside}")
    if record.status not in STATUSES:
        raise ValueError(f"status is none of {', '.join(STATUSES)}")
    if wrong := out_of_range(record.config):
        raise ValueError(f"config has {wrong}")
    if wrong := misfit(record.config):
        raise TypeError(f"config has another kind of value at {wrong}")
    for verdict, where in _verdicts(record):
        if not isinstance(verdict, dict | None) or (verdict and (wrong := misfit(verdict, CorruptionVerdict, where))):
            raise TypeError(f"another kind of value at {wrong or where}")
    if not isinstance(record.environment.get("versions", {}), dict):
        raise TypeError("environment.versions is no mapping")
    photos = record.subject.get("photos", [])
    if not isinstance(photos, list) or not all(isinstance(photo, dict) and isinstance(photo.get("name"), str) for photo in photos):
        raise TypeError("subject has no list of photos")
    return record


def _verdicts(record: RunRecord) -> Iterator[tuple[Any, str]]:
    """Every verdict of a record, and where it stands."""
    yield record.verdict, "verdict."
    for name, about in record.evaluations.items():
        yield about.get("verdict"), f"evaluations.{name}.verdict."


def missing_scores(record: RunRecord, steps: Sequence[int], images: int, evaluation: str = MAIN) -> list[str]:
    """What a table of scores lacks of what its completed run had, as fragments of a sentence; empty for one that is whole.

    Args:
        steps: of the table's checkpoints.
        images: how many each of them has.
    """
    if record.status != "completed" or "detector.stop_after" in record.message:
        return []
    wanted = setting(record.config, "schedule.checkpoints", [])
    missing = sorted(set(wanted) - set(steps)) if isinstance(wanted, list) else []
    found = [f"no scores of step {', '.join(map(str, missing[:5]))}{' …' if len(missing) > 5 else ''}"] if missing else []
    own = setting(record.config, f"evaluations.{evaluation}", {}) if evaluation != MAIN else {}
    prompts, each = (
        own[key] if isinstance(own, dict) and own.get(key) is not None else setting(record.config, f"sampler.{key}")
        for key in ("prompts", "images_per_prompt")
    )
    if isinstance(prompts, list) and isinstance(each, int) and images < len(prompts) * each:
        found.append(f"{images} of {len(prompts) * each} images")
    return found


def repeat_command(record: RunRecord) -> str:
    """The command that makes the run today; empty where it was begun from Python.

    Runs of ``corruption_curve`` that took their photographs by their own seed are now those of ``corruption_curve_15``.
    """
    if setting(record.config, "shots.seed") is not None:
        return record.command
    return re.sub(r"(\+experiment=corruption_curve)(?=\s|$)", r"\1_15", record.command)


def arithmetic(record: RunRecord) -> dict[str, str]:
    """Precisions in which a run made its samples and scores. Runs that do not say were made before there was a choice, in fp32."""
    return {key: str(record.environment.get(key, "fp32")) for key in ("sampler_precision", "metrics_precision")}


def lacking(config: Mapping[str, Any], keys: Iterable[str]) -> str:
    """The first of some dotted settings that a record's configuration does not have; empty where it has all."""
    return next((key for key in keys if setting(config, key, lacking) is lacking), "")


def setting(config: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """A dotted setting of a record's configuration; the default where it has none, as one of another version may."""
    part: Any = config
    for name in key.split("."):
        part = part.get(name, default) if isinstance(part, dict) else default
    return part


def load_record(folder: Path) -> RunRecord | None:
    """The record in a run folder, or None where there is none; raises ``UserError`` for a damaged one."""
    path = folder / RECORD
    if not path.exists():
        return None
    try:
        return parse_record(read_file(path))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({first_line(error)}); remove the folder {folder} and give the same command again") from error


def _git(*arguments: str) -> str:
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def environment(device: str) -> dict[str, Any]:
    """Versions, commit (and whether the tree was changed) and hardware."""
    import torch

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {
        "python": platform.python_version(), "versions": versions, "git_commit": _git("rev-parse", "HEAD"),
        "git_changed": bool(_git("status", "--porcelain", "--untracked-files=no")), "platform": platform.platform(),
        "processor_cores": os.cpu_count(), "threads": torch.get_num_threads(), "device": device, "gpu": gpu,
        "processes": process_count(),
    }  # fmt: skip


def _peak_memory_mb() -> float:
    """Largest resident memory of this process so far (of Windows its peak working set)."""
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset / 2**20)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _gpu(record: RunRecord) -> str | None:
    """The run's own GPU, once it is known and used: a record may come from another machine."""
    import torch

    device = str(record.environment.get("device", ""))
    number = int(device.partition(":")[2] or 0)
    started: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    used = device.startswith("cuda") and started and number < torch.cuda.device_count()
    return device if used else None


@contextmanager
def phase(record: RunRecord, name: str) -> Iterator[None]:
    """Add the wall time of a block to ``record.seconds[name]`` and note its peak of GPU memory, and the process's so far."""
    import torch

    if (gpu := _gpu(record)) is not None:
        torch.cuda.reset_peak_memory_stats(gpu)
    start = time.perf_counter()
    try:
        yield
    finally:
        record.seconds[name] = round(record.seconds.get(name, 0.0) + time.perf_counter() - start, 3)
        record.peak_memory_mb[name] = round(_peak_memory_mb(), 1)
        if (gpu := _gpu(record)) is not None:
            highest = round(torch.cuda.max_memory_allocated(gpu) / 2**20, 1)
            record.peak_memory_mb[f"{name}_gpu"] = max(highest, record.peak_memory_mb.get(f"{name}_gpu", 0.0))
