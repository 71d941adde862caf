"""Damage between two starts of a run: it ends bit for bit as an undamaged run, or is refused in one line that names what to do."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tiny import BNN_ON, Make

from bayesdiff.config.schema import Config
from bayesdiff.core.errors import UserError
from bayesdiff.core.files import STAGING
from bayesdiff.core.layout import CHECKPOINTS, MANIFEST, RESUME, steps_in
from bayesdiff.diffusion.sampling import Sample
from bayesdiff.runs import experiment, resuming
from bayesdiff.runs.experiment import run_experiment

SHORT = [
    "schedule.steps=3", "schedule.checkpoints=[0,1,2,3]", "schedule.log_every=1", "schedule.keep=all", "sampler.batch_size=2",
    "probes=true", "+evaluations={plain:{guidance_scale:1.0,images_per_prompt:1}}", BNN_ON,
]  # fmt: skip
STOPPED_AT = 2
SEEDS = range(1)
"""Each damage is done to as many places, drawn at random."""


@pytest.fixture
def smoke(tiny_smoke: list[str]) -> list[str]:
    """A case takes a second."""
    return tiny_smoke


class Killed(BaseException):
    """The end of a process, at a checkpoint's last line."""


@pytest.fixture(scope="module")
def made() -> dict[str, Path]:
    """An undisturbed run, and one that was killed behind the checkpoint of step 2; made once."""
    return {}


