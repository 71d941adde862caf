"""Checkpoints judged by eye without their scores: the sheets that a rater sees, and how far the detector's labels agree.

Command:  python -m bayesdiff.studies.blind results/toybox        (the agreement, from judgements.csv)
          python -m bayesdiff.studies.blind results/toybox --sheets   (draws checkpoints and makes sheets, before anybody judges)

``phenomenon/blind/`` holds ``key.csv`` (which checkpoint an id is), ``sheet-*.png`` (photograph and four samples a row, an id beside it,
in random order), ``judgements.csv`` (the rater's label of every id) and ``agreement.md``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from bayesdiff.core.files import write_text
from bayesdiff.core.layout import PER_IMAGE
from bayesdiff.core.seeds import derive
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.corruption.diagnosis import diagnose
from bayesdiff.recording.archive import judge, photo_energy
from bayesdiff.recording.columns import Array, parse_images
from bayesdiff.recording.plots import HEADER, LEFT, grid_steps
from bayesdiff.recording.record import RunRecord, load_record
from bayesdiff.scoring.pixels import mean_colour

CHECKPOINTS, ROWS, COLUMNS, MARGIN = 80, 10, 2, 34
EARLIEST = 50
"""First step that may be drawn: before it the subject is not there yet."""
SEEN = ("67721e07bcfb", "a57c54b5ef02", "e7a723c46b3a")
"""Runs of the scan of learning rates, whose scores stand in a picture beside their samples."""

WAYS = {
    "recorded": "to avoid, as recorded", "coloured": "to avoid, with colours from the grid", "kept": "not labelled peak or recovered",
}  # fmt: skip
"""Readings of a verdict by their column."""
FINE, UNLEARNED = "fine", "not learned yet"
HEAD = """# Labels beside a person's eye

**One rater judged these checkpoints, an AI model with vision.** No second rater has done so. The rater saw sheets with the photograph and
four samples of a checkpoint, an id, and nothing else. The order was random. The labels were committed before the verdict's labels were
computed. `python -m bayesdiff.studies.blind results/toybox` makes this page from `judgements.csv`.

- The verdict compares a checkpoint with those before and after it. The rater saw each checkpoint alone.
- Old records have no colour distance. *As recorded* can therefore call no colour cast. *With colours* takes it from the committed grids.
- Committed grids were saved with dither, which adds grain to every tile.
- *To avoid* is the first and second level. *Not labelled peak or recovered* also counts checkpoints of the rise, single low ones, and those
  that climb back. This reading was added after the first two had been seen.
- The rater had seen some of these runs' scores in a published page. Three runs whose scores stand beside their samples are left out.

"""


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


def _is_one_photo(config: dict[str, dict[str, Any]], any_length: bool = False) -> bool:
    method, shots, steps = config["method"], config["shots"], config["schedule"]["steps"]
    fits = (method["name"], shots["count"], method["learning_rate"]) == ("dreambooth", 1, 1e-3)
    return fits and (steps == 1000 or (any_length and steps > 1000))


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


def kappa(one: Sequence[str], other: Sequence[str]) -> float:
    """Cohen's kappa (1960): agreement of two raters beyond what their own rates would give; 1 is full, 0 is chance."""
    names = sorted({*one, *other})
    shares = [np.array([list(labels).count(name) for name in names]) / len(labels) for labels in (one, other)]
    chance = float(shares[0] @ shares[1])
    seen = float(np.mean([a == b for a, b in zip(one, other, strict=True)]))
    return (seen - chance) / (1 - chance) if chance < 1 else 1.0


def label_at(verdict: CorruptionVerdict, step: int) -> str:
    """What a verdict says of one checkpoint: the kind of the run to avoid that it lies in, or fine."""
    for i, (first, last) in enumerate(verdict.avoid):
        if first <= step <= last:
            return verdict.avoid_kinds[i] if verdict.avoid_kinds else "other"
    return "noise_pattern" if any(first <= step <= last for first, last in verdict.grainy) else FINE


def with_colours(records: Path, run: str, record: RunRecord) -> CorruptionVerdict:
    """The verdict on the checkpoints of the committed grid, with the colour distance of its tiles, which old records lack."""
    images = parse_images((records / run / PER_IMAGE).read_bytes(), records / run / PER_IMAGE)
    steps = grid_steps(images.steps.tolist())
    rows = [images.steps.tolist().index(step) for step in steps]
    columns = {name: values[rows] for name, values in images.columns.items()}
    columns["colour_distance"] = np.stack([_colours(strip(records, run, step), record) for step in steps])
    return diagnose(steps, columns, photo_hf=photo_energy(record), seed=record.config["seed"])


def _colours(tiles: Image.Image, record: RunRecord) -> Array:
    """(prompts,) distance of every tile's mean colour from the photograph's."""
    prompts = len(record.config["sampler"]["prompts"])
    side = (tiles.width - 6) // (prompts + 1)
    photo = mean_colour(tiles.crop((0, 0, side, side)))
    boxes = [(side * (row + 1) + 6, 0, side * (row + 2) + 6, side) for row in range(prompts)]
    return np.array([float(np.linalg.norm(mean_colour(tiles.crop(box)) - photo)) for box in boxes])


