"""The verdict in words, for a person: what to keep, what to avoid and why, how sure, what would make it surer."""

from __future__ import annotations

from bayesdiff.corruption.outcome import NO_DIP, NOT_MEASURED, SLOW, SWING, CorruptionVerdict

NAMES = {
    "noise_pattern": "noise pattern", "colour_cast": "colour cast", "blur": "blur", "content_lost": "content lost",
    "copying": "copying of the photographs", "broken": "broken images", "other": "worse in another way",
}  # fmt: skip
"""What the kinds of ``kinds.KINDS`` are called."""
INSTEAD = "Look whether its samples' prompts have the identifier; if so, train longer, or at another learning rate."
"""What to do where nothing is to keep: without the word that stands for the subject every checkpoint samples like the base model."""
FALLEN = "Train again at a lower learning rate, with more checkpoints before the fall."
JUDGE = (
    "Score four images or more at every checkpoint (bayesdiff judge) to tell. If they look like the base model's, look whether the prompts "
    "have the identifier, and train longer."
)
"""A bare curve shows no more: what a checkpoint's images say, nobody has asked."""
FEW = 3
"""Steps that are named one by one."""


def sentence_of(verdict: CorruptionVerdict) -> str:
    """The sentence, made of the verdict's own fields."""
    parts = [_keep(verdict), _avoid(verdict), _grainy(verdict), _seen(verdict), *verdict.remarks, _surer(verdict)]
    return " ".join(part for part in parts if part)


def _keep(verdict: CorruptionVerdict) -> str:
    if verdict.better_than_base:
        return f"Keep step {verdict.best_step}{_others(verdict)}."
    if verdict.kind == "in_progress":
        return f"Keep nothing yet: no checkpoint is told from the base model (step 0), and the last ones have fallen. {FALLEN}"
    if not verdict.images_judged:
        scatter = f"as this curve scatters by {_scatter(verdict):.3f}"
        return f"Keep nothing yet: no checkpoint is told from the base model (step 0), {scatter}. {JUDGE}"
    return f"Keep nothing yet: no checkpoint is better than the base model (step 0). {INSTEAD}"


def _others(verdict: CorruptionVerdict) -> str:
    """The other steps that may be the best one: what a person may keep instead."""
    others = [step for step in verdict.best_steps if step != verdict.best_step]
    if not others:
        return ""
    if len(others) > FEW:
        return f"; {len(others)} others from step {others[0]} to {others[-1]} may be as good"
    return f"; step{'s' if len(others) > 1 else ''} {_listed([str(step) for step in others])} may be as good"


def _avoid(verdict: CorruptionVerdict) -> str:
    if not verdict.avoid:
        return f"Avoid the steps from {verdict.onset_step} to before {verdict.recovery_step}." if verdict.flagged else ""
    said = []
    for i, (first, last) in enumerate(verdict.avoid):
        kind = NAMES.get(verdict.avoid_kinds[i], "") if verdict.avoid_kinds else ""
        reason = verdict.avoid_evidence[i] if verdict.avoid_evidence else ""
        why = ": ".join(word for word in (kind, reason) if word)
        said.append(f"steps {first} to {last} ({f'{why}; ' if why else ''}{verdict.avoid_depths[i]:.3f} worse than before and after)")
    return f"Avoid {_listed(said)}; these images show it at an error rate of {verdict.alpha:.0%}."


