"""A checkpoint as stock libraries load it.

The folder holds the posterior mean (or the weight average) in the layout of its method, a model card
with the verdict, the curve and the command, and, for Bayesian runs, ``bnn_state.safetensors`` with mu
and sigma, which using the export does not need:

* DreamBooth: ``unet/`` in diffusers' layout (and the text encoders where they were trained);
* LoRA: ``pytorch_lora_weights.safetensors``, for ``pipe.load_lora_weights(FOLDER)``;
* OFT: peft's adapter of every part, and ``<part>_merged/``, the rotated model in its stock layout.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from bayesdiff.config.compose import of_record
from bayesdiff.config.identity import arm_name
from bayesdiff.config.schema import Config, SigmaParametrization
from bayesdiff.core import escape
from bayesdiff.core.errors import UserError
from bayesdiff.core.files import atomic_write
from bayesdiff.core.layout import CHECKPOINTS, CURVE_PICTURE, MANIFEST, RECORD, RHO, step_folder, steps_in
from bayesdiff.core.privacy import without_home
from bayesdiff.recording.checkpoint import verify
from bayesdiff.recording.record import RunRecord, load_record, repeat_command

if TYPE_CHECKING:
    from torch import nn

CLASSES = {"unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel", "text_encoder_2": "CLIPTextModelWithProjection"}


def read_run(run: Path, step: int | None) -> tuple[RunRecord, Config, int]:
    """Record, configuration and the step to export (None: the best). Raises ``UserError``."""
    record, steps = load_record(run), steps_in(run / CHECKPOINTS)
    if record is None or not steps:
        raise UserError(f"{run}: not a run folder with checkpoints (record.json and checkpoints/); give a run's folder")
    if step is None and record.verdict and not record.verdict.get("better_than_base", True):
        raise UserError(f"{run}: no checkpoint is better than the base model yet; train longer, or name one with --step")
    if step is None:
        step = record.verdict.get("best_step", "unknown") if record.verdict else steps[-1]
        if step not in steps:
            raise UserError(f"{run}: its best checkpoint, step {step}, is not kept; choose by --step one of {', '.join(map(str, steps))}")
    if step not in steps:
        raise UserError(f"--step {step}: {run} keeps the steps {', '.join(map(str, steps))}; schedule.keep=all keeps every one")
    return record, of_record(record.config, run / RECORD), step


def export(run: Path, step: int | None, target: Path) -> int:
    """Write the export of a run's checkpoint to ``target``, whole or not at all; returns the step."""
    record, cfg, step = read_run(run, step)
    if target.exists():
        raise UserError(f"{target}: exists already; name another folder or remove it")
    source = step_folder(run / CHECKPOINTS, step)
    verify(source, record.run_key)
    with atomic_write(target) as part:
        shutil.copytree(source, part, ignore=shutil.ignore_patterns(MANIFEST, RECORD, RHO))
        if cfg.bnn.kind == "gaussian":
            _write_bayesian_state(cfg, source, part)
        if cfg.method.name == "oft":
            _write_merged(cfg, source, part)
        if (run / CURVE_PICTURE).exists():
            shutil.copyfile(run / CURVE_PICTURE, part / CURVE_PICTURE)
        (part / "README.md").write_text(_card(record, cfg, step, part, target.name), encoding="utf-8")
    return step


def _write_bayesian_state(cfg: Config, source: Path, part: Path) -> None:
    """``NAME.mu`` and ``NAME.sigma`` of every Gaussian tensor, from the checkpoint's files alone."""
    from safetensors.torch import load_file, save_file
    from torch.nn.functional import softplus

    from bayesdiff.methods import method_of

    file, prefix = method_of(cfg.method.name).UNET_MEANS
    means, state = load_file(source / file), {}
    direct = cfg.bnn.sigma_parametrization is SigmaParametrization.direct
    for name, rho in load_file(source / RHO).items():
        state[f"{name}.mu"] = means[prefix + name.replace(".default", "")]
        state[f"{name}.sigma"] = rho if direct else softplus(rho)
    save_file(state, part / "bnn_state.safetensors")


def _write_merged(cfg: Config, source: Path, part: Path) -> None:
    """Every trained part with its rotations multiplied into the weights."""
    import torch

    from bayesdiff.diffusion.pipeline import load_pipeline
    from bayesdiff.methods import method_of
    from bayesdiff.training.loop import prepare_weights

    parts, _ = prepare_weights(load_pipeline(cfg.model, torch.device("cpu")), cfg)
    method_of(cfg.method.name).load(parts, source)
    for name, model in parts.items():
        _merge(model).save_pretrained(part / f"{name}_merged")  # type: ignore[operator]


def _merge(model: nn.Module) -> nn.Module:
    """Multiply the adapter into the weights and take it off."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, module.get_base_layer())
    model._hf_peft_config_loaded = False  # type: ignore[assignment]
    return model


def _usage(cfg: Config, part: Path, folder: str) -> str:
    """The lines that load the export into a stock pipeline, all trained parts of it."""
    model = "bayesdiff/toybox/weights/pipeline" if cfg.model.path == "toybox" else cfg.model.path
    revision = f", revision={json.dumps(cfg.model.revision)}" if cfg.model.revision else ""
    base = json.dumps(without_home(model), ensure_ascii=False) + revision
    if cfg.method.name == "lora":
        return f"pipe = DiffusionPipeline.from_pretrained({base})\npipe.load_lora_weights({json.dumps(folder, ensure_ascii=False)})"
    suffix = "_merged" if cfg.method.name == "oft" else ""
    trained = [name for name in CLASSES if (part / f"{name}{suffix}").is_dir()]
    lines = [f"{name} = {CLASSES[name]}.from_pretrained({json.dumps(f'{folder}/{name}{suffix}', ensure_ascii=False)})" for name in trained]
    return "\n".join([*lines, f"pipe = DiffusionPipeline.from_pretrained({base}, {', '.join(f'{n}={n}' for n in trained)})"])


def _card(record: RunRecord, cfg: Config, step: int, part: Path, folder: str) -> str:
    """The model card: what it is, the verdict, how to load it, and how it was made."""
    verdict = record.verdict.get("sentence", "No sentence.") if record.verdict else f"No verdict ({record.status})."
    commit = record.environment.get("git_commit") or "unknown"
    curve = "\n![fidelity over steps](curve.png)\n" if (part / CURVE_PICTURE).exists() else ""
    title = escape.markdown_cell(f"{cfg.data.subject}: {cfg.method.name}, {arm_name(vars(cfg.bnn))}, step {step}")
    words = escape.markdown_cell(f"{cfg.data.identifier} {record.subject.get('class_noun', '')}")
    command = repeat_command(record) or "(begun from Python; the configuration is in the run folder's config.yaml)"
    return f"""# {title}

Fine-tuned from {escape.markdown_code(without_home(cfg.model.path))} on {len(record.subject.get("photos", []))} photograph(s) of
"{words}" by bayesdiff (run `{record.run_key}`, commit {escape.markdown_code(commit)}).

{escape.markdown_cell(verdict)}
{curve}
{escape.markdown_block(_usage(cfg, part, folder), "python")}

Made by

{escape.markdown_block(command, "sh")}
"""
