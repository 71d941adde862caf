"""Checkpoints judged by eye without their scores: the sheets that a rater sees, and how far the detector's labels agree.

Command:  python -m bayesdiff.studies.blind results/toybox        (the agreement, from judgements.csv)
          python -m bayesdiff.studies.blind results/toybox --sheets   (draws checkpoints and makes sheets, before anybody judges)

``phenomenon/blind/`` holds ``key.csv`` (which checkpoint an id is), ``sheet-*.png`` (photograph and four samples a row, an id beside it,
in random order), ``judgements.csv`` (the rater's label of every id) and ``agreement.md``.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from bayesdiff.core.seeds import derive
from bayesdiff.recording.plots import HEADER, LEFT, grid_steps
from bayesdiff.recording.record import load_record

CHECKPOINTS, ROWS, COLUMNS, MARGIN = 80, 10, 2, 34
EARLIEST = 50
"""First step that may be drawn: before it the subject is not there yet."""
SEEN = ("67721e07bcfb", "a57c54b5ef02", "e7a723c46b3a")
"""Runs of the scan of learning rates, whose scores stand in a picture beside their samples."""


def candidates(records: Path) -> list[tuple[str, int]]:
    """(run, step) of every checkpoint in the committed grids of one-photograph runs at 1e-3."""
    found = []
    for folder in sorted(records.iterdir()):
        record = load_record(folder)
        if record is None or folder.name.endswith(SEEN) or not _is_one_photo(record.config):
            continue
        steps = record.config["schedule"]["checkpoints"]
        found += [(folder.name, step) for step in grid_steps(steps) if step >= EARLIEST]
    return found


def _is_one_photo(config: dict[str, dict[str, object]]) -> bool:
    method, shots, schedule = config["method"], config["shots"], config["schedule"]
    return (method["name"], shots["count"], method["learning_rate"], schedule["steps"]) == ("dreambooth", 1, 1e-3, 1000)


def drawn(records: Path, count: int = CHECKPOINTS, seed: int = 0) -> pd.DataFrame:
    """A random choice of checkpoints in random order: ``id``, ``run``, ``step``."""
    every = candidates(records)
    chosen = np.random.default_rng(derive(seed, "blind")).permutation(len(every))[:count]
    return pd.DataFrame([{"id": i + 1, "run": every[k][0], "step": every[k][1]} for i, k in enumerate(chosen)])


def strip(records: Path, run: str, step: int) -> Image.Image:
    """The photograph and a checkpoint's sample of every prompt side by side, cut from the run's committed grid."""
    record, grid = load_record(records / run), Image.open(records / run / "grid.png").convert("RGB")
    assert record is not None
    steps, prompts = grid_steps(record.config["schedule"]["checkpoints"]), len(record.config["sampler"]["prompts"])
    side = (grid.width - LEFT) // len(steps)
    top, x = grid.height - side * prompts, LEFT + steps.index(step) * side
    made = Image.new("RGB", (side * (prompts + 1) + 6, side), "white")
    made.paste(grid.crop((LEFT, top - HEADER - side, LEFT + side, top - HEADER)), (0, 0))
    for row in range(prompts):
        made.paste(grid.crop((x, top + row * side, x + side, top + (row + 1) * side)), (side * (row + 1) + 6, 0))
    return made


def sheets(records: Path, key: pd.DataFrame) -> list[Image.Image]:
    """Pages of strips with their ids and nothing else."""
    made = []
    for start in range(0, len(key), ROWS * COLUMNS):
        page = [(row.id, strip(records, str(row.run), int(row.step))) for row in key.iloc[start : start + ROWS * COLUMNS].itertuples()]
        width, height = page[0][1].width + MARGIN, page[0][1].height + 4
        sheet = Image.new("RGB", (width * COLUMNS, height * ROWS), "white")
        draw = ImageDraw.Draw(sheet)
        for i, (name, tiles) in enumerate(page):
            x, y = i // ROWS * width, i % ROWS * height
            draw.text((x + 4, y + 44), str(name), fill="black")
            sheet.paste(tiles, (x + MARGIN - 6, y))
        made.append(sheet)
    return made


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m bayesdiff.studies.blind", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--sheets", action="store_true")
    arguments = parser.parse_args(argv)
    folder, records = arguments.results / "phenomenon" / "blind", arguments.results / "records"
    if arguments.sheets:
        folder.mkdir(parents=True, exist_ok=True)
        key = drawn(records)
        key.to_csv(folder / "key.csv", index=False)
        for i, sheet in enumerate(sheets(records, key), 1):
            sheet.quantize(256, dither=Image.Dither.NONE).save(folder / f"sheet-{i}.png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
