"""Is there a corruption stage in this curve? ``python -m bayesdiff.verdict FILE.csv [FILE …]``.

A source is a run folder, a CSV file (wide: a column of steps and one or more of scores; long: a row a
step and image; a chart exported from Weights & Biases), or ``wandb:ENTITY/PROJECT/RUN``.

Exit code 0: no stage; 3: a stage in at least one curve; 2: bad input.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bayesdiff.core.errors import UserError
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.corruption.diagnosis import ALIGNMENT, diagnose
from bayesdiff.readings import Naming, Reading, read_all
from bayesdiff.scoring.metrics import HIGHER_IS_BETTER

FOUND = 3
PERCENT = 1.5
"""Scores above this are taken as percent, and the smallest depth with them."""
LOWER = ("loss", "fid", "kid", "mse", "mae", "rmse", "distance", "error", "perplexity", "nll")
"""Words in the name of a score that is better when lower."""


def judge(reading: Reading, arguments: argparse.Namespace) -> tuple[CorruptionVerdict, Reading]:
    """The verdict on one reading, and the reading with what had to be decided noted.

    Raises:
        UserError: a score that is better when lower by its name, and no word on it; prompts that are not known.
    """
    reading = _upwards(reading, arguments.better)
    min_depth, notes = arguments.min_depth, list(reading.notes)
    scores = reading.columns[reading.metric]
    percent = float(np.where(np.isfinite(scores), np.abs(scores), 0.0).max()) > PERCENT
    if percent:
        notes.append(f"scores above 1 are taken as percent{'' if min_depth else ': the smallest depth is 3.0 (set it with --min-depth)'}")
    if min_depth is None:
        min_depth = 3.0 if percent else 0.03
    if arguments.sampled_prompts and not reading.images:
        raise UserError(f"{reading.name}: --sampled-prompts needs the prompt of each image, which a run folder has")
    groups = [prompt for prompt, _ in reading.images] if arguments.sampled_prompts else None
    verdict = diagnose(
        reading.steps, reading.columns, reading.metric, ceiling=reading.ceiling, alpha=arguments.alpha, min_depth=min_depth,
        seed=arguments.seed, groups=groups, checkpoint_noise=arguments.checkpoint_noise, whole=100.0 if percent else 1.0,
    )  # fmt: skip
    return verdict, replace(reading, notes=tuple(notes))


def _upwards(reading: Reading, better: str | None) -> Reading:
    """The reading with scores that are better when higher."""
    lower = not HIGHER_IS_BETTER.get(reading.metric, not set(re.split(r"[^a-z]+", reading.metric.lower())) & set(LOWER))
    if better is None and lower:
        raise UserError(f"{reading.name}: {reading.metric} is better when lower, by its name; give --better lower (or higher)")
    if better is None and reading.metric == "lpips":
        return replace(reading, notes=(*reading.notes, "lpips is taken as diversity, higher is better; a distance wants --better lower"))
    if better != "lower":
        return reading
    turned = {name: scores for name, scores in reading.columns.items() if name != ALIGNMENT}  # no trade-off with what has no upper end
    turned[reading.metric] = -reading.columns[reading.metric]
    notes = (*reading.notes, "lower is better: the scores are judged and shown with the other sign, and decide alone what to keep")
    return replace(reading, columns=turned, ceiling=None, notes=notes)


def print_verdict(console: Console, reading: Reading, verdict: CorruptionVerdict, full: bool) -> None:
    """The sentence, what was noted, and a table of checkpoints."""
    console.print(f"{reading.name}: {verdict.sentence}", highlight=False, soft_wrap=True, markup=False)
    for note in reading.notes:
        console.print(f"  note: {note}", highlight=False, soft_wrap=True, markup=False)
    if verdict.noise_source:
        between, images = verdict.checkpoint_noise, verdict.image_noise
        console.print(f"  noise: {between:.4f} between checkpoints, {images:.4f} from images ({verdict.noise_source})", highlight=False)
    if not full:
        return
    scores = reading.columns[reading.metric]
    table = Table("step", reading.metric, "± se", "stage", "best")
    for step, row, label in zip(reading.steps, scores, verdict.labels, strict=True):
        error = f"{row.std(ddof=1) / math.sqrt(row.size):.3f}" if row.size > 1 else ""
        best = "keep" if step == verdict.best_step else "as good" if step in verdict.best_steps else ""
        table.add_row(str(step), f"{row.mean():.3f}", error, "blip" if step in verdict.blips else label, best)
    console.print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m bayesdiff.verdict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="run folder, CSV file or wandb:ENTITY/PROJECT/RUN")
    parser.add_argument("--step", help="column of training steps (default: guessed)")
    parser.add_argument("--value", action="append", default=[], help="column of scores; give it again for every image")
    parser.add_argument("--metric", help="metric of a long table or a run folder (default: dino)")
    parser.add_argument("--run", help="column that tells several runs of one table apart")
    parser.add_argument("--alpha", type=float, default=0.05, help="error rate over the whole curve (default: 0.05)")
    parser.add_argument("--min-depth", type=float, help="smallest depth of a stage (default: 0.03, or 3 for percent)")
    parser.add_argument("--better", choices=["higher", "lower"], help="which scores are better (default: higher)")
    parser.add_argument(
        "--checkpoint-noise", type=float, help="noise between checkpoints, measured elsewhere; of a bare curve all the noise of its means"
    )
    parser.add_argument("--sampled-prompts", action="store_true", help="run folders: prompts are a sample of all prompts")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (default: 0)")
    parser.add_argument("--json", action="store_true", help="print a list of verdicts instead of words")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the curves with their stages")
    return parser


def _as_json(reading: Reading, verdict: CorruptionVerdict) -> dict[str, Any]:
    return {
        "source": reading.name,
        "metric": reading.metric,
        "steps": list(reading.steps),
        "notes": list(reading.notes),
        **verdict.to_dict(),
    }


def main(argv: list[str] | None = None) -> int:
    """Judge every source; the exit code says whether a stage was found."""
    arguments = _parser().parse_args(argv)
    naming = Naming(arguments.step, tuple(arguments.value), arguments.metric, arguments.run)
    try:
        judged = [judge(reading, arguments) for reading in read_all(arguments.sources, naming)]
        if arguments.plot is not None:
            from bayesdiff.recording.plots import plot_verdicts

            plot_verdicts(arguments.plot, [(r.name, r.metric, list(r.steps), r.columns[r.metric], v) for v, r in judged])
    except (UserError, ValueError, OSError) as error:
        print(f"bayesdiff: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps([_as_json(reading, verdict) for verdict, reading in judged], indent=1))
    else:
        console = Console(width=None if Console().is_terminal else 100)
        for verdict, reading in judged:
            print_verdict(console, reading, verdict, full=len(judged) == 1)
    return FOUND if any(verdict.flagged for verdict, _ in judged) else 0


if __name__ == "__main__":
    sys.exit(main())
