"""The probes of a run: ``probes.csv``, a row a checkpoint, kind of weights and timestep (``training.probes`` says what is in it)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from bayesdiff.config.schema import Config, Weights
from bayesdiff.core.layout import PROBES
from bayesdiff.runs.evaluations import Evaluation, weights_shown, write_csv

if TYPE_CHECKING:
    from bayesdiff.diffusion.batch import Conditioning
    from bayesdiff.runs.bench import Bench
    from bayesdiff.training.loop import Training

DIGITS = 7


def _probe(training: Training, cfg: Config) -> list[dict[str, float]]:
    """The probes of the model as it stands, on the first training photograph."""
    import torch

    from bayesdiff.diffusion.batch import encode_text
    from bayesdiff.diffusion.graphed import graphed_forward
    from bayesdiff.training.probes import probe

    instance = training.instance
    with torch.no_grad(), graphed_forward(training.pipe.unet, training.forwards):
        text = encode_text(training.pipe, instance.prompt, cfg.model.resolution) if cfg.method.train_text_encoder else instance.text
        empty = _unconditional(training, cfg)
        return probe(training.pipe.unet, training.noise_schedule, instance.mean[:1], text, empty, cfg.sampler.seed)


def _unconditional(training: Training, cfg: Config) -> Conditioning:
    """What guidance starts from, as the encoders read it now: trained ones read it anew at every checkpoint."""
    from bayesdiff.diffusion.batch import encode_unconditional
    from bayesdiff.diffusion.texts import encoded_once

    pipe = training.pipe
    return encoded_once(pipe, training.texts, _unconditional, lambda: encode_unconditional(pipe, cfg.model.resolution))


def pretrained_losses(training: Training, cfg: Config) -> dict[float, float]:
    """Loss on the training image by timestep, before any step."""
    return {row["timestep"]: row["loss"] for row in _probe(training, cfg)}


def probed(evaluations: list[Evaluation]) -> list[Evaluation]:
    """One evaluation for every kind of weights that is not a draw: probes do not depend on guidance or prompts."""
    shown = [(one.weights, one.ema_decay if one.weights is Weights.ema else 0.0, one) for one in reversed(evaluations)]
    kinds = {(weights, decay): one for weights, decay, one in shown if weights is not Weights.draw}
    return [one for one in evaluations if one in kinds.values()]


def probes_of(bench: Bench, step: int) -> pd.DataFrame:
    """Probe every kind of weights at a checkpoint; a row for each of them and timestep.

    Where the run has averages of several decays a column ``ema_decay`` tells their rows apart; it is empty for other weights.
    """
    rows, several = [], len(bench.training.averages) > 1
    for one in probed(bench.evaluations):
        decay = {"ema_decay": one.ema_decay if one.weights is Weights.ema else None} if several else {}
        with weights_shown(bench.training, one):
            for row in _probe(bench.training, bench.cfg):
                ratio = row["loss"] / bench.pretrained_loss[row["timestep"]]
                rows.append({"step": step, "weights": one.weights.value, **decay, **row, "loss_ratio": ratio})
    return pd.DataFrame(rows).round(DIGITS)


def write_probes(folder: Path, step: int, table: pd.DataFrame) -> None:
    """Add a checkpoint's rows to a run's probes; those of later checkpoints, of a run that was resumed, go."""
    path = folder / PROBES
    before = pd.read_csv(path, float_precision="round_trip") if path.exists() else pd.DataFrame(columns=["step"])
    earlier = before[before["step"] < step]
    write_csv(path, pd.concat([earlier, table], ignore_index=True) if len(earlier) else table)
