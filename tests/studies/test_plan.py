"""Studies as data: every one composes, and where a run stands is read off its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from bayesdiff.config.compose import CONF, compose, resolve
from bayesdiff.config.identity import run_name
from bayesdiff.core.errors import UserError
from bayesdiff.studies import plan as planning
from bayesdiff.studies.engine import run_command
from bayesdiff.studies.plan import (
    EXPERIMENTS,
    compose_cell,
    load_study,
    models_of,
    narrowed,
    study_names,
)
from bayesdiff.studies.state import plan

ASKED_FOR = {
    "figure_1", "figure_2", "table_1", "table_1_faces", "table_2", "table_4", "figure_7", "figure_8", "figure_9a", "figure_9b",
    "many_images", "batch_size", "sdxl", "cost", "sampler", "guidance", "controls", "learning_rate", "adapter_rates", "methods",
    "figures_3_to_5", "mechanism_looks", "mechanism_arms", "mechanism_batch", "mechanism_rates", "mechanism_photos", "grain_settings",
}  # fmt: skip
OF_THE_TOYBOX_ALONE = {"demo", "primary", "replication", "positive_control", "adapters"}
ON_THE_WIDE_BASE = {"wide_base"}


def test_every_table_and_figure_has_its_study() -> None:
    assert set(study_names()) == ASKED_FOR | OF_THE_TOYBOX_ALONE | ON_THE_WIDE_BASE


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
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    for name, model in (("table_1", "toybox"), ("figure_7", "sd15"), ("cost", "toybox"), ("table_4", "sd15")):
        cell = load_study(name, model).cells[-1]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            assert compose_cell(cell) == resolve(hydra_compose("config", list(cell.overrides)))


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


def test_several_labels_of_one_axis_mean_any_of_them() -> None:
    study = narrowed(load_study("table_1"), ["seed=1", "data.subject=toy_dog", "data.subject=toy_robot"])
    assert {(cell.labels["seed"], cell.labels["data.subject"]) for cell in study.cells} == {("1", "toy_dog"), ("1", "toy_robot")}
    with pytest.raises(UserError, match=r"no run with data\.subject=toy_dog, data\.subject=toy_dgo"):
        narrowed(load_study("table_1"), ["data.subject=toy_dog", "data.subject=toy_dgo"])


def test_a_number_is_the_label_of_its_value_however_it_is_written() -> None:
    """experiments/adapter_rates.yaml writes 5e-4, and the table calls it 0.0005; a label in words stays itself."""
    names = [
        [cell.labels for cell in narrowed(load_study("adapter_rates"), [f"method.learning_rate={word}"]).cells]
        for word in ("5e-4", "0.0005")
    ]
    assert names[0] == names[1] and {labels["method.learning_rate"] for labels in names[0]} == {"0.0005"}
    assert {cell.labels["rate"] for cell in narrowed(load_study("mechanism_rates"), ["rate=1e-3"]).cells} == {"1e-3"}


def test_an_axis_or_label_that_a_study_lacks_is_named() -> None:
    with pytest.raises(
        UserError, match=r"study table_1: no axis subject, sed; give AXIS=LABEL with one of bnn, method, shots\.count, data\.subject, seed$"
    ):
        narrowed(load_study("table_1"), ["subject=toy_dog", "seed=0", "sed=1"])
    with pytest.raises(UserError, match=r"study table_1: no run with seed=7; choose seed from 0, 1$"):
        narrowed(load_study("table_1"), ["seed=7"])


def study_file(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(planning, "EXPERIMENTS", folder)
    (folder / "mine.yaml").write_text(text)


GOOD = "title: t\nexperiment: smoke\ngrid:\n  seed: [0, 1]\nmodels:\n  toybox: {minutes: 1}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "extra: 1\n", "unknown key extra"),
        (GOOD + "comapre: {seed: 0}\n", r"mine\.yaml:7: .*did you mean compare"),
        (GOOD + "cost: maybe\n", r"mine\.yaml:7: cost: is not true or false"),
        (GOOD + "overrides: [seed=1, shots.cout=4]\n", r"mine\.yaml:7: overrides\.1: .*did you mean shots\.count"),
        (GOOD + "overrides:\n  - bnn=onn\n", r"mine\.yaml:8: .*no such choice; allowed: .*did you mean on"),
        (GOOD + "overrides: ['bnn.layers=(a|b)']\n", r"mine\.yaml:7: .*put the value in quotes"),
        (GOOD + "overrides: [shots.count=many]\n", r"mine\.yaml:7: .*many"),
        (GOOD + "overrides: ['+a.b=1']\n", r"leave the \+ out"),
        (GOOD + "overrides: ['seed=1,2']\n", "give one key=value"),
        (GOOD + "overrides: ['data.path=${oc.env:HOME}']\n", r"mine\.yaml:7: .*is not resolved in studies"),
        (GOOD + "evaluations: [a/b]\n", "is no name of a folder"),
        (GOOD + "feeds: &a [x]\noverrides: *a\n", r"mine\.yaml:8: .*\*a repeats another value; write it out"),
        (GOOD + f"feeds: {'[' * 5000}{']' * 5000}\n", r"mine\.yaml:7: .*more than 50 levels"),
        (GOOD + "seed: 1\nseed: 2\n", r"mine\.yaml:8: seed: stands twice"),
        (GOOD.replace("smoke", "smokee"), r"mine\.yaml:2: experiment: smokee: unknown; did you mean smoke"),
        (GOOD.replace("minutes: 1", "minutes: -1"), r"mine\.yaml:6: models\.toybox\.minutes: -1: must be greater"),
        (GOOD.replace("toybox:", "toybix:"), r"mine\.yaml:6: models\.toybix: no such model; did you mean toybox"),
        (GOOD.replace("seed: [0, 1]", "data.class_noun: [null, 'null']"), "two values have the label null"),
        (GOOD.replace("minutes: 1", "minutes: 1, hours: 2"), "unknown key hours"),
        (GOOD.replace("[0, 1]", "3"), "grid.seed: give a list"),
        (GOOD.replace("[0, 1]", "[0, 0]"), "is the same run as"),
        (GOOD.replace("[0, 1]", "[0, x]"), "seed"),
        (GOOD.replace("seed:", "sed:"), "sed"),
        (GOOD + "compare: {seed: 5}\n", r"mine\.yaml:7: compare\.seed: seed 5 is not in the grid; choose one of seed: 0, seed: 1"),
        (GOOD + "compare: {seed: 0, bnn: off}\n", "compare is .*give one axis"),
        (GOOD + "compare: seed\n", r"mine\.yaml:7: compare: is not a mapping"),
        (GOOD.replace("experiment: smoke\n", ""), r"mine\.yaml: lacks experiment"),
        (GOOD.replace("  seed: [0, 1]", "  - seed"), r"mine\.yaml:3: grid: is not a mapping"),
        (GOOD.replace("  toybox: {minutes: 1}", "  toybox:"), r"mine\.yaml:6: models\.toybox: lacks minutes"),
        (GOOD.replace("title: t", "title: t: u"), r"mine\.yaml:1: cannot be read"),
        (GOOD.replace("  seed: [0, 1]", "  seed: [0]\n  model: [sd15]"), r"mine\.yaml:5: grid\.model\.0: model=sd15: .*leave it out"),
        (GOOD + "overrides: [+experiment=paper]\n", r"mine\.yaml:7: overrides\.0: \+experiment=paper: .*leave it out"),
        (GOOD + "overrides: [paths.runs=elsewhere]\n", r"mine\.yaml:7: overrides\.0: .*--runs says; leave it out"),
        (GOOD.replace("smoke", "../experiment/smoke"), r"mine\.yaml:2: experiment: .*unknown; choose one of"),
        (GOOD.replace("title: t", "title: ''"), r"mine\.yaml:1: title: is empty; give a text"),
        (GOOD.replace("seed:", "[seed]:"), r"mine\.yaml:3: grid: has a key that is no word; give a text"),
        (GOOD + "evaluations: [nosuch]\n", "study mine: evaluations: its runs have no nosuch; choose from main"),
        (GOOD.replace("[0, 1]", "[-1]"), "study mine: seed=-1: must not be negative"),
        (GOOD + "overrides: ['sampler.prompts=[[a]]']\n", r"mine\.yaml:7: overrides\.0: .*not a list of texts; give a list of texts"),
        (GOOD.replace("seed: [0, 1]", "schedule.checkpoints: [[0, [20]]]"), r"mine\.yaml:4: .*not a list of whole numbers; give"),
        ("- title\n- grid\n", r"mine\.yaml: is not a mapping"),
    ],
)
def test_a_bad_study_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    study_file(tmp_path, monkeypatch, text)
    with pytest.raises(UserError, match=message):
        plan(load_study("mine"), tmp_path / "runs")


def test_a_grid_that_nobody_can_run_is_refused_before_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = "".join(f"  {key}: {list(range(1, 101))}\n" for key in ("shots.seed", "sampler.seed", "sampler.steps", "data.images"))
    study_file(tmp_path, monkeypatch, GOOD.replace("models:", f"{axes}models:"))
    with pytest.raises(UserError, match=r"mine\.yaml:3: grid: 200,000,000 runs are too many; leave values out"):
        load_study("mine")


def test_unknown_studies_and_models_are_refused() -> None:
    with pytest.raises(UserError, match="choose one of adapter_rates, adapters, batch_size"):
        load_study("nothing")
    with pytest.raises(UserError, match="choose one of toybox, sd15"):
        load_study("figure_1", "sdxl")


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
    with pytest.raises(UserError, match="nothing is not in the grid; choose one of"):
        load_study("mine")


@pytest.mark.parametrize(
    ("axis", "values", "expected"),
    [
        ("bnn", "[off, on]", ["off", "on"]),
        ("shots.count", "[1, null]", [1, None]),
        ("data.class_noun", "['dog (small)', \"it's\", 'dog, sitting']", ["dog (small)", "it's", "dog, sitting"]),
        ("bnn.layers", "['(attn1|ff)\\.', attn1]", [r"(attn1|ff)\.", "attn1"]),
        ("data.path", "['photos=1', '1', zoë, off]", ["photos=1", "1", "zoë", "off"]),
        ("method.learning_rate", "[1e-4, 0.5]", [1e-4, 0.5]),
        ("metrics.extra", "[[a.b], [a.b, c.d]]", [["a.b"], ["a.b", "c.d"]]),
    ],
)
def test_any_value_of_a_grid_arrives_as_it_was_in_plan_and_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axis: str, values: str, expected: list[object]
) -> None:
    study_file(tmp_path, monkeypatch, GOOD.replace("seed: [0, 1]", f"{axis}: {values}"))
    runs = tmp_path / "proj (copy) [zoë] it's"
    for run, value in zip(plan(load_study("mine"), runs), expected, strict=True):
        command = run_command(run, runs, ())[3:]
        asked, planned = compose(command), compose_cell(run.cell)
        assert Path(asked.paths.runs) == runs
        assert run_name(asked) == run_name(planned) == run.folder.name
        group, _, key = axis.rpartition(".")
        if group:
            assert getattr(getattr(planned, group), key) == getattr(getattr(asked, group), key) == value
        else:
            assert planned.bnn.kind == asked.bnn.kind == {"off": "off", "on": "gaussian"}[str(value)]


def test_evaluations_multiply_rows_and_not_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study_file(tmp_path, monkeypatch, GOOD + "evaluations: [main, guided]\ncompare: {evaluation: main}\nx: evaluation\n")
    study = load_study("mine")
    assert (study.evaluations, study.compare, study.x) == (("main", "guided"), ("evaluation", "main"), "evaluation")
    assert [cell.labels for cell in study.cells] == [{"seed": "0"}, {"seed": "1"}]
