"""DreamBooth: every weight is trained (arXiv 2208.12242); the VAE is frozen, text encoders on demand."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from bayesdiff.arms.gaussian import load_mean, mean_state
from bayesdiff.arms.layers import select_layers
from bayesdiff.config.schema import BnnConf, MethodConf
from bayesdiff.core.background import write_tensors

SIGMA_SCALE = 1.0
DEFAULT_LAYERS = "linear_no_cross_attention"
UNET_FILE = "diffusion_pytorch_model.safetensors"
UNET_MEANS = (f"unet/{UNET_FILE}", "")


def build(parts: dict[str, nn.Module], conf: MethodConf, seed: int) -> list[nn.Parameter]:
    """All parameters of all parts, in module order."""
    return [p for part in parts.values() for p in part.requires_grad_(True).parameters()]


def bayesian_targets(unet: nn.Module, conf: BnnConf) -> list[str]:
    return select_layers(unet, DEFAULT_LAYERS if conf.layers == "default" else conf.layers, conf.time_layers)


def export(parts: dict[str, nn.Module], folder: Path) -> None:
    """Write ``folder/<part>`` as diffusers and transformers do."""
    for name, part in parts.items():
        if name == "unet":
            _save_unet(part, folder / name)
        else:
            part.save_pretrained(folder / name)  # type: ignore[operator]


def _save_unet(unet: nn.Module, folder: Path) -> None:
    folder.mkdir(parents=True)
    unet.save_config(folder)  # type: ignore[operator]
    write_tensors(folder / UNET_FILE, mean_state(unet), {"format": "pt"})


def load(parts: dict[str, nn.Module], folder: Path) -> None:
    for name, part in parts.items():
        if name == "unet":
            load_mean(part, load_file(folder / name / UNET_FILE))
        else:
            part.load_state_dict(type(part).from_pretrained(folder / name).state_dict())  # type: ignore[attr-defined]
