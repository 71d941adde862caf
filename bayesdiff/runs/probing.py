"""The probes of a run: ``probes.csv``, a row a checkpoint, kind of weights and timestep (``training.probes`` says what is in it)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from bayesdiff.config.schema import Config, Weights
from bayesdiff.core.layout import PROBES
from bayesdiff.runs.evaluations import Evaluation, weights_shown, write_csv

if TYPE_CHECKING:
    from bayesdiff.runs.bench import Bench
    from bayesdiff.training.loop import Training

DIGITS = 7


def _probe(training: Training, cfg: Config) -> list[dict[str, float]]:
    """The probes of the model as it stands, on the first training photograph."""
    import torch

    from bayesdiff.diffusion.batch import encode_text
    from bayesdiff.diffusion.graphed import graphed_forward
    from bayesdiff.training.probes import probe

    instance, empty = training.instance, encode_text(training.pipe, "", cfg.model.resolution)
    with torch.no_grad(), graphed_forward(training.pipe.unet, training.forwards):
        return probe(training.pipe.unet, training.noise_schedule, instance.mean[:1], instance.text, empty, cfg.sampler.seed)


def pretrained_losses(training: Training, cfg: Config) -> dict[float, float]:
    """Loss on the training image by timestep, before any step."""
    return {row["timestep"]: row["loss"] for row in _probe(training, cfg)}


def probed(evaluations: list[Evaluation]) -> list[Evaluation]:
    """One evaluation for every kind of weights that is not a draw: probes do not depend on guidance or prompts."""
    shown = [(one.weights, one.ema_decay if one.weights is Weights.ema else 0.0, one) for one in reversed(evaluations)]
    kinds = {(weights, decay): one for weights, decay, one in shown if weights is not Weights.draw}
    return [one for one in evaluations if one in kinds.values()]


def write_probes(bench: Bench, step: int) -> None:
    """Probe every kind of weights at a checkpoint; rows of later checkpoints, of a run that was resumed, are replaced."""
    rows = []
    for one in probed(bench.evaluations):
        with weights_shown(bench.training, one):
            for row in _probe(bench.training, bench.cfg):
                ratio = row["loss"] / bench.pretrained_loss[row["timestep"]]
                rows.append({"step": step, "weights": one.weights.value, **row, "loss_ratio": ratio})
    path = bench.folder / PROBES
    before = pd.read_csv(path, float_precision="round_trip") if path.exists() else pd.DataFrame(columns=["step"])
    earlier = before[before["step"] < step]
    table = pd.DataFrame(rows).round(DIGITS)
    write_csv(path, pd.concat([earlier, table], ignore_index=True) if len(earlier) else table)
