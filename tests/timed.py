"""Seconds of the processor that work takes, where a bar says how many it may."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
TRIES = 2


def _seconds() -> float:
    return time.thread_time() + sum(os.times()[2:4])


def cpu_seconds(work: Callable[[], T], bar: float) -> tuple[T, float]:
    """What ``work`` returns, and the seconds of this thread and of the processes that it waited for.

    Other threads of this process are BLAS's, which burn a core while they wait. A neighbour on the same core makes work take up to
    twice as long, so that work above the bar is done once more.
    """
    for _ in range(TRIES):
        before = _seconds()
        done = work()
        taken = _seconds() - before
        if taken < bar:
            break
    return done, taken
