"""The cores and GPUs of this machine, where several processes start runs and none knows of the others.

A seat at a GPU is a lock that dies with its process. The first free seat of the first free GPU is taken; where every
GPU has someone, the second seats are taken in turn, then the third, so that runs spread evenly whoever started them:
threads of one ``study --workers N``, jobs of a launcher, agents of a sweep.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from bayesdiff.core.errors import UserError


def cores() -> int:
    """Cores that this process may use: a Slurm job or a container has fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_locks() -> Path:
    """The folder of this user's seats on this machine: shared file systems would mix the GPUs of several."""
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""  # elsewhere the temporary folder is the user's own
    return Path(tempfile.gettempdir()) / f"bayesdiff{user}" / "gpus"


@contextmanager
def claim_gpu(gpus: list[str]) -> Iterator[str | None]:
    """Hold a seat at one of these GPUs and yield the GPU; None where there are none.

    Raises:
        UserError: the folder of the seats cannot be written.
    """
    if not gpus:
        yield None
        return
    gpu, lock = _take(gpus)
    try:
        yield gpu
    finally:
        lock.release()


def _take(gpus: list[str]) -> tuple[str, FileLock]:
    folder = gpu_locks()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        tried = ((gpu, _lock(folder, gpu, number)) for number in count() for gpu in gpus)
        return next((gpu, lock) for gpu, lock in tried if lock is not None)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written; set TMPDIR to a folder of this machine that is yours") from error


def _lock(folder: Path, gpu: str, number: int) -> FileLock | None:
    """The lock of one seat; None where someone has it."""
    lock = FileLock(folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', gpu.strip())}.{number}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock
