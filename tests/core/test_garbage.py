"""Garbage is looked for seldom while models are loaded, and as before afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from bayesdiff.core.garbage import SELDOM, seldom_collected


@pytest.fixture(autouse=True)
def pythons_own() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_within_the_block_alone() -> None:
    with seldom_collected():
        assert gc.get_threshold() == SELDOM
    assert gc.get_threshold() == (700, 10, 10)


def test_an_error_ends_it_too() -> None:
    @seldom_collected()
    def load() -> None:
        assert gc.get_threshold() == SELDOM
        raise OSError("no such file")

    for _ in range(2):
        with pytest.raises(OSError, match="no such file"):
            load()
        assert gc.get_threshold() == (700, 10, 10)


def test_who_collects_less_often_still_does() -> None:
    gc.set_threshold(10**6, 10, 10**4)
    with seldom_collected():
        assert gc.get_threshold() == (10**6, 50, 10**4)
