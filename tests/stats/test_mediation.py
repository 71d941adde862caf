"""A mediated effect is found, and one that only looks mediated is not."""

from __future__ import annotations

import numpy as np
import pytest

from bayesdiff.stats.mediation import mediation, slopes

RUNS, CHECKPOINTS = 8, 15


def swings(rng: np.random.Generator, share: float = 0.5) -> np.ndarray:
    """Curves (runs, checkpoints) whose neighbours are correlated."""
    noise = rng.standard_normal((RUNS, CHECKPOINTS))
    for t in range(1, CHECKPOINTS):
        noise[:, t] = share * noise[:, t - 1] + np.sqrt(1 - share**2) * noise[:, t]
    return noise


def drawn(seed: int, carries: float, direct: float, shift: float = -0.3) -> list[np.ndarray]:
    """The intervention moves the mediator by ``shift``; the outcome follows the mediator by ``carries``, and moves by ``direct``."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, CHECKPOINTS)
    mediator, with_it = 0.1 * swings(rng) + time, 0.05 * swings(rng) + time + shift
    outcome, outcome_with = (carries * one + 0.05 * swings(rng) - 2 * time for one in (mediator, with_it))
    return [mediator, outcome, with_it, outcome_with + direct]


def test_an_effect_that_the_mediator_carries_is_found() -> None:
    found = [mediation(*drawn(seed, carries=-1.0, direct=0.0)) for seed in range(50)]
    assert np.mean([one.p_value <= 0.05 for one in found]) > 0.9
    assert np.mean([one.indirect for one in found]) == pytest.approx(0.3, abs=0.03)
    assert np.mean([one.total.mean[0] for one in found]) == pytest.approx(0.3, abs=0.03)


def test_an_effect_that_goes_beside_the_mediator_is_not_taken_for_one() -> None:
    """The mediator moves, the outcome moves, and both have a trend; the one does not follow the other."""
    found = [mediation(*drawn(seed, carries=0.0, direct=0.3)) for seed in range(400)]
    assert np.mean([one.p_value <= 0.05 for one in found]) <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 400)
    assert np.mean([one.total.p_value[0] <= 0.05 for one in found]) > 0.9


def test_an_intervention_that_leaves_the_mediator_alone_has_no_indirect_effect() -> None:
    found = [mediation(*drawn(seed, carries=-1.0, direct=0.2, shift=0.0)) for seed in range(400)]
    assert np.mean([one.p_value <= 0.05 for one in found]) <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 400)


def test_the_slope_of_a_line_is_its_slope() -> None:
    mediator = np.random.default_rng(0).standard_normal((4, 6))
    assert slopes(mediator, 2.5 * mediator + np.arange(6)) == pytest.approx(np.full(4, 2.5))
    assert not slopes(np.zeros((4, 6)), mediator).any()


@pytest.mark.parametrize("shape", [(2, 6), (6, 2), (6,)])
def test_too_few_runs_or_checkpoints_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="3 of each"):
        mediation(*[np.zeros(shape)] * 4)
