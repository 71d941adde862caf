"""The metrics of an image or of a prompt's images: their names, what they mean, and the columns that scores are kept in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

COLUMNS = ("step", "prompt", "image", "metric", "reference", "value")
"""Of ``scores.csv``: a row an image, metric and (for similarities to photographs) training image."""


@dataclass(frozen=True)
class Metric:
    """What is known of one metric."""

    name: str
    """The column in ``scores.csv`` and ``curve.csv``."""
    label: str
    """In tables and on axes."""
    unit: str
    """Of its values, with their range."""
    higher_is_better: bool | None
    """None where neither direction is better."""
    source: str
    """Where it comes from."""


_CLIP_T = "CLIP (arXiv 2103.00020), as DreamBooth (arXiv 2208.12242)"
METRIC_TABLE = (
    Metric("dino", "DINO", "cosine, -1 to 1", True, "DINO (arXiv 2104.14294), as DreamBooth (arXiv 2208.12242)"),
    Metric("clip_i", "CLIP-I", "cosine, -1 to 1", True, _CLIP_T),
    Metric("clip_t", "CLIP-T", "cosine, -1 to 1", True, _CLIP_T),
    Metric("hf_energy", "HF energy", "mean absolute Laplacian of pixels in [-1, 1], 0 to 16", False, "ours: how grainy an image is"),
    Metric("hf_relative", "grain", "HF energy over the training photographs' own, 0 or more", False, "ours: 1 is as grainy as they are"),
    Metric("colour_distance", "colour distance", "distance of mean RGB in [0, 1], 0 to 1.7", False, "ours: a cast over the whole image"),
    Metric("band_fine", "fine contrast", "RMS of luminance at periods of 2 to 4 pixels, 0 to 1", None, "ours: a noise pattern or a blur"),
    Metric("band_middle", "middle contrast", "RMS of luminance at periods of 4 to 16 pixels, 0 to 1", None, "ours: shapes and blotches"),
    Metric("failed", "failed", "share of images, 0 to 1", False, "ours: images that are not finite"),
    Metric("clip_t_with_token", "CLIP-T with the token", "cosine, -1 to 1", True, _CLIP_T),
    Metric("clip_t_without_token", "CLIP-T without the token", "cosine, -1 to 1", True, _CLIP_T),
    Metric("diversity", "diversity", "1 - cosine, 0 to 2", True, "ours: DINO between the images of a prompt"),
    Metric("lpips", "LPIPS", "distance, 0 or more", True, "LPIPS (arXiv 1801.03924) between the images of a prompt"),
    Metric("clip_iqa", "CLIP-IQA", "probability, 0 to 1", True, "CLIP-IQA (arXiv 2207.12396)"),
)
"""Every metric a run can have besides its own. ``clip_t`` is the one of two token policies that the configuration names."""
METRICS = tuple(metric.name for metric in METRIC_TABLE)
HIGHER_IS_BETTER = {metric.name: metric.higher_is_better for metric in METRIC_TABLE if metric.higher_is_better is not None}
SIMILARITIES = ("dino", "clip_i", "clip_t")


def described(column: str, function: Callable[..., Any]) -> Metric | None:
    """What a custom metric says of itself in its attribute ``metric``; None where it has no such attribute.

    Raises:
        TypeError: the attribute is no ``Metric``, or is named otherwise than the column.
    """
    said = getattr(function, "metric", None)
    if said is None:
        return None
    if not isinstance(said, Metric) or said.name != column:
        raise TypeError(f"its attribute metric is no Metric with the name {column}")
    return said


def as_plain(metrics: dict[str, Metric]) -> dict[str, dict[str, Any]]:
    """Custom metrics by name as plain values, for ``record.json``; ``known`` reads them back."""
    return {name: asdict(metric) for name, metric in metrics.items()}


def known(name: str, custom: dict[str, dict[str, Any]]) -> Metric | None:
    """A metric of the suite or of a run's record (``as_plain``); None for a name that neither describes."""
    table = {metric.name: metric for metric in METRIC_TABLE}
    if name in table or name not in custom:
        return table.get(name)
    try:
        return Metric(**custom[name])
    except TypeError:  # of a record that another version wrote
        return None


def in_order(names: set[str]) -> list[str]:
    """The suite's metrics in their order, then a run's own by name."""
    return [name for name in METRICS if name in names] + sorted(names - set(METRICS))
