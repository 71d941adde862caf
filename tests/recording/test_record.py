"""The record of a run: written whole, read back, and what a phase adds to it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import RECORD
from bayesdiff.recording.record import PACKAGES, RunRecord, environment, load_record, phase


def record() -> RunRecord:
    return RunRecord("0123456789ab", "running", {"seed": 3, "bnn": {"kind": "gaussian"}}, real_to_real={"dino": 0.5})


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    before = record()
    before.verdict = {"flagged": True, "labels": ["rising", "peak"], "peak_step": None}
    before.save(tmp_path)
    assert load_record(tmp_path) == before


def test_the_file_holds_every_field_as_json(tmp_path: Path) -> None:
    record().save(tmp_path)
    content = json.loads((tmp_path / RECORD).read_text())
    assert set(content) == {f.name for f in dataclasses.fields(RunRecord)}
    assert content["config"]["bnn"]["kind"] == "gaussian"


def test_no_file_is_no_record(tmp_path: Path) -> None:
    assert load_record(tmp_path) is None
    assert load_record(tmp_path / "nowhere") is None


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    record().save(tmp_path)
    with pytest.raises(ValueError, match="JSON compliant"):
        dataclasses.replace(record(), real_to_real={"dino": float("nan")}).save(tmp_path)
    assert load_record(tmp_path) == record()


def test_the_time_of_a_phase_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([10.0, 12.5, 100.0, 101.25])
    monkeypatch.setattr("bayesdiff.recording.record.time.perf_counter", lambda: next(ticks))
    run = record()
    for _ in range(2):
        with phase(run, "train"):
            pass
    assert run.seconds == {"train": 3.75}


def test_a_phase_that_fails_still_counts() -> None:
    run = record()
    with pytest.raises(KeyboardInterrupt), phase(run, "sample"):
        raise KeyboardInterrupt
    assert run.seconds["sample"] >= 0
    assert run.peak_memory_mb["sample"] > 10


def test_gpu_memory_is_the_phase_s_own_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampling before training must not count as training's memory, and the highest of several stretches is kept."""
    allocated: dict[str, int] = {}
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda device: allocated.update({device: 0}))
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: allocated[device] * 2**20)
    run = record()
    run.environment = {"device": "cuda:1"}
    for name, megabytes in (("sample", 900), ("train", 500), ("sample", 100), ("train", 600), ("train", 10)):
        with phase(run, name):
            allocated["cuda:1"] = megabytes
    assert (run.peak_memory_mb["sample_gpu"], run.peak_memory_mb["train_gpu"]) == (900, 600)


def test_a_gpu_that_is_not_the_runs_or_not_here_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    run = record()
    for device in ("cpu", "cuda:0"):  # on a GPU that nothing has used yet, torch refuses to say
        run.environment = {"device": device}
        with phase(run, "train"):
            pass
        assert set(run.peak_memory_mb) == {"train"}
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    for device in ("cpu", "cuda:3"):
        run.environment = {"device": device}  # begun on another machine
        with phase(run, "train"):
            pass
        assert set(run.peak_memory_mb) == {"train"}


@pytest.mark.parametrize(("platform", "megabytes"), [("linux", 2048.0), ("darwin", 2.0)])
def test_resident_memory_is_in_the_platforms_own_unit(monkeypatch: pytest.MonkeyPatch, platform: str, megabytes: float) -> None:
    import resource
    import sys
    from types import SimpleNamespace

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=2 * 2**20))
    run = record()
    with phase(run, "train"):
        pass
    assert run.peak_memory_mb["train"] == megabytes


def test_the_environment_names_versions_and_hardware() -> None:
    seen = environment("cpu")
    assert set(seen["versions"]) == set(PACKAGES)
    assert seen["versions"]["torch"][0].isdigit()
    assert (seen["device"], seen["gpu"], seen["threads"]) == ("cpu", None, 1)
    assert seen["processor_cores"] >= 1
    assert json.loads(json.dumps(seen, allow_nan=False)) == seen


def test_a_package_that_is_missing_and_git_that_is_missing_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayesdiff.recording.record.PACKAGES", ("no-such-package",))
    monkeypatch.setenv("PATH", "")
    seen = environment("cpu")
    assert seen["versions"] == {"no-such-package": "not installed"}
    assert (seen["git_commit"], seen["git_changed"]) == ("", False)


