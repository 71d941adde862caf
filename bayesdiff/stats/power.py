"""What a design can show: the power of a paired difference, the smallest one that is found, and the seeds it takes."""

from __future__ import annotations

from math import ceil

import numpy as np


def power(effect: float, std_error: float, freedom: float, *, alpha: float = 0.05) -> float:
    """Chance that a two-sided t-test finds ``effect`` when its estimate has this standard error and freedom; nan without."""
    from scipy.stats import nct, t

    if not np.isfinite([std_error, freedom]).all():
        return float("nan")
    if std_error == 0:
        return 1.0 if effect else alpha
    shift, limit = abs(effect) / std_error, t.ppf(1 - alpha / 2, freedom)
    return float(nct.sf(limit, freedom, shift) + nct.sf(limit, freedom, -shift))


def detectable(std_error: float, freedom: float, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """Difference that a two-sided t-test finds with this chance when its estimate has this standard error and freedom; nan without."""
    from scipy.optimize import brentq
    from scipy.stats import nct, norm, t

    if not np.isfinite([std_error, freedom]).all():
        return float("nan")
    limit = float(t.ppf(1 - alpha / 2, freedom))
    widest = 2 * limit + norm.ppf(power)
    while nct.sf(limit, freedom, widest) < power:
        widest *= 2
    return std_error * float(brentq(lambda shift: nct.sf(limit, freedom, shift) - power, 0.0, widest))


def seeds_needed(effect: float, std_over_seeds: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Seeds that find a paired difference of this size (two-sided t-test).

    Args:
        std_over_seeds: standard deviation over seeds of the difference's mean over subjects and images.

    Raises:
        ValueError: no effect, or none to speak of, which no number of seeds finds; numbers that are not finite.
    """
    from scipy.stats import nct, t

    if effect == 0 or not np.isfinite([effect, std_over_seeds]).all():
        raise ValueError(f"an effect of {effect:g} beside a deviation of {std_over_seeds:g} is found by no number of seeds")
    if std_over_seeds == 0:
        return 2
    ratio = abs(effect) / std_over_seeds
    count = 2
    while count < 100_000:
        limit, shift = t.ppf(1 - alpha / 2, count - 1), ratio * np.sqrt(count)
        reached = nct.sf(limit, count - 1, shift)
        if reached >= power:
            return count
        count = max(count + 1, ceil(count * 1.02))
    raise ValueError(f"an effect of {effect:g} beside a deviation of {std_over_seeds:g} needs more than 100,000 seeds")
