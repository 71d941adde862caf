"""The noise of a curve over checkpoints, from the two places it comes from.

*Between images*: another set of images would have given another mean. Scores of (checkpoints, images)
tell: what an image deviates by after its own level is taken out. An image changes slowly in training, so
that its deviation at one checkpoint resembles that at the next; the scores tell how much.

*Between checkpoints*: one weight update moves all images together, and no resampling of images shows
it. Several runs tell; otherwise the curve does. Its roughness does, which a few real corners do not move
much (the largest bends are left out), and which is uncertain itself. Draws of the noise carry that uncertainty: a roughness
r is seen where noise of size sigma has roughness sigma * r1, so sigma is drawn as r / r1 with r1 from
the same noise (the fiducial argument; exact for white noise around a line). Or its size is drawn by the chances that
``timescale`` gives each, from what the curve shows at several lags.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


CHECKPOINT_CORRELATION = 0.6
"""A strong correlation between neighbouring checkpoints, for simulations; verdicts weigh correlation times (``timescale``)."""
KEPT = 0.8
"""Share of the second differences, from the smallest, that roughness is taken from."""
_KEPT_MOMENT = 0.43775
"""Mean of the squares of a standard normal variable within its central 80 %."""


def roughness(curves: Array) -> Array:
    """Standard deviation of white noise with second differences like these, (…, T) to (…); lines have none.

    The largest fifth is left out: a few real corners (rise, onset, recovery) are no noise.
    """
    bends = np.sort(np.diff(curves, 2) ** 2, axis=-1)
    kept = bends[..., : max(2, round(KEPT * bends.shape[-1]))]
    rough: Array = np.sqrt(kept.mean(-1) / (6 * _KEPT_MOMENT))
    return rough


def correlated(white: Array, rho: float) -> Array:
    """Stationary noise of unit variance with correlation ``rho`` between neighbours, from white noise (…, T)."""
    noise = white.copy()
    for t in range(1, noise.shape[-1] if rho else 0):
        noise[..., t] = rho * noise[..., t - 1] + np.sqrt(1 - rho**2) * white[..., t]
    return noise


@dataclass(frozen=True)
class Noise:
    """How uncertain every checkpoint's mean is."""

    images: Array
    """(T,) standard error of the mean from images (or runs); 0 where there is but one."""
    freedom: int
    """Degrees of freedom of ``images``; 0 where there is but one image."""
    rough: float
    """Roughness of the mean curve."""
    checkpoint: float | None
    """Noise between checkpoints where it is known (0 for several runs, whose scatter has it); None to use ``rough``."""
    rho: float
    """Correlation between neighbouring checkpoints of what moves all images together."""
    image_rho: float = 0.0
    """Correlation between neighbouring checkpoints of an image's deviations."""
    image_root: Array | None = None
    """(T, K) whose product with its transpose is the covariance of the means over images; in place of ``image_rho``."""
    root: Array | None = None
    """(T, K) the same of what moves all images together, at unit size; in place of ``rho``."""
    sizes: Array | None = None
    """(S,) standard deviations of the noise between checkpoints, where it was measured by lag; in place of ``rough``."""
    weights: Array | None = None
    """(S,) chances of the sizes."""

    def size(self) -> Array:
        """(T,) standard deviation of one checkpoint's mean, the best single guess."""
        return np.sqrt(self.images**2 + self.between() ** 2)

    def between(self) -> float:
        """Standard deviation of the noise between checkpoints."""
        if self.checkpoint is not None:
            return self.checkpoint
        if self.sizes is not None and self.weights is not None:
            return float(self.sizes @ self.weights)
        smooth = (6 - 8 * self.image_rho + 2 * self.image_rho**2) / 6  # of second differences, against white noise
        return float(np.sqrt(max(self.rough**2 - smooth * float((self.images**2).mean()), 0.0)))

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        """Deviations of the mean curve, (count, T)."""
        of_images = self._of_images(rng, count)
        white = rng.standard_normal((count, len(self.images) if self.root is None else self.root.shape[1]))
        unit = correlated(white, self.rho) if self.root is None else white @ self.root.T
        if self.checkpoint is not None:
            return of_images + self.checkpoint * unit
        if self.sizes is not None:
            return of_images + rng.choice(self.sizes, count, p=self.weights)[:, None] * unit
        left = np.maximum(self.rough**2 - roughness(of_images) ** 2, 0.0)
        return of_images + np.sqrt(left)[:, None] / np.maximum(roughness(unit), 1e-12)[:, None] * unit

    def draw_measured(self, rng: np.random.Generator, count: int) -> Array:
        """What other images would have changed in the mean curve, (count, T): how well these very checkpoints are known.

        A swing between checkpoints is no error here: the file that is kept has it. A single image cannot tell the two apart, so that
        all of its noise counts.
        """
        return self._of_images(rng, count) if self.freedom else np.asarray(self.size() * rng.standard_normal((count, len(self.images))))

    def _of_images(self, rng: np.random.Generator, count: int) -> Array:
        """Normal deviations (count, T), wider by Student's t where few images say how wide."""
        if self.image_root is not None:
            drawn = rng.standard_normal((count, self.image_root.shape[1])) @ self.image_root.T
        else:
            drawn = self.images * correlated(rng.standard_normal((count, len(self.images))), self.image_rho)
        return np.asarray(drawn * np.sqrt(self.freedom / rng.chisquare(self.freedom, count))[:, None] if self.freedom else drawn)

    def part(self, start: int, stop: int) -> Noise:
        """The noise of some neighbouring checkpoints."""
        roots = {name: root[start:stop] for name in ("image_root", "root") if (root := getattr(self, name)) is not None}
        return replace(self, images=self.images[start:stop], **roots)


