"""The cores, memory and GPUs of this machine, where several processes start runs and none knows of the others.

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
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from bayesdiff.core.errors import UserError

MEMBERSHIP, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
"""Linux's control groups: those of this process, and where all lie (man 7 cgroups)."""
FIRST_VERSION = ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
SECOND_VERSION = ("", "memory.max", "memory.current", "inactive_file")
"""Of a control group: the folder below ``GROUPS``, the files of limit and use, and the line of ``memory.stat`` for what gives way."""


def cores() -> int:
    """Cores that this process may use: a Slurm job or a container has fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, or of a Slurm job or container, which has less than the machine."""
    import psutil

    return min([int(psutil.virtual_memory().available), *_left_in_groups()])


def _left_in_groups() -> Iterator[int]:
    """Bytes up to each limit: every group around a group has one of its own. In a container the outer ones are not to be seen."""
    for line in MEMBERSHIP.read_text().splitlines() if MEMBERSHIP.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        place, limit, use, yielding = FIRST_VERSION if controllers else SECOND_VERSION
        names = PurePosixPath(path).parts[1:]
        for depth in range(len(names) + 1):
            folder = GROUPS.joinpath(place, *names[:depth])
            try:
                # files that are cached and not in use give way to whoever needs the room, as they do on the machine
                cached = dict(map(str.split, (folder / "memory.stat").read_text().splitlines()))[yielding]
                yield int((folder / limit).read_text()) - int((folder / use).read_text()) + int(cached)
            except (OSError, ValueError, KeyError):
                continue  # no such group here, or one without a limit ("max")


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
