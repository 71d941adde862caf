"""Every command in README and docs: it parses, composes or exists; Python examples run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from tiny import Make

from bayesdiff import compare, export, study, tables, verdict
from bayesdiff.config import CONF
from bayesdiff.experiment import run_experiment
from bayesdiff.pipeline import fetch_command
from bayesdiff.studies.plan import EXPERIMENTS, Cell, compose_cell, load_study

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "results").glob("*.md"))]
FOREIGN = (r"git clone https://github.com/\S+ data/google", r"ln -s google/dataset data/dreambooth", r"wandb agent SWEEP_ID")
"""Commands of others that cannot run offline."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                bare = line.partition("  #")[0].strip()
                if bare:
                    found.append((page.name, bare))
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


def parses(main: Callable[[list[str]], int], arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line's own parser takes the arguments; nothing is done."""
    import argparse

    class Parsed(Exception):
        pass

    original = argparse.ArgumentParser.parse_args
    inner = argparse.ArgumentParser.parse_intermixed_args

    def stop(self: argparse.ArgumentParser, *given: object) -> None:
        original(self, arguments) if self.__class__ is argparse.ArgumentParser else None
        raise Parsed

    def stop_intermixed(self: argparse.ArgumentParser, *given: object) -> None:
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", original)
        inner(self, arguments)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_intermixed_args", stop_intermixed)
    with pytest.raises(Parsed):
        main(arguments)


def check_run(words: list[str]) -> None:
    """Placeholders for folders stay what they are: composing needs no files."""
    overrides = [word for word in words if not word.startswith("--")]
    if "--cfg" in words:
        overrides.remove("job")
    if overrides:
        compose_cell(Cell({}, tuple(overrides)))


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


@pytest.mark.parametrize(("page", "command"), commands(), ids=[f"{page}: {command}"[:90] for page, command in commands()])
def test_a_command_of_the_docs_is_one(page: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = without_launcher(shlex.split(command))
    mains = {
        "bayesdiff.verdict": verdict.main, "bayesdiff.study": study.main, "bayesdiff.tables": tables.main,
        "bayesdiff.compare": compare.main, "bayesdiff.export": export.main,
    }  # fmt: skip
    if words[:2] == ["python", "-m"] and words[2] in mains:
        parses(mains[words[2]], words[3:], monkeypatch)
        monkeypatch.undo()
        if words[2] == "bayesdiff.study":
            model = words[words.index("--model") + 1] if "--model" in words else "toybox"
            load_study(words[3], model)
    elif words[:3] == ["python", "-m", "bayesdiff.status"]:
        load_study(words[3])
    elif words[:3] == ["python", "-m", "bayesdiff.run"]:
        check_run(words[3:])
    elif words[:3] == ["python", "-m", "bayesdiff.worker"]:
        check_worker(words[3:])
    elif words[:2] == ["python", "-c"]:
        conf = compose_cell(Cell({}, ("model=sd15",))).model
        assert command == fetch_command(conf.path, conf.revision)
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[:2] == ["wandb", "sweep"]:
        assert (ROOT / words[2]).exists()
    else:
        assert any(re.fullmatch(pattern, command) for pattern in FOREIGN), command


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


def test_a_method_and_a_metric_of_the_page_on_extending_run(
    tmp_path: Path, make_config: Make, smoke: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained, Gaussian where it says, scored, resumed state and export in stock layout: nothing in the suite was changed."""
    import pandas as pd
    from diffusers import UNet2DConditionModel

    files_in(ROOT / "docs" / "extending.md", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    own = ["method.name=mine.selfattention", "bnn=on", "metrics.extra=[mine.colours.saturation]"]
    folder, record = run_experiment(make_config(*smoke, "schedule.steps=2", "schedule.checkpoints=[0,2]", *own))
    assert record.status == "completed"
    assert 0 < record.bayesian["weights"] <= record.bayesian["trained_weights"] < record.bayesian["unet_weights"]
    curve = pd.read_csv(folder / "curve.csv")
    assert curve["saturation"].between(0, 1).all()
    assert curve.columns[-2:].tolist() == ["saturation", "saturation_se"]
    assert export.main([str(folder), "--output", str(tmp_path / "export")]) == 0
    assert (tmp_path / "export" / "bnn_state.safetensors").exists()
    UNet2DConditionModel.from_pretrained(tmp_path / "export" / "unet")


def test_the_examples_in_python_run(capsys: pytest.CaptureFixture[str]) -> None:
    from tests.corruption.test_detector import CLEAR, TWELVE

    scope = {"steps": TWELVE, "scores": CLEAR, "curve": list(zip(TWELVE, CLEAR, strict=True))}
    examples = [block for page in PAGES for block in blocks(page, "python")]
    assert len(examples) >= 2
    for example in examples:
        code = compile(example, "docs", "exec")
        if "RUN/" not in example:  # what needs a run's checkpoint is in test_models and methods/
            exec(code, dict(scope))
    assert "Corrupted: " in capsys.readouterr().out
