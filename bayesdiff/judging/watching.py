"""A folder that still grows: looked at again and again, and judged when something in it changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bayesdiff.core.errors import UserError
from bayesdiff.core.output import say
from bayesdiff.judging.judgement import Judgement, judge_folder
from bayesdiff.judging.settings import Asked, check_photos, configured, run_of

INTERVAL = 2.0
"""Seconds between two looks."""
Listing = dict[str, tuple[int, int]]


def listing(folder: Path, without: Path | None = None) -> Listing:
    """Size and time of the last change (ns) of every file below a folder; hidden ones are left out, and the page that we write."""
    found: Listing = {}
    own = None if without is None else without.absolute()
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.startswith(".") or Path(root, name).absolute() == own:
                continue
            try:
                status = Path(root, name).stat()
            except OSError:  # removed meanwhile
                continue
            found[os.path.join(root, name)] = (status.st_size, status.st_mtime_ns)  # noqa: PTH118
    return found


def changes(folder: Path, interval: float = INTERVAL, without: Path | None = None) -> Iterator[None]:
    """At once, and then whenever a file has come, gone or changed; never ends."""
    seen: Listing | None = None
    while True:
        now = listing(folder, without)
        if now != seen:
            seen = now
            yield
        time.sleep(interval)


def watch(
    folder: Path, asked: Asked, cache: Path | None, show: Callable[[Judgement], None], interval: float = INTERVAL,
    without: Path | None = None,
) -> Judgement:  # fmt: skip
    """Judge a folder at every change until Ctrl-C; returns the last judgement.

    Args:
        show: is given every judgement.
        without: a file that ``show`` writes, which is no change.

    Raises:
        UserError: settings or photographs that cannot be used, or nothing that could be judged before the end.
    """
    run = run_of(folder)
    configured(asked, run)
    check_photos(asked, run)
    last: Judgement | None = None
    why = "nothing was there to judge"
    try:
        for _ in changes(folder, interval, without):
            try:
                last = judge_folder(folder, asked, cache)
            except UserError as error:  # too few checkpoints so far, or a file that is being written
                why = str(error)
                say(f"bayesdiff: waiting: {why}", error=True)
                continue
            show(last)
    except KeyboardInterrupt:
        if last is None:
            raise UserError(f"{folder}: stopped before a verdict; {why}") from None
    assert last is not None
    return last
