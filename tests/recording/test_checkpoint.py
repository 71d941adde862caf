"""Checkpoints are whole or absent, and going on from one equals never having stopped."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from tiny import ARMS, BNN_ON, CONTROLS, METHOD_ARMS, Make, differing, silent, tiny_training, tiny_unet, trained, weights

from bayesdiff.arms.gaussian import draw_weights, mean_state
from bayesdiff.config.schema import Config, Keep
from bayesdiff.core import machine
from bayesdiff.core.background import Action, Writer
from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import CHECKPOINTS, MANIFEST, RESUME, step_folder, steps_in
from bayesdiff.methods import method_of
from bayesdiff.recording.checkpoint import (
    close,
    finish,
    has_room,
    restore,
    resumable_step,
    resumable_steps,
    retain,
    save_checkpoint,
    save_pause,
    verify,
)
from bayesdiff.training.loop import Training, train

KEPT = ("step", "exp_avg", "exp_avg_sq")
UNET = "unet/diffusion_pytorch_model.safetensors"


def smoke_config(make_config: Make, *overrides: str) -> Config:
    return make_config("+experiment=smoke", *overrides)


def save(run: Path, cfg: Config, state: Training, step: int) -> None:
    save_checkpoint(run, step, method_of(cfg.method.name), state)


def put_back(run: Path, state: Training, step: int, cfg: Config | None = None) -> None:
    method = method_of("dreambooth") if cfg is None else method_of(cfg.method.name)
    restore(run, step, method, state)


def saved(run: Path, cfg: Config, steps: int = 2) -> Training:
    state = trained(cfg, steps)
    save(run, cfg, state, steps)
    return state


def sealed(run: Path, *steps: int) -> None:
    """Complete checkpoint folders with nothing in them."""
    for step in steps:
        folder = step_folder(run / CHECKPOINTS, step)
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text('{"files": {}, "step": 0}')


def moments(state: Training) -> dict[str, torch.Tensor]:
    """The optimiser's state, flat."""
    entries = state.optimizer.state_dict()["state"]
    return {f"{index}.{key}": value for index, entry in entries.items() for key, value in entry.items()}


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


AVERAGED = ["+evaluations={mean:{weights:ema,ema_decay:0.5}}"]
CHANNELS_LAST = "training.channels_last=true"
ARRANGED = [[CHANNELS_LAST, "bnn=off"], [CHANNELS_LAST, BNN_ON, "bnn.layers=conv"], [CHANNELS_LAST, "bnn=ema", *AVERAGED]]


@pytest.mark.parametrize("overrides", [*METHOD_ARMS, *([f"bnn={control}"] for control in CONTROLS), *ARRANGED])
def test_going_on_from_a_checkpoint_equals_never_having_stopped(make_config: Make, tmp_path: Path, overrides: list[str]) -> None:
    cfg = smoke_config(make_config, *overrides)
    saved(tmp_path, cfg, 3)
    resumed, whole = tiny_training(cfg), trained(cfg, 6)
    put_back(tmp_path, resumed, 3, cfg)
    train(resumed, cfg, 3, 6, silent)
    assert differing(weights(resumed), weights(whole)) == []
    assert differing(moments(resumed), moments(whole)) == []
    for decay, average in whole.averages.items():
        assert differing(resumed.averages[decay].state(), average.state()) == []
    with resumed.shown(), whole.shown():
        assert differing(weights(resumed), weights(whole)) == []


@pytest.mark.parametrize("arm", ARMS)
def test_so_it_does_with_8_bit_adamw(make_config: Make, tmp_path: Path, arm: str) -> None:
    """Some tensors are large enough for 8-bit moments (4,096 numbers), others keep 32."""
    pytest.importorskip("bitsandbytes")
    cfg = smoke_config(make_config, arm, "training.optimizer=adamw_8bit")
    saved(tmp_path, cfg, 3)
    resumed, whole = tiny_training(cfg), trained(cfg, 6)
    kinds = {value.dtype for entry in whole.optimizer.state.values() for value in entry.values() if isinstance(value, torch.Tensor)}
    assert {torch.uint8, torch.float32} <= kinds
    put_back(tmp_path, resumed, 3, cfg)
    train(resumed, cfg, 3, 6, silent)
    assert differing(weights(resumed), weights(whole)) == []


