"""The page of the registered claims, ``results/primary.md``, and their lines on top of ``results/README.md``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pandas as pd

from bayesdiff.core.layout import MAIN
from bayesdiff.stats import detectable
from bayesdiff.studies.by_prompt import by_prompt
from bayesdiff.studies.contrasts import Estimate
from bayesdiff.studies.follow_up import follow_up
from bayesdiff.studies.likeness import at_the_same_likeness
from bayesdiff.studies.measures import p_text
from bayesdiff.studies.primary import (
    AGAINST,
    HOLDS,
    LEVEL,
    OPEN,
    SEEN_BEFORE,
    Judged,
    Primary,
    costs,
    flagged_in_the_middle,
    judge,
    parse_part,
)
from bayesdiff.studies.rows import Row
from bayesdiff.studies.spectrum import as_factor, spectrum

POWER = 0.8
EXPLAINED = (
    "Made by `make paper-tables` from `results/primary.yaml`, registered before the first run, and the records alone. *Grain* is "
    "high-frequency energy relative to the photograph's own, at guidance 7.5. A window's value is the mean over its checkpoints and "
    "images. Intervals and p-values are of the paired t-test over subjects. A claim's p-value is the largest of its parts', corrected "
    f"by Holm over the claims; a claim holds, or is contradicted, at {LEVEL}. *Detectable* is the difference that runs like these find "
    f"in {POWER:.0%} of tries at the strictest level of the correction."
)
LIKENESS_EXPLAINED = (
    "An arm that learns the subject less may carry less grain for that alone. *At the same DINO*: each checkpoint of the middle against "
    "the plain checkpoint of the same subject whose DINO is nearest, at whatever step. *DINO left* is what that leaves. *Where DINO "
    "stays*: a line through the differences of the subjects, read off where DINO does not change. The line of *off* shows what the "
    "matching alone does: each plain checkpoint against the nearest other one of its run, mostly an earlier one. Nothing is corrected."
)
REPEATED_EXPLAINED = (
    "All registered runs share one seed, which draws timesteps and noise. `results/replication.yaml` repeats the first claim with "
    "another, in two claims; it was written down before its runs. Holm corrects over the two."
)
GUIDANCE_1 = "guidance_1"
SPECTRUM_EXPLAINED = (
    "High-frequency energy rises with contrast at all scales too. This is the contrast of the luminance by spatial frequency, over the "
    "photograph's: 1 is the photograph. Speckle would raise *fine over middle* in the middle of training. Factors are geometric means "
    "over subjects with 95 % intervals, of the runs that have these measures."
)
PROMPTS_EXPLAINED = (
    "The intervals above are about these runs' own prompts. Here each prompt has its difference of grain over subjects. The last column "
    "takes the prompts as a sample of all prompts."
)
FOLLOW_UP_EXPLAINED = (
    "Asked after the runs were seen. Intervals are of 95 % over subjects; nothing is corrected. A correlation over steps has no p-value "
    "here: neighbouring checkpoints are alike."
)
NO_PROMPTS = "The runs do not share their prompts."
NO_BANDS = "The runs have no contrast by spatial frequency."
NO_DINO = "The runs have no DINO."
NO_ANSWERS = "The runs answer none of them."
OUTCOMES = {HOLDS: "**Yes.**", AGAINST: "**No, the opposite.**", OPEN: "**Not decided** whether"}


def page(primary: Primary, replication: Primary | None = None, orders: Row | None = None) -> str:
    """The registered claims and what became of them, in Markdown, also in the runs that repeat them.

    ``orders``: plain runs of another study with other seeds, for the questions asked afterwards.
    """
    return "# The registered claims\n\n" + "\n\n".join([EXPLAINED, *_body(primary, replication, orders)]) + "\n"


def _body(primary: Primary, replication: Primary | None, orders: Row | None) -> Iterable[str]:
    yield _runs(primary)
    yield _claims(primary)
    if not primary.complete:
        return
    yield "## Claim by claim\n\n" + _table(_lines(primary, judge(primary)))
    unseen = judge(primary, only=lambda subject: subject not in SEEN_BEFORE)
    yield "## On the subjects that nobody had looked at\n\n" + _table(_lines(primary, unseen))
    if replication is not None:
        yield "## Repeated with another order of training\n\n" + "\n\n".join(_repeated(primary, replication))
    yield "## Beside the claims: what each arm costs\n\nDifferences from plain over training time, uncorrected.\n\n" + _costs(primary)
    yield _prompts(primary)
    yield _spectrum(primary)
    yield _likeness(primary)
    yield _follow_up(primary, orders)
    yield "## Exploratory\n\nThe same at other evaluations; p-values are not corrected.\n\n" + _exploratory(primary)
    yield _flags(primary)


def _repeated(primary: Primary, replication: Primary) -> Iterable[str]:
    """The claims of the replication, and what the registered runs of its subjects show of the same windows."""
    yield REPEATED_EXPLAINED
    yield _runs(replication)
    yield _claims(replication)
    if not replication.complete:
        return
    yield _table(_lines(replication, judge(replication)))
    subjects = {one.place[1] for one in replication.found_runs}
    first = judge(primary, only=lambda subject: subject in subjects)[0]
    same = [{"part": f"`{part.text}`", "difference": found.text, "subjects": str(len(found.subjects))} for part, found in first.parts]
    yield "These subjects in the registered runs:\n\n" + _table(same)


def _runs(primary: Primary) -> str:
    command = f"`python -m bayesdiff.study {primary.study.name} --results results/toybox`"
    diverged = f" {primary.diverged} diverged; their pairs are left out." if primary.diverged else ""
    if primary.complete:
        return f"All {primary.runs} runs have ended.{diverged} {_devices(primary)}"
    return f"**{primary.found} of {primary.runs} runs.** Nothing is computed before all have ended.{diverged} The command: {command}."


def _devices(primary: Primary) -> str:
    """On what the runs were made, and whether a pair's two runs ever were on different devices."""
    of_place: dict[tuple[str, str], set[str]] = {}
    for one in primary.found_runs:
        of_place.setdefault(one.place, set()).add(one.record.environment.get("gpu") or "a CPU")
    counted = Counter(next(iter(devices)) for devices in of_place.values() if len(devices) == 1)
    subjects = ", ".join(f"{count} on {device}" for device, count in sorted(counted.items()))
    mixed = len(of_place) - sum(counted.values())
    return (
        f"All arms of a subject ran on one device: {subjects}."
        if not mixed
        else f"{mixed} of {len(of_place)} subjects have arms on different devices."
    )


