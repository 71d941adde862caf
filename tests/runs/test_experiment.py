"""A run from configuration to record: complete, paired, resumable, and honest when it diverges."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from diffusers import UNet2DConditionModel
from filelock import FileLock
from omegaconf import OmegaConf
from PIL import Image
from tiny import ARMS, BNN_OFF, BNN_ON, Make, stop_at

from bayesdiff import run
from bayesdiff.arms.layers import select_layers
from bayesdiff.config.compose import resolve
from bayesdiff.config.identity import run_key
from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import CHECKPOINTS, MANIFEST, RESUME, steps_in
from bayesdiff.diffusion.subject import load_subject
from bayesdiff.recording.checkpoint import resumable_step
from bayesdiff.recording.record import RunRecord, load_record
from bayesdiff.runs import checkpoints, experiment
from bayesdiff.runs.experiment import run_experiment
from bayesdiff.runs.guards import check_same_gpu, check_same_precision
from bayesdiff.scoring.curve import curve_table

ROOT = Path(__file__).resolve().parents[2]
SHORT = ["schedule.steps=4", "schedule.checkpoints=[0,2,4]", "schedule.log_every=1", "sampler.batch_size=2", "schedule.keep=all"]
DIVERGING = ["method.learning_rate=1000", "schedule.checkpoints=[0,4]"]
TABLES = ("scores.csv", "curve.csv", "train.jsonl")
SETTLED = (*TABLES, "config.yaml", "curve.png", "grid.png", f"{CHECKPOINTS}/*/*.safetensors",
           f"{CHECKPOINTS}/*/unet/*", "images/*/*.png")  # fmt: skip
"""What two runs of one configuration have in common, byte for byte."""


def finished(make_config: Make, smoke: list[str], *overrides: str) -> tuple[Path, RunRecord]:
    return run_experiment(make_config(*smoke, *SHORT, *overrides))


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for pattern in SETTLED for path in sorted(folder.glob(pattern))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def check_same_result(a: Path, b: Path) -> None:
    """Byte-equal files; the configuration alone says where it was written to."""
    ours, theirs = contents(a), contents(b)
    assert ours.keys() == theirs.keys()
    assert {Path(name).name for name in ours} >= {*TABLES, "diffusion_pytorch_model.safetensors"}
    assert {name for name in ours if ours[name] != theirs[name]} == {"config.yaml"}


def only_run(runs: Path) -> Path:
    (folder,) = [path for path in runs.iterdir() if path.name != "cache"]
    return folder


@pytest.fixture(scope="module")
def store() -> dict[str, tuple[Path, str]]:
    """Runs that several tests look at, made once."""
    return {}


@pytest.fixture
def done(
    store: dict[str, tuple[Path, str]], make_config: Make, smoke: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, str]]:
    """Folder and standard output of an uninterrupted run of each arm."""
    for arm in ARMS:
        if arm not in store:
            out = StringIO()
            with redirect_stdout(out):
                folder, _ = finished(make_config, smoke, arm, f"paths.runs={tmp_path_factory.mktemp('done')}")
            store[arm] = folder, out.getvalue()
    return store


Done = dict[str, tuple[Path, str]]


def test_a_run_leaves_a_complete_folder(done: Done) -> None:
    folder, out = done[BNN_OFF]
    assert {p.name for p in folder.iterdir() if p.is_file()} >= {*TABLES, "config.yaml", "record.json", "curve.png", "grid.png"}
    assert [json.loads(line)["step"] for line in (folder / "train.jsonl").read_text().splitlines()] == [1, 2, 3, 4]
    assert pd.read_csv(folder / "curve.csv")["step"].tolist() == [0, 2, 4]
    scores = pd.read_csv(folder / "scores.csv", keep_default_na=False, float_precision="round_trip")
    assert len(scores) == 3 * 2 * 12
    assert curve_table(scores).to_csv(index=False) == (folder / "curve.csv").read_text()
    assert sorted(p.name for p in (folder / "images").iterdir()) == ["step-000000", "step-000002", "step-000004"]
    for picture in [*folder.glob("images/*/*.png"), folder / "curve.png", folder / "grid.png"]:
        with Image.open(picture) as image:
            image.load()
    assert steps_in(folder / CHECKPOINTS) == [0, 2, 4]
    assert not (folder / RESUME).exists()
    assert not list(folder.rglob("*.partial"))
    assert out.splitlines()[-1] == f"Look at {folder}/curve.png and {folder}/grid.png"


def test_the_configuration_in_the_folder_makes_the_same_run(done: Done) -> None:
    for folder, _ in done.values():
        record = load_record(folder)
        assert record is not None
        stored = yaml.safe_load((folder / "config.yaml").read_text())
        assert stored == record.config
        assert run_key(resolve(OmegaConf.create(stored))) == record.run_key == folder.name.rpartition("-")[2]


def test_the_record_says_what_was_run_and_what_came_out(done: Done, make_config: Make) -> None:
    record = load_record(done[BNN_ON][0])
    assert record is not None
    assert record.status == "completed"
    assert record.verdict is not None
    assert record.verdict["kind"] == "too_few_points"
    assert record.verdict["best_step"] in (0, 2, 4)
    assert set(record.seconds) == {"load", "train", "save", "probe", "sample", "score", "plot"}
    assert all(seconds > 0 for seconds in record.seconds.values())
    assert set(record.peak_memory_mb) >= set(record.seconds)
    assert all(record.environment["versions"][name][0].isdigit() for name in ("torch", "diffusers", "open_clip_torch", "timm"))
    cfg = make_config("+experiment=smoke")
    photos = load_subject(cfg.data, 1, cfg.seed, 64).photos
    assert record.subject["photos"] == [{"name": p.name, "sha256": p.digest} for p in photos]
    assert (record.subject["name"], record.subject["class_noun"]) == ("toy_backpack", "backpack")


def test_the_record_counts_what_is_gaussian(done: Done) -> None:
    plain, bayesian = (load_record(done[arm][0]).bayesian for arm in ARMS)
    assert (plain["layers"], plain["weights"], plain["share"]) == (0, 0, 0)
    unet = UNet2DConditionModel.from_pretrained(done[BNN_ON][0] / CHECKPOINTS / "step-000004" / "unet")
    names = select_layers(unet, "linear_no_cross_attention")
    weights = sum(p.numel() for name in names for p in unet.get_submodule(name).parameters())
    total = sum(p.numel() for p in unet.parameters())
    counts = {"layers": len(names), "weights": weights, "trained_weights": total, "unet_weights": total}
    assert bayesian == {**counts, "share": round(weights / total, 4)}
    assert f"Bayesian: {len(names)} layers, {weights:,} of {total:,} weights" in done[BNN_ON][1]


def test_both_arms_start_from_the_same_samples(done: Done) -> None:
    folders = [done[arm][0] for arm in ARMS]
    images = [{p.name: p.read_bytes() for p in (folder / "images" / "step-000000").iterdir()} for folder in folders]
    assert images[0] == images[1]
    tables = [pd.read_csv(folder / "scores.csv") for folder in folders]
    pd.testing.assert_frame_equal(*(table[table["step"] == 0] for table in tables), check_exact=True)
    assert not tables[0].equals(tables[1])


def copied(folder: Path, smoke: list[str]) -> Path:
    """A finished run where the configuration of ``smoke`` looks for it."""
    runs = next(o for o in smoke if o.startswith("paths.runs=")).partition("=")[2]
    return Path(shutil.copytree(folder, Path(runs) / folder.name))


def test_the_same_command_again_does_nothing_and_says_so(
    done: Done, make_config: Make, smoke: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(done[BNN_OFF][0], smoke)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    def forbidden(*_: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(experiment, "load_bench", forbidden)
    again, record = finished(make_config, smoke, "tracker=none", "device=cpu")
    assert (again, record.status) == (folder, "completed")
    assert capsys.readouterr().out == f"Already completed: {folder} (remove the folder to run it again)\n"
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_run_in_use_is_left_alone(done: Done, make_config: Make, smoke: list[str]) -> None:
    folder = copied(done[BNN_OFF][0], smoke)
    record = load_record(folder)
    assert record is not None
    record.status = "running"
    record.save(folder)
    before = contents(folder)
    with FileLock(folder / ".lock"), pytest.raises(UserError, match=f"{folder}: another process"):
        finished(make_config, smoke)
    assert contents(folder) == before


def test_two_runs_of_one_configuration_are_equal(done: Done, make_config: Make, smoke: list[str]) -> None:
    again, _ = finished(make_config, smoke)
    assert again.name == done[BNN_OFF][0].name
    check_same_result(again, done[BNN_OFF][0])


MOMENTS: list[tuple[str, int, int]] = [
    ("bayesdiff.training.loop.train", 2, 2),
    ("bayesdiff.diffusion.sampling.save_samples", 1, 4),
    ("bayesdiff.runs.evaluations.curve_table", 1, 4),
]
"""Function, which call of it, and the step to go on from: in training, before samples are saved, before they count."""


def test_a_run_that_was_interrupted_ends_as_if_it_had_not(done: Done, make_config: Make, smoke: list[str], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match=r"no disk space left for .*step-000002"):
        stop_at(patch, "bayesdiff.core.background._save", 4, OSError(errno.ENOSPC, "No space left on device"))  # of step 0 there are three
        finished(make_config, smoke, BNN_ON)
    stopped = only_run(tmp_path / "runs")
    assert resumable_step(stopped) == 0
    for name, call, step in MOMENTS:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_at(patch, name, call)
            finished(make_config, smoke, BNN_ON)
        assert load_record(stopped).status == "running"
        assert resumable_step(stopped) == step
    resumed, record = finished(make_config, smoke, BNN_ON)
    assert (resumed, record.status) == (stopped, "completed")
    check_same_result(resumed, done[BNN_ON][0])


def command(*overrides: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    call = [sys.executable, "-m", "bayesdiff.run", *overrides]
    return subprocess.Popen(call, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def kill_at_a_checkpoint(process: subprocess.Popen[str], runs: Path) -> None:
    """SIGKILL as soon as the checkpoint of step 2 (or of step 4, where this process was too slow to see it) is whole."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if list(runs.glob(f"*/{RESUME}/step-00000[24]/{MANIFEST}")):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (-signal.SIGKILL, "")


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_a_run_that_was_killed_ends_as_if_it_had_not(
    done: Done, smoke: list[str], tmp_path: Path, arm: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*smoke, *SHORT, arm]
    kill_at_a_checkpoint(command(*overrides), tmp_path / "runs")
    folder = only_run(tmp_path / "runs")
    assert load_record(folder).status == "running"
    monkeypatch.setattr(sys, "argv", ["bayesdiff", *overrides])
    run.main()
    assert re.search(rf"Resuming from step [024] of {folder}\n", capsys.readouterr().out)
    assert load_record(folder).status == "completed"
    check_same_result(folder, done[arm][0])


