"""Every command in README and docs is one; what is cheap runs, in a working folder with made records and curves.

These run as they stand: ``status``, ``tables``, ``claims``, ``compare``, ``sweep``, ``verdict`` of files and run folders,
``run --help`` and ``run --cfg``, what ``make paper-tables`` does, ``study --dry-run``, the examples in Python. A study
that trains is planned instead (``--dry-run`` is added; of a large model's, the runs of one subject and seed), a ``run``
that trains is composed, a worker's jobs are composed with their launcher. Only parsed are ``export`` (it needs weights:
test_export), ``judge`` (it needs samples: test_judge), ``report`` (test_report) and ``verdict`` of a run at Weights & Biases. The
other targets of ``make`` and the sweep of ``wandb sweep`` are there; what is not ours is listed in ``FOREIGN``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tiny import Make

from bayesdiff import claims, compare, demo, export, judge, report, status, study, sweep, tables, verdict
from bayesdiff.__main__ import COMMANDS
from bayesdiff.__main__ import main as bayesdiff_main
from bayesdiff.config.compose import CONF
from bayesdiff.config.identity import as_dict
from bayesdiff.config.schema import EvaluationConf
from bayesdiff.core.errors import ExitCode
from bayesdiff.diffusion.pipeline import fetch_command
from bayesdiff.recording.collect import collect
from bayesdiff.runs.experiment import run_experiment
from bayesdiff.studies import plan as planning
from bayesdiff.studies.plan import EXPERIMENTS, Cell, compose_cell, load_study, models_of, study_names
from tests.made_records import make_run

Main = Callable[[list[str]], int]
ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "results").glob("*.md"))]
FOREIGN = (r"git clone https://github.com/\S+ data/google", r"ln -s google/dataset data/dreambooth", r"wandb agent SWEEP_ID")
"""Commands of others that cannot run offline."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def long_form(command: str) -> str:
    """``bayesdiff NAME …`` as ``python -m bayesdiff.NAME …``, which it is (test_main); words of a run alone are a run."""
    words = command.removeprefix("bayesdiff ")
    name = words.partition(" ")[0]
    if words == command or not (name in COMMANDS or "=" in name):
        return command
    return f"python -m bayesdiff.{words if name in COMMANDS else f'run {words}'}"


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                bare = line.partition("  #")[0].strip()
                if bare:
                    found.append((page.name, long_form(bare)))
    return found


def config_files() -> list[tuple[str, str]]:
    """The commands that configuration files and studies open with."""
    found = []
    for path in [*sorted(CONF.rglob("*.yaml")), *sorted(EXPERIMENTS.glob("*.yaml"))]:
        head = [line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#")]
        joined = " ".join(head).replace("\\ ", " ")
        for match in re.findall(r"python -m bayesdiff\.run (.*?)(?:  |\(|;|Cost:|python -m|$)", joined):
            found.append((path.name, f"python -m bayesdiff.run {match.strip()}"))
    return found


def inline_commands() -> list[tuple[str, str]]:
    """Our commands within the text of README and docs."""
    texts = {page.name: re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S) for page in PAGES if page.parent.name != "results"}
    quoted = re.compile(rf"`(python -m bayesdiff\.[^`…]+|bayesdiff (?:{'|'.join(COMMANDS)}) [^`…]+)`")
    return [(name, long_form(command)) for name, text in texts.items() for command in quoted.findall(text)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with what the commands read: four studies and made records of two, run folders, curves."""
    from tests.corruption.test_detector import CLEAR, TWELVE

    folder = tmp_path_factory.mktemp("desk")
    first = make_records(folder)[0]
    for name in ("RUN", "runs/FOLDER", "runs/demo/toybox-dreambooth-plain-0"):
        shutil.copytree(first, folder / name)
    (folder / "experiments").mkdir()
    for name in ("figure_1", "table_1", "table_2", "mechanism_looks"):
        shutil.copy(EXPERIMENTS / f"{name}.yaml", folder / "experiments")
    listed = yaml.safe_load((ROOT / "results" / "claims.yaml").read_text())
    kept = [claim for claim in listed if claim["study"] in ("figure_1", "table_1") and "seconds" not in claim["measure"]]
    (folder / "results" / "claims.yaml").write_text(yaml.safe_dump(kept))
    curve = list(zip(TWELVE, CLEAR.mean(axis=1), strict=True))
    for name in ("FILE", "curve", "plain", "bayesian"):
        (folder / f"{name}.csv").write_text("\n".join(["step,dino", *[f"{step},{score}" for step, score in curve]]))
    metrics = [{"step": step, "valid dino_similarity": score} for step, score in curve]
    (folder / "results" / "NAME.json").write_text(json.dumps({"train_info": {"metrics": metrics}}))
    charted = [f'"{step}","{score}","{score}","{score}"' for step, score in curve]
    (folder / "export.csv").write_text("\n".join(['"Step","plain - dino","plain - dino__MIN","plain - dino__MAX"', *charted]))
    return folder


def make_records(folder: Path) -> list[Path]:
    """Run folders of all of figure_1 and two runs of table_1, collected to the sets that the pages name."""
    cells = list(load_study("figure_1").cells)
    row = {"bnn": "on", "method": "lora", "shots.count": "1", "seed": "0"}
    cells += [cell for cell in load_study("table_1").cells if row.items() <= cell.labels.items()][:2]
    runs = [make_run(Cell({"method": "dreambooth", **cell.labels}, cell.overrides), folder / "runs" / "toybox") for cell in cells]
    for run in runs:
        for results in ("mine", "toybox", "sd"):
            collect(run, folder / "results" / results)
    return runs


def parses(main: Main, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line's own parser takes the words; nothing is done."""

    class Parsed(Exception):
        pass

    original = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *given: object) -> None:
        original(self, words)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    with pytest.raises(Parsed):
        main(words)


