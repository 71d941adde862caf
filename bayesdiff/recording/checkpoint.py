"""Checkpoints that are whole or absent, and resume that equals never having stopped.

``checkpoints/step-000100`` holds what people keep: the mean (or averaged) weights in the stock layout
of the method, and the Gaussian weights' rho. ``resume/step-000100`` holds what only training needs:
the optimiser's moments, and the weights themselves where an average of them is kept. A resume state between
two checkpoints has the checkpoint's files in a folder of its own, ``weights``. The two newest resume states stay.
A ``manifest.json`` with the run's key, the step and the hash of every file is written last; a folder without one does not count.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesdiff.config.schema import Keep
from bayesdiff.core.background import Action, collected, write_tensors
from bayesdiff.core.errors import UserError
from bayesdiff.core.files import STAGING, atomic_write, discard, from_json, remove_partial, sha256, write_json
from bayesdiff.core.layout import CHECKPOINTS, MANIFEST, RESUME, RHO, step_folder, steps_in
from bayesdiff.core.machine import free_memory

if TYPE_CHECKING:
    import torch

    from bayesdiff.methods import FineTuning
    from bayesdiff.training.loop import Training

OPTIMIZER, SCALER = "optimizer.safetensors", "scaler.json"
WEIGHTS = "weights"
"""In a resume state between two checkpoints: the files that a checkpoint has."""
STATES = 2
"""Resume states that stay: a damaged one costs the steps since the other."""
Submit = Callable[[Action], None]
"""Does what it is given, now or behind the program's back (``core.background.Writer.submit``)."""


class Damaged(UserError):
    """Something saved is not as it was saved. ``what`` names it; the message adds the remedy."""

    def __init__(self, what: str, remedy: str):
        super().__init__(f"{what}; {remedy}")
        self.what = what