@pytest.fixture
def runs(made: dict[str, Path], make_config: Make, smoke: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    if not made:
        root = tmp_path_factory.mktemp("made")
        made["whole"], _ = run_experiment(make_config(*smoke, *SHORT, f"paths.runs={root / 'whole'}"))
        made["other"], _ = run_experiment(make_config(*smoke, *SHORT, "seed=5", f"paths.runs={root / 'other'}"))
        killed_behind(STOPPED_AT, make_config(*smoke, *SHORT, f"paths.runs={root / 'stopped'}"))
        made["stopped"] = root / "stopped" / made["whole"].name
        assert steps_in(made["stopped"] / RESUME) == [1, 2]
    return made


def killed_behind(last: int, cfg: Config) -> None:
    real = experiment.checkpoint

    def checkpoint(bench: experiment.Bench, step: int, *rest: object) -> None:
        if step > last:
            raise Killed
        real(bench, step, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(experiment, "checkpoint", checkpoint)
        run_experiment(cfg)


def contents(run: Path) -> dict[str, object]:
    """Every file that two equal runs have in common; tensors without their header, whose order is by chance."""
    patterns = ("*.csv", "*.jsonl", "evaluations/*/*.csv", "images/*/*.png", "evaluations/*/images/*/*.png", "*.png")
    files: dict[str, object] = {str(p.relative_to(run)): p.read_bytes() for pattern in patterns for p in run.glob(pattern)}
    for path in run.glob(f"{CHECKPOINTS}/**/*.safetensors"):
        files[str(path.relative_to(run))] = {name: value.numpy().tobytes() for name, value in load_file(path).items()}
    return files


def one_of(run: Path, pattern: str, draw: random.Random) -> Path:
    return draw.choice(sorted(run.glob(pattern)))


def flipped(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(content))


def cut(path: Path, draw: random.Random) -> None:
    os.truncate(path, draw.randrange(path.stat().st_size))


def removed(path: Path, draw: random.Random) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def doubled(path: Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes() * 2)


def header_only(path: Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])


def stump(path: Path, draw: random.Random) -> None:
    """What a kill leaves of a folder."""
    (path / MANIFEST).unlink()


Damage = Callable[[Path, random.Random], None]
DAMAGES: dict[str, tuple[str, Damage, bool | None]] = {
    "a table that was removed": ("[sp]*.csv", removed, False),
    "a table that was cut": ("[sp]*.csv", cut, None),
    "a table that was doubled": ("[sp]*.csv", doubled, True),
    "a table's header alone": ("[sp]*.csv", header_only, False),
    "a table that was edited": ("[sp]*.csv", flipped, None),
    "an evaluation's scores": ("evaluations/*/scores.csv", flipped, None),
    "the curve": ("**/curve.csv", removed, True),
    "a curve that was edited": ("**/curve.csv", flipped, True),
    "the log": ("train.jsonl", removed, False),
    "pictures of a step": ("images/step-*", removed, True),
    "one picture": ("images/step-*/*.png", flipped, True),
    "an evaluation's picture": ("evaluations/*/images/*/*.png", cut, True),
    "the newest resume state": ("resume/step-000002/*.safetensors", flipped, True),
    "the newest resume state's manifest": ("resume/step-000002/manifest.json", cut, True),
    "a stump of a resume state": ("resume/step-*", stump, True),
    "the newest weights": ("checkpoints/step-000002/**/*.safetensors", flipped, True),
    "weights of a kept checkpoint": ("checkpoints/step-000000/**/*.safetensors", cut, False),
    "a kept checkpoint": ("checkpoints/step-000000", removed, False),
    "a stump of the newest checkpoint": ("checkpoints/step-000002", stump, True),
    "all resume states": ("resume", removed, True),
    "all checkpoints": ("checkpoints", removed, True),
    "the record": ("record.json", removed, True),
    "a cut record": ("record.json", cut, False),
}
"""Which place, what is done to it, and whether the run ends equal (True) or is refused; None where the place decides."""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_made_good_or_refused(
    runs: dict[str, Path], make_config: Make, smoke: list[str], tmp_path: Path, kind: str, seed: int
) -> None:
    pattern, damage, equal = DAMAGES[kind]
    run = Path(shutil.copytree(runs["stopped"], tmp_path / "runs" / runs["stopped"].name))
    draw = random.Random(f"{kind} {seed}")
    damage(one_of(run, pattern, draw), draw)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name not in ("record.json", ".lock", "config.yaml")}
    try:
        folder, record = run_experiment(make_config(*smoke, *SHORT))
    except UserError as refused:
        assert equal is not True, refused
        assert len(str(refused).splitlines()) == 1
        assert str(run) in str(refused)
        assert "remove the folder" in str(refused)
        assert {p: p.read_bytes() for p in before} == before
        return
    assert equal is not False
    assert (folder, record.status) == (run, "completed")
    ours, theirs = contents(run), contents(runs["whole"])
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if ours[name] != theirs[name]] == []
    assert not (run / RESUME).exists()


@pytest.mark.parametrize("place", [CHECKPOINTS, RESUME])
def test_a_folder_of_another_run_is_refused(runs: dict[str, Path], make_config: Make, smoke: list[str], tmp_path: Path, place: str) -> None:
    run = Path(shutil.copytree(runs["stopped"], tmp_path / "runs" / runs["stopped"].name))
    shutil.copytree(runs["other"] / CHECKPOINTS / "step-000003", run / place / "step-000003")
    with pytest.raises(UserError, match=r"step-000003: copied from another run .*; remove the folder and give the same command again"):
        run_experiment(make_config(*smoke, *SHORT))


def test_the_record_of_another_run_is_refused(runs: dict[str, Path], make_config: Make, smoke: list[str], tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs["stopped"], tmp_path / "runs" / runs["stopped"].name))
    shutil.copy(runs["other"] / "record.json", run / "record.json")
    with pytest.raises(UserError, match=r"record\.json: the record of another run"):
        run_experiment(make_config(*smoke, *SHORT))