def deviations(scores: Array) -> Array:
    """What an image is off by at a checkpoint, its own level and the checkpoint's mean taken out, (T, images)."""
    off: Array = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
    return off


def _neighbours(residual: Array) -> float:
    """Correlation of an image's deviations (T, images) at neighbouring checkpoints, in [0, 0.9].

    Deviations from an image's own mean over T checkpoints are less correlated than what they come from;
    the bias is -(1 + 3 rho) / T to first order (Kendall 1954).
    """
    total = float((residual**2).mean())
    if total == 0:
        return 0.0
    count = len(residual)
    seen = float((residual[1:] * residual[:-1]).mean()) / total
    return float(np.clip((seen + 1 / count) / (1 - 3 / count), 0.0, 0.9))


def _shrinkage(count: int, rho: float) -> float:
    """How much smaller the variance around a mean over ``count`` correlated checkpoints is than the variance itself."""
    lags = np.arange(1, count)
    return float(1 - 2 * ((count - lags) * rho**lags).sum() / (count * (count - 1)))


def measure_noise(scores: Array, *, runs: bool = False, checkpoint: float | None = None, rho: float = 0.0) -> Noise:
    """Noise of the mean over columns.

    Args:
        scores: (T, images), columns paired over checkpoints; one column is a bare curve.
        runs: the columns are means of runs, so that their scatter has the noise between checkpoints too.
        checkpoint: the noise between checkpoints where it was measured elsewhere.
    """
    count, images = scores.shape
    rough = float(roughness(scores.mean(1))) if count > 2 else 0.0
    if images == 1:
        return Noise(np.zeros(count), 0, rough, checkpoint, rho)
    residual = deviations(scores)
    freedom = (count - 1) * (images - 1)
    pooled = float((residual**2).sum()) / freedom
    own = (residual**2).sum(1) / (images - 1) * count / (count - 1)
    share = (images - 1) / (images - 1 + 10)
    image_rho = _neighbours(residual) if count >= 5 else 0.0
    variance = (share * own + (1 - share) * pooled) / images / _shrinkage(count, image_rho)
    return Noise(np.sqrt(variance), freedom, rough, 0.0 if runs and checkpoint is None else checkpoint, rho, image_rho)
