"""Where trainers leave their checkpoints: found by their names, and told apart by what is in them.

The names are those that the trainers' own code writes:

- kohya: ``get_step_ckpt_name`` and ``get_epoch_ckpt_name`` in kohya-ss/sd-scripts, ``library/train_util.py``:
  ``NAME-step00000400.safetensors``, ``NAME-000004.safetensors``, and folders of these names. The last file has no number; its
  metadata has the step (``ss_steps``, written in ``train_network.py``).
- ai-toolkit: ``save`` in ostris/ai-toolkit, ``jobs/process/BaseSDTrainProcess.py``: ``NAME_000000500.safetensors``. The last file
  has no number; its metadata has the step (``training_info``).
- OneTrainer: ``__save`` in Nerogar/OneTrainer, ``modules/trainer/GenericTrainer.py``: ``DATE-save-STEP-EPOCH-INDEX.safetensors``.
- diffusers' training scripts, and SimpleTuner (``checkpoint_state_save`` in bghira/SimpleTuner,
  ``simpletuner/helpers/training/trainer.py``): ``checkpoint-STEP/``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayesdiff.core.digests import digest, fingerprint
from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import CHECKPOINTS, MANIFEST
from bayesdiff.judging.layouts import DATE, Layout, counted, own_pattern

LORA = "pytorch_lora_weights.safetensors"
"""The file that diffusers writes and reads."""
PARTS = ("unet", "text_encoder", "text_encoder_2")
"""Models of a pipeline that trainers change, by the names of their folders."""
SUFFIX = ".safetensors"
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
"""Files that may run code when they are read; they are not."""
WEIGHTS = (SUFFIX, ".bin")
MAX_HEADER = 100 << 20
"""Bytes; the format's own limit."""
_ADAPTER = re.compile(r"lora|oft|loha|lokr|hada|dora|boft", re.IGNORECASE)


def _naming(name: str, example: str, pattern: str, unit: str = "step", from_one: bool = True) -> Layout:
    return Layout(name, example, re.compile(pattern, re.IGNORECASE), unit, from_one)


NAMINGS = (
    _naming("diffusers", "checkpoint-500/", r"checkpoint[-_](?P<step>\d+)"),
    _naming("kohya", "NAME-step00000400.safetensors", r"(?P<series>.+)-step(?P<step>\d{8,})"),
    _naming("OneTrainer", "2024-08-19_16-08-39-save-400-4-0.safetensors", rf"(?P<series>.*?){DATE}-save-(?P<step>\d+)-\d+-\d+"),
    _naming("ai-toolkit", "NAME_000000500.safetensors", r"(?P<series>.+)_(?P<step>\d{9,})"),
    _naming("a folder a step", "step-000100/", r"(?:step|iter|iteration)s?[-_ ]?(?P<step>\d+)"),
    _naming("a folder an epoch", "epoch-4/", r"epochs?[-_ ]?(?P<step>\d{1,5})", "epoch", from_one=False),
    _naming("kohya, by epoch", "NAME-000004.safetensors", r"(?P<series>.+)-(?P<step>\d{6})", "epoch"),
)
"""The first that a name fits counts."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint: its step (or epoch), what it is, and the files of each model that it changes."""

    step: int
    name: str
    kind: str
    """``lora`` (one file for all models), ``peft`` (an adapter a model), or ``full`` (whole models)."""
    parts: dict[str, Path]

    @property
    def digest(self) -> str:
        """A hash of every byte that is loaded."""
        if self.kind == "lora":
            return digest(self.parts["unet"])
        return ":".join(f"{part}={fingerprint(folder)}" for part, folder in self.parts.items())


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a folder in the order of steps, and what else has weights in it."""

    naming: Layout
    found: tuple[Checkpoint, ...]
    others: tuple[str, ...]
    """(name and why) of what is not sampled."""
    notes: tuple[str, ...] = ()
    """How steps were counted, where it is not as the names have them."""


def header_of(file: Path) -> dict[str, Any]:
    """The header of a safetensors file: tensors by name, and ``__metadata__``; raises ``UserError`` for a damaged file."""
    try:
        with file.open("rb") as handle:
            size = int.from_bytes(handle.read(8), "little")
            if not 2 <= size <= MAX_HEADER:
                raise ValueError
            header: dict[str, Any] = json.loads(handle.read(size))
            return dict(header)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file}: no whole safetensors file; wait until it is written, or take it out of the folder") from error


def _of_file(file: Path) -> tuple[str, dict[str, Path]] | str:
    """Kind and parts of a file, or why it is no checkpoint."""
    if file.suffix.lower() in PICKLES:
        return "a pickle may run code: save it as safetensors"
    names = header_of(file).keys() - {"__metadata__"}
    if any(_ADAPTER.search(name) for name in names):
        return "lora", {"unet": file}
    if any(name.startswith("model.diffusion_model.") for name in names):
        return "a whole model in one file: save it in the layout of diffusers"
    return "no LoRA in it"


def _of_folder(folder: Path) -> tuple[str, dict[str, Path]] | str:
    """Kind and parts of a folder, or why it is no checkpoint."""
    if (folder / LORA).is_file():
        return "lora", {"unet": folder / LORA}
    if (folder / "adapter_config.json").is_file():
        return "peft", {"unet": folder}
    for kind, mark in (("peft", "adapter_config.json"), ("full", "config.json")):
        parts = {part: folder / part for part in PARTS if (folder / part / mark).is_file() and _has_weights(folder / part)}
        if "unet" in parts or (parts and kind == "peft"):
            return kind, parts
    return f"no {LORA}, no adapter_config.json and no unet/ in it"


def _has_weights(folder: Path) -> bool:
    return any(path.suffix in WEIGHTS for path in folder.iterdir())


def contents_of(path: Path) -> tuple[str, dict[str, Path]] | str:
    """Kind and parts of a file or folder, or why it is no checkpoint."""
    return _of_folder(path) if path.is_dir() else _of_file(path)


def _entries(folder: Path) -> list[Path]:
    """Folders, and files with weights, in the order of names."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder that the trainer wrote its checkpoints to")
    shown = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return [path for path in shown if path.is_dir() or path.suffix.lower() in (SUFFIX, *PICKLES)]


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def _match(path: Path, namings: tuple[Layout, ...], own: bool) -> tuple[Layout, re.Match[str]] | None:
    for naming in namings:
        match = naming.pattern.search(path.name) if own else naming.pattern.fullmatch(_stem(path))
        if match is not None:
            return naming, match
    return None