def test_a_run_stops_behind_a_stage_when_it_is_asked_to(
    make_config: Make, smoke: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With ``detector.stop_after=recovered``, as soon as the running verdict says recovered; never without."""
    monkeypatch.setattr(experiment, "may_stop", lambda verdict: len(verdict.labels) >= 2)
    folder, record = finished(make_config, smoke, "detector.stop_after=recovered")
    assert (record.status, record.message) == ("completed", "stopped at step 2: recovered (detector.stop_after)")
    assert pd.read_csv(folder / "curve.csv")["step"].tolist() == [0, 2]
    assert steps_in(folder / CHECKPOINTS) == [0, 2]
    assert finished(make_config, smoke, "detector.stop_after=recovered")[1].verdict == json.loads(json.dumps(record.verdict))
    assert "Already completed" in capsys.readouterr().out
    whole, _ = finished(make_config, smoke, "detector.stop_after=never")
    assert pd.read_csv(whole / "curve.csv")["step"].tolist() == [0, 2, 4]


def test_what_the_running_verdict_warns_of_is_shown(
    make_config: Make, smoke: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoints, "warning", lambda verdict: "mind this" if len(verdict.labels) == 2 else "")
    finished(make_config, smoke, "seed=77")
    out = capsys.readouterr().out
    assert out.count("! mind this") == 1
    assert "step     2  ! mind this" in out


def test_the_record_has_the_ceiling_of_photographs_that_are_not_trained_on(done: Done) -> None:
    record = load_record(done[BNN_OFF][0])
    assert record is not None
    assert len(record.subject["photos"]) == 1
    assert set(record.real_to_real) == {"dino", "clip_i"}
    assert all(-1 < value < 1 for value in record.real_to_real.values())


def test_a_run_that_diverges_keeps_its_curve_and_says_so(make_config: Make, smoke: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, record = finished(make_config, smoke, *DIVERGING)
    stored = load_record(folder)
    assert stored is not None
    assert stored.status == record.status == "diverged"
    assert stored.message.startswith("loss is not finite at step ")
    assert pd.read_csv(folder / "curve.csv")["step"].tolist() == [0]
    assert (folder / "curve.png").exists()
    assert (folder / "grid.png").exists()
    assert steps_in(folder / CHECKPOINTS) == [0]
    assert f"Diverged: {stored.message}; the curve up to there is kept in {folder}" in capsys.readouterr().out


def test_a_run_that_diverges_before_its_first_checkpoint_is_recorded(make_config: Make, smoke: list[str]) -> None:
    folder, record = finished(make_config, smoke, "method.learning_rate=1000", "schedule.checkpoints=[4]")
    assert (record.status, record.verdict) == ("diverged", None)
    assert not (folder / "curve.csv").exists()


def test_weights_that_break_at_a_checkpoint_are_counted_as_failed(make_config: Make, smoke: list[str]) -> None:
    folder, record = finished(make_config, smoke, "method.learning_rate=1000", "schedule.checkpoints=[0,1,4]")
    curve = pd.read_csv(folder / "curve.csv")
    assert curve["failed"].tolist() == [0.0, 1.0]
    assert record.verdict is not None
    assert not record.verdict["better_than_base"]


def test_the_command_ends_with_its_own_code_when_training_diverges(
    smoke: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bayesdiff", *smoke, *SHORT, *DIVERGING])
    for said in ("Diverged: ", "Already diverged: "):
        with pytest.raises(SystemExit) as end:
            run.main()
        assert end.value.code == 3
        assert said in capsys.readouterr().out


def test_prior_preservation_trains_on_class_images_and_the_best_checkpoint_stays(
    make_config: Make, smoke: list[str], tmp_path: Path
) -> None:
    prior = ["method.prior_preservation=true", "method.prior_loss_weight=0.5", "method.class_images=2"]
    folder, record = finished(make_config, smoke, BNN_ON, "schedule.keep=best", *prior)
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert all(row["loss"] == pytest.approx(row["loss_instance"] + 0.5 * row["loss_prior"], rel=1e-5) for row in rows)
    assert len(list((tmp_path / "runs" / "cache").glob("class-*/*.png"))) == 2
    assert record.verdict is not None
    assert steps_in(folder / CHECKPOINTS) == [record.verdict["best_step"]]


def test_draws_of_the_weights_are_sampled_beside_the_mean(done: Done, make_config: Make, smoke: list[str]) -> None:
    folder, _ = finished(make_config, smoke, BNN_ON, "sampler.sample_weights=2")
    check_same_curve(folder, done[BNN_ON][0])
    draws = pd.read_csv(folder / "draws.csv", keep_default_na=False)
    assert sorted(draws.groupby(["step", "draw"]).size().index) == [(step, draw) for step in (0, 2, 4) for draw in (0, 1)]
    dino = draws[draws["metric"] == "dino"].pivot_table(index=["step", "image"], columns="draw", values="value")
    assert (dino[0] != dino[1]).all()
    assert len(list(folder.glob("draws/step-*/draw-*/*.png"))) == 3 * 2 * 2


def check_same_curve(a: Path, b: Path) -> None:
    assert (a / "scores.csv").read_bytes() == (b / "scores.csv").read_bytes()


@pytest.mark.parametrize("arm", ["ema", "dropout"])
@pytest.mark.parametrize("method", ["dreambooth", "lora"])
def test_a_control_that_was_interrupted_ends_as_if_it_had_not(
    make_config: Make, smoke: list[str], tmp_path: Path, method: str, arm: str
) -> None:
    overrides = [f"method={method}", f"bnn={arm}", "method.learning_rate=1e-3"]
    whole, _ = finished(make_config, smoke, *overrides, f"paths.runs={tmp_path / 'whole'}")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, "bayesdiff.training.loop.train", 2)
        finished(make_config, smoke, *overrides)
    resumed, record = finished(make_config, smoke, *overrides)
    assert record.status == "completed"
    check_same_curve(resumed, whole)
    assert (resumed / "train.jsonl").read_bytes() == (whole / "train.jsonl").read_bytes()


def test_a_damaged_checkpoint_stops_the_run_and_is_named(make_config: Make, smoke: list[str], tmp_path: Path) -> None:
    short = ["schedule.steps=1", "schedule.checkpoints=[1]"]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, "bayesdiff.diffusion.sampling.save_samples", 1)
        finished(make_config, smoke, *short)
    weights = only_run(tmp_path / "runs") / CHECKPOINTS / "step-000001" / "unet" / "diffusion_pytorch_model.safetensors"
    os.truncate(weights, 100)
    with pytest.raises(UserError, match=f"{weights}: damaged"):
        finished(make_config, smoke, *short)


def test_a_done_run_is_not_passed_off_as_one_of_other_weights(done: Done, make_config: Make, smoke: list[str]) -> None:
    folder = copied(done[BNN_OFF][0], smoke)
    record = load_record(folder)
    assert set(record.weights) == {"model", "clip", "dino"}
    assert all(len(value) == 64 for value in record.weights.values())
    record.weights["model"] = "0" * 64
    record.save(folder)
    with pytest.raises(UserError, match=rf"{folder}: made with other weights \(model\)"):
        finished(make_config, smoke)


def test_a_run_does_not_go_on_with_another_devices_noise(done: Done, make_config: Make, smoke: list[str]) -> None:
    folder = copied(done[BNN_OFF][0], smoke)
    record = load_record(folder)
    record.status, record.environment["device"] = "running", "cuda:0"
    record.save(folder)
    with pytest.raises(UserError, match=r"begun on cuda:0.*add device=cuda:0"):
        finished(make_config, smoke)
    record.environment.update(device="cpu", gpu="NVIDIA A100")
    check_same_gpu(folder, record, {"gpu": None}, noise_on_device=False)
    with pytest.raises(UserError, match=r"begun on NVIDIA A100, and None would draw other noise; resume there"):
        check_same_gpu(folder, record, {"gpu": None}, noise_on_device=True)


@pytest.mark.parametrize(("key", "what"), [("sampler_precision", "samples"), ("metrics_precision", "scores")])
def test_a_run_does_not_go_on_in_another_precision(done: Done, make_config: Make, smoke: list[str], key: str, what: str) -> None:
    """``auto`` is another precision on another device, under the same key. A record that says none is of float32."""
    folder = copied(done[BNN_OFF][0], smoke)
    record = load_record(folder)
    assert record.environment.pop(key) == "fp32"
    check_same_precision(folder, record, {key: "fp32"})
    record.status, record.environment[key] = "running", "bf16"
    record.save(folder)
    with pytest.raises(UserError, match=rf"begun with {what} in bf16, and they would be in fp32 here; resume there"):
        finished(make_config, smoke)


def test_a_finished_run_stays_finished_when_its_pictures_fail(make_config: Make, smoke: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("no font")

    monkeypatch.setattr("bayesdiff.recording.plots.plot_curve", broken)
    with pytest.warns(UserWarning, match="pictures of the run failed"):
        folder, record = finished(make_config, smoke)
    stored = load_record(folder)
    assert (record.status, stored.status, stored.message) == ("completed", "completed", "pictures failed: no font")
    assert not (folder / RESUME).exists()


def test_a_tracker_that_fails_is_a_line_in_the_record(make_config: Make, smoke: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise RuntimeError("the service is away")

    monkeypatch.setattr("bayesdiff.recording.tracker.Jsonl.finish", away)
    with pytest.warns(UserWarning, match="the service is away"):
        folder, record = finished(make_config, smoke, "schedule.steps=1", "schedule.checkpoints=[1]")
    assert record.status == "completed"
    assert load_record(folder).message == "tracker Jsonl failed and is left out: the service is away"


def test_what_a_kill_behind_the_verdict_left_is_removed(done: Done, make_config: Make, smoke: list[str]) -> None:
    folder = copied(done[BNN_OFF][0], smoke)
    (folder / RESUME / "step-000004").mkdir(parents=True)
    (folder / "curve.png.host-1-0.partial").write_bytes(b"half")
    assert finished(make_config, smoke)[1].status == "completed"
    assert not (folder / RESUME).exists()
    assert not list(folder.rglob("*.partial"))
    assert contents(folder) == contents(done[BNN_OFF][0])


EVALUATED = "+evaluations={plain:{guidance_scale:1.0},averaged:{weights:ema},few:{steps:1,scheduler:dpm,images_per_prompt:1}}"


def test_evaluations_look_at_the_same_checkpoints_and_leave_the_run_as_it_is(done: Done, make_config: Make, smoke: list[str]) -> None:
    folder, record = finished(make_config, smoke, EVALUATED)
    assert folder.name == done[BNN_OFF][0].name, "evaluations do not name a run"
    check_same_curve(folder, done[BNN_OFF][0])
    assert set(record.evaluations) == {"plain", "averaged", "few"}
    curves = {name: pd.read_csv(folder / "evaluations" / name / "curve.csv").set_index("step") for name in record.evaluations}
    own = pd.read_csv(folder / "curve.csv").set_index("step")
    assert all(curve.index.tolist() == [0, 2, 4] for curve in curves.values())
    assert curves["averaged"].loc[0, "dino"] == own.loc[0, "dino"]
    assert curves["averaged"].loc[4, "dino"] != own.loc[4, "dino"]
    assert curves["plain"].loc[0, "dino"] != own.loc[0, "dino"]
    assert curves["few"]["images"].tolist() == [1, 1, 1]


def test_evaluations_that_were_interrupted_end_as_if_they_had_not(make_config: Make, smoke: list[str], tmp_path: Path) -> None:
    whole, _ = finished(make_config, smoke, EVALUATED, f"paths.runs={tmp_path / 'whole'}")
    for name, call in (("bayesdiff.training.loop.train", 2), ("bayesdiff.diffusion.sampling.save_samples", 3)):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_at(patch, name, call)
            finished(make_config, smoke, EVALUATED)
    resumed, _ = finished(make_config, smoke, EVALUATED)
    for evaluation in ("plain", "averaged", "few"):
        assert (resumed / "evaluations" / evaluation / "scores.csv").read_bytes() == (
            whole / "evaluations" / evaluation / "scores.csv"
        ).read_bytes()
    check_same_curve(resumed, whole)
    assert (resumed / "probes.csv").read_bytes() == (whole / "probes.csv").read_bytes()


def test_an_average_that_was_not_kept_from_the_start_is_refused(make_config: Make, smoke: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, "bayesdiff.training.loop.train", 2)
        finished(make_config, smoke)
    with pytest.raises(UserError, match=r"no average-0\.99\.safetensors; an evaluation of averaged weights must be there from step 0"):
        finished(make_config, smoke, "+evaluations={averaged:{weights:ema}}")


def test_a_done_run_is_not_passed_off_as_one_of_other_photographs(make_config: Make, smoke: list[str], tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    own = ["data=folder", f"data.path={photos}", "data.class_noun=dog", "schedule.steps=1", "schedule.checkpoints=[0,1]"]
    Image.new("RGB", (64, 64), "red").save(photos / "one.png")
    run_experiment(make_config(*smoke, *own))
    Image.new("RGB", (64, 64), "blue").save(photos / "one.png")
    with pytest.raises(UserError, match="other photographs"):
        run_experiment(make_config(*smoke, *own))


@pytest.mark.parametrize(("key", "word"), [("identifier", "zwx"), ("class_noun", "giraffe")])
def test_a_subject_that_the_model_has_no_word_for_is_refused(make_config: Make, smoke: list[str], key: str, word: str) -> None:
    with pytest.raises(UserError, match=rf"data\.{key}={word}: this model has no token for it"):
        finished(make_config, smoke, f"data.{key}={word}")


def test_other_words_of_prompts_that_the_model_does_not_know_are_named(
    make_config: Make, smoke: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    finished(make_config, smoke, "sampler.prompts=['a photo of {identifier} {class_noun} riding a unicycle']")
    assert "reads as one and the same: riding, unicycle" in capsys.readouterr().out
