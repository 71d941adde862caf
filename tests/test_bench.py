"""The benchmark's own arithmetic: pairs, clocks, and what counts as a regression."""

from __future__ import annotations

import time

import bench
import pytest
from bench import clocked, paired, regressions


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_a_ratio_is_the_second_side_over_the_first() -> None:
    found = paired(lambda _: burn(0.01), lambda _: burn(0.02), pairs=5)
    assert found.median == pytest.approx(2, rel=0.2)
    assert found.ms[1] == pytest.approx(2 * found.ms[0], rel=0.3)


def test_a_clock_counts_inner_calls_once() -> None:
    class Twice:
        def outer(self) -> None:
            burn(0.01)
            self.inner()

        def inner(self) -> None:
            burn(0.02)

    spent: list[float] = []
    with clocked(Twice, "outer", spent), clocked(Twice, "inner", spent):
        Twice().outer()
    assert sum(spent) == pytest.approx(0.03, rel=0.2)


@pytest.mark.parametrize(("median", "spread", "worse"), [(1.10, 0.01, 0), (1.14, 0.01, 1), (1.14, 0.02, 0), (0.5, 0.01, 0)])
def test_a_regression_is_beyond_the_spread(median: float, spread: float, worse: int) -> None:
    before = {"ratios": {"one": {"median": 1.10, "spread": 0.01}}}
    assert len(regressions({"ratios": {"one": {"median": median, "spread": spread}}}, before)) == worse


def test_a_bare_step_and_ours_can_be_timed_in_turns() -> None:
    found = bench.over_bare(2)
    assert 0.5 < found.median < 2
