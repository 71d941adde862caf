"""The shape of a curve over checkpoints: how deep and how wide its deepest fall and return is.

A *stage* is a window of two or more checkpoints that lies below something before it and something
after it. Its contrast with a side is measured in units of one checkpoint's noise,

    z = (mean of the side's best window - mean of the stage without its lowest checkpoint) / sqrt(1/v + 1/w)

for side windows of v and stages of w checkpoints, a scan over all positions and a few widths (the
multiscale scan statistics of Dümbgen and Spokoiny 2001). The weaker of the two sides counts, and the
maximum over all stages is the statistic. Leaving the lowest checkpoint out makes a single bad
checkpoint no stage at any width.

For a curve that is unimodal in expectation the stage is never below both sides, so that noise alone
has to make one of the two contrasts: the statistic cannot be large because of the curve's rise or decline.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SIDE_WIDTHS = (1, 2, 4)
CLEAR_STEP = 2.0
"""Standard errors from which on a rise or fall is believed, see ``flattened``."""


def stage_widths(count: int) -> list[int]:
    """Widths that are tried on ``count`` checkpoints: 2, 3, 4, 6, 9, 13 … up to half of them."""
    widths = [2]
    while (wider := max(widths[-1] + 1, int(widths[-1] * 1.5))) <= count // 2:
        widths.append(wider)
    return widths


def window_means(curves: Array, width: int) -> Array:
    """Means of all windows of ``width`` neighbours, (…, T) to (…, T - width + 1)."""
    return _means_of(_sums(curves), width)


def _sums(curves: Array) -> Array:
    """Sums of the first 0, 1 … T checkpoints, (…, T + 1)."""
    sums = np.zeros((*curves.shape[:-1], curves.shape[-1] + 1))
    np.cumsum(curves, -1, out=sums[..., 1:])
    return sums


def _means_of(sums: Array, width: int) -> Array:
    means: Array = (sums[..., width:] - sums[..., :-width]) / width
    return means


def _floors(curves: Array) -> Iterator[tuple[int, Array]]:
    """For every width w of ``stage_widths``: means of all windows without their lowest checkpoint, (…, T - w + 1)."""
    lowest, known, sums = curves, 1, _sums(curves)
    for width in stage_widths(curves.shape[-1]):
        # a window of this width is two of the last width, which overlap: no width is more than twice the one before
        lowest, known = np.minimum(lowest[..., : known - width], lowest[..., width - known :]), width
        yield width, (_means_of(sums, width) * width - lowest) / (width - 1)


def _best_before(curves: Array) -> Array:
    """For every side width and position t the best window mean within [0, t), (V, …, T + 1); -inf where none fits."""
    best, sums = np.full((len(SIDE_WIDTHS), *curves.shape[:-1], curves.shape[-1] + 1), -np.inf), _sums(curves)
    for i, width in enumerate(v for v in SIDE_WIDTHS if v <= curves.shape[-1]):
        best[i, ..., width:] = np.maximum.accumulate(_means_of(sums, width), -1)
    return best


def stage_contrasts(curves: Array) -> Iterator[tuple[int, Array, Array]]:
    """For every width w: contrasts with the side before and after, (…, T - w + 1), by the stage's first checkpoint.

    Args:
        curves: (…, T); T at least 4.

    Yields:
        Width, contrast before, contrast after, in the units of ``curves`` (divide by the noise of one
        checkpoint for z); -inf where a side has no room.
    """
    count = curves.shape[-1]
    before, after = _best_before(curves), _best_before(curves[..., ::-1])[..., ::-1]
    sides = np.array(SIDE_WIDTHS).reshape(-1, *[1] * curves.ndim)
    for width, floor in _floors(curves):
        places = count - width + 1
        scale = np.sqrt(1 / sides + 1 / width)
        fall = ((before[..., :places] - floor) / scale).max(0)
        rise = ((after[..., width:] - floor) / scale).max(0)
        yield width, fall, rise


def stage_strength(curves: Array) -> Array:
    """The statistic of the corruption test: contrast of the strongest stage, (…, T) to (…)."""
    strongest: Array = np.max([np.minimum(fall, rise).max(-1) for _, fall, rise in stage_contrasts(curves)], axis=0)
    return strongest


def strongest_stages(curves: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First checkpoints (N,) and widths (N,) of the stages that ``stage_strength`` finds in curves (N, T)."""
    strongest = np.full(len(curves), -np.inf)
    starts, widths = np.zeros(len(curves), dtype=np.int64), np.full(len(curves), stage_widths(curves.shape[-1])[0])
    for width, fall, rise in stage_contrasts(curves):
        contrasts = np.minimum(fall, rise)
        first = contrasts.argmax(-1)
        contrast = np.take_along_axis(contrasts, first[:, None], -1)[:, 0]
        higher = contrast > strongest
        strongest[higher], starts[higher], widths[higher] = contrast[higher], first[higher], width
    return starts, widths


