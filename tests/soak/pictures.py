"""A picture is drawn once for all processes of a soak: matplotlib takes two thirds of a small run's time.

The code under test goes its own way and writes its own files; of matplotlib alone, layout and rendering are replaced by the
bytes that it gave for the same table, verdict, probes and images.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from bayesdiff.core.layout import PROBES


class Drawn:
    """The bytes of pictures by what is in them, in a folder that all processes share."""

    def __init__(self, folder: Path):
        folder.mkdir()
        self.folder, self.key = folder, ""

    def plot_curve(self, plot: Callable[..., None]) -> Callable[..., None]:
        """``plots.plot_curve``, which says what is being drawn."""

        def plotted(run: Path, curve: pd.DataFrame, *rest: Any) -> None:
            seen = [path for path in (run / PROBES, *sorted(run.glob("images/*/*.png"))) if path.exists()]
            content = [curve.to_csv().encode(), pickle.dumps(rest), *(path.read_bytes() for path in seen)]
            self.key = hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in content)).hexdigest()
            try:
                plot(run, curve, *rest)
            finally:
                self.key = ""

        return plotted

    def settle(self, settle: Callable[[Any], None]) -> Callable[[Any], None]:
        """``plots.settle``, but for a figure that is not rendered."""
        return lambda figure: None if self._place("svg").exists() else settle(figure)

    def savefig(self, save: Callable[..., None]) -> Callable[..., None]:
        """``Figure.savefig``."""

        def saved(figure: Any, target: Path, **how: Any) -> None:
            place = self._place(how["format"])
            if not self.key:
                save(figure, target, **how)
            elif place.exists():
                Path(target).write_bytes(place.read_bytes())
            else:
                save(figure, target, **how)
                part = place.with_name(f"{place.name}.{os.getpid()}")
                part.write_bytes(Path(target).read_bytes())
                part.replace(place)

        return saved

    def _place(self, kind: str) -> Path:
        return self.folder / f"{self.key or 'none'}.{kind}"
