"""Which kind of bad: what changed inside a run of checkpoints to avoid, against the checkpoints beside it.

Per-image columns are compared with themselves: for every image the mean over the run less the mean over its *shoulders*
(up to ``SHOULDERS`` checkpoints before and after it that are not to be avoided themselves, never step 0). A change counts when it is
as large as its threshold and the images agree on it (paired t-test, one-sided, ``AGREED``). The first rule that holds names the kind:

1. *broken*: ``FAILED_SHARE`` of the images inside, or more, failed (black or not finite).
2. *copying*: fidelity inside is at the ceiling (similarity of different photographs) or above, and diversity or prompt following fell.
3. *noise pattern*: high-frequency energy rises by ``NOISE``, and beyond the training photograph's own where that is known. Where
   contrast is known by spatial frequency (``band_fine``, ``band_middle``), one of the two bands has to rise by ``NOISE`` too.
4. *colour cast*: the distance of an image's mean colour from the photographs' rises by ``CAST``.
5. *blur*: high-frequency energy falls by ``BLUR``. Where bands are known, the fine one has to fall by more than the middle one, which
   has the shapes: where both fall alike, an image is pale or empty and not blurred.
6. *content lost*: contrast at the periods of shapes (``band_middle``) falls by ``SHAPES``, or a second view of the content (CLIP-I,
   DINO, the prompt's own words) falls by ``CONTENT``.
7. *other*: none of these, or no column to tell.

High-frequency energy is taken as a share of the photograph's (``hf_relative``, or ``hf_energy`` with ``photo_hf`` given), else as
a share of the shoulders'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
KINDS = ("noise_pattern", "colour_cast", "blur", "content_lost", "copying", "broken", "other")
SHOULDERS = 3
AGREED = 0.01
FAILED_SHARE = 0.25
NOISE = 0.1
"""Rise of high-frequency energy, as a share of the photograph's (or the shoulders')."""
GRAIN = 1.0
"""High-frequency energy, as a share of the photograph's, above which an image is noisier than the photograph."""
SPECKLE = 1.15
"""The same, where the fidelity saw nothing: from here on the images are to be avoided for their grain alone."""
FLAT = 1e-3
"""High-frequency energy of a photograph of one colour, or less: an eighth of the step of 8 bits. A share of it says nothing of a sample."""
BLUR = 0.15
SHAPES = 0.25
"""Fall of the middle band's contrast, as a share of the shoulders'."""
BANDS = {"band_fine": "periods of 2 to 4 pixels", "band_middle": "periods of 4 to 16 pixels"}
CAST = 0.06
"""Rise of the distance of mean colours (Euclidean, red, green and blue in [0, 1])."""
CONTENT = 0.05
CONTENT_COLUMNS = {"clip_i": "CLIP-I", "dino": "DINO", "clip_t_without_token": "prompt following", "clip_t": "prompt following"}


@dataclass(frozen=True)
class KindOfBad:
    """The second level's answer for one run of checkpoints."""

    kind: str
    """One of ``KINDS``."""
    reason: str
    """A fragment of a sentence with the deciding numbers; empty for other."""
    evidence: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Mean inside and beside, for every column that was looked at."""


def kind_of(
    columns: Mapping[str, Array], start: int, stop: int, beside: NDArray[np.bool_], *, fidelity: str = "dino",
    ceiling: float | None = None, photo_hf: float | None = None,
) -> KindOfBad:  # fmt: skip
    """What changed at checkpoints ``start`` to ``stop - 1`` (indices).

    Args:
        columns: (T, images) by name, finite, all with the same checkpoints; those that are missing decide nothing.
        beside: (T,) checkpoints that may be shoulders: outside every run to avoid, and trained.
        fidelity: the column that the run was found in; it is no second view of itself.
        ceiling: similarity of different photographs, in the fidelity's units; None where there is one photograph.
        photo_hf: mean high-frequency energy of the training photographs, in the units of ``hf_energy``.
    """
    shoulders = _shoulders(start, stop, beside)
    inside = np.arange(start, stop)
    views = _views(columns, photo_hf, inside, shoulders)
    evidence = {name: (float(v[inside].mean()), float(v[shoulders].mean())) for name, v in views.items()}
    changes = {name: _change(v, inside, shoulders) for name, v in views.items()}
    kind, name = _decide(changes, evidence, fidelity, ceiling, photo_hf is not None or "hf_relative" in columns)
    return KindOfBad(kind, _reason(name, evidence, photo_hf is not None or "hf_relative" in columns), evidence)


def _shoulders(start: int, stop: int, beside: NDArray[np.bool_]) -> NDArray[np.intp]:
    before = np.flatnonzero(beside[:start])[-SHOULDERS:]
    after = stop + np.flatnonzero(beside[stop:])[:SHOULDERS]
    found = np.concatenate([before, after])
    return found if len(found) else np.array([max(start - 1, 0), min(stop, len(beside) - 1)])


def is_flat(photo_hf: float | None) -> bool:
    """Whether photographs are known to have no grain that another image's could be a share of."""
    return photo_hf is not None and photo_hf < FLAT


