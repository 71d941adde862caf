"""Fake keys in the environment, in an override, in a stranger's record and in a study: nothing that is written holds them."""

from __future__ import annotations

import json
import shlex
import socket
import sys
from pathlib import Path

import pytest
from made_records import fill, make_run, prepare
from PIL import Image
from searched import holding

from bayesdiff import claims, export, run, study, tables
from bayesdiff.core.errors import UserError
from bayesdiff.recording.archive import read_record
from bayesdiff.recording.collect import collect
from bayesdiff.recording.record import RunRecord, load_record
from bayesdiff.studies import engine, plan

ENVIRONMENT = {"WANDB_API_KEY": "c0ffee" * 7, "HF_TOKEN": "hf_" + "FakeFake" * 4, "AWS_SECRET_ACCESS_KEY": "not/really+a/secret+key"}
OVERRIDE = "sk-" + "FakeKey0123456789"
HOST = "my-very-own-machine"


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return [*ENVIRONMENT.values(), OVERRIDE]


def test_a_run_writes_neither_keys_nor_home_nor_host(
    smoke: list[str], tmp_path: Path, keys: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home" / "alice"
    (home / "photos").mkdir(parents=True)
    Image.new("RGB", (90, 70), "red").save(home / "photos" / "one.png")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    short = ["schedule.steps=1", "schedule.checkpoints=[0,1]", "sampler.prompts=['a {class_noun} alone']"]
    words = ["data=folder", "data.class_noun=dog", f"data.path={home / 'photos'}", f"paths.runs={home / 'runs'}"]
    monkeypatch.setattr(sys, "argv", ["bayesdiff", *smoke[:-1], *short, *words])
    run.main()
    (folder,) = (home / "runs").glob("*-dog-*") if list((home / "runs").glob("*-dog-*")) else (home / "runs").glob("toybox*")
    assert holding(home / "runs", [*keys, str(home), HOST]) == []
    record = load_record(folder)
    assert record is not None
    assert record.config["data"]["path"] == "~/photos"
    assert "data.path='~/photos'" in shlex.split(record.command)
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "bayesdiff",
            *smoke[:-1],
            *short,
            *(f"{key}='{value}'" for key, _, value in (word.replace(str(home), "~").partition("=") for word in words)),
        ],
    )
    capsys.readouterr()
    run.main()
    assert capsys.readouterr().out.startswith("Already completed: ")  # the words of the record are the same run


@pytest.mark.parametrize(
    "word", ["data.subject={}", "tracker.project={}", "tracker.api_key={}", "WANDB_API_KEY={}", "hydra.job.env_set.X={}", "+x={}", "{}"]
)
def test_an_override_with_a_key_is_refused_without_showing_it(
    tmp_path: Path, keys: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for key in keys:
        monkeypatch.setattr(sys, "argv", ["bayesdiff", "+experiment=smoke", word.format(key)])
        with pytest.raises(SystemExit) as end:
            run.main()
        assert end.value.code == 2
        said = capsys.readouterr()
        assert key not in said.out + said.err
    assert list(tmp_path.iterdir()) == []


def test_an_interpolation_of_a_key_is_refused(
    tmp_path: Path, keys: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bayesdiff", "+experiment=smoke", "data.subject=${oc.env:HF_TOKEN}"])
    with pytest.raises(SystemExit) as end:
        run.main()
    assert end.value.code == 2
    assert keys[1] not in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def poisoned(record: Path) -> RunRecord:
    """A stranger's record with keys and interpolations in its texts."""
    content = json.loads(record.read_text())
    content |= {"command": f"python -m bayesdiff.run x={OVERRIDE}", "message": f"token {OVERRIDE} ${{oc.env:HF_TOKEN}}"}
    content["config"]["tracker"]["entity"] = OVERRIDE
    content["config"]["data"]["instance_prompt"] = "a ${oc.env:HF_TOKEN} {class_noun}"
    content["verdict"]["sentence"] += f" {OVERRIDE} ${{oc.env:AWS_SECRET_ACCESS_KEY}}"
    record.write_text(json.dumps(content))
    return RunRecord(**content)


def test_a_strangers_record_gives_no_key_to_what_is_made_of_it(
    tmp_path: Path, keys: list[str], restored_studies: None, capsys: pytest.CaptureFixture[str]
) -> None:
    made = prepare(tmp_path / "studies")
    results = fill(made, tmp_path)
    for folder in (results / "records").iterdir():
        poisoned(folder / "record.json")
        assert OVERRIDE not in repr(read_record(folder)[0])
    (results.parent / "claims.yaml").write_text(
        "- {claim: 'a ${oc.env:HF_TOKEN} claim', study: table_1, measure: dino, row: {method: lora, bnn: 'on'}, against: {bnn: 'off'}}\n"
    )
    assert tables.main([str(results)]) == 0
    assert claims.main([str(results)]) == 0
    assert "oc.env:HF_TOKEN" in (results / "claims.md").read_text().replace("\\", "")
    written = [results / "tables", results / "figures", results / "claims.md"]
    assert [found for place in written for found in (holding(place, keys) if place.is_dir() else [])] == []
    assert not any(key in (results / "claims.md").read_text() for key in keys)
    assert not any(key in capsys.readouterr().out for key in keys)


def test_a_strangers_run_is_exported_and_collected_without_its_keys(
    tmp_path: Path, keys: list[str], restored_studies: None, capsys: pytest.CaptureFixture[str]
) -> None:
    made = prepare(tmp_path / "studies")
    folder = make_run(made.cells[0], tmp_path / "runs")
    (folder / "checkpoints" / "step-000010").mkdir(parents=True)
    poisoned(folder / "record.json")
    assert holding(collect(folder, tmp_path / "results"), keys) == []
    assert export.main([str(folder), "--step", "10"]) == 2  # a checkpoint without a manifest
    assert not any(key in capsys.readouterr().err for key in keys)


@pytest.mark.parametrize(
    "line", ["title: {}", "overrides: [data.subject={}]", "grid: {{data.subject: [{}]}}", "grid: {{seed: {{a: experiment_name={}}}}}"]
)
def test_a_study_with_a_key_is_refused_without_showing_it(
    tmp_path: Path, keys: list[str], restored_studies: None, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    prepare(tmp_path / "studies")
    for key in keys:
        name = line.partition(":")[0]
        lines = [
            one
            for one in ("title: t", "experiment: smoke", "grid: {seed: [0]}", "models: {toybox: {minutes: 1}}")
            if not one.startswith(name)
        ]
        (tmp_path / "studies" / "mine.yaml").write_text("\n".join([*lines, line.format(key), ""]))
        with pytest.raises(UserError, match="secret") as error:
            plan.load_study("mine")
        assert key not in str(error.value)
        assert study.main(["mine", "--runs", str(tmp_path / "runs")]) == 2
        assert key not in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_what_a_study_s_run_prints_is_kept_without_keys(
    tmp_path: Path, keys: list[str], restored_studies: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepare(tmp_path / "studies")
    said = f"import os, sys; print('x', {OVERRIDE!r}, os.environ['HF_TOKEN']); sys.exit(1)"
    monkeypatch.setattr(engine, "run_command", lambda *_: [sys.executable, "-c", said])
    one = plan.replace(made, cells=made.cells[:1])
    assert engine.run_study(one, tmp_path / "runs", 1) == {"failed": 1}
    assert list((tmp_path / "runs").rglob("*.json"))
    assert holding(tmp_path / "runs", keys) == []