def _grainy(verdict: CorruptionVerdict) -> str:
    if not verdict.grainy:
        return ""
    said = [
        f"steps {first} to {last} (high-frequency energy {share:.2f} of the photograph's)"
        for (first, last), share in zip(verdict.grainy, verdict.grainy_shares, strict=True)
    ]
    also = " also" if verdict.avoid else ""
    beside, rate = f"which {verdict.grainy_beside} does not show", f"an error rate of {verdict.alpha:.0%} of its own"
    return f"Avoid{also} {_listed(said)}: noise pattern, {beside}; {rate}."


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _seen(verdict: CorruptionVerdict) -> str:
    close = verdict.p_value < 0.01 or abs(verdict.p_value - verdict.alpha) < 0.005
    p = f"p = {verdict.p_value:.4f}" if close else f"p = {verdict.p_value:.3f}"
    if verdict.kind == "corruption":
        low, high = verdict.depth_interval
        return (
            f"Corrupted: fidelity peaks at step {verdict.peak_step}, falls from step {verdict.onset_step}, is lowest at step "
            f"{verdict.trough_step} (depth {verdict.depth:.3f}, 95% interval {low:.3f} to {high:.3f}) and is half way back by step "
            f"{verdict.recovery_step}. It is a stage: swings alone reach this with {p}."
        )
    if verdict.kind == "in_progress":
        then = f"train on to see whether it comes back, or keep step {verdict.best_step}"
        said = f"In progress: fidelity fell after step {verdict.peak_step} and is not back at the last checkpoint"
        return f"{said}; {then}." if verdict.better_than_base else f"{said}."
    if verdict.kind == "unstable":
        return _not_told(verdict, p)
    if verdict.kind == "overfit":
        return (
            "Overfit: fidelity is at the photographs' own level at the last checkpoint, while prompt alignment or diversity has fallen; "
            f"no corruption stage ({p})."
        )
    if verdict.kind == "undertrained":
        return f"No corruption stage: fidelity still rises over the last checkpoints ({p}); {_then(verdict)}."
    said = f"No corruption stage: the deepest dip is {verdict.depth:.3f}, where checkpoints scatter by {_scatter(verdict):.3f} ({p})."
    return f"{said}{_why_not(verdict)}"


def _then(verdict: CorruptionVerdict) -> str:
    """What to do about a curve that still rises: with prompt alignment beside it, an earlier step may be the better one."""
    if verdict.peak_step in (verdict.best_step, *verdict.best_steps):
        return "train on to know"
    return f"step {verdict.best_step} is kept for its prompt alignment, which later steps lose"


def _why_not(verdict: CorruptionVerdict) -> str:
    """Why a dip with a small p-value is no stage."""
    if verdict.p_value > verdict.alpha or verdict.kind != "none":
        return ""
    if verdict.level_3 == NO_DIP:
        return " It is shallower than the smallest depth that counts."
    if verdict.images_judged and not verdict.avoid:
        return " These images do not show it."
    longer = {SLOW: "swings outlast the distance of the checkpoints", NOT_MEASURED: "how long swings last is not known"}
    return f" It is not called a stage, because {longer[verdict.level_3]}." if verdict.level_3 in longer else ""


def _scatter(verdict: CorruptionVerdict) -> float:
    return float((verdict.checkpoint_noise**2 + verdict.image_noise**2) ** 0.5)


def _not_told(verdict: CorruptionVerdict, p: str) -> str:
    """Why checkpoints to avoid are not called a stage."""
    said = f"Unstable: fidelity is lowest at step {verdict.trough_step} and comes back"
    swings = f"this run swings by {verdict.checkpoint_noise:.3f} between checkpoints"
    if verdict.level_3 == SWING:
        return f"{said}; {swings}, and this is not told from a swing ({p})."
    if verdict.level_3 == SLOW and verdict.correlation_times is not None:
        return f"{said}; {swings}, and its swings outlast the distance of the checkpoints, so that no stage is told from one ({p})."
    return f"{said}; {swings}, and how long a swing lasts is not known, so that a stage is not told from one ({p})."


def _surer(verdict: CorruptionVerdict) -> str:
    if verdict.level_3 == NOT_MEASURED and verdict.extra_steps:
        steps = ", ".join(str(step) for step in verdict.extra_steps)
        count = len(verdict.extra_steps)
        return f"{count} more checkpoint{'s' if count > 1 else ''} would measure the swings and may tell: at steps {steps}."
    if verdict.kind == "unstable":
        return "Two more trainings with other seeds would make it surer: a stage comes back at the same steps, a swing does not."
    deep = verdict.kind == "none" and verdict.depth >= 2 * _scatter(verdict) and verdict.depth > 0 and verdict.level_3 != ""
    return "A dip this deep may be a stage: more checkpoints or seeds would tell." if deep else ""
