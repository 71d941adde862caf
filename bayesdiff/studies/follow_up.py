"""Questions that the registered runs raised, answered from the same records (exploratory).

Is the arm with the empty prompt only later? Do swings from step to step need guidance? Did the device matter? Does the gap of the two
predictions carry what guidance adds? What does the paper's Figure 7 ask of one photograph? Each answer is a line of the page of the
registered claims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bayesdiff.core.layout import MAIN
from bayesdiff.recording.columns import Array
from bayesdiff.studies.contrasts import (
    GRAIN,
    Curve,
    Estimate,
    at_shared_steps,
    curve_of,
    curves_together,
    estimate,
    in_window,
    inside,
    read_row,
)
from bayesdiff.studies.measures import p_text
from bayesdiff.studies.primary import Primary, judge, parse_part
from bayesdiff.studies.rows import Found, Row

PLAIN, EMPTY_PROMPT, BAYESIAN, GUIDANCE_1 = "off", "prompt_dropout", "on", "guidance_1"
UP_SWING = ((200, 250), (360, 400))
"""First and last step of the two ends of the plain runs' highest swing."""
GAP = "gap at 0.1"
"""Squared difference of the two predictions at a tenth of the schedule."""
STEPS_AN_IMAGE = (100, 200, 400)
"""Of the paper's Figure 7; with one photograph these are steps of training."""
FEWEST = 3
"""Subjects that a correlation, a spread, or a half of a comparison takes."""


@dataclass(frozen=True)
class Answer:
    """One line: what was asked, what was compared, what came, and over how many subjects."""

    question: str
    compared: str
    found: str
    subjects: int


def follow_up(primary: Primary, orders: Row | None = None) -> list[Answer]:
    """Every question that the records can answer; none while runs are missing.

    ``orders``: plain runs with other seeds, of which the registered rise is read too.
    """
    if not primary.complete:
        return []
    of_runs = (_swings, _delay, _devices, _gap, _steps_an_image, _spread)
    asked = [_other_orders(primary, orders), *(answer(primary) for answer in of_runs)]
    return [answer for answers in asked for answer in answers]


def _answer(question: str, compared: str, found: Estimate | None) -> Iterator[Answer]:
    if found is not None:
        yield Answer(question, compared, found.text, len(found.subjects))


def _pairs(row: Row, other: Row) -> list[tuple[Found, Found]]:
    """The runs of two rows that share subject and seed."""
    of_place = {one.place: one for one in other.found}
    return [(one, of_place[one.place]) for one in row.found if one.place in of_place]


def _swings(primary: Primary) -> Iterator[Answer]:
    """How far the plain runs swing up, at each evaluation of the same weights."""
    (first, last), (high, end) = UP_SWING
    for name in (MAIN, GUIDANCE_1):
        if name not in primary.evaluations:
            continue
        found = estimate(read_row(primary.row(PLAIN, name), in_window(GRAIN, *reversed(UP_SWING))))
        yield from _answer("Do swings need guidance?", f"off, {name}: grain at steps {high} to {end} - {first} to {last}", found)


def _other_orders(primary: Primary, orders: Row | None) -> Iterator[Answer]:
    """The registered rise in plain runs of another study, one line a seed."""
    if orders is None or orders.missing:
        return
    rise, windows = parse_part(primary.registered.claims[0].parts[0], primary.registered), primary.registered.windows
    read = in_window(GRAIN, windows[rise.window], windows[rise.base] if rise.base else None)
    cells = read_row(orders, read)
    for seed in sorted({seed for seed, _ in cells}):
        found = estimate({place: value for place, value in cells.items() if place[0] == seed})
        images = next(one.images for one in orders.found if one.place[0] == seed)
        compared = f"`{rise.text}`, runs of seed {seed} to step {images.steps[-1]:,} with {len(images.places)} images a checkpoint"
        yield from _answer("Does grain rise in another order?", compared, found)


def _delay(primary: Primary) -> Iterator[Answer]:
    """The empty prompt's arm at each checkpoint, against plain where that has seen as many steps with the prompt."""
    plain = {one.place: curve for one in primary.row(PLAIN).found if (curve := curve_of(one, GRAIN)) is not None}
    window = primary.registered.windows[primary.middle]

    def less_plain(found: Found) -> float | None:
        mine, theirs = curve_of(found, GRAIN), plain.get(found.place)
        if mine is None or theirs is None:
            return None
        steps, grain = inside(mine, window)
        with_prompt = steps * (1 - found.record.config["bnn"]["prompt_dropout"])
        return float((grain - np.interp(with_prompt, *theirs)).mean())

    found = estimate(read_row(primary.row(EMPTY_PROMPT), less_plain))
    compared = "`prompt_dropout - off: middle`, plain at the step with as many rows with the prompt"
    yield from _answer("Is the empty prompt's arm only later?", compared, found)


