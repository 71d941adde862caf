"""Probes read the model as it stands, its text encoders too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image
from tiny import Make, load

from bayesdiff.diffusion.batch import encode_pictures
from bayesdiff.recording.plots import read_probes
from bayesdiff.runs.experiment import run_experiment
from bayesdiff.runs.probing import pretrained_losses
from bayesdiff.training.loop import Training, prepare


def run_of(make_config: Make, folder: Path, *words: str) -> tuple[Any, Training]:
    cfg, pipe = make_config("+experiment=smoke", "model.resolution=64", *words), load(folder)
    return cfg, prepare(pipe, cfg, encode_pictures(pipe, [Image.new("RGB", (64, 64), "red")], "a photo of qwe backpack"), None)


@pytest.mark.parametrize(("trained", "changes"), [("true", True), ("false", False)])
def test_a_trained_text_encoder_is_read_anew(make_config: Make, random_pipeline: Path, trained: str, changes: bool) -> None:
    """The loss with the prompt changes as its encoding does. A frozen encoder is not read again, whatever the test does to it."""
    cfg, state = run_of(make_config, random_pipeline, f"method.train_text_encoder={trained}")
    before = pretrained_losses(state, cfg)
    with torch.no_grad():
        for parameter in state.pipe.text_encoder.parameters():
            parameter.add_(0.1)
    assert (pretrained_losses(state, cfg) != before) is changes


def test_the_empty_prompt_is_read_once(make_config: Make, random_pipeline: Path) -> None:
    cfg, state = run_of(make_config, random_pipeline)
    passes: list[int] = []
    state.pipe.text_encoder.register_forward_hook(lambda *_: passes.append(1))
    assert pretrained_losses(state, cfg) == pretrained_losses(state, cfg)
    assert len(passes) == 1


TWO = "+evaluations={slow:{weights:ema,ema_decay:0.9},quick:{weights:ema,ema_decay:0.05},again:{weights:ema,ema_decay:0.9,steps:1}}"
SHORT = ["schedule.steps=3", "schedule.checkpoints=[0,3]", "method.learning_rate=0.01"]


def test_averages_of_two_decays_are_told_apart(make_config: Make, tiny_smoke: list[str]) -> None:
    run, _ = run_experiment(make_config(*tiny_smoke, *SHORT, TWO))
    table = pd.read_csv(run / "probes.csv")
    assert not table.duplicated(["step", "weights", "ema_decay", "timestep"]).any()
    last = table[(table["step"] == 3) & (table["timestep"] == 500)].set_index("ema_decay")["loss"]
    assert last.index.dropna().tolist() == [0.9, 0.05]
    assert last[0.9] != last[0.05]
    means = read_probes(run)
    assert means is not None
    assert means.loc[means["step"] == 3, "weights"].tolist() == ["kept", "ema 0.9", "ema 0.05"]
    of_slow = table[(table["step"] == 3) & (table["ema_decay"] == 0.9)]["loss"].mean()
    assert means.set_index(["step", "weights"]).loc[(3, "ema 0.9"), "loss"] == pytest.approx(of_slow)


def test_one_decay_leaves_the_table_as_committed_records_have_it(make_config: Make, tiny_smoke: list[str]) -> None:
    run, _ = run_experiment(make_config(*tiny_smoke, *SHORT, "+evaluations={averaged:{weights:ema,ema_decay:0.9}}"))
    columns = "step,weights,timestep,loss,rho,g,loss_empty,rho_empty,gap,loss_ratio"
    assert (run / "probes.csv").read_text().splitlines()[0] == columns
    means = read_probes(run)
    assert means is not None and set(means["weights"]) == {"kept", "ema"}