@pytest.mark.parametrize("arm", ARMS)
def test_a_restored_state_is_the_saved_one(make_config: Make, tmp_path: Path, arm: str) -> None:
    cfg = smoke_config(make_config, arm)
    before, after = saved(tmp_path, cfg), tiny_training(cfg)
    assert differing(weights(before), weights(after)) != []
    put_back(tmp_path, after, 2)
    assert differing(weights(before), weights(after)) == []
    assert moments(before).keys() == {f"{i}.{key}" for i in range(len(list(after.pipe.unet.parameters()))) for key in KEPT}
    assert differing(moments(before), moments(after)) == []


def test_the_prior_stays_at_the_pretrained_weights_after_a_restore(make_config: Make, tmp_path: Path) -> None:
    cfg = smoke_config(make_config, BNN_ON, "bnn.kl_weight=1e-6")
    saved(tmp_path, cfg)
    after = tiny_training(cfg)
    put_back(tmp_path, after, 2)
    for layer in after.layers:
        assert torch.equal(layer.gaussian.prior_mean, tiny_unet().get_parameter(layer.name))
        assert not torch.equal(layer.gaussian.prior_mean, layer.mean)


def test_a_checkpoint_holds_the_mean_also_while_a_draw_is_set(make_config: Make, tmp_path: Path) -> None:
    cfg = smoke_config(make_config, BNN_ON)
    state = trained(cfg, 1)
    draw_weights(state.layers, 0, 0)
    save(tmp_path, cfg, state, 1)
    stock = UNet2DConditionModel.from_pretrained(step_folder(tmp_path / CHECKPOINTS, 1) / "unet")
    assert differing(dict(stock.state_dict()), dict(mean_state(state.pipe.unet))) == []


def test_only_a_bayesian_checkpoint_has_rho(make_config: Make, tmp_path: Path) -> None:
    for arm in ARMS:
        saved(tmp_path / arm, smoke_config(make_config, arm), 1)
        assert (step_folder(tmp_path / arm / CHECKPOINTS, 1) / "rho.safetensors").exists() == (arm == BNN_ON)


DAMAGED = [
    f"{CHECKPOINTS}/step-000002/{UNET}",
    f"{CHECKPOINTS}/step-000002/unet/config.json",
    f"{CHECKPOINTS}/step-000002/rho.safetensors",
    f"{RESUME}/step-000002/optimizer.safetensors",
]


@pytest.mark.parametrize(
    ("damage", "name"), [*((spoil, name) for name in DAMAGED), (Path.unlink, DAMAGED[2]), (partial(os.truncate, length=10), DAMAGED[0])]
)
def test_a_damaged_file_is_named_and_nothing_is_restored(
    make_config: Make, tmp_path: Path, damage: Callable[[Path], None], name: str
) -> None:
    cfg = smoke_config(make_config, BNN_ON)
    saved(tmp_path, cfg)
    damage(tmp_path / name)
    fresh = tiny_training(cfg)
    before = weights(fresh)
    with pytest.raises(UserError, match=str(tmp_path / name)):
        put_back(tmp_path, fresh, 2)
    assert differing(before, weights(fresh)) == []


def test_a_damaged_manifest_is_named(make_config: Make, tmp_path: Path) -> None:
    saved(tmp_path, smoke_config(make_config))
    folder = step_folder(tmp_path / CHECKPOINTS, 2)
    os.truncate(folder / MANIFEST, 10)
    with pytest.raises(UserError, match=str(folder)):
        verify(folder)


@pytest.mark.parametrize("place", [CHECKPOINTS, RESUME])
def test_a_folder_without_manifest_does_not_count(make_config: Make, tmp_path: Path, place: str) -> None:
    cfg = smoke_config(make_config)
    state = saved(tmp_path, cfg)
    save(tmp_path, cfg, state, 4)
    assert resumable_step(tmp_path) == 4
    (step_folder(tmp_path / place, 4) / MANIFEST).unlink()
    assert resumable_step(tmp_path) == 2


def test_an_empty_run_has_no_step_to_go_on_from(tmp_path: Path) -> None:
    assert resumable_step(tmp_path) is None


def test_only_the_two_newest_resume_states_are_kept(make_config: Make, tmp_path: Path) -> None:
    cfg = smoke_config(make_config)
    state = tiny_training(cfg)
    for step in (0, 2, 10):
        save(tmp_path, cfg, state, step)
    assert steps_in(tmp_path / RESUME) == [2, 10]
    assert steps_in(tmp_path / CHECKPOINTS) == [0, 2, 10]


def test_a_policy_keeps_what_a_resume_state_needs(make_config: Make, tmp_path: Path) -> None:
    cfg = smoke_config(make_config)
    state = tiny_training(cfg)
    for step in (0, 2, 4, 6):
        save(tmp_path, cfg, state, step)
    retain(tmp_path, Keep.last, None)
    assert resumable_steps(tmp_path) == steps_in(tmp_path / CHECKPOINTS) == [4, 6]


