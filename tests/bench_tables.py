"""How tables grow with records: ``python -m tests.bench_tables 10000 20000`` (``make bench-tables``).

Records are made from the committed ones of ``table_1``: their scores, moved a little, under other seeds, as runs of this
version would leave them (with their verdict). ``tables`` then runs twice in a process of its own: first, and again with
its cache. ``--unjudged`` leaves the verdicts out, so that the first time computes them all.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bayesdiff.config.identity import as_dict, run_key, run_name
from bayesdiff.core.layout import CURVE, PER_IMAGE, RECORD, RECORDS
from bayesdiff.recording.archive import detector_version, read_record
from bayesdiff.recording.columns import parse_table
from bayesdiff.studies import plan as planning

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = ROOT / "results" / "toybox" / RECORDS
STUDY = """
title: many records
experiment: corruption_curve_15
compare: {{bnn: "off"}}
grid:
  bnn: ["off", "on"]
models:
  toybox:
    minutes: 10
    grid:
      method:
        dreambooth: [method=dreambooth]
        lora: [method=lora, method.learning_rate=5e-4]
        oft: [method=oft, method.learning_rate=1e-4]
      shots.count: [1, 4]
      data.subject: [toy_backpack, toy_dog, toy_robot]
      seed: [{seeds}]
"""
PER_SEED = 36


@dataclass(frozen=True)
class Taken:
    """One call of ``tables``."""

    wall: float
    cpu: float
    peak_mb: float


def _shifted(path: Path, by: float) -> str:
    """A CSV file with its fidelity moved by ``by``."""
    table = parse_table(path.read_bytes(), path)
    whole = {"step", "prompt", "image", "images"}
    table["dino"] = table["dino"] + by
    columns = [[f"{v:.0f}" for v in values] if name in whole else [f"{v:.5f}" for v in values] for name, values in table.items()]
    return "\n".join([",".join(table), *map(",".join, zip(*columns, strict=True))]) + "\n"


def _sources() -> dict[tuple[str, ...], Path]:
    """(bnn, method, shots, subject, seed) -> committed record."""
    axes = ("bnn", "method", "shots.count", "data.subject", "seed")
    cells = planning.load_study("table_1").cells
    return {tuple(cell.labels[axis] for axis in axes): COMMITTED / run_name(planning.compose_cell(cell)) for cell in cells}


def make(folder: Path, count: int, unjudged: bool = False) -> Path:
    """A result set of at least ``count`` records and the study they are of, below ``folder``."""
    sources, shipped = _sources(), planning.EXPERIMENTS
    planning.EXPERIMENTS = folder / "studies"
    planning.EXPERIMENTS.mkdir(parents=True)
    seeds = ", ".join(map(str, range(-(-count // PER_SEED))))
    (planning.EXPERIMENTS / "many.yaml").write_text(STUDY.lstrip().format(seeds=seeds))
    study, rng = planning.load_study("many"), np.random.default_rng(0)
    for cell in study.cells:
        bnn, method, shots, subject, seed = (cell.labels[a] for a in ("bnn", "method", "shots.count", "data.subject", "seed"))
        _make_record(folder, cell, sources[bnn, method, shots, subject, str(int(seed) % 2)], 0.02 * rng.standard_normal(), unjudged)
    planning.EXPERIMENTS = shipped
    return folder / "results"


def _make_record(folder: Path, cell: planning.Cell, source: Path, by: float, unjudged: bool) -> None:
    cfg = planning.compose_cell(cell)
    target = folder / "results" / RECORDS / run_name(cfg)
    target.mkdir(parents=True)
    for name in (CURVE, PER_IMAGE):
        (target / name).write_text(_shifted(source / name, by))
    content = dict(read_record(source)[0].__dict__)
    verdict = None if unjudged else {**content["verdict"], "detector_version": detector_version()}
    content |= {"run_key": run_key(cfg), "config": {**as_dict(cfg), "paths": {}}, "verdict": verdict}
    (target / RECORD).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def take(folder: Path) -> Taken:
    """Run ``tables`` on the set below ``folder``; its workers' memory is theirs, and not in the peak."""
    environment = {**os.environ, "BAYESDIFF_EXPERIMENTS": str(folder / "studies"), "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    command = [sys.executable, "-m", "bayesdiff.tables", str(folder / "results")]
    out = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    process = os.posix_spawn(sys.executable, command, environment, file_actions=[(os.POSIX_SPAWN_DUP2, out, fd) for fd in (1, 2)])
    _, status, used = os.wait4(process, 0)
    if status:
        raise SystemExit((folder / "said").read_text())
    return Taken(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**10)


def measured(counts: list[int], unjudged: bool) -> Iterator[str]:
    """Lines of a Markdown table, a size each."""
    yield "| records | first, s | CPU, s | again, s | CPU, s | peak, MB | growth |"
    yield "|---:|---:|---:|---:|---:|---:|---:|"
    before: Taken | None = None
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            made = len(list((make(folder, count, unjudged) / RECORDS).iterdir()))
            first, again = take(folder), take(folder)
        growth = f"{first.cpu / before.cpu:.2f}" if before else "-"
        yield (f"| {made} | {first.wall:.0f} | {first.cpu:.0f} | {again.wall:.0f} | {again.cpu:.0f} "
               f"| {max(first.peak_mb, again.peak_mb):.0f} | {growth} |")  # fmt: skip
        before = first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", type=int, nargs="+", help="records to make, such as 10000 20000")
    parser.add_argument("--unjudged", action="store_true", help="records without a verdict of this detector")
    arguments = parser.parse_args()
    for line in measured(arguments.counts, arguments.unjudged):
        print(line, flush=True)


if __name__ == "__main__":
    main()
