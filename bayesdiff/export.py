"""Export a checkpoint for stock libraries: ``python -m bayesdiff.export RUN --step N``.

The folder holds the posterior mean (or the weight average) in the layout of its method, a model card
with the verdict, the curve and the command, and, for Bayesian runs, ``bnn_state.safetensors`` with mu
and sigma, which using the export does not need:

* DreamBooth: ``unet/`` in diffusers' layout (and ``text_encoder/`` where it was trained);
* LoRA: ``pytorch_lora_weights.safetensors``, for ``pipe.load_lora_weights(FOLDER)``;
* OFT: ``unet/`` as peft's adapter, and ``unet_merged/``, the rotated U-Net in diffusers' layout.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bayesdiff.checkpoint import CHECKPOINTS, MANIFEST, RHO, step_folder, steps_in, verify
from bayesdiff.config import Arm, Config, Method, arm_name, resolve
from bayesdiff.errors import UserError
from bayesdiff.files import staged
from bayesdiff.record import RunRecord, load_record

if TYPE_CHECKING:
    from torch import nn

USAGE = {
    Method.dreambooth: 'unet = UNet2DConditionModel.from_pretrained("{folder}/unet")\n'
    'pipe = DiffusionPipeline.from_pretrained("{model}", unet=unet)',
    Method.lora: 'pipe = DiffusionPipeline.from_pretrained("{model}")\npipe.load_lora_weights("{folder}")',
    Method.oft: 'unet = UNet2DConditionModel.from_pretrained("{folder}/unet_merged")\n'
    'pipe = DiffusionPipeline.from_pretrained("{model}", unet=unet)',
}


def read_run(run: Path, step: int | None) -> tuple[RunRecord, Config, int]:
    """Record, configuration and the step to export (None: the best). Raises ``UserError``."""
    from omegaconf import OmegaConf

    record, steps = load_record(run), steps_in(run / CHECKPOINTS)
    if record is None or not steps:
        raise UserError(f"{run}: not a run folder with checkpoints (needs record.json and checkpoints/)")
    if step is None:
        best = record.verdict["best_step"] if record.verdict else steps[-1]
        step = best if best in steps else steps[-1]
    if step not in steps:
        raise UserError(f"--step {step}: {run} keeps the steps {', '.join(map(str, steps))}; schedule.keep=all keeps every one")
    return record, resolve(OmegaConf.create(record.config)), step


def export(run: Path, step: int | None, target: Path) -> int:
    """Write the export of a run's checkpoint to ``target``, whole or not at all; returns the step."""
    record, cfg, step = read_run(run, step)
    if target.exists():
        raise UserError(f"{target}: exists already; name another folder or remove it")
    source = step_folder(run / CHECKPOINTS, step)
    verify(source)
    with staged(target) as part:
        shutil.copytree(source, part, ignore=shutil.ignore_patterns(MANIFEST, RHO))
        if cfg.bnn.kind is Arm.gaussian or cfg.method.name is Method.oft:
            _write_derived(cfg, source, part)
        if (run / "curve.png").exists():
            shutil.copyfile(run / "curve.png", part / "curve.png")
        (part / "README.md").write_text(_card(record, cfg, step, target), encoding="utf-8")
    return step


def _write_derived(cfg: Config, source: Path, part: Path) -> None:
    """What needs the model: mu and sigma of a Bayesian run, and the merged U-Net of OFT."""
    import torch
    from safetensors.torch import load_file, save_file

    from bayesdiff.loop import prepare_weights
    from bayesdiff.methods import METHODS
    from bayesdiff.pipeline import load_pipeline

    parts, _, layers = prepare_weights(load_pipeline(cfg.model, torch.device("cpu")), cfg)
    METHODS[cfg.method.name].load(parts, source)
    if layers:
        rho = load_file(source / RHO)
        with torch.no_grad():
            for layer in layers:
                layer.gaussian.rho.copy_(rho[layer.name])
        state = {f"{layer.name}.mu": layer.mean.detach().contiguous() for layer in layers}
        state |= {f"{layer.name}.sigma": layer.gaussian.sigma.detach().contiguous() for layer in layers}
        save_file(state, part / "bnn_state.safetensors")
    if cfg.method.name is Method.oft:
        _merge(parts["unet"]).save_pretrained(part / "unet_merged")  # type: ignore[operator]


def _merge(unet: nn.Module) -> nn.Module:
    """Multiply the rotations into the weights and take the adapter off."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch.nn.utils import parametrize

    for module in list(unet.modules()):
        if parametrize.is_parametrized(module):
            for name in list(getattr(module, "parametrizations", {})):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    for name, module in list(unet.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            owner, _, attribute = name.rpartition(".")
            setattr(unet.get_submodule(owner), attribute, module.get_base_layer())
    unet._hf_peft_config_loaded = False  # type: ignore[assignment]
    return unet


def _card(record: RunRecord, cfg: Config, step: int, target: Path) -> str:
    """The model card: what it is, the verdict, how to load it, and how to make it again."""
    verdict = record.verdict["sentence"] if record.verdict else f"No verdict ({record.status})."
    model = "bayesdiff/toybox/weights/pipeline" if cfg.model.path == "toybox" else cfg.model.path
    usage = USAGE[cfg.method.name].format(folder=target.name, model=model)
    commit = record.environment.get("git_commit") or "unknown"
    return f"""# {cfg.data.subject}: {cfg.method.name.value}, {arm_name(vars(cfg.bnn))}, step {step}

Fine-tuned from `{cfg.model.path}` on {len(record.subject.get("photos", []))} photograph(s) of
"{cfg.data.identifier} {record.subject.get("class_noun", "")}" by bayesdiff (run `{record.run_key}`, commit `{commit}`).

{verdict}

![fidelity over steps](curve.png)

```python
{usage}
```

Made by

```sh
{record.command or "(run from Python; the configuration is in the run folder's config.yaml)"}
```
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bayesdiff.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("--step", type=int, help="the checkpoint to export (default: the verdict's best)")
    parser.add_argument("--output", type=Path, help="folder to write (default: RUN/export-STEP)")
    args = parser.parse_args(arguments)
    try:
        _, _, step = read_run(args.run, args.step)
        target = args.output or args.run / f"export-{step}"
        export(args.run, step, target)
    except UserError as error:
        print(f"bayesdiff: {error}", file=sys.stderr)
        return 2
    print(f"wrote {target} (step {step})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
