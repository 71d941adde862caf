"""The names of what is measured, and the columns that scores are kept in."""

from __future__ import annotations

COLUMNS = ("step", "prompt", "image", "metric", "reference", "value")
"""Of ``scores.csv``: a row an image, metric and (for similarities to photographs) training image."""
HIGHER_IS_BETTER = {
    "dino": True, "clip_i": True, "clip_t": True, "hf_energy": False, "hf_relative": False, "colour_distance": False,
    "failed": False, "clip_t_with_token": True, "clip_t_without_token": True, "diversity": True, "lpips": True, "clip_iqa": True,
}  # fmt: skip
"""Every metric a run can have besides its own. ``clip_t`` is the one of two token policies that the configuration names."""
METRICS = tuple(HIGHER_IS_BETTER)
SIMILARITIES = ("dino", "clip_i", "clip_t")


def in_order(names: set[str]) -> list[str]:
    """The suite's metrics in their order, then a run's own by name."""
    return [name for name in METRICS if name in names] + sorted(names - set(METRICS))
