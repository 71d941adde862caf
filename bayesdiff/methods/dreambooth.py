"""DreamBooth: every weight of the U-Net is trained (arXiv 2208.12242; VAE and text encoder frozen)."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from bayesdiff.bayes import mean_state, select_layers
from bayesdiff.config import BnnConf


def build(unet: nn.Module) -> None:
    unet.requires_grad_(True)


def trainable(unet: nn.Module) -> list[nn.Parameter]:
    """All parameters in module order; with Gaussian weights that is every mu and every rho."""
    return [p for p in unet.parameters() if p.requires_grad]


def bayesian_targets(unet: nn.Module, conf: BnnConf) -> list[str]:
    return select_layers(unet, conf.layers)


def export(unet: nn.Module, folder: Path) -> None:
    """Write the mean U-Net as diffusers does: ``folder/config.json`` and the safetensors file."""
    folder.mkdir(parents=True)
    unet.save_config(folder)  # type: ignore[operator]
    state = {name: value.detach().cpu().contiguous() for name, value in mean_state(unet)}
    save_file(state, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
