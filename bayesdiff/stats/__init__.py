"""Differences between arms that one can trust: paired intervals, Holm's correction, power. Numbers in, numbers out."""

from bayesdiff.stats.paired import Difference, aggregate_as_paper, aggregate_hierarchically, holm, paired_difference
from bayesdiff.stats.power import detectable, power, seeds_needed

__all__ = [
    "Difference", "aggregate_as_paper", "aggregate_hierarchically", "detectable", "holm", "paired_difference", "power", "seeds_needed",
]  # fmt: skip
