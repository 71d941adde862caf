"""Control: the learning rate falls linearly to 0 at the last step."""

from __future__ import annotations

from bayesdiff.arms.protocol import Arm, Site
from bayesdiff.config.schema import LrSchedule


class LrDecay(Arm):
    lr_schedule = LrSchedule.linear


def attach(site: Site) -> Arm:
    """The plain arm on a linear schedule."""
    return LrDecay(site)
