"""Figures 3 to 5 of the paper for the checkpoints of a run (``training.one_step`` says what the columns are).

Command:  python -m bayesdiff.runs.one_step RUN [RUN …] --results results/toybox
          (runs made with schedule.keep=all; writes RUN/one_step.csv and collects it beside the run's record)
Cost:     a second a checkpoint on the toybox, without sampling
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from bayesdiff.config.prompts import fill
from bayesdiff.core.errors import UserError, bad_input_in_one_line
from bayesdiff.core.layout import CHECKPOINTS, ONE_STEP, step_folder, steps_in
from bayesdiff.diffusion.batch import encode_pictures, encode_text
from bayesdiff.diffusion.pipeline import choose_device, load_pipeline
from bayesdiff.diffusion.schedules import training_scheduler
from bayesdiff.diffusion.subject import load_subject
from bayesdiff.methods.registry import method_of
from bayesdiff.recording.collect import collect
from bayesdiff.recording.export import read_run
from bayesdiff.runs.evaluations import write_csv
from bayesdiff.training.loop import prepare_weights
from bayesdiff.training.one_step import one_step


def one_step_table(run: Path) -> pd.DataFrame:
    """A row a kept checkpoint, step 0 the base model; raises ``UserError`` for a folder that is no run."""
    if not (kept := steps_in(run / CHECKPOINTS)):
        raise UserError(f"{run}: has no checkpoints; make the run with schedule.keep=all")
    _, cfg, _ = read_run(run, kept[-1])
    pipe, seed = load_pipeline(cfg.model, choose_device(cfg.device)), cfg.seed if cfg.shots.seed is None else cfg.shots.seed
    subject = load_subject(cfg.data, cfg.shots.count, seed, cfg.model.resolution)
    text = fill(cfg.data.instance_prompt, subject.identifier, subject.class_noun)
    instance, schedule, rows = encode_pictures(pipe, [subject.photos[0].image], text), training_scheduler(pipe.scheduler), []
    parts, _ = prepare_weights(pipe, cfg)
    for step in kept:
        method_of(cfg.method.name).load(parts, step_folder(run / CHECKPOINTS, step))
        if cfg.method.train_text_encoder:
            with torch.no_grad():
                instance = replace(instance, text=encode_text(pipe, text, cfg.model.resolution))
        rows.append({"step": float(step), **one_step(pipe.unet, schedule, instance.mean, instance.text, cfg.sampler.seed)})
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
