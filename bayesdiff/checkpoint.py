"""Checkpoints that are whole or absent, and resume that equals never having stopped.

``checkpoints/step-000100`` holds what people keep: the mean U-Net in stock layout and the Gaussian
weights' rho. ``resume/step-000100`` holds what only training needs: the optimiser's moments. A
``manifest.json`` with the hash of every file is written last; a folder without one does not count.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from bayesdiff.config import Keep
from bayesdiff.errors import UserError
from bayesdiff.files import sha256, staged, write_json

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bayesdiff.bayes import BayesianLayer
    from bayesdiff.methods import FineTuning

CHECKPOINTS, RESUME, MANIFEST = "checkpoints", "resume", "manifest.json"


def step_folder(root: Path, step: int) -> Path:
    return root / f"step-{step:06d}"


def steps_in(root: Path) -> list[int]:
    """Steps of the complete folders below ``root``, increasing."""
    found = root.glob("step-*") if root.is_dir() else []
    return sorted(int(p.name.removeprefix("step-")) for p in found if p.name[5:].isdigit() and (p / MANIFEST).exists())


def _seal(folder: Path, step: int) -> None:
    """Write the manifest: the completion mark."""
    files = {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    write_json(folder / MANIFEST, {"step": step, "files": files})


def verify(folder: Path) -> None:
    """Check every file against the manifest; raises ``UserError`` naming the damaged one."""
    remedy = f"remove the folder {folder} and give the same command again"
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / MANIFEST}: damaged; {remedy}") from error
    for name, digest in files.items():
        path = folder / name
        if not path.exists() or sha256(path) != digest:
            raise UserError(f"{path}: damaged or missing; {remedy}")


def save_checkpoint(
    run: Path, step: int, method: FineTuning, unet: nn.Module, layers: list[BayesianLayer], optimizer: torch.optim.Optimizer
) -> None:
    """Save weights and optimiser at a step, then drop older resume states."""
    from safetensors.torch import save_file

    from bayesdiff.bayes import sigmas

    with staged(step_folder(run / CHECKPOINTS, step)) as part:
        part.mkdir()
        method.export(unet, part / "unet")
        if layers:
            save_file({k: v.cpu().contiguous() for k, v in sigmas(layers).items()}, part / "rho.safetensors")
        _seal(part, step)
    with staged(step_folder(run / RESUME, step)) as part:
        part.mkdir()
        save_file(_moments(optimizer), part / "optimizer.safetensors")
        _seal(part, step)
    for old in steps_in(run / RESUME)[:-1]:
        shutil.rmtree(step_folder(run / RESUME, old))


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": value.cpu().contiguous() for index, entry in state.items() for key, value in entry.items()}


def resumable_step(run: Path) -> int | None:
    """The newest step with both a complete checkpoint and a complete resume state."""
    both = set(steps_in(run / CHECKPOINTS)) & set(steps_in(run / RESUME))
    return max(both) if both else None


def restore(run: Path, step: int, unet: nn.Module, layers: list[BayesianLayer], optimizer: torch.optim.Optimizer) -> None:
    """Load weights, rho and optimiser of a step in place; raises ``UserError`` for damaged files."""
    import torch
    from safetensors.torch import load_file

    weights, resume = step_folder(run / CHECKPOINTS, step), step_folder(run / RESUME, step)
    verify(weights)
    verify(resume)
    mean = load_file(weights / "unet" / "diffusion_pytorch_model.safetensors")
    rho = load_file(weights / "rho.safetensors") if layers else {}
    with torch.no_grad():
        load_mean(unet, mean)
        for layer in layers:
            layer.gaussian.rho.copy_(rho[layer.name])
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in load_file(resume / "optimizer.safetensors").items():
        index, key = name.split(".", 1)
        moments.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def load_mean(unet: nn.Module, mean: dict[str, torch.Tensor]) -> None:
    """Copy a plain state dict into a model, Bayesian or not; names must match exactly."""
    from bayesdiff.bayes import mean_state

    target = dict(mean_state(unet))
    if set(target) != set(mean):
        raise UserError(f"checkpoint does not fit the model: {len(set(target) ^ set(mean))} names differ")
    for name, value in target.items():
        value.copy_(mean[name])


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
