"""Do all prompts show what their mean shows? The registered parts prompt by prompt, and for prompts that nobody sampled (exploratory).

The registered test takes the mean over the run's own prompts, and its interval is about subjects alone. Here each prompt has its own
difference. A last one takes the prompts as a sample of all prompts, so that what a prompt does to all subjects widens its interval.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bayesdiff.studies.contrasts import GRAIN, Curve, Estimate, estimate, image_scores, inside
from bayesdiff.studies.primary import Part, Primary
from bayesdiff.studies.rows import Cells, Found, Row

NAMES = "{identifier} {class_noun}"
"""What every prompt says; a column's heading has three dots there."""
OTHER_PROMPTS = "for other prompts too"


def by_prompt(primary: Primary, part: Part, evaluation: str) -> dict[str, Estimate]:
    """Prompt, and ``OTHER_PROMPTS`` -> a registered part's difference in grain; empty while runs are missing."""
    if not primary.complete:
        return {}
    rows = [primary.row(arm, evaluation) for arm in (part.arm, part.other) if arm]
    prompts = {tuple(found.record.config["sampler"]["prompts"]) for row in rows for found in row.found}
    if len(prompts) != 1:
        return {}
    windows = [primary.registered.windows[name] for name in (part.window, part.base) if name]
    mine, other = _cells(rows[0], windows), _cells(rows[1], windows) if part.other else None
    names = [prompt.replace(NAMES, "…") for prompt in prompts.pop()]
    found = {name: estimate(_of_prompt(mine, i), other and _of_prompt(other, i)) for i, name in enumerate(names)}
    found[OTHER_PROMPTS] = estimate(mine, other, sampled_prompts=True)
    return {name: one for name, one in found.items() if one is not None}


def _of_prompt(cells: Cells, prompt: int) -> Cells:
    return {place: values[prompt : prompt + 1] for place, values in cells.items()}


def _cells(row: Row, windows: Sequence[Sequence[int]]) -> Cells:
    """A value a prompt of every run: the mean over a window, less that over the second."""
    cells = {}
    for found in row.found:
        if (curve := _prompt_means(found)) is not None:
            first, *less = [inside(curve, window)[1].mean(0) for window in windows]
            cells[found.place] = first - sum(less)
    return cells


def _prompt_means(found: Found) -> Curve | None:
    """Grain (T, prompts) at every checkpoint."""
    scores = image_scores(found, GRAIN)
    if scores is None:
        return None
    own = np.array([prompt for prompt, _ in found.images.places])
    return found.images.steps, np.stack([scores[:, own == prompt].mean(1) for prompt in np.unique(own)], 1)