def _views(columns: Mapping[str, Array], photo_hf: float | None, inside: NDArray[np.intp], shoulders: NDArray[np.intp]) -> dict[str, Array]:
    """The columns that are looked at, with high-frequency energy as a share under the name ``hf``."""
    names = ("failed", "diversity", "colour_distance", *CONTENT_COLUMNS)
    views = {name: columns[name] for name in names if name in columns}
    if "hf_relative" in columns:
        views["hf"] = columns["hf_relative"]
    elif "hf_energy" in columns:
        reference = photo_hf or float(columns["hf_energy"][shoulders].mean())
        views["hf"] = columns["hf_energy"] / max(reference, 1e-12)
    for name in BANDS:
        if name in columns:
            views[name] = columns[name] / max(float(columns[name][shoulders].mean()), 1e-12)
    return views


def grain(columns: Mapping[str, Array], photo_hf: float | None = None) -> Array | None:
    """(T, images) high-frequency energy as a share of the photographs' own; None where the photographs' is not known."""
    if "hf_relative" in columns:
        return columns["hf_relative"]
    return columns["hf_energy"] / photo_hf if photo_hf and "hf_energy" in columns else None


def _change(values: Array, inside: NDArray[np.intp], shoulders: NDArray[np.intp]) -> float:
    """Mean change from the shoulders to the run where the images agree on its sign; else 0."""
    from scipy.special import stdtr  # as scipy.stats.t.sf, which takes a quarter of a second to load

    gap = values[inside].mean(0) - values[shoulders].mean(0)
    mean, count = float(gap.mean()), len(gap)
    if count < 2:
        return mean
    error = max(float(gap.std(ddof=1)) / np.sqrt(count), 1e-12)
    return mean if stdtr(count - 1, -abs(mean) / error) < AGREED else 0.0


def _decide(
    changes: Mapping[str, float], evidence: Mapping[str, tuple[float, float]], fidelity: str, ceiling: float | None, absolute: bool
) -> tuple[str, str]:
    """The kind, and the column that decided it."""
    if "failed" in evidence and evidence["failed"][0] >= FAILED_SHARE:
        return "broken", "failed"
    lost = [name for name in ("diversity", "clip_t_without_token", "clip_t") if changes.get(name, 0.0) < 0]
    if ceiling is not None and fidelity in evidence and evidence[fidelity][0] >= ceiling and lost:
        return "copying", lost[0]
    rise = changes.get("hf", 0.0)
    bands = {name: changes[name] for name in BANDS if name in changes}
    loudest = max(bands, key=lambda name: bands[name], default="")
    if rise >= NOISE and (not absolute or evidence["hf"][0] > GRAIN) and (not bands or bands[loudest] >= NOISE):
        return "noise_pattern", "hf"
    if changes.get("colour_distance", 0.0) >= CAST:
        return "colour_cast", "colour_distance"
    if rise <= -BLUR and bands.get("band_fine", -1.0) < bands.get("band_middle", 0.0):
        return "blur", "hf"
    if bands.get("band_middle", 0.0) <= -SHAPES:
        return "content_lost", "band_middle"
    for name in CONTENT_COLUMNS:
        if name != fidelity and changes.get(name, 0.0) <= -CONTENT:
            return "content_lost", name
    return "other", ""


def _reason(name: str, evidence: Mapping[str, tuple[float, float]], absolute: bool) -> str:
    if not name:
        return ""
    inside, beside = evidence[name]
    if name == "failed":
        return f"{inside:.0%} of the images failed"
    if name == "hf":
        of = "the photograph's" if absolute else "that beside it"
        return f"high-frequency energy {inside:.2f} of {of} against {beside:.2f}{_periods(evidence)}"
    if name in BANDS:
        return f"contrast at {BANDS[name]} {inside:.2f} of that beside it"
    called = {"colour_distance": "mean colour off by", "diversity": "diversity"} | CONTENT_COLUMNS
    return f"{called[name]} {inside:.2f} against {beside:.2f}"


def _periods(evidence: Mapping[str, tuple[float, float]]) -> str:
    """Where the contrast changed most, if it was measured by spatial frequency."""
    shares = {name: inside / max(beside, 1e-12) for name, (inside, beside) in evidence.items() if name in BANDS}
    if not shares:
        return ""
    name = max(shares, key=lambda band: abs(shares[band] - 1))
    return f", mostly at {BANDS[name]} ({shares[name]:.2f} of that beside it)"
