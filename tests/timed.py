"""Seconds of the processor that work takes, where a bar says how many it may."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
TRIES = 3


def cpu_seconds(work: Callable[[], T], bar: float) -> tuple[T, float]:
    """What ``work`` returns, and the seconds of this process and of those that it waited for.

    A neighbour on the same core makes work take up to twice as long, so that work above the bar is done again, twice at most.
    """
    for _ in range(TRIES):
        before = os.times()
        done = work()
        taken = sum(os.times()[:4]) - sum(before[:4])
        if taken < bar:
            break
    return done, taken