def test_a_state_between_checkpoints_has_its_own_weights(make_config: Make, tmp_path: Path) -> None:
    cfg = smoke_config(make_config, BNN_ON)
    save_pause(tmp_path, 3, method_of("dreambooth"), trained(cfg, 3))
    assert (resumable_step(tmp_path), steps_in(tmp_path / CHECKPOINTS)) == (3, [])
    resumed, whole = tiny_training(cfg), trained(cfg, 5)
    put_back(tmp_path, resumed, 3)
    train(resumed, cfg, 3, 5, silent)
    assert differing(weights(resumed), weights(whole)) == []
    spoil(tmp_path / RESUME / "step-000003" / "weights" / UNET)
    with pytest.raises(UserError, match=f"{UNET}: damaged"):
        put_back(tmp_path, tiny_training(cfg), 3)


@pytest.mark.parametrize("place", [CHECKPOINTS, RESUME])
def test_a_folder_of_another_run_or_step_is_refused(make_config: Make, tmp_path: Path, place: str) -> None:
    cfg = smoke_config(make_config)
    state, folder = tiny_training(cfg), step_folder(tmp_path / "a" / place, 2)
    for run in ("a", "b"):
        for step in (2, 4):
            save_checkpoint(tmp_path / run, step, method_of("dreambooth"), state, f"key-{run}")
    others = {"b/{}/step-000002": r"copied from another run \(key-b, this is key-a\)", "a/{}/step-000004": "holds step 4, not 2"}
    for other, said in others.items():
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / other.format(place), folder)
        with pytest.raises(UserError, match=f"{folder}: {said}; remove the folder and give the same command again"):
            restore(tmp_path / "a", 2, method_of("dreambooth"), state, "key-a")


def test_a_manifest_without_a_key_is_read_as_ever(make_config: Make, tmp_path: Path) -> None:
    saved(tmp_path, smoke_config(make_config))
    for place in (CHECKPOINTS, RESUME):
        path = step_folder(tmp_path / place, 2) / MANIFEST
        manifest = json.loads(path.read_text())
        del manifest["run_key"]
        path.write_text(json.dumps(manifest))
    restore(tmp_path, 2, method_of("dreambooth"), tiny_training(smoke_config(make_config)), "key")


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [
        (Keep.all, 4, [0, 4, 8, 12]),
        (Keep.last, 4, [12]),
        (Keep.best, 4, [4, 12]),
        (Keep.best, 12, [12]),
        (Keep.best, None, [12]),
        (Keep.last_and_best, 4, [4, 12]),
        (Keep.last_and_best, None, [12]),
    ],
)
def test_a_policy_keeps_what_it_says_and_always_the_newest(tmp_path: Path, keep: Keep, best: int | None, left: list[int]) -> None:
    sealed(tmp_path, 0, 4, 8, 12)
    retain(tmp_path, keep, best)
    assert steps_in(tmp_path / CHECKPOINTS) == left


@pytest.mark.parametrize(("keep", "left"), [(Keep.all, [4, 12]), (Keep.last, [4, 12]), (Keep.best, [4]), (Keep.last_and_best, [4, 12])])
def test_at_the_end_the_best_alone_may_stay(tmp_path: Path, keep: Keep, left: list[int]) -> None:
    sealed(tmp_path, 4, 12)
    (tmp_path / RESUME / "step-000012").mkdir(parents=True)
    finish(tmp_path, keep, 4)
    assert steps_in(tmp_path / CHECKPOINTS) == left
    assert list((tmp_path / RESUME).iterdir()) == []
    close(tmp_path)
    assert not (tmp_path / RESUME).exists()


def test_at_the_end_a_best_step_that_is_gone_removes_nothing(tmp_path: Path) -> None:
    sealed(tmp_path, 8, 12)
    finish(tmp_path, Keep.best, 4)
    assert steps_in(tmp_path / CHECKPOINTS) == [8, 12]


def disk_full(error: Exception) -> Callable[..., None]:
    """A ``save_file`` that writes half a file and fails."""

    def fail(tensors: Any, filename: Path, metadata: Any = None) -> None:
        Path(filename).write_bytes(b"half")
        raise error

    return fail