def test_what_is_lost_is_said(
    runs: dict[str, Path], make_config: Make, smoke: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(runs["stopped"], tmp_path / "runs" / runs["stopped"].name))
    flipped(run / RESUME / "step-000002" / "optimizer.safetensors", random.Random(0))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(experiment, "_walk", killed)
        run_experiment(make_config(*smoke, *SHORT))
    said = capsys.readouterr().out
    assert f"{run / RESUME}/step-000002/optimizer.safetensors: damaged or missing: going back to step 1\nResuming from step 1" in said
    shutil.rmtree(run / RESUME)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(experiment, "_walk", killed)
        run_experiment(make_config(*smoke, *SHORT))
    assert f"Starting again from step 0: {run} has no whole resume state" in capsys.readouterr().out


def other_pictures(patch: pytest.MonkeyPatch) -> None:
    """Pictures do not come out as they were, as on a GPU whose kernels are not deterministic."""
    real = resuming.sample

    def sample(*given: Any) -> list[Sample]:
        samples = real(*given)
        for one in samples:
            one.image.putpixel((0, 0), tuple(255 - colour for colour in one.image.getpixel((0, 0))))  # type: ignore[union-attr]
        return samples

    patch.setattr(resuming, "sample", sample)


EARLY = [
    "schedule.steps=2", "schedule.checkpoints=[0,1,2]", "schedule.keep=all", "method.learning_rate=0.01", BNN_ON,
    "+evaluations={a:{guidance_scale:1.0},b:{weights:ema}}",
]  # fmt: skip


@pytest.mark.parametrize(("missing", "other"), [("ab", False), ("a", True)])
def test_going_back_to_step_0_trains_from_the_pretrained_weights(
    make_config: Make, smoke: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    missing: str, other: bool,
) -> None:  # fmt: skip
    """Pictures of step 1 could not be made again, after its weights had been loaded for the attempt."""
    whole, _ = run_experiment(make_config(*smoke, *EARLY, f"paths.runs={tmp_path / 'whole'}"))
    killed_behind(1, make_config(*smoke, *EARLY))
    run = tmp_path / "runs" / whole.name
    assert steps_in(run / RESUME) == [0, 1]
    gone = [one_of(run, f"evaluations/{name}/images/step-000001/*.png", random.Random(0)) for name in missing]
    for picture in gone:
        picture.unlink()
    if other:
        other_pictures(monkeypatch)
    capsys.readouterr()
    assert run_experiment(make_config(*smoke, *EARLY))[1].status == "completed"
    assert f"{gone[-1]}: removed or changed, and no checkpoint makes it again: going back to step 0" in capsys.readouterr().out
    assert contents(run) == contents(whole)


def test_a_refusal_leaves_the_pictures_that_are_there(
    runs: dict[str, Path], make_config: Make, smoke: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(runs["stopped"], tmp_path / "runs" / runs["stopped"].name))
    (run / "images" / "step-000001" / "prompt-00-image-00.png").unlink()
    before = {p: p.read_bytes() for p in run.rglob("*.png")}
    assert any("images/step-000001" in str(p) for p in before)
    other_pictures(monkeypatch)
    with pytest.raises(UserError, match=r"step-000001/prompt-00-image-00\.png: removed or changed, and no checkpoint makes it again"):
        run_experiment(make_config(*smoke, *SHORT))
    assert {p: p.read_bytes() for p in run.rglob("*.png")} == before
    assert not list(run.rglob(f"*{STAGING}"))


def killed(*_: object) -> None:
    raise Killed


def test_a_run_of_an_older_version_still_resumes(runs: dict[str, Path], make_config: Make, smoke: list[str], tmp_path: Path) -> None:
    """Its manifests know no run, no tables and no pictures, and there is one resume state."""
    run = Path(shutil.copytree(runs["stopped"], tmp_path / "runs" / runs["stopped"].name))
    shutil.rmtree(run / RESUME / "step-000001")
    for path in run.rglob(MANIFEST):
        manifest = json.loads(path.read_text())
        path.write_text(json.dumps({"step": manifest["step"], "files": manifest["files"]}))
    assert run_experiment(make_config(*smoke, *SHORT))[1].status == "completed"
    assert contents(run) == contents(runs["whole"])
