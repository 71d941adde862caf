"""The command: quick where it only talks; one line, a code and no traces where the input is bad."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image

from bayesdiff import run
from tests.timed import cpu_seconds

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "diffusers", "transformers", "wandb", "open_clip", "timm", "pandas", "matplotlib"}
Outcome = subprocess.CompletedProcess[str]
Ask = Callable[[str], tuple[Outcome, list[Path], str]]


def python(*arguments: str, cwd: Path) -> Outcome:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def loaded_after(code: str, cwd: Path) -> set[str]:
    """Heavy packages that are imported when ``code`` ends, however it ends."""
    ending = f"import atexit, sys; atexit.register(lambda: print('LOADED', *({HEAVY!r} & set(sys.modules)), file=sys.stderr))"
    last = python("-c", f"{ending}\n{code}", cwd=cwd).stderr.splitlines()[-1]
    assert last.startswith("LOADED")
    return set(last.split()[1:])


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["+experiment=corruption_curve", "bnn=on", "--cfg", "job"]])
def test_talking_takes_less_than_two_seconds(tmp_path: Path, arguments: list[str]) -> None:
    done, seconds = cpu_seconds(lambda: python("-m", "bayesdiff.run", *arguments, cwd=tmp_path), 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert seconds < 2
    assert list(tmp_path.iterdir()) == []


def test_the_help_names_every_group_and_the_commands(tmp_path: Path) -> None:
    out = python("-m", "bayesdiff.run", "--help", cwd=tmp_path).stdout
    assert all(f"\n{group.name}: " in out for group in (ROOT / "conf").iterdir() if group.is_dir())
    assert "python -m bayesdiff.run +experiment=corruption_curve" in out


@pytest.mark.parametrize("code", ["import bayesdiff", "import bayesdiff.run", "import bayesdiff.config"])
def test_an_import_is_light(tmp_path: Path, code: str) -> None:
    assert loaded_after(code, tmp_path) == set()


def test_showing_the_configuration_loads_no_model_library(tmp_path: Path) -> None:
    code = "import runpy; sys.argv = ['run', '--cfg', 'job']; runpy.run_module('bayesdiff.run', run_name='__main__')"
    assert loaded_after(code, tmp_path) == set()


def test_a_subject_that_is_unknown_is_refused_before_models_can_be_loaded(tmp_path: Path) -> None:
    code = "import runpy; sys.argv = ['run', 'data.subject=toy_dgo']; runpy.run_module('bayesdiff.run', run_name='__main__')"
    assert loaded_after(code, tmp_path) <= {"pandas"}


SMOKE = "{smoke}"
"""Stands for the overrides of a run on random weights."""
BAD: dict[str, tuple[list[str], str]] = {
    "unknown key": (["sead=1"], "sead"),
    "unknown key deep down": (["bnn.sigma=1"], "bnn.sigma"),
    "unknown key with plus": (["+sead=1"], "sead"),
    "unknown option": (["model=sd9"], "model/sd9"),
    "unknown group": (["sampelr=fast"], "sampelr"),
    "unknown option of a group": (["model=toyboy"], "model/toyboy"),
    "other value of a list": (["data.source=foldr"], "data.source=foldr"),
    "misspelt subject": (["data.subject=toy_dgo"], "data.subject=toy_dgo"),
    "unknown experiment": (["+experiment=nothing"], "experiment/nothing"),
    "no number": (["schedule.steps=abc"], "schedule.steps"),
    "other end": (["schedule.checkpoints=[0,50]"], "schedule.checkpoints"),
    "no folder given": (["data=folder"], "data.path"),
    "bad template": (["sampler.prompts=['a {{thing}}']"], "{{thing}}"),
    "unknown subject": (["data.subject=toy_unicorn"], "data.subject=toy_unicorn"),
    "too many shots": (["shots.count=99"], "shots.count=99"),
    "unreadable image": (["data=folder", "data.path={inputs}/broken", "data.class_noun=dog"], "{inputs}/broken/image.png"),
    "folder without images": (["data=folder", "data.path={inputs}/empty", "data.class_noun=dog"], "{inputs}/empty"),
    "missing folder": (["data=folder", "data.path={inputs}/none", "data.class_noun=dog"], "{inputs}/none"),
    "missing device": (["device=cuda:7"], "device=cuda:7"),
    "missing weights": ([SMOKE, "model.path={inputs}/none"], "{inputs}/none"),
    "truncated weights": ([SMOKE, "model.path={inputs}/truncated"], "{inputs}/truncated"),
    "open bracket": (["seed=["], "seed"),
    "number of shots as an option": (["shots=3"], "shots=3"),
}


MEANT = {
    "unknown key": "did you mean seed?",
    "unknown key with plus": "did you mean seed?",
    "unknown group": "did you mean sampler?",
    "unknown option of a group": "did you mean toybox?",
    "other value of a list": "allowed: toybox, folder, dreambooth, celeba; did you mean folder?",
    "misspelt subject": "did you mean toy_dog?",
}
"""The name that an error suggests."""

OF_ITS_OWN = {
    "unknown key", "unknown key with plus", "unknown option", "unknown group", "no number", "misspelt subject", "missing weights",
    "open bracket",
}  # fmt: skip
"""One of each kind has a process of its own; inputs that fail in the same place are tried in this one."""


def here(*overrides: str, cwd: Path) -> Outcome:
    """The command in this process, which has torch already."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["bayesdiff", *overrides])
        with pytest.raises(SystemExit) as end:
            run.main()
    return Outcome(overrides, int(end.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, random_pipeline: Path, random_encoders: dict[str, str]) -> Ask:
    """What a bad input of ``BAD`` leads to: the outcome, the files it left, and what it has to name. Each is tried once."""
    inputs = tmp_path_factory.mktemp("inputs")
    (inputs / "empty").mkdir()
    (inputs / "broken").mkdir()
    (inputs / "broken" / "image.png").write_bytes(b"no image")
    shutil.copytree(random_pipeline, inputs / "truncated")
    os.truncate(inputs / "truncated" / "unet" / "diffusion_pytorch_model.safetensors", 1000)
    smoke = ["+experiment=smoke", *(f"{key}={value}" for key, value in random_encoders.items())]
    known: dict[str, tuple[Outcome, list[Path], str]] = {}

    def ask(name: str) -> tuple[Outcome, list[Path], str]:
        if name not in known:
            overrides, named = BAD[name]
            given = [part for o in overrides for part in (smoke if o == SMOKE else [o.format(inputs=inputs)])]
            cwd = tmp_path_factory.mktemp("work")
            done = python("-m", "bayesdiff.run", *given, cwd=cwd) if name in OF_ITS_OWN else here(*given, cwd=cwd)
            known[name] = (done, list(cwd.rglob("*")), named.format(inputs=inputs))
        return known[name]

    return ask


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_in_one_line_with_exit_code_two(outcome: Ask, name: str) -> None:
    done, _, named = outcome(name)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("bayesdiff: ")
    assert named in line
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("name", MEANT)
def test_the_nearest_name_is_suggested(outcome: Ask, name: str) -> None:
    assert MEANT[name] in outcome(name)[0].stderr


@pytest.mark.parametrize("name", BAD)
def test_bad_input_leaves_no_trace(outcome: Ask, name: str) -> None:
    done, left, _ = outcome(name)
    assert left == []
    assert done.stdout == ""


LATE = ["detector.metric=nothing", "sampler.steps=5000", "model.resolution=50", "bnn.sigma_init=800", "paths.runs={file}"]


@pytest.mark.parametrize("override", LATE)
def test_bad_input_that_shows_late_is_named_too(smoke: list[str], tmp_path: Path, override: str) -> None:
    (tmp_path / "file").write_text("in the way")
    done = here(*smoke, "bnn=on", override.format(file=tmp_path / "file"), cwd=tmp_path)
    assert done.returncode == 2
    assert override.split("=")[0] in done.stderr.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bayesdiff.runs.experiment.run_experiment", interrupted)
    done = here(cwd=tmp_path)
    assert done.returncode == 130
    assert done.stderr == "\nStopped. Give the same command again to resume.\n"


def test_an_error_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("bayesdiff.runs.experiment.run_experiment", wrong)
    monkeypatch.setattr(sys, "argv", ["bayesdiff"])
    with pytest.raises(ZeroDivisionError, match="a bug"):
        run.main()


def test_a_picture_folder_of_ones_own_is_accepted(
    smoke: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "my photos"
    photos.mkdir()
    Image.new("L", (90, 70), 120).save(photos / "one.jpg")
    short = ["schedule.steps=1", "schedule.checkpoints=[0,1]", "data=folder", "data.class_noun=dog", f"data.path='{photos}'"]
    monkeypatch.setattr(sys, "argv", ["bayesdiff", *smoke, *short])
    run.main()
    assert "Look at " in capsys.readouterr().out
    assert [p.name for p in (tmp_path / "runs").glob("*/record.json")] == ["record.json"]


def test_a_dry_run_says_what_the_run_can_show_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["+experiment=one_photo", "--dry-run", f"paths.runs={tmp_path / 'runs'}"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bayesdiff", *words])
    run.main()
    out, err = capsys.readouterr()
    assert err == ""
    line, *memory = out.splitlines()
    assert memory[-1].endswith("GB  in all")
    assert line.startswith("toybox-dreambooth-plain-toy_backpack-1shot-seed0-")
    assert "With 43 checkpoints x 5 images" in line
    assert "for more, judge 3 seeds" in line
    assert not list(tmp_path.iterdir())
    assert here(*words, "shots.cuont=1", cwd=tmp_path).returncode == 2
