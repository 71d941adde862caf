"""Curves from outside: any table or log of scores over training steps, and run folders of this package.

Everything becomes a ``Reading``: steps in order, and (checkpoints, images) scores by metric. What a reader guessed, sorted,
thinned or left out stands in its notes; what cannot be decided is an error that names the option.
"""

from bayesdiff.readings.judging import Options, judge
from bayesdiff.readings.reading import Naming, Reading
from bayesdiff.readings.sources import read, read_all

__all__ = ["Naming", "Options", "Reading", "judge", "read", "read_all"]