def check_study(words: list[str]) -> None:
    """Planned, not trained; of the hundreds of runs on a large model those of one subject and seed."""
    seed = load_study(words[0], "sd15").cells[0].labels["seed"] if "--model" in words else ""
    part = ["--only", "data.subject=dog", f"seed={seed}"] if seed else []
    assert study.main([*words, *([] if "--dry-run" in words else ["--dry-run"]), *part]) == 0


def check_tables(words: list[str]) -> None:
    assert tables.main(words) == 0
    if "--explain" not in words:
        assert {path.suffix for path in Path(words[0], "tables").glob("figure_1.*")} == {".csv", ".md", ".tex"}


def check_claims(words: list[str]) -> None:
    assert claims.main(words) == 0
    assert "| holds" in Path(words[0], "claims.md").read_text(), "the made records have an effect"


def check_compare(words: list[str]) -> None:
    assert compare.main(words) == 0
    assert Path(words[words.index("--plot") + 1]).stat().st_size > 1000


def check_status(words: list[str]) -> None:
    assert status.main(words) == 0


def check_sweep(words: list[str]) -> None:
    assert sweep.main(words) == 0
    assert [path.name for path in Path("sweeps").iterdir()] == [f"{name}.yaml" for name in words]


def check_verdict(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if words[0].startswith("wandb:"):
        parses(verdict.main, words, monkeypatch)
        return
    shell = [str(path) for word in words for path in (sorted(Path().glob(word)) if "*" in word else [word])]
    assert verdict.main(shell) in (ExitCode.DONE, ExitCode.FOUND, ExitCode.NOT_JUDGED)
    assert "--plot" not in words or Path(words[words.index("--plot") + 1]).stat().st_size > 1000


def check_make(target: str) -> None:
    """The target is there; what makes the toybox's tables is run, line by line (``studies/test_bases.py`` runs the wide base's)."""
    found = re.search(rf"^{target}:.*## .*\n((?:\t.*\n)*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found
    for line in found[1].splitlines() if target == "paper-tables" else []:
        module, *words = shlex.split(line.removeprefix("\t$(BIN)/python -m bayesdiff."))
        if words == ["results/toybox"]:
            {"tables": check_tables, "claims": check_claims}[module](words)


def check_run(words: list[str]) -> None:
    """What only talks is run; what trains is composed. Placeholders for folders stay: composing needs no files."""
    overrides = [word for word in words if not word.startswith("--") and word != "job"]
    if overrides:
        compose_cell(Cell({}, tuple(overrides)))
    if set(words) & {"--help", "--cfg"}:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-m", "bayesdiff.run", *words], env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert "schedule" in done.stdout


def without_launcher(words: list[str]) -> list[str]:
    """What ``accelerate launch`` starts; its own options are those of the installed version."""
    from accelerate.commands.launch import launch_command_parser

    if words[:2] != ["accelerate", "launch"]:
        return words
    launched = launch_command_parser().parse_args(words[2:])
    assert launched.module
    return ["python", "-m", launched.training_script, *launched.training_script_args]


def worker_commands() -> list[str]:
    """The commands that ``conf/worker.yaml`` opens with; what each is for stands behind three blanks."""
    head = "\n".join(line[1:].strip() for line in (CONF / "worker.yaml").read_text().splitlines() if line.startswith("#"))
    return [re.split(" {3,}", found)[0] for found in re.findall(r"python -m bayesdiff\.worker .*", head.replace("\\\n", ""))]


def jobs_of(words: list[str]) -> list[DictConfig]:
    """The configurations of a worker's jobs, as Hydra composes them before its launcher starts them."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        sweep = loader.load_configuration("worker", words, RunMode.MULTIRUN)
        parsed = OverridesParser.create(loader).parse_overrides(list(sweep.hydra.overrides.task))
        (jobs,) = BasicSweeper.split_arguments(parsed, None)
        return [loader.load_sweep_config(sweep, job) for job in jobs]


def check_worker(words: list[str]) -> None:
    """Its jobs compose and their study has their model; skipped, after all the rest, where the launcher is not installed."""
    words = [word for word in words if word != "-m"]
    plugins = [re.split("[=_]", word)[1] for word in words if word.startswith("hydra/launcher=")]
    absent = [name for name in plugins if find_spec(f"hydra_plugins.hydra_{name}_launcher") is None]
    if absent:
        words = [word for word in words if not re.match(r"\+?hydra[./]launcher", word)]
    jobs = jobs_of(words)
    assert len(jobs) > 1, "a launcher starts several workers"
    assert len({job.worker for job in jobs}) == len(jobs)
    load_study(jobs[0].study, jobs[0].base_model)
    if absent:
        pytest.skip(f"Hydra's launcher {absent[0]} is not installed: its own keys were not composed")


@pytest.mark.parametrize("command", worker_commands(), ids=[command[:90] for command in worker_commands()])
def test_a_command_that_the_workers_configuration_opens_with_composes(command: str) -> None:
    check_worker(shlex.split(command)[3:])


def test_no_key_of_a_worker_is_the_name_of_a_group() -> None:
    """Hydra would read ``key=value`` as a choice in the folder of that name, and refuse it."""
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert not groups & set(OmegaConf.load(CONF / "worker.yaml"))


def test_the_workers_configuration_says_how_each_launcher_is_started() -> None:
    started = re.findall(r"hydra/launcher=(\w+)", " ".join(worker_commands()))
    assert started == ["joblib", "submitit_slurm", "ray"]


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "study": check_study, "tables": check_tables, "claims": check_claims, "compare": check_compare, "status": check_status,
    "sweep": check_sweep, "run": check_run, "worker": check_worker,
}  # fmt: skip
OURS = [*commands(), *inline_commands()]


@pytest.mark.parametrize(("page", "command"), OURS, ids=[f"{page}: {command}"[:90] for page, command in OURS])
def test_a_command_of_the_docs_is_one(page: str, command: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setattr(planning, "EXPERIMENTS", desk / "experiments")
    words = without_launcher(shlex.split(command))
    module = words[2].removeprefix("bayesdiff.") if words[:2] == ["python", "-m"] else ""
    if module in CHECKS:
        CHECKS[module](words[3:])
    elif module == "verdict":
        check_verdict(words[3:], monkeypatch)
    elif module == "export":
        parses(export.main, words[3:], monkeypatch)
    elif module == "demo":
        assert demo._parser().parse_intermixed_args(words[3:]) is not None
    elif module == "report":
        assert report._parser().parse_args(words[3:]).sources
    elif module == "judge":
        assert judge._parser().parse_intermixed_args(words[3:]).folder
    elif words[:2] == ["python", "-c"]:
        conf = compose_cell(Cell({}, ("model=sd15",))).model
        assert command == fetch_command(conf.path, conf.revision)
    elif words[0] == "make":
        check_make(words[1])
    elif words[0] == "bayesdiff":
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            sys.exit(bayesdiff_main())
        assert not end.value.code
    elif words[:2] == ["wandb", "sweep"]:
        assert (ROOT / words[2]).exists()
    else:
        assert any(re.fullmatch(pattern, command) for pattern in FOREIGN), command


def test_the_commands_within_the_text_are_found() -> None:
    assert {command.split()[2] for _, command in inline_commands()} >= {"bayesdiff.sweep", "bayesdiff.claims"}


@pytest.mark.parametrize(("file", "command"), config_files(), ids=[f"{f}: {c}"[:90] for f, c in config_files()])
def test_a_command_that_a_configuration_opens_with_composes(file: str, command: str) -> None:
    check_run(shlex.split(command)[3:])


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def files_in(page: Path, folder: Path) -> None:
    """Write the examples that begin with a file's name."""
    for block in blocks(page, "python"):
        if named := re.match(r"# (mine/\w+\.py)\n", block):
            (folder / named[1]).parent.mkdir(exist_ok=True)
            (folder / named[1]).write_text(block)


@pytest.fixture
def own_parts(tmp_path: Path, smoke: list[str], random_pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides of one short run with everything of the page on extending, written to a folder outside the package."""
    files_in(ROOT / "docs" / "extending.md", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    asked = [word for page, command in commands() if page == "extending.md" for word in shlex.split(command)[3:]]
    keys = {word.split("=")[0] for word in asked}
    assert keys >= {"method.name", "bnn.kind", "+bnn.options.share", "metrics.extra", "model.name", "model.path"}
    own = [word.replace("FOLDER", str(random_pipeline)) for word in asked if word != "+experiment=smoke"]
    return [*smoke, "schedule.steps=2", "schedule.checkpoints=[0,1,2]", "schedule.log_every=1", *own]


def test_the_method_the_metric_and_the_model_of_the_page_on_extending_run_together(
    tmp_path: Path, make_config: Make, own_parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained, Gaussian where it says, scored, resumed state and export in stock layout: nothing in the suite was changed."""
    import pandas as pd
    from diffusers import UNet2DConditionModel

    folder, record = run_experiment(make_config(*[word for word in own_parts if "bnn." not in word]))
    assert record.status == "completed"
    assert record.config["model"]["name"] == "mine"
    assert 0 < record.bayesian["weights"] <= record.bayesian["trained_weights"] < record.bayesian["unet_weights"]
    curve = pd.read_csv(folder / "curve.csv")
    assert curve["saturation"].between(0, 1).all()
    assert curve.columns[-2:].tolist() == ["saturation", "saturation_se"]
    assert export.main([str(folder), "--output", str(tmp_path / "export")]) == 0
    assert (tmp_path / "export" / "bnn_state.safetensors").exists()
    UNet2DConditionModel.from_pretrained(tmp_path / "export" / "unet")
    assert verdict.main([str(folder), "--metric", "saturation"]) == ExitCode.NOT_JUDGED, "two checkpoints; but its direction is known"
    assert compare.main([str(folder), str(folder), "--metric", "saturation"]) == 0
    assert "saturation (share, 0 to 1; higher is better)" in " ".join(capsys.readouterr().out.split())


def test_the_arm_of_the_page_on_extending_runs_with_its_method_and_resumes(
    tmp_path: Path, make_config: Make, own_parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with the arm is another one than the plain run, has its options in its record, and resumes bit for bit."""
    import bayesdiff.training.loop as loop

    words = [word for word in own_parts if word != "bnn=on"]
    whole, record = run_experiment(make_config(*words, f"paths.runs={tmp_path / 'whole'}"))
    assert record.status == "completed"
    assert record.config["bnn"]["kind"] == "mine.mirror"
    assert record.config["bnn"]["options"] == {"share": 0.5}
    unchanged = [word.replace("share=0.5", "share=0") for word in words]
    plain, _ = run_experiment(make_config(*unchanged, f"paths.runs={tmp_path / 'plain'}"))
    trained = [(run / "train.jsonl").read_text() for run in (whole, plain)]
    assert trained[0] != trained[1], "a latent was mirrored"
    real, calls = loop.train, iter((False, True))

    def stopped(*arguments: object, **named: object) -> object:
        if next(calls):
            raise KeyboardInterrupt
        return real(*arguments, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "train", stopped)
        run_experiment(make_config(*words))
    resumed, _ = run_experiment(make_config(*words))
    for name in ("train.jsonl", "scores.csv"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()


def test_the_evaluations_of_the_page_on_extending_are_ones() -> None:
    """Its keys are those of the schema, each is explained, and the shipped example has some of them."""
    page = ROOT / "docs" / "extending.md"
    example = yaml.safe_load(blocks(page, "yaml")[0])["evaluations"]
    for settings in example.values():
        OmegaConf.merge(OmegaConf.structured(EvaluationConf), settings)
    grain = compose_cell(Cell({}, ("+experiment=grain",))).evaluations
    assert grain["guidance_1"].guidance_scale == example["guidance_1"]["guidance_scale"]
    (table,) = re.findall(r"\| key \| meaning; null.*?\n\n", page.read_text(), re.DOTALL)
    assert {field.name for field in fields(EvaluationConf)} <= set(re.findall(r"`(\w+)`", table))


def test_the_study_of_the_page_on_extending_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ROOT / "docs" / "extending.md"
    (example,) = [block for block in blocks(page, "yaml") if block.startswith("title:")]
    (tmp_path / "mine.yaml").write_text(example)
    assert "`BAYESDIFF_EXPERIMENTS=FOLDER python -m bayesdiff.study mine`" in page.read_text()
    monkeypatch.setattr(planning, "EXPERIMENTS", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert study.main(["mine", "--dry-run"]) == 0
    assert "16 runs, 0 done, 16 left" in capsys.readouterr().out


def test_what_the_arm_as_released_sets_is_what_the_page_on_deviations_says() -> None:
    page = (ROOT / "docs" / "deviations.md").read_text()
    arms = [as_dict(compose_cell(Cell({}, (f"bnn={arm}",))))["bnn"] for arm in ("on", "released")]
    different = {f"bnn.{key}={getattr(value, 'value', value)}" for key, value in arms[1].items() if value != arms[0][key]}
    (sentence,) = re.findall(r"^`bnn=released` is `bnn=on` with (.*?)\.$", page, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(bnn\.\w+=\w+)`", sentence)) == different
    columns = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    lines = [cells for cells in columns if len(cells) == 4 and any(f"`{word}`" in cells[2] for word in different)]
    for cells, name in zip(lines, ("sigma is stored itself", "`cal_KL`", "weight decay also on sigma"), strict=True):
        assert cells[0].startswith(name)
        assert name.removesuffix(" also on sigma").removeprefix("sigma is ") in sentence


def test_every_guard_that_the_page_on_deviations_names_is_a_test() -> None:
    rows = [line for line in (ROOT / "docs" / "deviations.md").read_text().splitlines() if line.startswith("|") and ".py`" in line]
    guards = [guard for row in rows for guard in re.findall(r"`([\w/]+\.py)`((?:[:,] `\w+…?`)*)", row)]
    assert len(guards) >= 20
    for file, named in guards:
        text = (ROOT / "tests" / file).read_text()
        for name, cut in re.findall(r"`(\w+)(…?)`", named):
            end = "" if cut else r"\("
            assert re.search(rf"def test_\w*{name}{end}", text), f"{file}: {name}"


def test_the_override_that_the_help_of_a_study_names_goes_with_every_study(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        study.main(["--help"])
    (example,) = re.findall(r"added to every run, such as\s+(\S+=\S+)", capsys.readouterr().out)
    for name in study_names():
        for model in models_of(name):
            cells = load_study(name, model).cells
            names = {word.partition("=")[0] for cell in cells for word in cell.overrides}
            assert example.partition("=")[0] not in names or name == "figures_3_to_5", "an axis"  # which needs all checkpoints
            compose_cell(cells[0], (example,))


def test_the_examples_in_python_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.corruption.test_detector import CLEAR, TWELVE

    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "photos" / "0.png")
    monkeypatch.chdir(tmp_path)
    scope = {"steps": TWELVE, "scores": CLEAR, "curve": list(zip(TWELVE, CLEAR, strict=True))}
    examples = [block for page in PAGES for block in blocks(page, "python")]
    assert len(examples) >= 2
    for example in examples:
        code = compile(example, "docs", "exec")
        if "RUN/" not in example:  # what needs a run's checkpoint is in test_models and methods/
            exec(code, dict(scope))
    assert "Corrupted: " in capsys.readouterr().out


def test_the_hours_of_the_reproduction_table_are_those_of_the_studies() -> None:
    """Runs times minutes, as `--dry-run` says before there are records; every study is there once."""
    page = (ROOT / "docs" / "reproducing.md").read_text().replace(" (runs of `table_1`)", "")
    rows = re.findall(r"^\|[^|]+\| (`[^|]+) \| ([\d.]+) h \| (\d+|—)", page, re.MULTILINE)
    named = [name for names, _, _ in rows for name in re.findall(r"`(\w+)`", names) if name in study_names()]
    assert sorted(named) == study_names()
    for names, toybox, large in rows:
        studies = [name for name in re.findall(r"`(\w+)`", names) if name in study_names()]
        first = {name: next((model for model in models_of(name) if model.startswith("sd")), "") for name in studies}
        assert (large == "—") == ("" in first.values()), "a dash stands for a study of the toybox alone"
        for said, models in ((toybox, dict.fromkeys(studies, "toybox")), *([] if large == "—" else [(large, first)])):
            loaded = [load_study(name, model) for name, model in models.items()]
            hours = sum(len(each.cells) * each.minutes for each in loaded) / 60
            assert float(said) == pytest.approx(hours, abs=max(0.51, 0.04 * hours)), names


def test_the_tests_that_hold_a_fault_are_there() -> None:
    named = set(re.findall(r"`([\w/]*test_\w+\.py)`", (ROOT / "docs" / "faults.md").read_text()))
    assert len(named) > 30
    assert not [name for name in sorted(named) if not (ROOT / "tests" / name).is_file()]
