"""Checkpoints that are whole or absent, and resume that equals never having stopped.

``checkpoints/step-000100`` holds what people keep: the mean (or averaged) weights in the stock layout
of the method, and the Gaussian weights' rho. ``resume/step-000100`` holds what only training needs:
the optimiser's moments, and the weights themselves where an average of them is kept. A
``manifest.json`` with the hash of every file is written last; a folder without one does not count.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesdiff.config.schema import Keep
from bayesdiff.core.errors import UserError
from bayesdiff.core.files import atomic_write, sha256, write_json
from bayesdiff.core.layout import CHECKPOINTS, MANIFEST, RESUME, RHO, step_folder, steps_in

if TYPE_CHECKING:
    import torch

    from bayesdiff.methods import FineTuning
    from bayesdiff.training.loop import Training

OPTIMIZER, SCALER = "optimizer.safetensors", "scaler.json"


def _seal(folder: Path, step: int) -> None:
    """Write the manifest: the completion mark."""
    files = {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    write_json(folder / MANIFEST, {"step": step, "files": files})


def verify(folder: Path) -> None:
    """Check every file against the manifest; raises ``UserError`` naming the damaged one."""
    remedy = f"remove the folder {folder} and give the same command again"
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / MANIFEST}: damaged; {remedy}") from error
    for name, digest in files.items():
        path = folder / name
        if not path.exists() or sha256(path) != digest:
            raise UserError(f"{path}: damaged or missing; {remedy}")


def save_checkpoint(run: Path, step: int, method: FineTuning, state: Training) -> None:
    """Save the weights that the arm shows, and what resuming needs, then drop older resume states."""
    from safetensors.torch import save_file

    from bayesdiff.arms.gaussian import storable  # torch only where weights are written

    with atomic_write(step_folder(run / CHECKPOINTS, step)) as part, state.shown():
        part.mkdir()
        method.export(state.parts, part)
        if kept := state.arm.kept():
            save_file(storable(kept.items()), part / RHO)
        _seal(part, step)
    with atomic_write(step_folder(run / RESUME, step)) as part:
        part.mkdir()
        save_file(_moments(state.optimizer), part / OPTIMIZER)
        for name, tensors in _beside(state).items():
            save_file(storable(tensors.items()), part / name)
        write_json(part / SCALER, state.scaler.state_dict())
        _seal(part, step)
    for old in steps_in(run / RESUME)[:-1]:
        shutil.rmtree(step_folder(run / RESUME, old))


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

    from bayesdiff.arms.gaussian import storable

    flat: dict[str, Any] = {}
    for i, entry in optimizer.state_dict()["state"].items():
        for key, value in entry.items():
            inner = value if isinstance(value, dict) else {key: value}
            flat |= {f"{i}.{name}": torch.as_tensor(moment) for name, moment in inner.items()}
    return storable(flat.items())


def resumable_step(run: Path) -> int | None:
    """The newest step with both a complete checkpoint and a complete resume state."""
    both = set(steps_in(run / CHECKPOINTS)) & set(steps_in(run / RESUME))
    return max(both) if both else None


def restore(run: Path, step: int, method: FineTuning, state: Training) -> None:
    """Load everything of a step in place; raises ``UserError`` for damaged files, and then changes nothing."""
    import torch
    from safetensors.torch import load_file

    weights, resume = step_folder(run / CHECKPOINTS, step), step_folder(run / RESUME, step)
    verify(weights)
    verify(resume)
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
    state.scaler.load_state_dict(json.loads((resume / SCALER).read_text(encoding="utf-8")))


def _needed(resume: Path, state: Training) -> list[str]:
    """Files that this run reads beside the optimiser's; raises ``UserError`` where an evaluation came too late for one."""
    names = list(_beside(state))
    if missing := [name for name in names if not (resume / name).exists()]:
        raise UserError(
            f"{resume}: has no {', '.join(missing)}; an evaluation of averaged weights must be there from step 0: "
            "leave it out, or remove the folder and start again"
        )
    return names


def retain(run: Path, keep: Keep, best: int | None) -> None:
    """Remove checkpoints the policy does not keep; never the newest, which resume needs."""
    steps = steps_in(run / CHECKPOINTS)
    if keep is Keep.all or not steps:
        return
    kept = {steps[-1]}
    if keep in (Keep.best, Keep.last_and_best) and best is not None:
        kept.add(best)
    for step in steps:
        if step not in kept:
            shutil.rmtree(step_folder(run / CHECKPOINTS, step))


def finish(run: Path, keep: Keep, best: int) -> None:
    """After the last checkpoint: no resume state is needed any more, and ``best`` alone may stay."""
    shutil.rmtree(run / RESUME, ignore_errors=True)
    steps = steps_in(run / CHECKPOINTS)
    if keep is Keep.best and best in steps:
        for step in steps:
            if step != best:
                shutil.rmtree(step_folder(run / CHECKPOINTS, step))
