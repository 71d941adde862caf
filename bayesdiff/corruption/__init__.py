"""From a fidelity curve to a verdict: is there a corruption stage, where, how deep, how sure?

Numbers in, a frozen record out; needs numpy and scipy and nothing of a run, so it is usable on any curve.
"""

from bayesdiff.corruption.detector import CorruptionVerdict, detect_corruption
from bayesdiff.corruption.monitor import CorruptionMonitor

__all__ = ["CorruptionMonitor", "CorruptionVerdict", "detect_corruption"]
