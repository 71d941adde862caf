"""Checkpoints that are whole or absent, and resume that equals never having stopped.

``checkpoints/step-000100`` holds what people keep: the mean (or averaged) weights in the stock layout
of the method, and the Gaussian weights' rho. ``resume/step-000100`` holds what only training needs:
the optimiser's moments, and the weights themselves where an average of them is kept. A
``manifest.json`` with the hash of every file is written last; a folder without one does not count.
"""

from __future__ import annotations

import json
import shutil
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
    """Save weights and optimiser at a step, then drop older resume states.

    With a weight average the model has to show it (``state.average.shown()``): what is saved is what
    is sampled.
    """
    from safetensors.torch import save_file

    from bayesdiff.arms.gaussian import sigmas, storable

    with atomic_write(step_folder(run / CHECKPOINTS, step)) as part:
        part.mkdir()
        method.export(state.parts, part)
        if state.layers:
            save_file(storable(sigmas(state.layers).items()), part / RHO)
        _seal(part, step)
    with atomic_write(step_folder(run / RESUME, step)) as part:
        part.mkdir()
        save_file(_moments(state.optimizer), part / "optimizer.safetensors")
        if state.average is not None:  # while the average is shown, its place holds the weights
            numbered = ((f"{index:06d}", value) for index, value in enumerate(state.average.average))
            save_file(storable(numbered), part / "weights.safetensors")
        write_json(part / "scaler.json", state.scaler.state_dict())
        _seal(part, step)
    for old in steps_in(run / RESUME)[:-1]:
        shutil.rmtree(step_folder(run / RESUME, old))


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
    method.load(state.parts, weights)
    rho = load_file(weights / RHO) if state.layers else {}
    with torch.no_grad():
        for layer in state.layers:
            layer.gaussian.rho.copy_(rho[layer.name])
        if state.average is not None:
            for average, parameter in zip(state.average.average, state.trained, strict=True):
                average.copy_(parameter)
            kept = load_file(resume / "weights.safetensors")
            for name, parameter in zip(sorted(kept), state.trained, strict=True):
                parameter.copy_(kept[name])
    moments: dict[int, dict[str, torch.Tensor | float]] = {}
    for name, value in load_file(resume / "optimizer.safetensors").items():
        index, key = name.split(".", 1)
        counts = value.ndim == 0 and not value.is_floating_point()  # 8-bit AdamW counts its steps in a plain number
        moments.setdefault(int(index), {})[key] = value.item() if counts else value
    state.optimizer.load_state_dict({"state": moments, "param_groups": state.optimizer.state_dict()["param_groups"]})
    state.scaler.load_state_dict(json.loads((resume / "scaler.json").read_text(encoding="utf-8")))


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
