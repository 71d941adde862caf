"""Studies as data: every one composes, and where a run stands is read off its files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from bayesdiff.config.compose import CONF, resolve
from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import RECORDS
from bayesdiff.recording.record import RunRecord
from bayesdiff.studies import plan as planning
from bayesdiff.studies.plan import (
    ENDS,
    EXPERIMENTS,
    STATES,
    claim_file,
    compose_cell,
    end_of,
    failure_file,
    load_study,
    models_of,
    narrowed,
    plan,
    state_of,
    study_names,
)

ASKED_FOR = {
    "figure_1", "figure_2", "table_1", "table_1_faces", "table_2", "table_4", "figure_7", "figure_8", "figure_9a", "figure_9b",
    "many_images", "batch_size", "sdxl", "cost", "sampler", "guidance", "controls", "learning_rate", "adapter_rates", "methods",
}  # fmt: skip


def test_every_table_and_figure_has_its_study() -> None:
    assert set(study_names()) == ASKED_FOR


@pytest.mark.parametrize("name", sorted(ASKED_FOR))
def test_a_study_composes_on_the_toybox_and_on_stable_diffusion(name: str) -> None:
    """Every run on the toybox; the first and the last one of the large grids."""
    models = models_of(name)
    assert "toybox" in models
    assert any(model.startswith("sd") for model in models)
    for model in models:
        cells = load_study(name, model).cells
        for cell in cells if model == "toybox" and len(cells) < 30 else (cells[0], cells[-1]):
            assert compose_cell(cell).model.name == model


@pytest.mark.parametrize("name", sorted(ASKED_FOR))
def test_a_study_opens_with_its_command_cost_and_outcome(name: str) -> None:
    text = (EXPERIMENTS / f"{name}.yaml").read_text()
    assert f"# Command:  python -m bayesdiff.study {name}\n" in text
    assert "\n# Cost:     toybox " in text
    assert "\n# Expected: " in text


def test_a_cell_composes_to_what_the_command_of_record_composes() -> None:
    from hydra import compose, initialize_config_dir

    for name, model in (("table_1", "toybox"), ("figure_7", "sd15"), ("cost", "toybox"), ("table_4", "sd15")):
        cell = load_study(name, model).cells[-1]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            assert compose_cell(cell) == resolve(compose("config", list(cell.overrides)))


def test_the_grid_is_the_product_of_its_axes() -> None:
    study = load_study("table_1")
    assert len(study.cells) == 3 * 2 * 2 * 3 * 2
    assert len({cell.name for cell in study.cells}) == len(study.cells)
    assert study.compare == ("bnn", "off")
    assert study.cells[0].labels == {"bnn": "off", "method": "dreambooth", "shots.count": "1", "data.subject": "toy_backpack", "seed": "0"}


def test_a_study_is_narrowed_to_the_labels_that_are_named() -> None:
    study = narrowed(load_study("table_1"), ["method=oft", "seed=1", "data.subject=toy_dog"])
    assert len(study.cells) == 4
    assert {(cell.labels["method"], cell.labels["seed"], cell.labels["data.subject"]) for cell in study.cells} == {("oft", "1", "toy_dog")}
    assert narrowed(study, []) == study


def test_an_axis_or_label_that_a_study_lacks_is_named() -> None:
    with pytest.raises(UserError, match=r"study table_1: no axis subject, sed; it has bnn, method, shots\.count, data\.subject, seed$"):
        narrowed(load_study("table_1"), ["subject=toy_dog", "seed=0", "sed=1"])
    with pytest.raises(UserError, match=r"study table_1: no run with seed=7; there are .*'seed': \['0', '1'\]"):
        narrowed(load_study("table_1"), ["seed=7"])


def study_file(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(planning, "EXPERIMENTS", folder)
    (folder / "mine.yaml").write_text(text)


GOOD = "title: t\nexperiment: smoke\ngrid:\n  seed: [0, 1]\nmodels:\n  toybox: {minutes: 1}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "extra: 1\n", "unknown key extra"),
        (GOOD.replace("minutes: 1", "minutes: 1, hours: 2"), "unknown key hours"),
        (GOOD.replace("[0, 1]", "3"), "grid.seed: give a list"),
        (GOOD.replace("[0, 1]", "[0, 0]"), "is the same run as"),
        (GOOD.replace("[0, 1]", "[0, x]"), "seed"),
        (GOOD.replace("seed:", "sed:"), "sed"),
        (GOOD + "compare: {seed: 5}\n", "compare names seed 5"),
        (GOOD + "compare: {seed: 0, bnn: off}\n", "compare is .*give one axis"),
        (GOOD + "compare: seed\n", "compare is seed; give one axis"),
        (GOOD.replace("experiment: smoke\n", ""), r"mine\.yaml: lacks experiment"),
        (GOOD.replace("  seed: [0, 1]", "  - seed"), r"mine\.yaml: grid is no mapping"),
        (GOOD.replace("  toybox: {minutes: 1}", "  toybox:"), r"models\.toybox lacks minutes"),
        (GOOD.replace("title: t", "title: t: u"), r"mine\.yaml: cannot be read"),
        ("- title\n- grid\n", r"mine\.yaml: is no mapping"),
    ],
)
def test_a_bad_study_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    study_file(tmp_path, monkeypatch, text)
    with pytest.raises(UserError, match=message):
        plan(load_study("mine"), tmp_path / "runs")


def test_unknown_studies_and_models_are_refused() -> None:
    with pytest.raises(UserError, match="choose one of adapter_rates, batch_size"):
        load_study("nothing")
    with pytest.raises(UserError, match="choose one of toybox, sd15"):
        load_study("figure_1", "sdxl")


def test_where_a_run_stands(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert state_of(tmp_path, folder) == "missing"
    failure_file(tmp_path, folder).parent.mkdir()
    failure_file(tmp_path, folder).write_text(json.dumps({"error": "x"}))
    assert state_of(tmp_path, folder) == "failed"
    failure_file(tmp_path, folder).unlink()
    folder.mkdir()
    record = RunRecord("k", "running", {})
    record.save(folder)
    assert state_of(tmp_path, folder) == "stopped"
    assert end_of(folder) is None
    for status in ENDS:
        record.status = status
        record.save(folder)
        assert end_of(folder) == record
    assert {"missing", "failed", "stopped", "done", "diverged", "running"} == set(STATES)


def test_a_collected_record_ends_a_run_and_one_still_running_does_not(tmp_path: Path) -> None:
    folder, results = tmp_path / "runs" / "run", tmp_path / "results"
    record = RunRecord("k", "running", {})
    (results / RECORDS / "run").mkdir(parents=True)
    record.save(results / RECORDS / "run")
    assert end_of(folder, results) is None
    record.status = "completed"
    record.save(results / RECORDS / "run")
    (results / RECORDS / "run" / "curve.csv").write_text("")
    assert end_of(folder, results) is None, "its images are still on their way, or lost: tables say missing"
    (results / RECORDS / "run" / "images.csv").write_text("")
    assert end_of(folder, results) == record
    assert end_of(folder) is None


@pytest.mark.parametrize("which", ["run", "claim"])
def test_a_run_is_running_while_its_process_lives(tmp_path: Path, which: str) -> None:
    folder = tmp_path / "run"
    lock = folder / ".lock" if which == "run" else claim_file(tmp_path, folder)
    lock.parent.mkdir(parents=True)
    RunRecord("k", "running", {}).save(folder) if which == "run" else None
    code = (
        f"import time; from filelock import FileLock; lock = FileLock({str(lock)!r}); lock.acquire(); "
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert state_of(tmp_path, folder) == "running"
        holder.kill()
        holder.wait()
    assert state_of(tmp_path, folder) == ("stopped" if which == "run" else "missing")


def test_looking_does_not_hold(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with FileLock(folder / ".lock"):
        pass
    state_of(tmp_path, folder)
    with FileLock(folder / ".lock", timeout=0):
        pass


@pytest.mark.parametrize("model", ["sd14", "sd15", "sd20", "sdxl"])
def test_the_bayesian_arm_of_a_model_is_the_same_in_every_study(model: str) -> None:
    """Sigma moves as far as in the released code: studies of confounds would else test another arm than Figure 1."""
    asked = {"table_4", "figure_9a", "figure_9b", "controls"}  # which layers, sigmas and weights is what they ask
    arms = {}
    for name in study_names():
        if model in models_of(name) and name not in asked:
            cells = [cell for cell in load_study(name, model).cells if cell.labels.get("bnn") == "on"]
            arms |= {name: compose_cell(cells[0]).bnn} if cells else {}
    assert arms
    assert {bnn.sigma_learning_rate_factor for bnn in arms.values()} == {100.0}
    first, *others = arms.values()
    assert all(other == first for other in others)


def test_an_axis_that_is_not_in_the_grid_is_refused(tmp_path: Path, restored_studies: None) -> None:
    planning.EXPERIMENTS = tmp_path
    (tmp_path / "mine.yaml").write_text("title: t\nexperiment: smoke\nx: nothing\ngrid:\n  seed: [0]\nmodels:\n  toybox: {minutes: 1}\n")
    with pytest.raises(UserError, match="x names nothing, which is not in the grid"):
        load_study("mine")
