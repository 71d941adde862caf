"""How uncertain the means of a run's checkpoints are, all together, because another set of images would have given others.

An image's deviation at one checkpoint resembles that at the next, the more so the fewer steps lie between. The
covariance of the checkpoints' means is therefore shrunk from what these few images show towards one whose correlation
falls off over steps and whose variances differ by checkpoint no more than they clearly do (Smyth 2004): with four images
the second carries most of the weight, with a hundred the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SHRINKAGE = 10.0
"""Images that the stationary covariance counts as."""


MOST_PRIOR = 200.0


@dataclass(frozen=True)
class ImageError:
    """Covariance (T, T) of the checkpoints' means over images, and the degrees of freedom it is known with."""

    covariance: Array
    freedom: float
    time: float
    """Steps over which the correlation of an image's deviations falls to 1/e; 0 where neighbours have none."""


def correlation(steps: NDArray[np.int64], time: float) -> Array:
    """Correlation (T, T) of a stationary Markov process at ``steps`` that falls to 1/e over ``time`` steps.

    That is Ornstein and Uhlenbeck's process, the Gaussian one whose correlation depends on the distance alone and
    falls off exponentially; 0 is white noise.
    """
    if time <= 0:
        return np.eye(len(steps))
    return np.asarray(np.exp(-np.abs(np.subtract.outer(steps, steps)) / time))


def candidate_times(steps: NDArray[np.int64], count: int = 7) -> list[float]:
    """Correlation times to try for checkpoints at ``steps`` (T,), in steps.

    None, and from less than the smallest gap up to half of the run, evenly in logarithm.
    """
    least, most = 0.4 * float(np.diff(steps).min()), 0.5 * float(steps[-1] - steps[0])
    return [0.0, *np.geomspace(least, max(most, 2 * least), count).tolist()]


def _likeliest_time(steps: NDArray[np.int64], seen: Array) -> float:
    """Correlation time with the greatest likelihood of images' covariance ``seen`` (T, T), whatever the images' own levels."""
    count = len(steps)
    basis = np.linalg.qr(np.eye(count)[:, 1:] - np.eye(count)[:, :-1])[0]
    inner = basis.T @ seen @ basis
    found = []
    for time in candidate_times(steps):
        root = np.linalg.cholesky(basis.T @ correlation(steps, time) @ basis)
        whitened = np.linalg.solve(root, np.linalg.solve(root, inner).T)
        found.append((2 * np.log(np.diag(root)).sum() + (count - 1) * np.log(max(float(np.trace(whitened)), 1e-300)), time))
    return min(found)[1]


def image_error(steps: NDArray[np.int64], scores: Array) -> ImageError:
    """Covariance of the mean of ``scores`` (T, images) over its columns; zero where there is but one.

    Args:
        steps: (T,) of the checkpoints, in training steps.
        scores: columns paired over checkpoints. Their own levels do not count: only differences of checkpoints are ever used.
    """
    count, images = scores.shape
    if images == 1 or count < 3:
        return ImageError(np.zeros((count, count)), 0.0, 0.0)
    deviations = scores - scores.mean(1, keepdims=True)
    deviations = deviations - deviations.mean(0)
    seen = deviations @ deviations.T / (images - 1)
    time = _likeliest_time(steps, seen)
    sizes, prior = _moderated(np.diag(seen) * count / (count - 1), images - 1)
    model = correlation(steps, time) * np.sqrt(np.outer(sizes, sizes))
    center = np.eye(count) - 1 / count
    model = center @ model @ center
    model *= np.trace(seen) / max(float(np.trace(model)), 1e-300)
    share = (images - 1) / (images - 1 + SHRINKAGE)
    pooled = min(prior + images - 1, (count - 1.0) * (images - 1))
    freedom = 1 / (share**2 / (images - 1) + (1 - share) ** 2 / pooled)  # of a sum of two variances (Satterthwaite 1946)
    return ImageError((share * seen + (1 - share) * model) / images, freedom, time)


def _moderated(variances: Array, freedom: int) -> tuple[Array, float]:
    """Checkpoints' variances drawn towards their common one, and the degrees of freedom that this one counts as (Smyth 2004).

    As many as the logarithms of the variances scatter by no more than ``freedom`` explains; up to ``MOST_PRIOR`` of them.
    """
    from scipy.special import polygamma

    logs = np.log(np.maximum(variances, 1e-12 * max(float(variances.mean()), 1e-280)))
    excess = float(logs.var(ddof=1)) - float(polygamma(1, freedom / 2))
    tried = np.geomspace(0.5, MOST_PRIOR, 60)
    prior = float(tried[np.abs(polygamma(1, tried / 2) - excess).argmin()])
    return (prior * variances.mean() + freedom * variances) / (prior + freedom), prior
