"""Figures 3 to 5 of the paper for the checkpoints of a run (``training.one_step`` says what the columns are).

Command:  python -m bayesdiff.runs.one_step RUN [RUN …] --results results/toybox
          (runs made with schedule.keep=all; writes RUN/one_step.csv and collects it beside the run's record)
Cost:     a second a checkpoint on the toybox, without sampling
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from bayesdiff.config.prompts import fill
from bayesdiff.core.errors import UserError, bad_input_in_one_line
from bayesdiff.core.layout import CHECKPOINTS, ONE_STEP, step_folder, steps_in
from bayesdiff.diffusion.batch import encode_pictures
from bayesdiff.diffusion.pipeline import choose_device, load_pipeline
from bayesdiff.diffusion.subject import load_subject
from bayesdiff.methods.registry import method_of
from bayesdiff.recording.collect import collect
from bayesdiff.recording.export import read_run
from bayesdiff.runs.evaluations import write_csv
from bayesdiff.training.one_step import one_step


def one_step_table(run: Path) -> pd.DataFrame:
    """A row a kept checkpoint, step 0 the base model; raises ``UserError`` for a folder that is no run."""
    if not (kept := steps_in(run / CHECKPOINTS)):
        raise UserError(f"{run}: has no checkpoints; make the run with schedule.keep=all")
    _, cfg, _ = read_run(run, kept[-1])
    pipe, seed = load_pipeline(cfg.model, choose_device(cfg.device)), cfg.seed if cfg.shots.seed is None else cfg.shots.seed
    subject = load_subject(cfg.data, cfg.shots.count, seed, cfg.model.resolution)
    text = fill(cfg.data.instance_prompt, subject.identifier, subject.class_noun)
    instance, method, rows = encode_pictures(pipe, [subject.photos[0].image], text), method_of(cfg.method.name), []
    method.build({"unet": pipe.unet}, cfg.method, cfg.seed)
    for step in kept:
        method.load({"unet": pipe.unet}, step_folder(run / CHECKPOINTS, step))
        rows.append({"step": float(step), **one_step(pipe.unet, pipe.scheduler, instance.mean, instance.text, cfg.sampler.seed)})
    return pd.DataFrame(rows).round(5)


@bad_input_in_one_line
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m bayesdiff.runs.one_step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the folder of a run with kept checkpoints")
    parser.add_argument("--results", type=Path, help="also collect the table into this result set, for its page of one denoising step")
    arguments = parser.parse_args(argv)
    for run in arguments.runs:
        table = one_step_table(run)
        write_csv(run / ONE_STEP, table)
        print(table.to_string(index=False))
        if arguments.results is not None:
            print(collect(run, arguments.results) / ONE_STEP)
    return 0


if __name__ == "__main__":
    sys.exit(main())
