"""What a run refuses: other photographs, weights or devices than it began with, and words that its model has no token for."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bayesdiff.config.identity import run_key
from bayesdiff.config.prompts import Prompt
from bayesdiff.config.schema import METHODS, Backend, Config, Optimizer
from bayesdiff.core.digests import fingerprint_of_ends
from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import RECORD
from bayesdiff.core.output import say
from bayesdiff.core.processes import is_main_process
from bayesdiff.diffusion.subject import Subject
from bayesdiff.recording.record import RunRecord, arithmetic
from bayesdiff.runs.evaluations import every_sampler


def check_same_run(folder: Path, record: RunRecord, cfg: Config) -> None:
    """Raises ``UserError`` for a record that was copied from another run."""
    if record.run_key != (key := run_key(cfg)):
        raise UserError(f"{folder / RECORD}: the record of another run ({record.run_key}, this is {key}); remove the folder or move it")


def check_same_photos(folder: Path, record: RunRecord, subject: Subject) -> None:
    """The run key covers where photographs lie, not what is in them; raises ``UserError`` when that changed."""
    before = [photo["sha256"] for photo in record.subject.get("photos", [])]
    if before and before != [photo.digest for photo in subject.photos]:
        raise UserError(f"{folder}: made with other photographs than there are now; remove the folder, or give data.subject another name")


def check_same_class_images(folder: Path, record: RunRecord, digest: str) -> None:
    """Class images lie in a cache that others use too; raises ``UserError`` when the run began with others than ``digest`` names."""
    if record.subject.get("class_images", digest) != digest:
        raise UserError(f"{folder}: begun with other class images than paths.cache has now; put those back, or remove the folder")


def check_same_weights(folder: Path, record: RunRecord, weights: dict[str, str], places: dict[str, Path]) -> None:
    """Raises ``UserError`` when a run was begun with other local weights than there are now."""
    kept = record.weights
    changed = [name for name, value in weights.items() if kept.get(name, value) not in (value, fingerprint_of_ends(places[name]))]
    if changed:
        raise UserError(f"{folder}: made with other weights ({', '.join(changed)}) than there are now; remove the folder, or move it")


def check_same_device(folder: Path, record: RunRecord, here: dict[str, Any]) -> None:
    """Raises ``UserError`` when a run would resume on another kind of device."""
    was, now = record.environment.get("device", here["device"]), here["device"]
    if was.partition(":")[0] != now.partition(":")[0]:
        raise UserError(f"{folder}: begun on {was}, and {now} would draw other weight noise; add device={was}")


def check_same_gpu(folder: Path, record: RunRecord, here: dict[str, Any], noise_on_device: bool) -> None:
    """Raises ``UserError`` when an arm whose noise is drawn on the GPU would resume on another kind of GPU."""
    was, now = record.environment.get("gpu", here["gpu"]), here["gpu"]
    if noise_on_device and was != now:
        raise UserError(f"{folder}: begun on {was}, and {now} would draw other noise; resume there, or remove the folder")


def check_same_precision(folder: Path, record: RunRecord, here: dict[str, Any]) -> None:
    """Raises ``UserError`` when later checkpoints would be sampled or scored in another precision than earlier ones."""
    for key, was in arithmetic(record).items() if record.environment else []:
        what = "samples" if key == "sampler_precision" else "scores"
        if (now := here.get(key, was)) != was:
            raise UserError(f"{folder}: begun with {what} in {was}, and they would be in {now} here; resume there, or remove the folder")


LIBRARIES = {
    Backend.wandb: ("wandb", "wandb"), Backend.tensorboard: ("tensorboard", "bayesdiff[tensorboard]"),
    Backend.mlflow: ("mlflow", "bayesdiff[mlflow]"), Backend.trackio: ("trackio", "bayesdiff[trackio]"),
}  # fmt: skip
"""A tracker's module, and what installs it."""


def look_at_libraries(cfg: Config) -> None:
    """Raises ``UserError`` for a setting whose library is not there, before anything is loaded. The library is found, not imported."""
    wanted = [(f"tracker={name.value}", *LIBRARIES[name], "tracker=jsonl") for name in (cfg.tracker.name,) if name in LIBRARIES]
    if cfg.training.optimizer is Optimizer.adamw_8bit:
        wanted.append(("training.optimizer=adamw_8bit", "bitsandbytes", "bayesdiff[low-memory]", "training.optimizer=adamw"))
    for setting, module, installs, instead in wanted:
        if find_spec(module) is None:
            raise UserError(f"{setting}: {module} is not installed; pip install '{installs}', or give {instead}")


def look_at_model(cfg: Config) -> None:
    """Raises ``UserError`` for settings that no model of this shape can have, before any weights are loaded."""
    from bayesdiff.arms.registry import arm_of
    from bayesdiff.diffusion.blueprint import blueprint
    from bayesdiff.diffusion.pipeline import check_sizes
    from bayesdiff.methods import method_of

    method = method_of(cfg.method.name)
    arm_of(cfg.bnn.kind)
    if (plan := blueprint(cfg.model)) is None:
        return
    every_sampler(cfg, lambda sampler: check_sizes(plan.unet.config, plan.pixels_a_latent, plan.timesteps, cfg.model, sampler))
    if cfg.method.name in METHODS:  # one of a user's own may not know of models without weights
        method.build({"unet": plan.unet}, cfg.method, cfg.seed)
        if cfg.bnn.kind == "gaussian":
            method.bayesian_targets(plan.unet, cfg.bnn)


def look_at_words(cfg: Config, subject: Subject, prompts: list[Prompt]) -> None:
    """Say what is left out, cut or unknown; raises ``UserError`` before any model is loaded."""
    from bayesdiff.diffusion.words import check_texts, model_readers
    from bayesdiff.scoring.encoders import clip_reader
    from bayesdiff.scoring.pixels import flat_line

    flat = flat_line([photo.image for photo in subject.photos])
    lines = (
        subject.said()
        + ([flat] if flat else [])
        + check_texts(cfg, subject, prompts, model_readers(cfg.model), [clip_reader(cfg.metrics.clip)])
    )
    for line in lines if is_main_process() else []:
        say(line)