def _numberless(path: Path, naming: Layout, series: str) -> int | None:
    """The step or epoch in the metadata of a trainer's last file, which has no number in its name; None where there is none."""
    if path.is_dir() or path.suffix.lower() != SUFFIX or path.stem.removesuffix("_LoRA") != series.removesuffix("_LoRA"):
        return None
    said = header_of(path).get("__metadata__", {})
    try:
        info = json.loads(said.get("training_info", "{}"))
        return int(said.get(f"ss_{'epoch' if naming.unit == 'epoch' else 'steps'}") or info[naming.unit])
    except (ValueError, KeyError, TypeError):
        return None


def has_checkpoints(folder: Path) -> bool:
    """Whether a folder has entries that are called as checkpoints are, with weights in them."""
    return folder.is_dir() and any(_match(p, NAMINGS, False) and not isinstance(contents_of(p), str) for p in _entries(folder))


def find_checkpoints(folder: Path, pattern: str | None = None) -> Checkpoints:
    """The checkpoints in a folder, by the names that most of them have.

    Raises:
        UserError: no folder, no checkpoint in it, a damaged file, or checkpoints of several trainings.
    """
    place = folder / CHECKPOINTS if any((folder / CHECKPOINTS).glob(f"step-*/{MANIFEST}")) else folder
    entries = _entries(place)
    namings = NAMINGS if pattern is None else (own_pattern(pattern),)
    matches = {path: found for path in entries if (found := _match(path, namings, pattern is not None)) is not None}
    contents = {path: contents_of(path) for path in matches}
    good = {path: matches[path] for path, content in contents.items() if not isinstance(content, str)}
    if not good:
        raise UserError(_none(folder, contents))
    naming = Counter(naming for naming, _ in good.values()).most_common(1)[0][0]
    chosen = {path: match for path, (own, match) in good.items() if own is naming}
    series = _one_series(folder, naming, chosen)
    steps = {int(match["step"]): path for path, match in chosen.items()}
    for path in entries:
        if path not in matches and (step := _numberless(path, naming, series)) is not None and not isinstance(contents_of(path), str):
            steps.setdefault(step, path)
    shown, notes = counted(naming, sorted(steps))
    sampled = [Checkpoint(at, path.name, *_known(path)) for at, (_, path) in zip(shown, sorted(steps.items()), strict=True)]
    return Checkpoints(naming, tuple(sampled), tuple(_others(entries, set(steps.values()))), notes)


def _known(path: Path) -> tuple[str, dict[str, Path]]:
    content = contents_of(path)
    assert not isinstance(content, str), "only checkpoints are asked for"
    return content


def _one_series(folder: Path, naming: Layout, chosen: dict[Path, re.Match[str]]) -> str:
    """The name of the training; empty where names have none."""
    series = Counter(match.groupdict().get("series") or "" for match in chosen.values())
    if len(series) > 1:
        shown = ", ".join(f"{name or 'no name'} ({count})" for name, count in sorted(series.items()))
        between = rf"{DATE}-save-" if naming.name == "OneTrainer" else "(-step|-|_)"
        behind = r"-\d+-\d+" if naming.name == "OneTrainer" else ""
        example = rf"^{re.escape(min(filter(None, series)))}{between}(?P<step>\d+){behind}(\.|$)"
        raise UserError(f"{folder}: checkpoints of several trainings ({shown}); choose one, as in --pattern '{example}'")
    return next(iter(series))


def _others(entries: list[Path], used: set[Path]) -> Iterator[str]:
    """What has weights, or the name of a checkpoint, and is not sampled, with the reason."""
    for path in entries:
        if path in used:
            continue
        content = contents_of(path)
        if not isinstance(content, str):
            yield f"{path.name} (no step in its name)"
        elif not path.is_dir():
            yield f"{path.name} ({content})"


def _none(folder: Path, contents: dict[Path, tuple[str, dict[str, Path]] | str]) -> str:
    if contents:
        path, why = next(iter(contents.items()))
        return f"{folder}: no checkpoint that can be sampled; {path.name}: {why}"
    known = "; ".join(f"{naming.name}: {naming.example}" for naming in NAMINGS)
    return f"{folder}: no checkpoints in it ({known}); give the folder that the trainer wrote them to, or --pattern '(?P<step>\\d+)'"
