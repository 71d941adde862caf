"""What a run had written when a resume state was saved: tables by their beginning, pictures by their bytes.

A resume state's manifest holds it, so that both are whole or absent together. Tables only grow: what stands behind the sealed
beginning was written later, by training that is done again, and is cut off. Nothing sealed may be missing or changed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from bayesdiff.core.files import atomic_write, discard, sha256, write_json
from bayesdiff.core.layout import (
    CHECKPOINTS,
    DRAWN,
    DRAWS,
    EVALUATIONS,
    MANIFEST,
    PROBES,
    RESUME,
    SAMPLES,
    SCORES,
    TRAIN_LOG,
    step_folder,
    steps_in,
)  # fmt: skip
from bayesdiff.recording.checkpoint import Damaged, read_manifest

TABLES, PICTURES, KEPT = "tables", "pictures", "checkpoints"
"""Keys of a resume state's manifest: [bytes, hash] by table, hash by picture, steps of the checkpoints that stay."""


def _tables(run: Path) -> list[Path]:
    """Tables that only grow; a curve is made from its scores."""
    return [p for p in [*(run / n for n in (TRAIN_LOG, PROBES, SCORES, DRAWS)), *run.glob(f"{EVALUATIONS}/*/{SCORES}")] if p.is_file()]


def _pictures(run: Path) -> list[Path]:
    patterns = (f"{SAMPLES}/step-*/*.png", f"{EVALUATIONS}/*/{SAMPLES}/step-*/*.png", f"{DRAWN}/step-*/*/*.png")
    return sorted(path for pattern in patterns for path in run.glob(pattern))


def _named(run: Path, path: Path) -> str:
    return path.relative_to(run).as_posix()


def logged(run: Path) -> int:
    """Bytes of the training log so far; 0 without one. Training goes on while a seal waits to be written."""
    path = run / TRAIN_LOG
    return path.stat().st_size if path.is_file() else 0


def written(run: Path, kept: list[int], known: dict[str, str] | None = None, log: int | None = None) -> dict[str, Any]:
    """Tables and pictures as they are, for a resume state's manifest.

    Args:
        kept: checkpoints that are to be there from now on.
        known: hashes of pictures that need no reading.
        log: bytes of the training log that count (``logged``); None counts all.
    """
    tables = {_named(run, path): [path.stat().st_size, sha256(path)] for path in _tables(run)}
    if log is not None and TRAIN_LOG in tables:
        tables[TRAIN_LOG] = [log, hashlib.sha256(_beginning(run / TRAIN_LOG, log)).hexdigest()]
    pictures = {_named(run, path): path for path in _pictures(run)}
    hashes = {name: (known or {}).get(name) or sha256(path) for name, path in pictures.items()}
    return {TABLES: tables, PICTURES: hashes, KEPT: kept}


def written_so_far(run: Path, *more: int) -> dict[str, Any]:
    """``written`` with the checkpoints that are there and ``more``; pictures that the newest resume state knows are not read again."""
    states, kept = steps_in(run / RESUME), sorted({*steps_in(run / CHECKPOINTS), *more})
    known = read_manifest(step_folder(run / RESUME, states[-1])).get(PICTURES) if states else None
    return written(run, kept, known)


def seal(run: Path, step: int, kept: list[int], log: int | None = None) -> None:
    """Bring what the resume state of a step knows of tables and pictures up to date; ``kept`` and ``log`` as in ``written``.

    An older resume state only learns which checkpoints go, so that it does not miss them.
    """
    for state in steps_in(run / RESUME):
        folder = step_folder(run / RESUME, state)
        manifest = read_manifest(folder)
        stay = [one for one in manifest.get(KEPT, []) if one in kept]
        now = written(run, kept, manifest.get(PICTURES), log) if state == step else {KEPT: stay}
        write_json(folder / MANIFEST, {**manifest, **now})


def _beginning(path: Path, size: int) -> bytes:
    with path.open("rb") as table:
        return table.read(size)


def check_tables(run: Path, step: int) -> None:
    """Raises ``Damaged`` where a table lacks what it had when the step's resume state was saved."""
    for name, (size, digest) in read_manifest(step_folder(run / RESUME, step)).get(TABLES, {}).items():
        path = run / name
        if not size and not path.exists():
            continue  # nothing of it was sealed: a killed start removed it
        if not path.is_file() or hashlib.sha256(_beginning(path, size)).hexdigest() != digest:
            raise Damaged(f"{path}: removed, cut or changed", start_again(run))


def check_checkpoints(run: Path, step: int) -> None:
    """Raises ``Damaged`` where a checkpoint is gone that was there when the step's resume state was saved."""
    for kept in read_manifest(step_folder(run / RESUME, step)).get(KEPT, []):
        folder = step_folder(run / CHECKPOINTS, kept)
        if not (folder / MANIFEST).is_file():
            raise Damaged(f"{folder}: removed, or has no {MANIFEST}", start_again(run))


def spoiled_pictures(run: Path, step: int) -> dict[str, str]:
    """Pictures that are gone or changed since the step's resume state was saved, with the hash that each had."""
    sealed = read_manifest(step_folder(run / RESUME, step)).get(PICTURES, {})
    return {name: digest for name, digest in sealed.items() if not (run / name).is_file() or sha256(run / name) != digest}


def start_again(run: Path) -> str:
    """The remedy where nothing makes something good."""
    return f"put it back as it was, or remove the folder {run} and give the same command again"


def sweep(run: Path, step: int | None) -> None:
    """Remove what a killed run left behind the resume state of ``step``: later states, checkpoints, rows, pictures, and stumps.

    Without a state everything of training is removed: the run starts again from step 0.
    """
    manifest: dict[str, Any] = {} if step is None else read_manifest(step_folder(run / RESUME, step))
    for place in (RESUME, CHECKPOINTS):
        whole = [one for one in steps_in(run / place) if step is not None and one <= step]
        _remove_others(run / place, {step_folder(run / place, one).name for one in whole})
    if step is not None and TABLES not in manifest:
        return  # of version 0.1: rows count up to the step
    for path in _tables(run):
        _cut(path, *manifest.get(TABLES, {}).get(_named(run, path), (0, "")))
    pictures = {str(Path(name).parent) for name in manifest.get(PICTURES, {})}
    for folder in {path.parent for path in _pictures(run)}:
        if _named(run, folder) not in pictures:
            discard(folder)


def _remove_others(root: Path, names: set[str]) -> None:
    for folder in root.glob("step-*") if root.is_dir() else []:
        if folder.name not in names:
            discard(folder) if folder.is_dir() else folder.unlink()


def _cut(path: Path, size: int, _: str) -> None:
    """Keep the first ``size`` bytes; without any the table goes."""
    if not size:
        path.unlink()
    elif path.stat().st_size > size:
        with atomic_write(path) as part:
            part.write_bytes(_beginning(path, size))


def anything_in(run: Path) -> bool:
    """Whether a run folder has something of training in it."""
    folders = [run / place for place in (RESUME, CHECKPOINTS) if (run / place).is_dir()]
    return bool(_tables(run) or _pictures(run) or any(any(folder.iterdir()) for folder in folders))