def _claims(primary: Primary) -> str:
    windows = ", ".join(f"*{name}* is steps {first} to {last}" for name, (first, last) in primary.registered.windows.items())
    lines = [
        f"{i}. {_capital(one.claim)} ({'; '.join(f'`{part}`' for part in one.parts)})" for i, one in enumerate(primary.registered.claims, 1)
    ]
    return f"The windows: {windows}. The claims:\n\n" + "\n".join(lines)


def _table(lines: list[dict[str, str]]) -> str:
    return str(pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True))


def _lines(primary: Primary, judged: list[Judged]) -> list[dict[str, str]]:
    """A line a part of a claim."""
    strictest = LEVEL / len(judged)
    return [
        {
            "claim": one.claim.name, "part": f"`{part.text}`", "difference": found.text, "subjects": str(len(found.subjects)),
            "p": p_text(found.p_value), "p of the claim (Holm)": p_text(one.corrected), "verdict": one.verdict,
            "detectable": _detectable(found, strictest),
        }
        for one in judged for part, found in one.parts
    ]  # fmt: skip


def _detectable(found: Estimate, alpha: float) -> str:
    return f"{detectable(float(found.difference.std_error[0]), float(found.difference.freedom[0]), power=POWER, alpha=alpha):.3f}"


def _costs(primary: Primary) -> str:
    lines: dict[str, dict[str, str]] = {}
    for (arm, measure), found in costs(primary).items():
        lines.setdefault(arm, {"arm": arm})[measure] = found.text
    return _table(list(lines.values()))


def _prompts(primary: Primary) -> str:
    """The registered parts prompt by prompt at the paper's sampling, and those of the first claim at guidance 1."""
    claims = primary.registered.claims
    asked = [(MAIN, text) for claim in claims for text in claim.parts] + [(GUIDANCE_1, text) for text in claims[0].parts]
    lines = [
        {"evaluation": evaluation, "part": f"`{text}`", **{prompt: one.text for prompt, one in found.items()}}
        for evaluation, text in asked if evaluation in primary.evaluations
        if (found := by_prompt(primary, parse_part(text, primary.registered), evaluation))
    ]  # fmt: skip
    return f"## Exploratory: prompt by prompt\n\n{PROMPTS_EXPLAINED}\n\n" + (_table(lines) if lines else NO_PROMPTS)


