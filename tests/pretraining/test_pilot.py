"""The pilot: every run starts from the base, and a view of the average leaves the raw weights as they were."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch

from bayesdiff.pretraining import pilot
from bayesdiff.pretraining.graphed import advance
from bayesdiff.pretraining.pilot import checkpoint, load_bench, start
from bayesdiff.pretraining.wide import TINY, build, write_pipeline

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "pipeline"
    write_pipeline(build(TINY), folder)
    return folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pilot, "STEPS", 4)
    monkeypatch.setattr(pilot, "IMAGES", 1)
    monkeypatch.setattr(pilot, "PROMPTS", pilot.PROMPTS[:2])
    monkeypatch.setattr(pilot, "VIEWS", pilot.VIEWS[:2])


def weights(bench: pilot.Bench) -> list[torch.Tensor]:
    return [p.detach().clone() for p in bench.training.parameters]


def test_runs_on_one_bench_start_from_the_base_and_repeat(base: Path) -> None:
    bench, found = load_bench(str(base), CPU), []
    for rate in (1e-3, 1e-2, 1e-3):
        start(bench, "toy_backpack", rate)
        assert all(torch.equal(a, b) for a, b in zip(weights(bench), bench.initial, strict=True))
        advance(bench.training, bench.run, 4)
        found.append(weights(bench))
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[2], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=True))


def test_looking_changes_no_weight_and_views_differ(base: Path) -> None:
    bench = load_bench(str(base), CPU)
    photo = start(bench, "toy_backpack", 1e-2)
    advance(bench.training, bench.run, 5)
    before = weights(bench)
    views = list(checkpoint(bench, "toy_backpack", photo))
    assert all(torch.equal(a, b) for a, b in zip(before, weights(bench), strict=True))
    (raw, raw_values, images), (average, average_values, _) = views
    assert (raw, average) == (("raw", 7.5), ("ema", 7.5))
    assert raw_values != average_values
    assert len(images) == 2
    assert all(len(values) == len(pilot.COLUMNS) - 5 for values in (raw_values, average_values))


def test_the_command_writes_rows_and_a_sheet(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = f"{base} --output {tmp_path} --subjects toy_cat --rates 1e-3 --checkpoints 0 3 --device cpu"
    monkeypatch.setattr(sys, "argv", ["pilot", *options.split()])
    pilot.main()
    rows = list(csv.DictReader((tmp_path / "pilot.csv").open()))
    assert [(row["step"], row["weights"]) for row in rows] == [("0", "raw"), ("0", "ema"), ("3", "raw"), ("3", "ema")]
    assert float(rows[0]["loss_500"]) > 0
    assert (tmp_path / "pilot.png").exists()
