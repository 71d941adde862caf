"""Python's search for garbage, put off while models and their libraries are loaded."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = (100_000, 50, 100)
"""``gc.set_threshold``: net new objects before the young are looked at, and how often the older are."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Look for garbage seldom within the block; also a decorator of functions.

    Loading torch, diffusers and open_clip makes objects that stay. Looking through them again and again took 1.4 of 5.6 CPU
    seconds of importing them, and 0.9 of the 11 of a smoke run. Training has Python's own limits: a cycle may hold a tensor.
    """
    before = gc.get_threshold()
    gc.set_threshold(*(max(pair) for pair in zip(before, SELDOM, strict=True)))
    try:
        yield
    finally:
        gc.set_threshold(*before)
