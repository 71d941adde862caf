"""Two base models beside each other: grain, DINO, and the gap of the two predictions that guidance multiplies.

Command:  python -m bayesdiff.studies.bases results/toybox results/wide      (part of make paper-tables)

One photograph at a calm rate, guidance 7.5: the toybox in ``mechanism_looks``, the wide base in ``wide_base``. Writes ``bases.csv`` and
``bases.png`` into the second set, and the table of its ``README.md``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bayesdiff.core import escape
from bayesdiff.core.errors import UserError, bad_input_in_one_line
from bayesdiff.core.files import atomic_write
from bayesdiff.core.layout import MAIN
from bayesdiff.recording.archive import open_archive
from bayesdiff.recording.plots import panels, save_figure
from bayesdiff.studies.claims import write_between
from bayesdiff.studies.contrasts import GRAIN, Curve, at_shared_steps, curve_of
from bayesdiff.studies.plan import EVALUATION, load_study
from bayesdiff.studies.rows import Found, rows_of

MEASURES = {
    "dino": "DINO to the\ntraining photograph", GRAIN: "grain: high-frequency energy\nover the photograph's",
    "gap at 0.1": "gap of conditional and\nunconditional prediction, t = 100",
}  # fmt: skip
"""What is drawn and tabled of each run."""


@dataclass(frozen=True)
class Base:
    """Runs on one base model, and curves that all of them have: (runs, T) by measure, at ``steps`` (T,)."""

    name: str
    found: tuple[Found, ...]

    def curves(self, measure: str) -> Curve:
        """Steps (T,) and values (runs, T); raises ``UserError`` where a run lacks the measure."""
        curves = [curve_of(run, measure) for run in self.found]
        lacking = [run.folder.name for run, curve in zip(self.found, curves, strict=True) if curve is None]
        if lacking:
            raise UserError(f"{lacking[0]}: has no {measure}; make the run again with probes=true")
        return at_shared_steps([curve for curve in curves if curve is not None])


def base_of(results: Path, study: str, model: str) -> Base:
    """The runs of a study that a result set has, at the study's own guidance; raises ``UserError`` where there are none."""
    (row,) = [row for row in rows_of(load_study(study, model), open_archive(results)) if row.labels.get(EVALUATION, MAIN) == MAIN]
    if not row.found:
        raise UserError(f"{results}: has no run of {study}; python -m bayesdiff.study {study} --model {model} --results {results}")
    return Base(model, row.found)


def bases_table(bases: Sequence[Base]) -> pd.DataFrame:
    """A line a base and measure: the mean over runs before fine-tuning, at its largest after that, and in the end."""
    lines = []
    for base in bases:
        for measure in MEASURES:
            steps, values = base.curves(measure)
            mean = values.mean(0)
            largest = 1 + int(mean[1:].argmax())
            lines.append({
                "base": base.name, "runs": len(values), "measure": measure, "at step 0": mean[0], "largest after it": mean[largest],
                "at step": int(steps[largest]), "in the end": mean[-1], "last step": int(steps[-1]),
            })  # fmt: skip
    return pd.DataFrame(lines)


def draw(bases: Sequence[Base], target: Path) -> None:
    """Every run and the mean of each base, a panel a measure."""
    figure, places = panels(len(MEASURES), 3, (4.2, 3.2))
    for place, (measure, label) in zip(places, MEASURES.items(), strict=True):
        for base, colour, dash in zip(bases, ("C3", "C0"), ("-", "--"), strict=True):
            steps, values = base.curves(measure)
            place.plot(steps, values.T, dash, color=colour, linewidth=0.6, alpha=0.4)
            place.plot(steps, values.mean(0), dash, color=colour, label=f"{escape.plot(base.name)}, {len(values)} runs")
        place.set(xlabel="training step", ylabel=label)
    places[0].legend(fontsize=7)
    save_figure(figure, target)


@bad_input_in_one_line
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bayesdiff.studies.bases", description=__doc__)
    parser.add_argument("toybox", type=Path, help="a result set with mechanism_looks")
    parser.add_argument("wide", type=Path, help="a result set with wide_base")
    arguments = parser.parse_args(argv)
    bases = [base_of(arguments.toybox, "mechanism_looks", "toybox"), base_of(arguments.wide, "wide_base", "wide")]
    table = bases_table(bases)
    with atomic_write(arguments.wide / "bases.csv") as part:
        table.to_csv(part, index=False, float_format="%.4f", lineterminator="\n")
    draw(bases, arguments.wide / "bases.png")
    write_between(arguments.wide / "README.md", "bases", arguments.wide.name, table.round(3).to_markdown(index=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