def _devices(primary: Primary) -> Iterator[Answer]:
    """The registered parts among subjects whose runs were on a GPU, and among the others."""
    on_gpu = {one.place[1] for one in primary.found_runs if one.record.environment.get("gpu")}
    halves: Sequence[tuple[str, Callable[[str], bool]]] = (
        ("GPU", lambda subject: subject in on_gpu),
        ("CPU", lambda subject: subject not in on_gpu),
    )
    if not on_gpu or on_gpu >= {one.place[1] for one in primary.found_runs}:
        return
    found = [{part.text: one for claim in judge(primary, only=only) for part, one in claim.parts} for _, only in halves]
    for part in found[0]:
        of_part = [of_half[part] for of_half in found if part in of_half]  # a diverged run leaves none
        if len(of_part) == len(halves) and all(len(one.values) >= FEWEST for one in of_part):
            yield _by_device(part, [name for name, _ in halves], of_part)


def _by_device(part: str, names: Sequence[str], found: Sequence[Estimate]) -> Answer:
    """A part on either device, and whether they differ (Welch's t-test over subjects)."""
    from scipy.stats import ttest_ind

    both = "; ".join(f"{name} {one.text}" for name, one in zip(names, found, strict=True))
    p_value = float(ttest_ind(*(one.values for one in found), equal_var=False).pvalue)
    said = f"{both}; of their difference p {p_text(p_value, 3, '= ')}"
    return Answer("Is it the device?", f"`{part}`", said, sum(len(one.subjects) for one in found))


def _gap(primary: Primary) -> Iterator[Answer]:
    """Whether what guidance adds to grain goes with the gap of the two predictions: over steps, and over subjects."""
    from scipy.stats import pearsonr

    if GUIDANCE_1 not in primary.evaluations:
        return
    pairs = _pairs(primary.row(PLAIN), primary.row(PLAIN, GUIDANCE_1))
    curves = [curve for pair in pairs if (curve := _added_and_gap(*pair)) is not None]
    if len(curves) < FEWEST:
        return
    steps, values = at_shared_steps(curves)
    trained, (first, last) = steps > 0, primary.registered.windows[primary.middle]
    together = pearsonr(*values[:, trained].mean(0).T)
    question, subjects = "Does the gap carry what guidance adds?", len(curves)
    compared = "grain at guidance 7.5 less that at guidance 1, against the gap at t = 100"
    yield Answer(question, f"{compared}: means over subjects, over steps", f"r = {together.statistic:.2f}", subjects)
    among = pearsonr(*values[:, (steps >= first) & (steps <= last)].mean(1).T)
    said = f"r = {among.statistic:.2f} (p {p_text(float(among.pvalue), 3, '= ')})"
    yield Answer(question, f"{compared}: means over the middle, over subjects", said, subjects)


def _added_and_gap(guided: Found, plain: Found) -> Curve | None:
    """What guidance adds to grain, and the gap (T, 2); None for a run without either."""
    if (found := curves_together([(guided, GRAIN), (plain, GRAIN), (guided, GAP)])) is None:
        return None
    steps, (with_it, without, gap) = found
    return steps, np.stack([with_it - without, gap], 1)


def _steps_an_image(primary: Primary) -> Iterator[Answer]:
    """What Bayesian weights do to DINO after so many steps an image."""
    for step in STEPS_AN_IMAGE:
        read = in_window("dino", (step, step))
        found = estimate(read_row(primary.row(BAYESIAN), read), read_row(primary.row(PLAIN), read))
        yield from _answer("The paper's Figure 7, with one photograph?", f"`on - off`, DINO after {step} steps an image", found)


def _spread(primary: Primary) -> Iterator[Answer]:
    """By how much DINO of a pair differs from pair to pair at one checkpoint: what the power of other designs rests on."""
    pairs = _pairs(primary.row(BAYESIAN), primary.row(PLAIN))
    curves = [curve for pair in pairs if (curve := curves_together([(one, "dino") for one in pair])) is not None]
    if len(curves) < FEWEST:
        return
    steps, values = at_shared_steps([(steps, mine - other) for steps, (mine, other) in curves])
    spread: Array = values[:, steps > 0].std(0, ddof=1)
    compared = "standard deviation over pairs of `on - off`, DINO at one checkpoint: median over checkpoints"
    yield Answer("How much do pairs differ?", compared, f"{np.median(spread):.3f}", len(curves))
