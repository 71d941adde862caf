"""Is grain fine structure, or contrast at all scales? Contrast of samples by spatial frequency, over the photograph's (exploratory).

High-frequency energy rises with the contrast of an image too. Fine structure alone, such as speckle, raises contrast at periods of 2
to 4 pixels over that at periods of 4 to 16; more contrast at all scales leaves their ratio where it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bayesdiff.core.layout import MAIN
from bayesdiff.recording.archive import photo_value
from bayesdiff.studies.contrasts import Curve, Estimate, Windows, estimate, window_mean
from bayesdiff.studies.primary import Primary
from bayesdiff.studies.rows import Found

FINE, MIDDLE = "band_fine", "band_middle"
MEASURES = {"periods of 2 to 4 pixels": (1, 0), "periods of 4 to 16 pixels": (0, 1), "fine over middle": (1, -1)}
"""What a line is of -> the powers of fine and middle contrast in it."""


def log_contrast(found: Found, powers: tuple[int, int]) -> Curve | None:
    """Mean over images of the log of a product of contrasts, each over the photograph's; None where a run or its photograph has none."""
    images = found.images
    total = np.zeros(len(images.steps))
    for name, power in zip((FINE, MIDDLE), powers, strict=True):
        own, values = photo_value(found.record, name), images.columns.get(name)
        if not own or values is None or not np.isfinite(values).all() or not (values > 0).all():
            return None
        total += power * np.log(values / own).mean(1)
    return images.steps, total


def spectrum(primary: Primary, arm: str, evaluation: str = MAIN) -> dict[str, dict[str, Estimate]]:
    """Line -> window, and *middle over before* and so on -> log of the ratio, over subjects; empty while runs are missing."""
    if not primary.complete:
        return {}
    lines, row = {}, primary.row(arm, evaluation)
    for line, powers in MEASURES.items():
        curves = {found.place: curve for found in row.found if (curve := log_contrast(found, powers)) is not None}
        if curves:
            lines[line] = _over_windows(curves, primary.registered.windows, primary.middle)
    return lines


def _over_windows(curves: Mapping[tuple[str, str], Curve], windows: Windows, middle: str) -> dict[str, Estimate]:
    """Every window, and the middle one over the others, as the first claim compares them."""
    cells = {name: {place: np.array([window_mean(curve, window)]) for place, curve in curves.items()} for name, window in windows.items()}
    found = {name: estimate(mine) for name, mine in cells.items()}
    found |= {f"{middle} over {name}": estimate(cells[middle], mine) for name, mine in cells.items() if name != middle}
    return {name: one for name, one in found.items() if one is not None}


def as_factor(found: Estimate) -> str:
    """A log ratio as a factor with its 95 % interval."""
    mean, low, high = (float(np.exp(part[0])) for part in (found.difference.mean, found.difference.low, found.difference.high))
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"