DEEP: dict[str, tuple[Any, str]] = {
    "seconds": ({"train": "x"}, "seconds is no mapping; a value in it is of another kind"),
    "peak_memory_mb": ({"train": {}}, "peak_memory_mb is no mapping; a value"),
    "real_to_real": ({"dino": True}, "real_to_real is no mapping; a value"),
    "photographs": ({"hf_energy": "x"}, "photographs is no mapping; a value"),
    "custom_metrics": ({"own": 3}, "custom_metrics is no mapping; a value"),
    "evaluations": ({"a": "x"}, "evaluations is no mapping; a value"),
    "weights": ({"model": 3}, "weights is no mapping; a value"),
    "environment": ({"versions": "x"}, "environment.versions is no mapping"),
    "status": ("done", "status is none of running, completed, diverged"),
    "message": (3, "message is no text"),
}
"""Of each part of a record a value that is wrong inside, and what is said of it."""


@pytest.mark.parametrize("name", DEEP)
def test_a_value_of_another_kind_deep_in_a_record_is_named(tmp_path: Path, name: str) -> None:
    value, said = DEEP[name]
    (tmp_path / RECORD).write_text(json.dumps({**record().__dict__, name: value}))
    with pytest.raises(UserError, match=rf"record\.json: damaged \({said}"):
        load_record(tmp_path)


RANGES = {
    "seed": -1, "schedule.steps": -5, "schedule.checkpoints": [-5, 20], "sampler.images_per_prompt": 0, "method.learning_rate": -1.0,
    "detector.alpha": 2.0, "detector.min_depth": -1.0, "model.resolution": 0, "method.rank": 10**19, "shots.count": -1,
}  # fmt: skip


@pytest.mark.parametrize("key", RANGES)
def test_a_setting_that_no_run_can_have_is_named(tmp_path: Path, key: str) -> None:
    group, _, name = key.rpartition(".")
    config = {group: {name: RANGES[key]}} if group else {name: RANGES[key]}
    (tmp_path / RECORD).write_text(json.dumps({**record().__dict__, "config": config}))
    with pytest.raises(UserError, match=rf"damaged \(config has {re.escape(key)}=.*, which no run can have"):
        load_record(tmp_path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400])
def test_a_number_that_no_record_holds_is_refused(tmp_path: Path, number: str) -> None:
    text = json.dumps({**record().__dict__, "seconds": {"train": 12345}})
    (tmp_path / RECORD).write_text(text.replace("12345", number))
    with pytest.raises(UserError, match=r"record\.json: damaged \("):
        load_record(tmp_path)


def test_every_record_of_this_repository_is_read() -> None:
    root = Path(__file__).resolve().parents[2] / "results"
    found = [load_record(path.parent) for path in root.rglob(RECORD)]
    assert len(found) > 100
    assert None not in found


@pytest.mark.parametrize("pair", ['"status": "diverged"', '"config": {}', '"seed": 77'])
def test_a_key_that_stands_twice_is_named(tmp_path: Path, pair: str) -> None:
    """Of two values one is wrong, and readers differ in which they take."""
    record().save(tmp_path)
    key, text = pair.partition(":")[0], (tmp_path / RECORD).read_text()
    (tmp_path / RECORD).write_text(text.replace(f"{key}:", f"{pair}, {key}:", 1))
    with pytest.raises(
        UserError, match=re.escape(f"record.json: damaged (key {key!r}".replace('"', "")) + " stands twice.*remove the folder"
    ):
        load_record(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"), [("best_step", "50"), ("best_step", None), ("best_step", 5.5), ("avoid", [[1, 2, 3]]), ("labels", "peak")]
)
def test_a_verdict_with_a_value_of_another_kind_is_named(tmp_path: Path, field: str, value: Any) -> None:
    run = record()
    run.evaluations = {"guided": {"verdict": {"best_step": 0, "avoid": [[0, 5]], field: value}}}
    run.save(tmp_path)
    with pytest.raises(UserError, match=f"another kind of value at evaluations.guided.verdict.{field}.*remove the folder"):
        load_record(tmp_path)
    dataclasses.replace(run, evaluations={}, verdict={field: value}).save(tmp_path)
    with pytest.raises(UserError, match=f"another kind of value at verdict.{field}"):
        load_record(tmp_path)