def _seal(folder: Path, step: int, key: str, more: dict[str, Any] | None = None) -> None:
    """Write the manifest: the completion mark."""
    files = {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    write_json(folder / MANIFEST, {"step": step, "run_key": key, "files": files, **(more or {})})


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a folder's manifest says, ``files`` always a dictionary; raises ``Damaged``. One of version 0.1 names no run."""
    try:
        manifest: dict[str, Any] = from_json((folder / MANIFEST).read_text(encoding="utf-8"))
        dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{folder / MANIFEST}: damaged", f"remove the folder {folder} and give the same command again") from error
    return manifest


def check_owner(folder: Path, key: str) -> None:
    """Raises ``UserError`` for a folder whose manifest names another step than the folder's name, or another run than ``key``."""
    manifest = read_manifest(folder)
    step, run = manifest.get("step"), manifest.get("run_key", "")
    named = folder.name.removeprefix("step-")
    if key and run and run != key:
        raise UserError(f"{folder}: copied from another run ({run}, this is {key}); remove the folder and give the same command again")
    if named.isdecimal() and step != int(named):
        raise UserError(f"{folder}: holds step {step}, not {int(named)}; remove the folder and give the same command again")


def verify(folder: Path, key: str = "") -> None:
    """Check the owner, and every file against the manifest; raises ``UserError`` naming the damaged one.

    Args:
        key: the run's key; a manifest that names another is refused.
    """
    check_owner(folder, key)
    for name, digest in read_manifest(folder)["files"].items():
        path = folder / name
        if not path.is_file() or sha256(path) != digest:
            raise Damaged(f"{path}: damaged or missing", f"remove the folder {folder} and give the same command again")


def _save_weights(part: Path, method: FineTuning, state: Training) -> None:
    """The weights that the arm shows, into a new folder."""
    part.mkdir()
    with state.shown():
        method.export(state.parts, part)
        if kept := state.arm.kept():
            write_tensors(part / RHO, kept.items())


def _now(action: Action) -> None:
    action()


def save_checkpoint(
    run: Path, step: int, method: FineTuning, state: Training, key: str = "", written: dict[str, Any] | None = None,
    submit: Submit = _now,
) -> None:  # fmt: skip
    """Save the weights that the arm shows, and what resuming needs.

    Args:
        key: names the run.
        written: what the run had written by then (``seals.written``); the resume state's manifest keeps it.
        submit: gets what writes and publishes, in order. What is written is the state as it was when this returned.
    """
    later = submit is not _now and has_room(state)
    submit(_prepared(step_folder(run / CHECKPOINTS, step), lambda part: _save_weights(part, method, state), later, step, key))
    _save_resume(run, step, None, state, key, written, submit, later)


def save_pause(
    run: Path, step: int, method: FineTuning, state: Training, key: str = "", written: dict[str, Any] | None = None
) -> None:  # fmt: skip
    """Save a resume state between two checkpoints, with the weights in it; arguments as ``save_checkpoint``."""
    _save_resume(run, step, method, state, key, written, _now, False)


def _prepared(
    target: Path, fill: Callable[[Path], None], later: bool, step: int, key: str, more: dict[str, Any] | None = None
) -> Action:  # fmt: skip
    """Fill a folder beside ``target``; what is returned seals and publishes it. ``later`` copies tensors now and writes them then."""
    with ExitStack() as stack:
        part = stack.enter_context(atomic_write(target))
        with collected() if later else nullcontext() as actions:
            fill(part)
        rest = stack.pop_all()

    def publish() -> None:
        with rest:
            for action in actions or []:
                action()
            _seal(part, step, key, more)

    return publish


def has_room(state: Training) -> bool:
    """Whether half of the memory that this process may still take holds a copy of everything that a checkpoint keeps."""
    moments = (value for entry in state.optimizer.state.values() for value in entry.values())
    beside = (tensor for tensors in _beside(state).values() for tensor in tensors.values())
    needed = sum(_bytes(tensor) for tensor in (*state.trained, *state.arm.kept().values(), *moments, *beside))
    return 2 * needed < free_memory()


def _bytes(value: Any) -> int:
    """Of a moment: 8-bit AdamW keeps some as numbers, or in a dictionary of their own."""
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return value.numel() * value.element_size() if hasattr(value, "element_size") else 0


def _save_resume(
    run: Path, step: int, with_weights: FineTuning | None, state: Training, key: str, written: dict[str, Any] | None,
    submit: Submit, later: bool,
) -> None:  # fmt: skip
    """Save what only training needs, then drop all but the newest resume states."""

    def fill(part: Path) -> None:
        part.mkdir()
        if with_weights is not None:
            _save_weights(part / WEIGHTS, with_weights, state)
        write_tensors(part / OPTIMIZER, _moments(state.optimizer).items())
        for name, tensors in _beside(state).items():
            write_tensors(part / name, tensors.items())
        write_json(part / SCALER, state.scaler.state_dict())

    submit(_prepared(step_folder(run / RESUME, step), fill, later, step, key, written))
    submit(lambda: _drop_old(run))


def _drop_old(run: Path) -> None:
    for old in steps_in(run / RESUME)[:-STATES]:
        discard(step_folder(run / RESUME, old))


def _numbered(tensors: Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{index:06d}": value for index, value in enumerate(tensors)}


def _beside(state: Training) -> dict[str, dict[str, torch.Tensor]]:
    """By file: the arm's state, the averages that evaluations ask for, and the trained weights where others are kept."""
    files = {f"average-{decay:g}.safetensors": average.state() for decay, average in state.averages.items()}
    files["arm.safetensors"] = state.arm.state()
    files["weights.safetensors"] = _numbered(state.trained) if state.arm.SHOWS_OTHER_WEIGHTS else {}
    return {name: tensors for name, tensors in files.items() if tensors}


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's state, flat; plain numbers (8-bit AdamW's step) become tensors.

    bitsandbytes 0.50 hides an entry's quantised moments in a dictionary of their own, and reads them back without.
    """
    import torch

    flat: dict[str, Any] = {}
    for i, entry in optimizer.state_dict()["state"].items():
        for key, value in entry.items():
            inner = value if isinstance(value, dict) else {key: value}
            flat |= {f"{i}.{name}": torch.as_tensor(moment) for name, moment in inner.items()}
    return flat


def resumable_steps(run: Path) -> list[int]:
    """Steps with both a complete resume state and complete weights, increasing."""
    checkpoints = steps_in(run / CHECKPOINTS)
    return [step for step in steps_in(run / RESUME) if step in checkpoints or _weights_of(run, step).name == WEIGHTS]


def resumable_step(run: Path) -> int | None:
    """The newest step with both complete weights and a complete resume state."""
    return max(resumable_steps(run), default=None)


def _weights_of(run: Path, step: int) -> Path:
    """The folder with the weights that belong to a resume state: its own, or the checkpoint."""
    own = step_folder(run / RESUME, step) / WEIGHTS
    return own if own.is_dir() else step_folder(run / CHECKPOINTS, step)


def verify_state(run: Path, step: int, key: str = "") -> None:
    """``verify`` for the resume state of a step and the weights that belong to it."""
    for folder in {_weights_of(run, step), step_folder(run / RESUME, step)}:
        if folder.name != WEIGHTS:  # these stand in the resume state's own manifest
            verify(folder, key)


def restore(run: Path, step: int, method: FineTuning, state: Training, key: str = "") -> None:
    """Load everything of a step in place; raises ``UserError`` for damaged files, and then changes nothing."""
    import torch
    from safetensors.torch import load_file

    weights, resume = _weights_of(run, step), step_folder(run / RESUME, step)
    verify_state(run, step, key)
    stored = {name: load_file(resume / name) for name in _needed(resume, state)}
    kept = load_file(weights / RHO) if (weights / RHO).exists() else {}
    method.load(state.parts, weights)
    if state.arm.SHOWS_OTHER_WEIGHTS:
        with torch.no_grad():
            for parameter, (_, value) in zip(state.trained, sorted(stored["weights.safetensors"].items()), strict=True):
                parameter.copy_(value)
    state.arm.load(kept, stored.get("arm.safetensors", {}))
    for decay, average in state.averages.items():
        average.load(stored[f"average-{decay:g}.safetensors"])
    moments: dict[int, dict[str, torch.Tensor | float]] = {}
    for name, value in load_file(resume / OPTIMIZER).items():
        index, key = name.split(".", 1)
        counts = value.ndim == 0 and not value.is_floating_point()  # 8-bit AdamW counts its steps in a plain number
        moments.setdefault(int(index), {})[key] = value.item() if counts else value
    state.optimizer.load_state_dict({"state": moments, "param_groups": state.optimizer.state_dict()["param_groups"]})
    _lay_out_as_weights(state.optimizer)
    state.scaler.load_state_dict(json.loads((resume / SCALER).read_text(encoding="utf-8")))


def _lay_out_as_weights(optimizer: torch.optim.Optimizer) -> None:
    """Files hold tensors in the order of their indices; AdamW reads a weight's and its moments' memory side by side, whatever the order."""
    import torch

    for weight, entry in optimizer.state.items():
        for key, value in entry.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape and value.stride() != weight.stride():
                entry[key] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _needed(resume: Path, state: Training) -> list[str]:
    """Files that this run reads beside the optimiser's; raises ``UserError`` where an evaluation came too late for one."""
    names = list(_beside(state))
    if missing := [name for name in names if not (resume / name).exists()]:
        raise UserError(
            f"{resume}: has no {', '.join(missing)}; an evaluation of averaged weights must be there from step 0: "
            "leave it out, or remove the folder and start again"
        )
    return names


def kept_steps(run: Path, keep: Keep, best: int | None) -> list[int]:
    """Checkpoints that the policy keeps, and those that a resume state needs; increasing."""
    steps = steps_in(run / CHECKPOINTS)
    if keep is Keep.all or not steps:
        return steps
    kept = {steps[-1], *steps_in(run / RESUME)}
    if keep in (Keep.best, Keep.last_and_best) and best is not None:
        kept.add(best)
    return [step for step in steps if step in kept]


def retain(run: Path, keep: Keep, best: int | None) -> None:
    """Remove checkpoints the policy does not keep; never the newest, nor what resuming needs."""
    kept = kept_steps(run, keep, best)
    for step in steps_in(run / CHECKPOINTS):
        if step not in kept:
            discard(step_folder(run / CHECKPOINTS, step))


def finish(run: Path, keep: Keep, best: int) -> None:
    """After the last checkpoint: no resume state is needed any more, and ``best`` alone may stay.

    The empty ``resume/`` stays until ``close``: it tells that the run is not at its end.
    """
    for state in list((run / RESUME).iterdir()) if (run / RESUME).is_dir() else []:
        discard(state)
    steps = steps_in(run / CHECKPOINTS)
    if keep is Keep.best and best in steps:
        for step in steps:
            if step != best:
                discard(step_folder(run / CHECKPOINTS, step))


def close(run: Path) -> None:
    """The last act of a run: nothing of resuming is left. Where something cannot be removed, the next start tries again."""
    remove_partial(run)
    if not any(run.rglob(f"*{STAGING}")):
        shutil.rmtree(run / RESUME, ignore_errors=True)
