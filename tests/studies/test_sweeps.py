"""Sweeps: made from studies, clean by the schema, and driven by real agents against a server on loop-back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from sweeps.config import schema_violations_from_proposed_config

from bayesdiff.recording.record import load_record
from bayesdiff.studies.plan import Cell, compose_cell, load_study, models_of, narrowed, study_names
from bayesdiff.studies.sweeps import sweep_of, sweep_text
from bayesdiff.sweep import main
from tests.loopback import Server

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "sweeps").glob("*.yaml"))
AGENT = "import wandb.wandb_agent as a; a.Agent.POLL_INTERVAL = 0.2; from wandb.cli.cli import cli; cli()"
"""The stock agent, which otherwise looks every five seconds."""


@pytest.mark.parametrize("name", study_names())
def test_the_sweeps_that_are_shipped_are_the_studies_own(name: str) -> None:
    assert (ROOT / "sweeps" / f"{name}.yaml").read_text() == sweep_text(load_study(name))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_sweep_is_clean_by_the_schema_and_says_how_to_start_it(path: Path) -> None:
    text = path.read_text()
    assert schema_violations_from_proposed_config(yaml.safe_load(text)) == []
    assert f"# Command:  wandb sweep sweeps/{path.name} " in text
    assert "\n# Cost:     " in text
    assert "\n# Expected: " in text


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_run_of_a_sweep_is_sent_to_the_server(path: Path) -> None:
    """The group ``tracker=wandb`` alone is offline: its own overrides decide, as the run composes them."""
    words = [word for word in yaml.safe_load(path.read_text())["command"] if word.startswith("tracker")]
    tracker = compose_cell(Cell({}, tuple(words))).tracker
    assert (tracker.name.value, tracker.mode.value) == ("wandb", "online")


def test_grid_random_and_bayes_are_there() -> None:
    assert {yaml.safe_load(path.read_text())["method"] for path in FILES} == {"grid", "random", "bayes"}


def test_every_point_of_a_sweep_s_grid_is_one_run_of_its_study() -> None:
    study = load_study("table_4")
    parameters = sweep_of(study)["parameters"]
    assert sweep_of(study)["command"][-1] == "${args_no_hyphens}"
    for cell in study.cells:
        assert all(cell.labels[axis] in parameters[axis]["values"] for axis in parameters)
        words = [f"{axis}={label}" for axis, label in cell.labels.items()]
        assert narrowed(study, words).cells == (cell,)


def test_sweeps_are_written_anew(tmp_path: Path) -> None:
    assert main(["figure_1", "--output", str(tmp_path)]) == 0
    assert main(["figure_1", "--output", str(tmp_path), "--model", "sd15"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"figure_1.yaml", "figure_1-sd15.yaml"}
    assert main(["figure_1", "--model", "sdxl"]) == 2


@pytest.mark.parametrize("model", ["sd15", "sdxl", "sd20"])
def test_with_all_the_sweeps_of_every_study_that_has_the_model_are_written(tmp_path: Path, model: str) -> None:
    assert main(["--all", "--output", str(tmp_path), "--model", model]) == 0
    having = {name for name in study_names() if model in models_of(name)}
    assert 0 < len(having) < len(study_names())
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}-{model}.yaml" for name in having}


@pytest.mark.parametrize("words", [[], ["figure_1", "--all"]])
def test_nobody_gets_twenty_files_without_asking(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main([*words, "--output", str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err
        == f"bayesdiff: sweep: name the studies to write, or give --all alone; there are {', '.join(study_names())}\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_no_study_has_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--output", str(tmp_path), "--model", "sd9"]) == 2
    assert capsys.readouterr().err == "bayesdiff: model sd9: no study has it; choose one of sd14, sd15, sd20, sdxl, toybox, wide\n"
    assert list(tmp_path.iterdir()) == []


STUDY = """
title: two by two by two
experiment: smoke
overrides: [schedule.steps=2, "schedule.checkpoints=[0,2]", sampler.steps=2]
grid:
  method:
    dreambooth: [method=dreambooth]
    lora: [method=lora, method.learning_rate=1e-3]
  bnn: ["off", "on"]
  seed: [0, 1]