def check_full_disk(make_config: Make, run: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    cfg = smoke_config(make_config, BNN_ON)
    state = saved(run, cfg)
    monkeypatch.setattr("safetensors.torch.save_file", disk_full(error))
    with pytest.raises(UserError, match="no disk space left"):
        save(run, cfg, state, 4)
    with pytest.raises(UserError, match="no disk space left"), Writer() as writer:
        save_checkpoint(run, 6, method_of("dreambooth"), state, submit=writer.submit)
        writer.wait()
    assert sorted(p.name for p in (run / CHECKPOINTS).iterdir()) == ["step-000002"]
    assert resumable_step(run) == 2
    put_back(run, tiny_training(cfg), 2)


def test_a_full_disk_is_said_and_the_older_checkpoint_stays(make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_full_disk(make_config, tmp_path, monkeypatch, OSError(errno.ENOSPC, "No space left on device"))


def test_a_full_disk_is_said_as_safetensors_reports_it(make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "Error while serializing: I/O error: No space left on device (os error 28)"
    check_full_disk(make_config, tmp_path, monkeypatch, SafetensorError(message))


def tensors_in(run: Path) -> dict[str, bytes]:
    """Every tensor of a run's files; the order of a header's entries is by chance."""
    files = {path.relative_to(run): load_file(path) for path in sorted(run.rglob("*.safetensors"))}
    return {f"{path}/{name}": value.numpy().tobytes() for path, tensors in files.items() for name, value in tensors.items()}


@pytest.mark.parametrize("words", [*METHOD_ARMS, ["bnn=ema"]], ids=" ".join)
def test_what_is_written_later_is_the_state_as_it_was(make_config: Make, tmp_path: Path, words: list[str]) -> None:
    """Training moves every tensor in place meanwhile: weights, sigmas, moments, averages and the draw's buffers."""
    cfg = smoke_config(make_config, *words)
    state, actions = trained(cfg, 2), list[Action]()
    save_checkpoint(tmp_path / "now", 2, method_of(cfg.method.name), state)
    save_checkpoint(tmp_path / "later", 2, method_of(cfg.method.name), state, submit=actions.append)
    assert steps_in(tmp_path / "later" / CHECKPOINTS) == steps_in(tmp_path / "later" / RESUME) == []
    train(state, cfg, 2, 4, silent)
    for action in actions:
        action()
    assert tensors_in(tmp_path / "later") == tensors_in(tmp_path / "now")
    assert len(tensors_in(tmp_path / "now")) >= 2
    put_back(tmp_path / "later", tiny_training(cfg), 2, cfg)


def test_the_room_is_that_of_the_job_and_not_of_the_machine(make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = trained(smoke_config(make_config), 1)
    monkeypatch.setattr(machine, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(machine, "GROUPS", tmp_path)
    (tmp_path / "membership").write_text("0::/job\n")
    (tmp_path / "job").mkdir()
    for name, content in {"memory.max": "1000000", "memory.current": "999000", "memory.stat": "inactive_file 0"}.items():
        (tmp_path / "job" / name).write_text(content)
    assert not has_room(state)
    (tmp_path / "job" / "memory.max").write_text("max\n")
    assert has_room(state)


def test_what_memory_has_no_room_for_is_written_at_once(make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = smoke_config(make_config, BNN_ON)
    state = trained(cfg, 2)
    assert has_room(state)
    bytes_kept = sum(p.numel() * 4 for group in state.optimizer.param_groups for p in group["params"]) * 3
    for free, room in ((2 * bytes_kept + 4096, True), (2 * bytes_kept - 4096, False)):
        monkeypatch.setattr("psutil.virtual_memory", lambda free=free: SimpleNamespace(available=free))
        assert has_room(state) is room
    actions = list[Action]()
    save_checkpoint(tmp_path, 2, method_of("dreambooth"), state, submit=actions.append)
    assert list(tmp_path.rglob("*.partial/unet/*.safetensors"))
    for action in actions:
        action()
    verify(tmp_path / CHECKPOINTS / "step-000002")


def test_what_is_never_published_leaves_nothing(make_config: Make, tmp_path: Path) -> None:
    actions = list[Action]()
    save_checkpoint(tmp_path, 2, method_of("dreambooth"), trained(smoke_config(make_config), 2), submit=actions.append)
    assert list(tmp_path.rglob("*.partial"))
    actions.clear()
    assert not list(tmp_path.rglob("*.partial"))


def test_a_folder_whose_number_is_a_superscript_is_no_step(tmp_path: Path) -> None:
    (tmp_path / "step-²").mkdir()
    (tmp_path / "step-²" / "manifest.json").write_text('{"step": 2, "run_key": "", "files": {}}')
    assert steps_in(tmp_path) == []
