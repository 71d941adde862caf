"""Where the shipped toybox lives, and how its parts are written: half precision, stock layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bayesdiff.core.files import atomic_write

WEIGHTS = Path(__file__).parent / "weights"
"""A ``StableDiffusionPipeline`` folder (``pipeline``) beside an open_clip and a timm ``local-dir``."""
PIPELINE, CLIP, DINO = WEIGHTS / "pipeline", WEIGHTS / "clip", WEIGHTS / "dino"

RESTORE = "restore it with 'git checkout -- bayesdiff/toybox/weights' or retrain it with 'make pretrain'"
"""What to do when a shipped part is missing or damaged."""


def save_component(name: str, module: Any, root: Path = PIPELINE) -> Path:
    """Write one part of the pipeline (anything with ``save_pretrained``) in half precision."""
    import copy

    module = copy.deepcopy(module).half() if hasattr(module, "half") else module
    target = root / name
    with atomic_write(target) as part:
        module.save_pretrained(part)
    return target