def strongest_stage(curve: Array) -> tuple[int, int]:
    """First checkpoint and width of the stage that ``stage_strength`` found in one curve (T,)."""
    starts, widths = strongest_stages(curve[None])
    return int(starts[0]), int(widths[0])


def fall_strength(curves: Array) -> Array:
    """Contrast of the last checkpoints (two or more) with the best side before them, (…, T) to (…)."""
    strongest: Array = np.max([fall[..., -1] for _, fall, _ in stage_contrasts(curves)], axis=0)
    return strongest


def _rising_errors(curve: Array) -> Array:
    """(T + 1,) least squared error of a curve that never falls, to the first 0, 1 … T checkpoints.

    Pooling of adjacent violators adds checkpoints one by one, so that one pass has the fit of every beginning.
    """
    blocks: list[tuple[float, int, float, float]] = []  # mean, checkpoints, squared error, and that of all blocks up to this one
    errors = [0.0]
    for value in curve.tolist():
        mean, size, error = value, 1, 0.0
        while blocks and blocks[-1][0] >= mean:
            other, count, others_error, _ = blocks.pop()
            error += others_error + (mean - other) ** 2 * size * count / (size + count)
            mean, size = (mean * size + other * count) / (size + count), size + count
        blocks.append((mean, size, error, (blocks[-1][3] if blocks else 0.0) + error))
        errors.append(blocks[-1][3])
    return np.array(errors)


def unimodal_fit(curve: Array) -> Array:
    """The curve (T,) closest to ``curve`` (T,) by least squares that rises to one mode and falls after it (Barlow et al. 1972)."""
    from scipy.optimize import isotonic_regression

    errors = _rising_errors(curve)[1:] + _rising_errors(curve[::-1])[-2::-1]
    mode = 1 + int(np.flatnonzero(errors <= errors.min() + 1e-15)[0])
    up = isotonic_regression(curve[:mode]).x
    return np.concatenate([up, isotonic_regression(curve[mode:], increasing=False).x]) if mode < len(curve) else np.asarray(up)


def monotone_fit(curve: Array) -> Array:
    """The curve (T,) closest to ``curve`` (T,) that never falls."""
    from scipy.optimize import isotonic_regression

    return np.asarray(isotonic_regression(curve).x)


def stage_fit(curve: Array, floor: int) -> Array:
    """The curve (T,) closest to ``curve`` (T,) with one mode before checkpoint ``floor`` and one from it on: rise, fall and return."""
    return np.concatenate([unimodal_fit(curve[:floor]), unimodal_fit(curve[floor:])])


def flattened(fit: Array, noise: Array, limit: float) -> Array:
    """Merge neighbouring blocks of a fit until every step between blocks exceeds ``limit`` standard errors.

    What a fit of noise rises or falls by is not believed; of the curves with one mode, flat ones show the
    most falls and returns by chance (generalised moment selection, Andrews and Soares 2010).

    Args:
        fit: (T,) piecewise constant, as from ``unimodal_fit``.
        noise: (T,) standard deviation of one checkpoint.
    """
    starts = [0, *(i for i in range(1, len(fit)) if fit[i] != fit[i - 1])]
    sizes = np.diff([*starts, len(fit)]).tolist()
    means = [float(fit[i]) for i in starts]
    errors = [float(noise[i : i + n].mean() ** 2 / n) for i, n in zip(starts, sizes, strict=True)]
    while len(means) > 1:
        steps = [abs(means[i + 1] - means[i]) - limit * np.sqrt(errors[i] + errors[i + 1]) for i in range(len(means) - 1)]
        i = int(np.argmin(steps))
        if steps[i] > 0:
            break
        n = sizes[i] + sizes[i + 1]
        share = sizes[i] / n
        means[i : i + 2] = [share * means[i] + (1 - share) * means[i + 1]]
        errors[i : i + 2] = [share**2 * errors[i] + (1 - share) ** 2 * errors[i + 1]]
        sizes[i : i + 2] = [n]
    return np.repeat(means, sizes)
