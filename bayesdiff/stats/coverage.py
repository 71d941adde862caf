"""How often the interval of a paired difference holds it: simulated, by design and by what scatters.

Differences are drawn as the sum of independent normal effects of the subject, the run, the prompt (the same in every run), the
prompt within a run, and the image. The true difference is 0. A table of these rates is committed in ``results/detector``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bayesdiff.core.seeds import derive
from bayesdiff.stats.paired import Array, paired_difference

PROMPTS, EACH = 4, 2
"""Prompts of a simulated run, and images of each: as ``conf/sampler/fast.yaml`` has them in the registered study."""
IMAGE = 0.05
"""Standard deviation that images have by themselves."""
DESIGNS = ((16, 1), (30, 1), (3, 1), (4, 5), (3, 3), (3, 2), (1, 5))
"""Subjects, and seeds of each."""
SCATTERS: dict[str, dict[str, float]] = {
    "images alone": {},
    "subjects": {"subject": 0.1},
    "runs": {"run": 0.1},
    "subjects and runs": {"subject": 0.05, "run": 0.05, "prompt in a run": 0.05},
    "prompts": {"prompt": 0.1},
    "subjects and prompts": {"subject": 0.1, "prompt": 0.1},
}
"""Standard deviations of effects, beside that of images."""


def drawn(subjects: int, seeds: int, scatter: Mapping[str, float], tries: int, rng: np.random.Generator) -> Array:
    """Differences (seeds, subjects, tries, images) of a design whose true difference is 0."""
    images, labels = PROMPTS * EACH, prompt_labels()
    total = IMAGE * rng.standard_normal((seeds, subjects, tries, images))
    shapes = {
        "subject": (1, subjects, tries, 1), "run": (seeds, subjects, tries, 1), "prompt": (1, 1, tries, PROMPTS),
        "prompt in a run": (seeds, subjects, tries, PROMPTS),
    }  # fmt: skip
    for name, size in scatter.items():
        effect = size * rng.standard_normal(shapes[name])
        total += effect[..., labels] if name.startswith("prompt") else effect
    return total


def prompt_labels() -> list[int]:
    """(images,) prompt of each simulated image."""
    return [i // EACH for i in range(PROMPTS * EACH)]


def coverage(subjects: int, seeds: int, scatter: Mapping[str, float], sampled_prompts: bool, tries: int, seed: int = 0) -> float:
    """Share of ``tries`` in which the 95 % interval holds the true difference, 0 to 1."""
    rng = np.random.default_rng(derive(seed, "coverage", subjects * 1000 + seeds))
    difference = drawn(subjects, seeds, scatter, tries, rng)
    found = paired_difference(difference, np.zeros_like(difference), prompts=prompt_labels(), sampled_prompts=sampled_prompts)
    return float(((found.low <= 0) & (found.high >= 0)).mean())


def coverage_rows(tries: int = 20_000, seed: int = 0) -> list[dict[str, object]]:
    """A row a design and scatter that its interval speaks for: coverage of both kinds of interval, NaN where it does not apply.

    One subject's seeds do not tell how subjects differ; prompts that are taken as fixed do not tell how prompts differ.
    """
    rows: list[dict[str, object]] = []
    for subjects, seeds in DESIGNS:
        for name, scatter in SCATTERS.items():
            if subjects == 1 and "subject" in scatter:
                continue
            fixed = float("nan") if "prompt" in scatter else coverage(subjects, seeds, scatter, False, tries, seed)
            sampled = coverage(subjects, seeds, scatter, True, tries, seed)
            rows.append({"subjects": subjects, "seeds": seeds, "what scatters": name, "these prompts": fixed, "sampled prompts": sampled})
    return rows
