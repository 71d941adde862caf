"""What a verdict holds: the outcome of all three levels for one curve, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesdiff.corruption.stage import Span

DETECTOR_VERSION = 8
"""Counted up whenever the same scores may get another verdict: stored verdicts of another version are judged anew."""
KINDS = (
    "corruption", "in_progress", "unstable", "overfit", "none", "undertrained", "nothing_better_than_base", "broken_sampling",
    "too_few_points", "diverged",
)  # fmt: skip
STAGE, SWING, SLOW, NOT_MEASURED, NO_DIP = "stage", "swing", "slow", "not_measured", "none"
LEVEL_3 = (STAGE, SWING, SLOW, NOT_MEASURED, NO_DIP)
LABELS = ("rising", "peak", "corrupted", "recovering", "recovered", "overfit")
IN_STAGE = ("corrupted", "recovering")
"""Labels of checkpoints that are not to be kept."""


@dataclass(frozen=True)
class CorruptionVerdict:
    """What the curve shows. Steps are training steps; depth is in the metric's units."""

    flagged: bool
    """Whether a stage was found: the third level."""
    kind: str
    """One of ``KINDS``: in_progress is fallen and not back at the end, undertrained is still rising there, unstable has checkpoints
    to avoid that are not told from the run's own swings, nothing_better_than_base never exceeds the model it began with."""
    p_value: float
    """Of a stage, under the correlation time that speaks most against one among the plausible ones."""
    depth: float
    """From the lower of the two shoulders to the floor; of a flagged stage less what noise adds to a fit, else as fitted."""
    depth_interval: tuple[float, float]
    """95 % or more; where nothing is flagged, of the deepest dip, less what noise adds to a fit."""
    peak_step: int | None
    onset_step: int | None
    trough_step: int | None
    recovery_step: int | None
    best_step: int
    best_reason: str
    labels: tuple[str, ...]
    """For every checkpoint: rising, peak (also a plateau after it), corrupted (worse than before and after), recovering (also: told
    from the best), recovered or overfit."""
    checkpoint_noise: float
    """Standard deviation of the noise that moves all images of a checkpoint together."""
    sentence: str
    area: float = 0.0
    """Depth integrated over the stage, in the metric's units times steps."""
    peak_interval: Span | None = None
    onset_interval: Span | None = None
    trough_interval: Span | None = None
    recovery_interval: Span | None = None
    best_steps: tuple[int, ...] = ()
    """Steps outside the stage that have the best one among them in 95 % of cases (``best.possible_best``)."""
    blips: tuple[int, ...] = ()
    """Single low checkpoints, which are no stage."""
    image_noise: float = 0.0
    """Standard error of a checkpoint's mean from images, averaged over checkpoints; 0 for a bare curve."""
    noise_source: str = ""
    """Where the noise was read off: images and the curve by lag, the curve alone, runs, or given."""
    avoid: tuple[Span, ...] = ()
    """First and last step of runs of checkpoints that are worse than what came before and after, for these images: the first level."""
    avoid_depths: tuple[float, ...] = ()
    """By how much, on the lower side, of each run of ``avoid``."""
    avoid_kinds: tuple[str, ...] = ()
    """What changed there, one of ``kinds.KINDS`` for each run of ``avoid``: the second level; empty where only fidelity was given."""
    avoid_evidence: tuple[str, ...] = ()
    """The second level's reasons, a fragment of a sentence for each run of ``avoid``."""
    grainy: tuple[Span, ...] = ()
    """First and last step of further runs that are grainier than before and after, and than the photographs: fidelity is blind to them."""
    grainy_shares: tuple[float, ...] = ()
    """High-frequency energy of each of ``grainy``, as a share of the photographs'."""
    grainy_beside: str = ""
    """The fidelity that is blind to them."""
    images_judged: bool = False
    """Whether there were images enough to tell checkpoints apart."""
    level_3: str = ""
    """One of ``LEVEL_3``: a stage, a swing (noise that was measured explains it), slow (swings outlast the checkpoints' distance),
    not_measured (some plausible noise explains it and some does not), none; empty where nothing was tested."""
    correlation_times: tuple[float, float] | None = None
    """Shortest and longest plausible correlation time of the swings, in steps; None where runs have their scatter."""
    extra_steps: tuple[int, ...] = ()
    """Further checkpoints that would measure the swings around the dip; empty where they are not needed."""
    better_than_base: bool = True
    """Whether any checkpoint exceeds step 0; True where the curve has no step 0."""
    alpha: float = 0.05
    remarks: tuple[str, ...] = ()
    """Whole sentences on what else was seen."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``from_dict`` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> CorruptionVerdict:
        """A stored verdict, also of another version: what it lacks has its default, what is not known is left out."""
        known = {field.name for field in fields(CorruptionVerdict)}
        return CorruptionVerdict(**{name: _tupled(value) for name, value in values.items() if name in known})


def belongs_to(verdict: CorruptionVerdict, steps: Sequence[int]) -> bool:
    """Whether a verdict can be one on a curve with checkpoints at these steps (T,): another curve's, or an edited one, cannot."""
    spans = (*verdict.avoid, *verdict.grainy, verdict.peak_interval, verdict.onset_interval, verdict.trough_interval)
    named = {
        verdict.best_step, *verdict.best_steps, *verdict.blips, verdict.peak_step, verdict.onset_step, verdict.trough_step,
        verdict.recovery_step, *(step for span in (*spans, verdict.recovery_interval) if span is not None for step in span),
    }  # fmt: skip
    beside = {len(verdict.avoid_depths), len(verdict.avoid_kinds), len(verdict.avoid_evidence)} - {0, len(verdict.avoid)}
    return (
        verdict.kind in KINDS and named - {None} <= {int(step) for step in steps} and len(verdict.labels) == len(steps)
        and set(verdict.labels) <= set(LABELS) and not beside and len(verdict.grainy) == len(verdict.grainy_shares)
    )  # fmt: skip


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value


def outside_stage(labels: Sequence[str]) -> NDArray[np.bool_]:
    """(T,) which checkpoints lie outside the corrupted range."""
    return np.array([label not in IN_STAGE for label in labels])