models:
  toybox: {minutes: 1}
"""


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


def environment(server: Server, folder: Path) -> dict[str, str]:
    (folder / "studies").mkdir(exist_ok=True)
    (folder / "studies" / "cube.yaml").write_text(STUDY.lstrip())
    inherited = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}  # the command decides, as for anyone else
    own = {name: str(folder / "wandb") for name in ("WANDB_DIR", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR")}
    return {
        **inherited, **own, "HOME": str(folder), "WANDB_BASE_URL": server.url, "WANDB_API_KEY": "a" * 40,
        "WANDB_ENTITY": "local", "WANDB_PROJECT": "suite", "WANDB_ERROR_REPORTING": "false", "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "BAYESDIFF_EXPERIMENTS": str(folder / "studies"), "PYTHONPATH": str(ROOT),
    }  # fmt: skip


def wandb(folder: Path, env: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    (folder / "wandb").mkdir(exist_ok=True)
    command = [sys.executable, "-c", AGENT, *arguments]
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def start_sweep(folder: Path, env: dict[str, str]) -> str:
    from bayesdiff.studies import plan

    before, plan.EXPERIMENTS = plan.EXPERIMENTS, folder / "studies"
    try:
        sweep = sweep_of(load_study("cube"))
    finally:
        plan.EXPERIMENTS = before
    (folder / "cube.yaml").write_text(yaml.safe_dump(sweep))
    out, _ = wandb(folder, env, "sweep", "cube.yaml").communicate(timeout=120)
    found = re.search(r"wandb agent (\S+)", re.sub(r"\x1b\[[0-9;]*m", "", out))
    assert found, out
    return found[1]


@pytest.mark.slow
def test_two_agents_share_a_sweep_and_the_server_gets_what_the_records_say(server: Server, tmp_path: Path) -> None:
    """Eight runs, each once; configurations and curves as received are the records'."""
    env = environment(server, tmp_path)
    name = start_sweep(tmp_path, env)
    agents = [wandb(tmp_path, env, "agent", name) for _ in range(2)]
    said = [agent.communicate(timeout=900)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    folders = {load_record(path).run_key: path for path in (tmp_path / "runs" / "toybox").glob("toybox-*")}  # type: ignore[union-attr]
    assert len(folders) == len(server.runs) == 8, said
    assert {run["config"]["run_key"] for run in server.runs.values()} == set(folders)
    for run in server.runs.values():
        folder = folders[run["config"]["run_key"]]
        record = load_record(folder)
        assert record is not None
        assert record.status == "completed"
        received = {key: value for key, value in run["config"]["cfg"].items() if key not in ("paths", "tracker")}
        assert received == {key: record.config[key] for key in received}
        curve = pd.read_csv(folder / "curve.csv")
        rows = [row for row in run["history"] if "eval/dino" in row]
        assert [row["eval/step"] for row in rows] == curve["step"].tolist()
        assert [row["eval/dino"] for row in rows] == pytest.approx(curve["dino"].tolist())
        assert run["summary"]["status"] == "completed"
        assert run["exit"] == 0


@pytest.mark.slow
def test_a_requeued_run_brings_its_whole_configuration_and_runs(server: Server, tmp_path: Path) -> None:
    env = environment(server, tmp_path)
    name = start_sweep(tmp_path, env)
    server.again = [{"method": "lora", "bnn": "on", "seed": "1", "cfg": {"model": {"name": "toybox"}}, "run_key": "abc"}]
    out, _ = wandb(tmp_path, env, "agent", "--count", "1", name).communicate(timeout=300)
    (folder,) = (tmp_path / "runs" / "toybox").glob("toybox-*")
    assert folder.name.startswith("toybox-lora-bnn-"), out
    (run,) = server.runs.values()
    assert json.dumps(run["config"]["cfg"]["method"]["name"]) == '"lora"'
