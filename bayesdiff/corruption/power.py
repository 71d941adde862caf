"""How deep a stage has to be for runs like given ones to show it: by simulation, with the runs' own scatter."""

from __future__ import annotations

import numpy as np

from bayesdiff.core.seeds import derive
from bayesdiff.corruption.detector import stage_p_value
from bayesdiff.corruption.noise import correlated, measure_noise
from bayesdiff.corruption.shape import Array

SHOULDER = 0.75
"""Fidelity beside a simulated stage."""
WIDTH = 0.35
"""Of the stage that is looked for, as a share of the checkpoints."""
FINEST, DEEPEST = 0.01, 1.0
TRIES, RESAMPLES = 100, 1_000


def stage_curve(count: int, depth: float, width: float) -> Array:
    """Rise to the shoulder within a sixth of the checkpoints, a stage in the middle, and back to the shoulder, (count,)."""
    start, edge = 0.55 - width / 2, 0.04
    points = [0, 0.15, start - edge, start, start + width, start + width + edge, 1]
    levels = [0.35, SHOULDER, SHOULDER, SHOULDER - depth, SHOULDER - depth, SHOULDER, SHOULDER]
    return np.interp(np.arange(count) / (count - 1), points, levels)


def found_together(curves: Array, depth: float, alpha: float, seed: int = 0) -> float:
    """Share of simulated sets of runs (runs, T) with the scatter of ``curves`` in which a stage is found.

    Args:
        curves: (runs, T) mean scores of real runs at the same checkpoints, 2 runs or more; what they have in common is
            replaced by a curve with a stage of this depth, ``WIDTH`` of the checkpoints wide.
    """
    runs, count = curves.shape
    noise = measure_noise(curves.T, runs=True)
    mean, scatter, found = stage_curve(count, depth, WIDTH), noise.images * np.sqrt(runs), 0
    for repeat in range(TRIES):
        rng = np.random.default_rng(derive(seed, "stage power", repeat))
        drawn = mean + scatter * correlated(rng.standard_normal((runs, count)), noise.image_rho)
        found += stage_p_value(drawn.mean(0), measure_noise(drawn.T, runs=True), rng, RESAMPLES) <= alpha
    return found / TRIES


def detectable_depth(curves: Array, alpha: float, power: float = 0.8) -> float:
    """Depth of a stage that runs like these show together in ``power`` of tries, to ``FINEST``; infinite where none of 1 does.

    Args:
        curves: (runs, T), as for ``found_together``.
        alpha: level of the test, above 1 / ``RESAMPLES``.
    """
    if found_together(curves, DEEPEST, alpha) < power:
        return float("inf")
    low, high = 0.0, DEEPEST
    while high - low > FINEST:
        middle = (low + high) / 2
        low, high = (low, middle) if found_together(curves, middle, alpha) >= power else (middle, high)
    return high
