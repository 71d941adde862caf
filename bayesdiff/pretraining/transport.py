"""Take a pipeline's weights through a narrow channel: 8 bits a weight, in parts of a given size.

Command:  python -m bayesdiff.pretraining.transport pack FOLDER PARTS
          python -m bayesdiff.pretraining.transport unpack PARTS FOLDER

A machine that trains may send back only small files. Matrices and kernels travel as integers of 8 bits with one
float32 scale for every ``BLOCK`` weights (an error of 0.6 % of the weights' spread, seen on normal weights); vectors travel in
half precision. The unpacked pipeline is the base from then on: measure that one. ``unpack`` takes tokenizer,
scheduler and autoencoder, which are the shipped ones or follow from the code, from this checkout.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bayesdiff.core.errors import UserError

BLOCK = 128
PART_BYTES = 15 * 2**20
"""Size of a part: below 16 MiB with its header."""
WEIGHTS = {"unet": "diffusion_pytorch_model.safetensors", "text_encoder": "model.safetensors"}
CONFIGS = ("unet/config.json", "text_encoder/config.json", "pretraining.json")
SCALE = ".scale"

Tensors = dict[str, torch.Tensor]


def quantised(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers of the weight's shape (int8) and the scale of every block of its flat order, (blocks,) float32."""
    flat = weight.float().flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scale = (blocks.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    integers = (blocks / scale[:, None]).round().to(torch.int8)
    return integers.flatten()[: len(flat)].view(weight.shape), scale


def restored(integers: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The weight behind ``quantised``, in half precision: integers of any shape (…) and a scale a block, (blocks,)."""
    flat = integers.flatten().float() * scale.repeat_interleave(BLOCK)[: integers.numel()]
    return flat.view(integers.shape).half()


def packed(folder: Path) -> Tensors:
    """All travelling tensors of a pipeline folder, named ``part/tensor``."""
    tensors: Tensors = {}
    for part, file in WEIGHTS.items():
        for name, value in load_file(folder / part / file).items():
            key = f"{part}/{name}"
            if value.dim() < 2 or not value.is_floating_point():
                tensors[key] = value
            else:
                tensors[key], tensors[key + SCALE] = quantised(value)
    return tensors


def _parts(tensors: Tensors) -> list[Tensors]:
    parts: list[Tensors] = [{}]
    size = 0
    for name, value in tensors.items():
        if size + value.nbytes > PART_BYTES and parts[-1]:
            parts.append({})
            size = 0
        parts[-1][name] = value.contiguous()
        size += value.nbytes
    return parts


def pack(folder: Path, target: Path) -> list[Path]:
    """Write the parts of the pipeline in ``folder`` to ``target``; returns their files."""
    target.mkdir(parents=True, exist_ok=True)
    configs = {name: json.loads((folder / name).read_text()) for name in CONFIGS if (folder / name).exists()}
    parts = _parts(packed(folder))
    files = [target / f"weights-{i + 1}-of-{len(parts)}.safetensors" for i in range(len(parts))]
    for part, file in zip(parts, files, strict=True):
        save_file(part, file, {"configs": json.dumps(configs)})
    return files


def _read(source: Path) -> tuple[Tensors, dict[str, object]]:
    files = sorted(source.glob("weights-*-of-*.safetensors"))
    if not files or len(files) != int(files[0].stem.split("-")[-1]):
        raise UserError(f"{source}: holds {len(files)} parts of weights-N-of-M.safetensors; copy all of them there")
    tensors: Tensors = {}
    for file in files:
        tensors |= load_file(file)
    with safe_open(files[0], "pt") as opened:
        return tensors, json.loads(opened.metadata()["configs"])


def unpack(source: Path, folder: Path) -> None:
    """Assemble a pipeline folder from the parts in ``source``. Raises ``UserError`` when one is missing."""
    from bayesdiff.pretraining.denoiser import build_scheduler
    from bayesdiff.pretraining.tokenizer import build_tokenizer
    from bayesdiff.toybox.weights import PIPELINE, save_component

    tensors, configs = _read(source)
    for part, file in WEIGHTS.items():
        mine = {name: value for name, value in tensors.items() if name.startswith(part) and not name.endswith(SCALE)}
        weights = {
            name.removeprefix(part + "/"): restored(value, tensors[name + SCALE]) if name + SCALE in tensors else value
            for name, value in mine.items()
        }
        (folder / part).mkdir(parents=True, exist_ok=True)
        save_file(weights, folder / part / file, {"format": "pt"})
    for name, value in configs.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")
    save_component("tokenizer", build_tokenizer(), folder)
    save_component("scheduler", build_scheduler("sd"), folder)
    shutil.copytree(PIPELINE / "vae", folder / "vae", dirs_exist_ok=True)
    shutil.copyfile(PIPELINE / "model_index.json", folder / "model_index.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["pack", "unpack"])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    if args.action == "pack":
        for file in pack(args.source, args.target):
            print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")
    else:
        unpack(args.source, args.target)
        print(f"wrote {args.target}")


if __name__ == "__main__":
    main()