def _spectrum(primary: Primary) -> str:
    """Contrast by spatial frequency, over the photograph's, in every window."""
    looks = [(row.labels["bnn"], row.labels["evaluation"]) for row in primary.rows]
    lines = [
        {"arm": arm, "evaluation": evaluation, "contrast at": line, **{name: as_factor(one) for name, one in windows.items()},
         "subjects": str(len(windows[primary.middle].subjects))}
        for arm, evaluation in looks if evaluation == MAIN or (arm, evaluation) == ("off", GUIDANCE_1)
        for line, windows in spectrum(primary, arm, evaluation).items()
    ]  # fmt: skip
    return f"## Exploratory: fine structure, or contrast at all scales?\n\n{SPECTRUM_EXPLAINED}\n\n" + (
        _table(lines) if lines else NO_BANDS
    )


def _likeness(primary: Primary) -> str:
    """What each arm changes at the same steps, and against plain checkpoints that are as like the photograph."""
    window, lines = primary.registered.windows[primary.middle], []
    for arm in sorted(dict.fromkeys(row.labels["bnn"] for row in primary.rows), key=lambda arm: arm == "off"):
        if (found := at_the_same_likeness(primary, arm, window)) is not None:
            line = "not computed" if found.without_loss is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*found.without_loss)
            lines.append(
                {"arm": arm, "grain at the same steps": found.same_steps.text, "grain at the same DINO": found.matched.text,
                 "DINO left": found.left.text, "grain where DINO stays": line}
            )  # fmt: skip
    return f"## Exploratory: is less grain only less likeness?\n\n{LIKENESS_EXPLAINED}\n\n" + (_table(lines) if lines else NO_DINO)


def _follow_up(primary: Primary, orders: Row | None) -> str:
    """Questions that the runs raised, a line each."""
    lines = [
        {"question": one.question, "compared": one.compared, "found": one.found, "subjects": str(one.subjects)}
        for one in follow_up(primary, orders)
    ]
    return f"## Exploratory: asked afterwards\n\n{FOLLOW_UP_EXPLAINED}\n\n" + (_table(lines) if lines else NO_ANSWERS)


def _exploratory(primary: Primary) -> str:
    lines = []
    for evaluation in (name for name in primary.evaluations if name != MAIN):
        for one in judge(primary, evaluation):
            for part, found in one.parts:
                labels = {"evaluation": evaluation, "claim": one.claim.name, "part": f"`{part.text}`"}
                lines.append({**labels, "difference": found.text, "p": p_text(found.p_value)})
    return _table(lines) if lines else "No run has other evaluations."


def _flags(primary: Primary) -> str:
    """What the verdict of each single run says of the middle."""
    window, lines = primary.registered.windows[primary.middle], []
    for row in primary.rows:
        flagged, kinds = flagged_in_the_middle(row, window)
        named = ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in sorted(kinds.items())) or "-"
        share = f"{flagged} of {len(row.found)}"
        lines.append(
            {"arm": row.labels["bnn"], "evaluation": row.labels["evaluation"], f"runs flagged in {primary.middle}": share, "kinds": named}
        )
    return "Single runs, each judged by itself: checkpoints of the middle that its verdict says to avoid.\n\n" + _table(lines)


def answers(primary: Primary) -> list[str]:
    """One line a registered claim, for the top of a page: the verdict, the difference and its interval."""
    if not primary.complete:
        runs = f"{primary.found} of {primary.runs} runs have ended"
        return [f"- **Not known yet** ({runs}): {_capital(one.claim)}." for one in primary.registered.claims]
    return [f"- {OUTCOMES[one.verdict]} {_sentence(one)}" for one in judge(primary)]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _sentence(one: Judged) -> str:
    claim = one.claim.claim if one.verdict == OPEN else _capital(one.claim.claim)
    parts = "; ".join(f"{part.text.rsplit(' ', 2)[0]}: {found.text}" for part, found in one.parts)
    subjects = min((len(found.subjects) for _, found in one.parts), default=0)
    return f"{claim} ({parts}; {subjects} subjects, p {p_text(one.corrected, equal='= ')})."
