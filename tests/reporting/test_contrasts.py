"""What differs between arms: settings by key, and paired scores where pairs are pairs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bayesdiff.reporting.contrasts import differing, flat, gap, settings, why_not_paired
from bayesdiff.reporting.traces import Trace, arms_of, named
from bayesdiff.stats import paired_difference
from tests.made_runs import made_run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Trace]:
    folder = tmp_path_factory.mktemp("runs")
    runs = made_run(folder / "a"), made_run(folder / "b", "bnn=on", "method.learning_rate=2e-4", shift=0.05, seed=1)
    return named([arm for run in runs for arm in arms_of(run)])


def test_settings_that_differ_are_named_and_no_others(pair: list[Trace]) -> None:
    found = dict(differing(pair))
    assert found["method.learning_rate"] == ["0.0005", "0.0002"]
    assert found["bnn.kind"] == ["off", "gaussian"]
    assert set(found) == {"method.learning_rate", "bnn.kind"}


def test_settings_of_other_arms_and_of_older_records_make_no_difference(pair: list[Trace]) -> None:
    """A record that is too old to name a setting had its default; a plain arm has no use for the noise of another."""
    assert pair[0].record is not None
    config = json.loads(json.dumps(pair[0].record.config))
    del config["sampler"]["precision"], config["probes"]
    config["bnn"]["input_noise"] = 7.0
    older = replace(pair[0], record=replace(pair[0].record, config=config))
    assert differing([pair[0], older]) == []
    assert "bnn.sigma_init" in settings(pair[1].record.config) and "bnn.sigma_init" not in settings(config)  # type: ignore[union-attr]
    config["sampler"]["precision"] = "fp16"
    assert differing([pair[0], older]) == [("sampler.precision", ["auto", "fp16"])]


def test_nested_settings_become_dotted_keys() -> None:
    assert flat({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


def test_a_gap_is_the_paired_difference_at_every_checkpoint(pair: list[Trace]) -> None:
    found = gap(pair[0], pair[1], "dino")
    assert found is not None
    assert found.steps == pair[0].steps
    on, off = (arm.columns["dino"][None, None] for arm in (pair[1], pair[0]))
    direct = paired_difference(on, off, prompts=[p for p, _ in pair[0].places])
    assert found.mean == pytest.approx(direct.mean)
    assert found.low == pytest.approx(direct.low, abs=0.004)
    assert found.high == pytest.approx(direct.high, abs=0.004)


def test_one_image_has_a_difference_and_no_interval(pair: list[Trace]) -> None:
    """An interval from a number to itself would say that nothing is surer."""
    alone = [replace(arm, places=arm.places[:1], columns={"dino": arm.columns["dino"][:, :1]}) for arm in pair]
    found = gap(alone[0], alone[1], "dino")
    assert found is not None
    assert found.mean == pytest.approx(alone[1].columns["dino"][:, 0] - alone[0].columns["dino"][:, 0])
    assert np.isnan(found.low).all() and np.isnan(found.high).all()


def test_a_checkpoint_that_is_not_finite_is_left_out(pair: list[Trace]) -> None:
    scores = pair[1].columns["dino"].copy()
    scores[3, 1] = np.nan
    found = gap(pair[0], replace(pair[1], columns={"dino": scores}), "dino")
    assert found is not None
    assert set(pair[0].steps) - set(found.steps) == {pair[0].steps[3]}
    assert gap(pair[0], replace(pair[1], columns={"dino": scores * np.nan}), "dino") is None
    assert gap(pair[0], pair[1], "none") is None


def test_other_prompts_or_noise_are_not_paired(pair: list[Trace], tmp_path: Path) -> None:
    assert why_not_paired(*pair) == ""
    (other,) = named(arms_of(made_run(tmp_path / "c", "sampler.seed=7")))
    assert "sampled otherwise than plain (sampler.seed)" in why_not_paired(pair[0], other)
    assert "has no record" in why_not_paired(pair[0], replace(other, record=None))
    assert "shares no checkpoint" in why_not_paired(pair[0], replace(pair[1], steps=(7, 9)))