def labelled(results: Path) -> pd.DataFrame:
    """The rater's label of every id beside the verdict's: as the run was recorded, and with colours from its grid."""
    folder, records = results / "phenomenon" / "blind", results / "records"
    table = pd.read_csv(folder / "key.csv").merge(pd.read_csv(folder / "judgements.csv"), on="id", validate="one_to_one")
    said: dict[str, tuple[CorruptionVerdict, CorruptionVerdict]] = {}
    for run in sorted(set(table["run"])):
        record = load_record(records / run)
        assert record is not None
        images = parse_images((records / run / PER_IMAGE).read_bytes(), records / run / PER_IMAGE)
        said[run] = judge(record, images), with_colours(records, run, record)
    for i, name in enumerate(("recorded", "coloured")):
        table[name] = [label_at(said[run][i], int(step)) for run, step in zip(table["run"], table["step"], strict=True)]
    labels = [checkpoint_label(said[run][0], records / run, int(step)) for run, step in zip(table["run"], table["step"], strict=True)]
    table["kept"] = [FINE if label in ("peak", "recovered") else "bad" for label in labels]
    return table.sort_values(["run", "step"], ignore_index=True)


def checkpoint_label(verdict: CorruptionVerdict, folder: Path, step: int) -> str:
    """The verdict's own label of a checkpoint; a blip is one of its own."""
    record = load_record(folder)
    assert record is not None
    return "blip" if step in verdict.blips else verdict.labels[record.config["schedule"]["checkpoints"].index(step)]


def is_bad(labels: pd.Series) -> list[str]:
    """Damaged or not. A copy is none here: with one photograph no score is called a copy."""
    return ["bad" if label not in (FINE, "copying") else FINE for label in labels]


def run_table(table: pd.DataFrame, records: Path) -> pd.DataFrame:
    """Every one-photograph run at 1e-3: what the first two levels say, and the judged checkpoints."""
    rows = []
    for folder in sorted(records.iterdir()):
        record = load_record(folder)
        if record is None or not _is_one_photo(record.config, any_length=True):
            continue
        verdict = judge(record, parse_images((folder / PER_IMAGE).read_bytes(), folder / PER_IMAGE))
        seen = table[table["run"] == folder.name].to_dict("records")
        name, steps = (
            folder.name.removeprefix("toybox-dreambooth-").replace("-1shot", "").rpartition("-")[0],
            record.config["schedule"]["steps"],
        )
        rows.append({
            "run": f"{name}, to {steps}" if steps != 1000 else name, "keep": verdict.best_step, "avoid": said_to_avoid(verdict) or "—",
            "blind eye": ", ".join(f"{row['step']} {row['label']}".replace("_", " ") for row in seen) or "—",
        })  # fmt: skip
    return pd.DataFrame(rows)


def said_to_avoid(verdict: CorruptionVerdict) -> str:
    """Steps to avoid with their kinds, in a table's cell."""
    kinds = verdict.avoid_kinds or ("other",) * len(verdict.avoid)
    said = [f"{first} to {last} {kind}" for (first, last), kind in zip(verdict.avoid, kinds, strict=True)]
    said += [f"{first} to {last} noise pattern (grain alone)" for first, last in verdict.grainy]
    return ", ".join(said).replace("_", " ")


def agreement_page(table: pd.DataFrame, records: Path) -> str:
    """Agreement and kappa, the labels against each other, and every run's checkpoints, as Markdown."""
    rows, trained = [], table[~table["note"].fillna("").str.contains(UNLEARNED)]
    for name, part in (("all", table), ("subject learned", trained)):
        rows += [_agreement(f"{name} ({len(part)})", called, part, column) for column, called in WAYS.items()]
    crossed = pd.crosstab(table["label"], table["coloured"]).rename_axis(index="eye", columns=None).reset_index()
    return HEAD + "\n\n".join([
        pd.DataFrame(rows).to_markdown(index=False), "Rows are the rater's labels, columns the verdict's with colours:",
        crossed.to_markdown(index=False), "## Run by run", run_table(table, records).to_markdown(index=False),
    ]) + "\n"  # fmt: skip


def _agreement(name: str, called: str, part: pd.DataFrame, column: str) -> dict[str, object]:
    """A row of the table: how often the rater and the verdict agree that a checkpoint is bad, and on what is wrong."""
    bad, judged = is_bad(part["label"]), is_bad(part[column])
    same = np.array(bad) == np.array(judged)
    both = part[same & (np.array(bad) == "bad")]
    kinds = column != "kept"
    return {
        "checkpoints": name, "verdict": called, "agree, bad or fine": f"{same.mean():.0%}", "kappa": f"{kappa(bad, judged):.2f}",
        "eye bad": bad.count("bad"), "verdict bad": judged.count("bad"), "both bad": len(both),
        "same kind of these": str(int((both["label"] == both[column]).sum())) if kinds else "—",
        "kappa of all kinds": f"{kappa(part['label'], part[column]):.2f}" if kinds else "—",
    }  # fmt: skip


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
    write_text(folder / "agreement.md", agreement_page(labelled(arguments.results), records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
