"""The corruption test: what it flags, what it does not, and how often it is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from bayesdiff.corruption.detector import MIN_POINTS, CorruptionVerdict, detect_corruption, stage_p_value
from bayesdiff.corruption.noise import CHECKPOINT_CORRELATION, measure_noise

Curve = np.ndarray
SCHEDULE = [0, 25, 50, 100, 150, 200, 300, 400, 500, 600, 700, 850, 1000, 1250, 1500, 1750, 2000]
"""The checkpoints of ``schedule=curve``."""
TWELVE = [0, 25, 50, 100, 200, 300, 400, 500, 700, 1000, 1500, 2000]

FIGURE_STEPS = [
    0, 20, 50, 70, 100, 150, 200, 250, 300, 350, 400, 450, 500, 550, 600, 700, 800, 900, 1000, 1200, 1400, 1600, 1800, 2000, 2200,
    2400, 2600, 2800, 3000, 3200, 3400, 3600, 3800, 4000, 4200, 4400, 4600,
]  # fmt: skip
FIGURE_BASELINE = [
    0.363, 0.483, 0.633, 0.682, 0.727, 0.646, 0.826, 0.898, 0.855, 0.718, 0.552, 0.570, 0.462, 0.473, 0.477, 0.395, 0.476, 0.371, 0.387,
    0.434, 0.496, 0.448, 0.510, 0.622, 0.631, 0.666, 0.707, 0.846, 0.753, 0.883, 0.898, 0.903, 0.939, 0.945, 0.946, 0.952, 0.954,
]  # fmt: skip
FIGURE_BAYESIAN = [
    0.363, 0.440, 0.603, 0.653, 0.711, 0.575, 0.707, 0.800, 0.832, 0.883, 0.943, 0.947, 0.951, 0.954, 0.945, 0.961, 0.958, 0.965, 0.962,
    0.958, 0.967, 0.964, 0.972, 0.972, 0.966, 0.964, 0.970, 0.973, 0.972, 0.972, 0.969, 0.970, 0.966, 0.967, 0.970, 0.968, 0.967,
]  # fmt: skip
"""Figure 1 of arXiv 2405.19931, read off the plot: fidelity without and with Bayesian weights."""


def simulate(mean: Curve, seed: int, image: float = 0.05, residual: float = 0.03, checkpoint: float = 0.01, images: int = 16) -> Curve:
    """Scores (T, images): a mean curve, a level for every image, its own wobble, and noise that moves all images together."""
    rng = np.random.default_rng((2405, seed))
    levels, wobble = image * rng.standard_normal(images), residual * rng.standard_normal((len(mean), images))
    return mean[:, None] + levels + wobble + checkpoint * rng.standard_normal(len(mean))[:, None]


def saturating(count: int) -> Curve:
    return 0.3 + 0.5 * (1 - np.exp(-6 * np.arange(count) / count))


def dipping(count: int, depth: float) -> Curve:
    """Rise to 0.75, a stage of a quarter of the checkpoints, and back to 0.8."""
    at = np.arange(count) / (count - 1)
    return np.interp(at, [0, 0.18, 0.35, 0.55, 0.75, 1], [0.35, 0.75, 0.75 - depth, 0.75 - depth, 0.75, 0.8])


def stepped(count: int) -> Curve:
    return np.where(np.arange(count) < count // 2, 0.8, 0.6)


def declining(count: int) -> Curve:
    return np.interp(np.arange(count), [0, 0.4 * count, count - 1], [0.4, 0.75, 0.5])


def late(count: int) -> Curve:
    return np.where(np.arange(count) < count - 2, 0.4, 0.8)


CLEAR = simulate(np.array([0.35, 0.55, 0.7, 0.8, 0.6, 0.42, 0.4, 0.45, 0.6, 0.75, 0.82, 0.83]), 0)


def test_a_clear_stage_is_flagged_where_it_is() -> None:
    verdict = detect_corruption(TWELVE, CLEAR)
    assert (verdict.flagged, verdict.kind) == (True, "corruption")
    assert verdict.p_value < 0.01
    assert verdict.depth == pytest.approx(0.4, abs=0.05)
    assert verdict.depth_interval[0] < verdict.depth < verdict.depth_interval[1]
    stage = (verdict.peak_step, verdict.onset_step, verdict.trough_step, verdict.recovery_step)
    assert stage == (100, 200, 400, 700)
    assert verdict.best_step in (1500, 2000)


def test_the_labels_tell_the_story_in_order() -> None:
    labels = detect_corruption(TWELVE, CLEAR).labels
    assert labels == (*["rising"] * 3, "peak", *["corrupted"] * 6, "recovered", "recovered")


def test_a_checkpoint_that_images_tell_from_the_best_is_never_recovered() -> None:
    for seed in range(10):
        scores = simulate(np.array([0.35, 0.55, 0.7, 0.8, 0.5, 0.3, 0.3, 0.5, 0.6, 0.65, 0.8, 0.8]), seed)
        labels, top = detect_corruption(TWELVE, scores).labels, int(scores.mean(1).argmax())
        for i, label in enumerate(labels):
            gap = scores[top] - scores[i]
            told = gap.mean() > 6 * gap.std(ddof=1) / 4  # far beyond any limit of the paired test
            assert not (told and label == "recovered")


def test_the_sentence_names_the_steps_and_the_checkpoint_to_keep() -> None:
    verdict = detect_corruption(TWELVE, CLEAR)
    for step in (verdict.peak_step, verdict.onset_step, verdict.trough_step, verdict.recovery_step, verdict.best_step):
        assert f"step {step}" in verdict.sentence or f"from step {step}" in verdict.sentence


def test_the_best_checkpoint_is_never_inside_the_stage() -> None:
    for seed in range(20):
        verdict = detect_corruption(SCHEDULE, simulate(dipping(17, 0.3), seed))
        assert verdict.labels[SCHEDULE.index(verdict.best_step)] not in ("corrupted", "recovering")


SHAPES = {
    "rise": (np.linspace(0.3, 0.8, 12), "undertrained"),
    "saturating rise": (saturating(12), "none"),
    "flat": (np.array([0.5, *[0.6] * 11]), "none"),
    "rise and decline": (declining(12), "in_progress"),
    "step down": (np.array([0.4, *stepped(12)[1:]]), "in_progress"),
    "blip of one checkpoint": (np.where(np.arange(12) == 6, 0.5, saturating(12)), "none"),
    "rise at the end": (late(12), "undertrained"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_does_not_fall_and_come_back_is_not_flagged(shape: str) -> None:
    mean, kind = SHAPES[shape]
    still = simulate(mean, 3, residual=0.02, checkpoint=0.005)
    for scores in (mean, still, still.mean(1)):
        verdict = detect_corruption(TWELVE, scores)
        assert (verdict.flagged, verdict.kind) == (False, kind)
        assert (verdict.onset_step, verdict.trough_step, verdict.recovery_step) == (None, None, None)
        assert "corrupted" not in verdict.labels or kind == "in_progress"


def test_a_fall_without_return_says_to_keep_the_peak() -> None:
    verdict = detect_corruption(TWELVE, simulate(SHAPES["step down"][0], 3))
    assert verdict.sentence.startswith(f"Keep step {verdict.best_step}") and "In progress" in verdict.sentence
    assert verdict.best_step == verdict.peak_step
    assert verdict.best_step < TWELVE[6]


def test_a_dip_shallower_than_asked_for_is_not_flagged() -> None:
    assert detect_corruption(TWELVE, CLEAR, min_depth=0.3).flagged
    assert not detect_corruption(TWELVE, CLEAR, min_depth=0.5).flagged


def test_a_stricter_level_flags_no_more() -> None:
    scores = [simulate(dipping(12, 0.08), seed) for seed in range(20)]
    strict, loose = ([detect_corruption(TWELVE, s, alpha=alpha, min_depth=0).flagged for s in scores] for alpha in (0.001, 0.2))
    assert sum(strict) < sum(loose)
    assert all(not s or ok for s, ok in zip(strict, loose, strict=True))


def test_the_baseline_of_the_paper_s_figure_is_flagged() -> None:
    verdict = detect_corruption(FIGURE_STEPS, FIGURE_BASELINE)
    assert verdict.flagged
    assert 250 <= verdict.onset_step <= 500
    assert 700 <= verdict.trough_step <= 1100
    assert verdict.trough_step < verdict.recovery_step < FIGURE_STEPS[-1]
    assert verdict.best_step == 4600


def test_the_bayesian_curve_of_the_paper_s_figure_is_not_flagged() -> None:
    verdict = detect_corruption(FIGURE_STEPS, FIGURE_BAYESIAN)
    assert (verdict.flagged, verdict.kind) == (False, "none")
    assert verdict.p_value > 0.2


def lower_bound(flags: list[bool]) -> float:
    """Lower end of the 95 % Clopper-Pearson interval of a rate."""
    return float(binomtest(sum(flags), len(flags)).proportion_ci(0.95, "exact").low)


def flags(tables: list[Curve]) -> list[bool]:
    """Whether the test alone (no smallest depth) rejects at 0.05."""
    found = []
    for seed, table in enumerate(tables):
        table = table if table.ndim == 2 else table[:, None]
        noise = measure_noise(table, rho=CHECKPOINT_CORRELATION)
        found.append(stage_p_value(table.mean(1), noise, np.random.default_rng(seed), 300) <= 0.05)
    return found


NULLS = {
    "rise of 12": saturating(12),
    "rise of 17": saturating(17),
    "step down of 17": stepped(17),
    "decline of 17": declining(17),
    "late rise of 17": late(17),
    "flat of 6": np.full(6, 0.6),
    "flat of 17": np.full(17, 0.6),
    "flat of 37": np.full(37, 0.6),
}


@pytest.mark.parametrize("bare", [False, True], ids=["images", "bare"])
@pytest.mark.parametrize("mean", NULLS.values(), ids=NULLS)
def test_false_flags_are_no_more_than_promised(mean: Curve, bare: bool) -> None:
    tables = [simulate(mean, seed) for seed in range(200)]
    assert lower_bound(flags([t.mean(1) if bare else t for t in tables])) <= 0.05


def test_a_stage_of_depth_15_is_found() -> None:
    assert np.mean(flags([simulate(dipping(17, 0.15), seed, checkpoint=0.005) for seed in range(100)])) >= 0.9


def test_a_noise_that_is_known_is_worth_checkpoints() -> None:
    """At twelve checkpoints roughness is a poor measure; a measured noise finds what it cannot."""
    tables = [simulate(dipping(12, 0.15), seed, residual=0.08) for seed in range(40)]
    blind, told = (np.mean([detect_corruption(TWELVE, t, checkpoint_noise=known).flagged for t in tables]) for known in (None, 0.01))
    assert told >= 0.9
    assert blind < told


def test_the_interval_of_depth_holds_the_depth() -> None:
    """Of 80 stages of depth 0.3, the 95 % interval holds it in 72 to 80 cases."""
    held = 0
    for seed in range(80):
        low, high = detect_corruption(SCHEDULE, simulate(dipping(17, 0.3), seed, checkpoint=0.02)).depth_interval
        held += low <= 0.3 <= high
    assert 72 <= held <= 80


def test_the_noise_that_moves_all_images_together_is_reported() -> None:
    for image in (0.0, 0.2):
        scores = [simulate(np.full(37, 0.6), seed, image=image, residual=0.02, checkpoint=0.02) for seed in range(15)]
        measured = np.median([detect_corruption(np.arange(37), s).checkpoint_noise for s in scores])
        assert measured == pytest.approx(0.02, rel=0.2)


def test_the_source_of_the_noise_is_said() -> None:
    assert detect_corruption(TWELVE, CLEAR).noise_source == "images and the curve by lag"
    assert detect_corruption(TWELVE, CLEAR.mean(1)).noise_source == "the curve by lag"
    assert detect_corruption(TWELVE, CLEAR, checkpoint_noise=0.02).noise_source == "images and a given noise between checkpoints"
    assert detect_corruption(TWELVE, np.stack([CLEAR, CLEAR + 0.01])).noise_source == "the scatter of runs"


def test_runs_that_agree_show_a_stage_that_one_bare_curve_cannot() -> None:
    runs = np.stack([simulate(dipping(8, 0.2), seed) for seed in range(5)])
    assert detect_corruption(TWELVE[:8], runs).flagged
    assert not detect_corruption(TWELVE[:8], runs[0].mean(1)).flagged


def test_one_run_of_three_dimensions_is_that_run() -> None:
    assert detect_corruption(TWELVE, CLEAR[None]) == detect_corruption(TWELVE, CLEAR)


def test_sampled_prompts_make_a_verdict_less_sure() -> None:
    """Images of a prompt that move together are one observation of it, not four."""
    rng = np.random.default_rng(5)
    prompts = np.repeat(np.arange(4), 4)
    scores = saturating(17)[:, None] + 0.08 * rng.standard_normal((17, 4))[:, prompts] + 0.01 * rng.standard_normal((17, 16))
    alone, grouped = (detect_corruption(SCHEDULE, scores, groups=groups).image_noise for groups in (None, prompts))
    assert grouped > 1.5 * alone
    assert grouped == pytest.approx(0.04, rel=0.2)


def test_a_plateau_before_the_onset_belongs_to_the_peak() -> None:
    """It is as good as the peak, and may be kept."""
    mean = np.interp(np.arange(20), [0, 3, 9, 11, 14, 16, 19], [0.3, 0.75, 0.75, 0.4, 0.4, 0.75, 0.75])
    verdict = detect_corruption(np.arange(20) * 100, mean)
    assert verdict.flagged
    for step, label, level in zip(range(0, 2000, 100), verdict.labels, mean, strict=True):
        assert (label == "corrupted") <= (step >= (verdict.onset_step or 0))
        assert (level == 0.75) <= (label not in ("corrupted", "recovering"))
    assert set(range(300, 1000, 100)) <= set(verdict.best_steps)


TWICE = np.interp(
    np.arange(30), [0, 3, 7, 9, 12, 14, 17, 19, 22, 24, 29], [0.3, *[0.75] * 2, *[0.4] * 2, *[0.75] * 2, *[0.4] * 2, *[0.75] * 2]
)


@pytest.mark.parametrize("seed", range(3))
def test_a_second_stage_is_labelled_and_said(seed: int) -> None:
    steps = list(range(0, 3000, 100))
    verdict = detect_corruption(steps, simulate(TWICE, seed, residual=0.02, checkpoint=0.005), checkpoint_noise=0.005)
    for low in (range(9, 13), range(19, 23)):
        assert all(verdict.labels[i] in ("corrupted", "recovering") for i in low)
    assert "once more, around step" in verdict.sentence or "In between it comes back" in verdict.sentence
    assert verdict.labels[-1] == "recovered"
    assert not {"corrupted", "recovering"} & set(verdict.labels[15:17]), "what lies between the two is no corruption"


@pytest.mark.parametrize("seed", range(3))
def test_a_fall_behind_the_recovery_is_no_recovery(seed: int) -> None:
    mean = np.interp(np.arange(30), [0, 3, 7, 9, 12, 14, 20, 21, 29], [0.3, 0.75, 0.75, 0.4, 0.4, 0.75, 0.75, 0.2, 0.2])
    verdict = detect_corruption(list(range(0, 3000, 100)), simulate(mean, seed, residual=0.02, checkpoint=0.005))
    assert verdict.flagged
    assert set(verdict.labels[21:]) == {"corrupted"}
    assert "falls again after step" in verdict.sentence
    assert verdict.best_step < 2100


def test_one_stage_is_not_said_to_be_two() -> None:
    more = 0
    for seed in range(40):
        verdict = detect_corruption(np.arange(24) * 50, simulate(dipping(24, 0.3), seed, residual=0.02, checkpoint=0.005))
        more += any(words in verdict.sentence for words in ("once more", "falls again"))
    assert more <= 6


def test_a_point_lies_in_its_interval() -> None:
    for seed in range(60):
        curve = np.random.default_rng(seed).uniform(0, 1, 6).repeat(4) + 0.01 * np.random.default_rng(seed).standard_normal(24)
        verdict = detect_corruption(np.arange(24), curve, checkpoint_noise=0.02)
        for name in ("peak", "onset", "trough", "recovery") if verdict.flagged else ():
            low, high = getattr(verdict, f"{name}_interval")
            assert low <= getattr(verdict, f"{name}_step") <= high


@pytest.mark.parametrize("count", [8, 12, 20, 40])
def test_a_rise_is_seen_however_fine_the_checkpoints(count: int) -> None:
    kinds = [detect_corruption(np.arange(count), simulate(np.linspace(0.2, 0.8, count), seed)).kind for seed in range(10)]
    assert kinds.count("undertrained") >= 8
    flat = [detect_corruption(np.arange(count), simulate(np.full(count, 0.7), seed)).kind for seed in range(20)]
    assert flat.count("undertrained") <= 2


def test_scores_that_are_not_finite_in_between_are_said_to_be_that() -> None:
    scores = CLEAR.copy()
    scores[4, 0] = np.nan
    verdict = detect_corruption(TWELVE, scores)
    assert verdict.kind == "diverged"
    assert f"not finite at step {TWELVE[4]}: leave out" in verdict.sentence
    scores[9:] = np.nan
    assert f"from step {TWELVE[9]} on: training diverged" in detect_corruption(TWELVE, scores).sentence


@pytest.mark.parametrize(
    "options", [{"alpha": 0.0005}, {"min_depth": float("nan")}, {"min_depth": float("inf")}, {"checkpoint_noise": float("inf")}]
)
def test_options_that_would_silence_the_test_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        detect_corruption(TWELVE, CLEAR, **options)  # type: ignore[arg-type]


def test_steps_that_no_number_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="whole numbers"):
        detect_corruption(np.array([*TWELVE[:-1], 1e19]), CLEAR)


def test_a_blip_is_reported_as_one() -> None:
    mean = np.where(np.arange(12) == 6, 0.5, saturating(12))
    verdict = detect_corruption(TWELVE, simulate(mean, 3, residual=0.02, checkpoint=0.005))
    assert (verdict.flagged, verdict.blips) == (False, (400,))


def test_the_intervals_of_steps_hold_the_steps() -> None:
    verdict = detect_corruption(SCHEDULE, simulate(dipping(17, 0.3), 1, checkpoint=0.02))
    for name in ("peak", "onset", "trough", "recovery"):
        low, high = getattr(verdict, f"{name}_interval")
        assert low <= getattr(verdict, f"{name}_step") <= high
        assert {low, high} <= set(SCHEDULE)


def test_area_is_depth_over_steps() -> None:
    curve = np.array([0.2, 0.8, 0.8, 0.8, 0.5, 0.5, 0.5, 0.8, 0.8, 0.8, 0.8, 0.8])
    verdict = detect_corruption(np.arange(12) * 10, curve, checkpoint_noise=0.001)
    assert verdict.flagged
    assert verdict.area == pytest.approx(10 * 0.3 * 3, rel=0.02)


def test_a_rise_to_the_end_wants_more_training() -> None:
    verdict = detect_corruption(TWELVE, simulate(np.linspace(0.1, 0.9, 12), 2, residual=0.02, checkpoint=0.003))
    assert (verdict.flagged, verdict.kind) == (False, "undertrained")
    assert "train on" in verdict.sentence


@pytest.mark.parametrize("scores", [CLEAR, simulate(saturating(12), 1), simulate(stepped(12), 1)], ids=["stage", "rise", "step"])
def test_the_level_of_the_curve_is_irrelevant(scores: Curve) -> None:
    here, there = detect_corruption(TWELVE, scores), detect_corruption(TWELVE, scores - 0.25)
    assert (here.kind, here.labels, here.best_step) == (there.kind, there.labels, there.best_step)
    assert (here.p_value, here.depth, here.checkpoint_noise) == pytest.approx(
        (there.p_value, there.depth, there.checkpoint_noise), abs=2e-3
    )


@pytest.mark.parametrize("scores", [CLEAR, simulate(saturating(12), 1), simulate(stepped(12), 1)], ids=["stage", "rise", "step"])
def test_the_unit_of_the_curve_is_irrelevant(scores: Curve) -> None:
    here, there = detect_corruption(TWELVE, scores), detect_corruption(TWELVE, 100 * scores, min_depth=3)
    assert (here.kind, here.labels, here.best_step) == (there.kind, there.labels, there.best_step)
    assert there.p_value == pytest.approx(here.p_value, abs=2e-3)
    assert (there.depth, there.checkpoint_noise) == pytest.approx((100 * here.depth, 100 * here.checkpoint_noise))


@pytest.mark.parametrize("scores", [CLEAR, simulate(saturating(12), 1)], ids=["stage", "rise"])
def test_the_unit_of_steps_is_irrelevant_for_the_decision(scores: Curve) -> None:
    """Their spacing is not: a correlation time is one of steps."""
    here, there = detect_corruption(TWELVE, scores), detect_corruption(7 * np.array(TWELVE), scores)
    assert (here.flagged, here.kind, here.labels) == (there.flagged, there.kind, there.labels)
    assert here.p_value == pytest.approx(there.p_value, abs=0.02)


@pytest.mark.parametrize("scores", [CLEAR, simulate(saturating(12), 1)], ids=["stage", "rise"])
def test_the_order_of_images_is_irrelevant(scores: Curve) -> None:
    here, there = detect_corruption(TWELVE, scores), detect_corruption(TWELVE, scores[:, ::-1])
    assert (here.kind, here.labels, here.best_step) == (there.kind, there.labels, there.best_step)
    assert here.depth == pytest.approx(there.depth)
    assert here.p_value == pytest.approx(there.p_value, abs=0.05)


def test_the_verdict_is_a_function_of_data_and_seed() -> None:
    scores = simulate(saturating(12), 5)
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    first = detect_corruption(TWELVE, scores, seed=4)
    np.random.seed(2)  # noqa: NPY002
    assert detect_corruption(TWELVE, scores, seed=4) == first
    assert detect_corruption(TWELVE, scores, seed=5).p_value != first.p_value


def test_the_scores_are_left_as_they_were() -> None:
    scores = CLEAR.copy()
    detect_corruption(TWELVE, scores)
    assert np.array_equal(scores, CLEAR)


def test_one_column_is_a_bare_curve() -> None:
    curve = CLEAR.mean(1)
    assert detect_corruption(TWELVE, curve[:, None]) == detect_corruption(TWELVE, curve) == detect_corruption(TWELVE, curve.tolist())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_mean_diverged(bad: float) -> None:
    scores = CLEAR.copy()
    scores[9:, 2] = bad
    verdict = detect_corruption(TWELVE, scores)
    assert (verdict.flagged, verdict.kind) == (False, "diverged")
    assert f"step {TWELVE[9]}" in verdict.sentence
    assert verdict.best_step == 100
    assert verdict.labels[9:] == ("corrupted",) * 3


@pytest.mark.parametrize("count", range(1, MIN_POINTS))
def test_a_few_checkpoints_are_too_few(count: int) -> None:
    verdict = detect_corruption(TWELVE[:count], CLEAR[:count])
    assert (verdict.flagged, verdict.kind, len(verdict.labels)) == (False, "too_few_points", count)
    assert verdict.best_step == TWELVE[int(CLEAR[:count].mean(1).argmax())]


def test_six_checkpoints_are_enough() -> None:
    assert detect_corruption(range(6), [0.3, 0.5, 0.6, 0.7, 0.7, 0.7]).kind == "none"


@pytest.mark.parametrize(
    ("steps", "scores"),
    [
        ([0, 1, 2], [0.1, 0.2]),
        ([0, 1, 1], [0.1, 0.2, 0.3]),
        ([0, 2, 1], [0.1, 0.2, 0.3]),
        ([], []),
        ([0, 1], np.zeros((2, 0))),
        ([0, 1], np.zeros((2, 3, 4))),
        ([0, 1], np.zeros((2, 2, 2, 2))),
        ([0, np.nan], [0.1, 0.2]),
        ([[0, 1]], [0.1, 0.2]),
    ],
)
def test_shapes_that_do_not_fit_are_refused(steps: list[int], scores: Curve) -> None:
    with pytest.raises(ValueError, match="steps"):
        detect_corruption(steps, scores)


VERDICTS = {
    "corruption": (TWELVE, CLEAR),
    "none": (TWELVE, simulate(saturating(12), 0)),
    "in_progress": (TWELVE, simulate(SHAPES["step down"][0], 0)),
    "diverged": (TWELVE, np.full((12, 2), np.nan)),
    "too_few_points": ([0], [0.5]),
}


@pytest.mark.parametrize("kind", VERDICTS)
def test_a_verdict_survives_json(kind: str) -> None:
    verdict = detect_corruption(*VERDICTS[kind])
    assert verdict.kind == kind
    assert CorruptionVerdict.from_dict(json.loads(json.dumps(verdict.to_dict(), allow_nan=False))) == verdict


def test_a_deep_dip_that_is_not_flagged_says_what_would_tell() -> None:
    """One swing of a curve that swings: too rough to be sure of, too deep to be silent about."""
    curve = [-0.08, 0.81, 0.84, 0.34, 0.25, 0.52, 0.62, 0.74, 0.69, 0.66, 0.66, 0.77, 0.54, 0.73, 0.58]
    found = detect_corruption(np.arange(15) * 50, curve)
    assert not found.flagged
    assert "scatter by" in found.sentence and "more checkpoints or seeds would tell" in found.sentence
    quiet = detect_corruption(np.arange(15) * 50, np.linspace(0.2, 0.8, 15) + 0.01 * np.cos(np.arange(15)))
    assert "would tell" not in quiet.sentence


def swinging(seed: int, checkpoint: float) -> np.ndarray:
    """A saturating curve of 16 images a checkpoint that share swings of size ``checkpoint``, and agree otherwise."""
    rng = np.random.default_rng(seed)
    return saturating(12)[:, None] + checkpoint * rng.standard_normal((12, 1)) + 0.02 * rng.standard_normal((12, 16))


def test_swings_that_images_do_not_explain_are_called_unstable_and_not_a_stage() -> None:
    found = [detect_corruption(TWELVE, swinging(seed, 0.15), seed=seed) for seed in range(20)]
    unstable = [verdict for verdict in found if verdict.kind == "unstable"]
    assert sum(verdict.flagged for verdict in found) <= 2
    assert len(unstable) >= 12
    for verdict in unstable:
        assert f"at step {verdict.trough_step}" in verdict.sentence and "swings by" in verdict.sentence
        assert (verdict.onset_step, verdict.recovery_step) == (None, None)


def test_without_swings_nothing_is_unstable() -> None:
    """Also where a dip of the images alone comes close to a stage."""
    found = [detect_corruption(TWELVE, swinging(seed, 0.0), seed=seed) for seed in range(20)]
    dip = np.interp(np.arange(12), [0, 3, 5, 7, 9, 11], [0.3, 0.8, 0.75, 0.75, 0.8, 0.8])[:, None]
    found += [detect_corruption(TWELVE, dip + 0.12 * np.random.default_rng(s).standard_normal((12, 16)), seed=s) for s in range(40)]
    assert all(verdict.checkpoint_noise > verdict.image_noise for verdict in found if verdict.kind == "unstable")
    assert sum(verdict.kind == "unstable" for verdict in found) <= 3  # of 60, at alpha 0.05


def test_runs_that_are_judged_together_and_bare_curves_are_never_unstable() -> None:
    """The scatter of runs has their swings; a bare curve has nothing to compare its swings with."""
    several = np.stack([swinging(seed, 0.15) for seed in range(4)])
    assert detect_corruption(TWELVE, several).kind != "unstable"
    assert detect_corruption(TWELVE, several, checkpoint_noise=0.06).kind != "unstable"
    assert detect_corruption(TWELVE, several[0].mean(1)).kind != "unstable"
