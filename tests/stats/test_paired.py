"""Statistics of differences, checked as statistics: coverage, error rates, closed forms."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bayesdiff.stats import aggregate_as_paper, aggregate_hierarchically, detectable, holm, paired_difference, power, seeds_needed

PROMPTS = np.repeat(np.arange(4), 4)


def arms(seed: int, effect: float = 0.0, runs: int = 3, subjects: int = 6, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Two arms (runs, subjects, 2, 16) that share levels, with an effect that varies over subjects, seeds and prompts."""
    rng = np.random.default_rng((seed, 11))
    shared = rng.standard_normal((runs, subjects, 1, 16))
    varied = (
        0.05 * rng.standard_normal((1, subjects, 1, 1))
        + 0.05 * rng.standard_normal((runs, subjects, 1, 1))
        + 0.05 * rng.standard_normal((runs, subjects, 1, 4))[..., PROMPTS]
        + noise * rng.standard_normal((runs, subjects, 2, 16))
    )
    return shared + effect + varied, np.broadcast_to(shared, (runs, subjects, 2, 16)).copy()


def test_what_pairs_share_cancels() -> None:
    on, off = arms(0, effect=0.2)
    result = paired_difference(on, off, prompts=PROMPTS)
    assert result.mean == pytest.approx((on - off).mean((0, 1, 3)))
    assert (result.high - result.low < 0.25).all()
    assert (result.low > 0).all()
    assert (result.p_value < 0.01).all()


def test_the_interval_holds_the_difference() -> None:
    held = []
    for seed in range(1000):
        result = paired_difference(*arms(seed, effect=0.1), prompts=PROMPTS)
        held.append(result.low[0] <= 0.1 <= result.high[0])
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("runs", "subjects"), [(3, 1), (2, 3), (5, 1)])
def test_few_seeds_and_subjects_do_not_make_it_too_sure(runs: int, subjects: int) -> None:
    wrong = [paired_difference(*arms(s, runs=runs, subjects=subjects), prompts=PROMPTS).p_value[0] <= 0.05 for s in range(200)]
    if subjects == 1:  # its own deviation from other subjects is invisible: take it out of the question
        wrong = []
        for s in range(200):
            rng = np.random.default_rng(s)
            on = 0.05 * rng.standard_normal((runs, 1, 1, 1)) + 0.02 * rng.standard_normal((runs, 1, 1, 16))
            wrong.append(paired_difference(on, np.zeros_like(on), prompts=PROMPTS).p_value[0] <= 0.05)
    assert np.mean(wrong) <= 0.1


def test_an_effect_is_found_at_about_the_power_that_was_computed() -> None:
    results = [paired_difference(*arms(s, effect=0.1), prompts=PROMPTS) for s in range(100)]
    found = np.mean([r.p_value[0] <= 0.05 for r in results])
    expected = power(0.1, float(np.mean([r.std_error[0] for r in results])), float(np.mean([r.freedom[0] for r in results])))
    assert found == pytest.approx(expected, abs=0.15)


def test_the_order_of_rows_does_not_matter() -> None:
    on, off = arms(1, effect=0.05)
    first = paired_difference(on, off, prompts=PROMPTS)
    rng = np.random.default_rng(0)
    subjects, images = rng.permutation(6), rng.permutation(16)
    on, off = on[:, subjects][..., images], off[:, subjects][..., images]
    for subject in range(6):
        seeds = rng.permutation(3)
        on[:, subject], off[:, subject] = on[seeds, subject], off[seeds, subject]
    again = paired_difference(on, off, prompts=PROMPTS[images])
    for name in ("mean", "low", "high", "p_value", "std_error"):
        assert getattr(again, name) == pytest.approx(getattr(first, name), abs=1e-12)


def test_the_arms_are_not_changed() -> None:
    on, off = arms(2)
    paired_difference(on, off)
    before = arms(2)
    assert np.array_equal(on, before[0])
    assert np.array_equal(off, before[1])


def test_swapped_arms_have_the_opposite_difference() -> None:
    on, off = arms(3, effect=0.05)
    here, there = paired_difference(on, off), paired_difference(off, on)
    assert there.mean == pytest.approx(-here.mean)
    assert there.low == pytest.approx(-here.high)


def test_arms_that_are_equal_do_not_differ() -> None:
    on, _ = arms(4)
    result = paired_difference(on, on)
    assert not result.mean.any()
    assert (result.p_value == 1).all()
    assert (result.low == 0).all()


def test_levels_with_one_member_are_not_said_to_vary() -> None:
    on, off = arms(5)
    assert paired_difference(on, off, prompts=PROMPTS).levels == ("subjects", "seeds")
    assert paired_difference(on, off, prompts=PROMPTS, sampled_prompts=True).levels == ("subjects", "seeds", "prompts", "images")
    assert paired_difference(on[:1], off[:1]).levels == ("subjects",)
    assert paired_difference(on[:1], off[:1], sampled_prompts=True).levels == ("subjects", "prompts")
    assert paired_difference(on[:, :1], off[:, :1], prompts=np.zeros(16)).levels == ("seeds",)
    assert paired_difference(on[:1, :1], off[:1, :1], prompts=PROMPTS).levels == ("prompts", "images")


def test_a_large_table_takes_less_than_two_seconds() -> None:
    rng = np.random.default_rng(0)
    on, off = rng.random((5, 30, 1, 100)), rng.random((5, 30, 1, 100))
    start = time.perf_counter()
    paired_difference(on, off, prompts=np.repeat(np.arange(25), 4))
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("on", "off", "message"),
    [
        (np.zeros((2, 3, 4)), np.zeros((2, 3, 4)), r"give \(runs, subjects, steps, images\)"),
        (np.zeros((2, 3, 1, 4)), np.zeros((2, 3, 1, 5)), "not paired"),
        (np.full((1, 1, 1, 2), np.nan), np.zeros((1, 1, 1, 2)), "finite"),
        (np.zeros((0, 1, 1, 1)), np.zeros((0, 1, 1, 1)), "give"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(on: np.ndarray, off: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference(on, off)


def test_last_digits_are_no_evidence() -> None:
    """A shift that is the same in every run is only nearly so in binary numbers."""
    _, off = arms(0)
    found = paired_difference(off + 0.3, off, prompts=PROMPTS)
    assert found.mean == pytest.approx(0.3) and found.std_error[0] < 1e-12
    assert np.isnan(found.p_value).all()


def test_prompts_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="one prompt an image"):
        paired_difference(*arms(0), prompts=[0, 1])


def test_the_paper_s_deviation_is_over_seeds_of_the_mean_over_classes() -> None:
    scores = np.arange(24.0).reshape(2, 3, 1, 4)
    mean, spread = aggregate_as_paper(scores)
    assert mean == pytest.approx([11.5])
    assert spread == pytest.approx([np.std([5.5, 17.5], ddof=1)])
    assert np.isnan(aggregate_as_paper(scores[:1])[1]).all()


def test_one_arm_s_interval_is_wider_than_its_deviation_over_seeds() -> None:
    """Subjects differ more than seeds, which the paper's number does not show."""
    rng = np.random.default_rng(0)
    scores = 0.6 + 0.1 * rng.standard_normal((1, 8, 1, 1)) + 0.01 * rng.standard_normal((5, 8, 1, 16))
    result = aggregate_hierarchically(scores)
    assert result.mean == pytest.approx(scores.mean((0, 1, 3)))
    assert result.high[0] - result.low[0] > 4 * aggregate_as_paper(scores)[1][0]


def test_holm_is_the_step_down_of_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]).size == 0


def test_a_cell_that_is_missing_costs_the_others_nothing() -> None:
    corrected = holm([0.01, np.nan, 0.04])
    assert corrected[[0, 2]] == pytest.approx([0.02, 0.04])
    assert np.isnan(corrected[1])


def test_holm_keeps_the_family_wise_error() -> None:
    rng = np.random.default_rng(0)
    wrong = [(holm(rng.random(8)) <= 0.05).any() for _ in range(2000)]
    assert np.mean(wrong) <= 0.065


@pytest.mark.parametrize(("effect", "error", "expected"), [(0.0, 1.0, 0.05), (1.96, 1.0, 0.5), (2.8016, 1.0, 0.8), (1.0, 0.0, 1.0)])
def test_power_has_the_known_values(effect: float, error: float, expected: float) -> None:
    assert power(effect, error, 1e6) == pytest.approx(expected, abs=1e-3)


def test_power_and_the_detectable_difference_are_one_another_s_inverse() -> None:
    for freedom in (1.0, 2.0, 5.0, 40.0):
        assert power(detectable(0.3, freedom, alpha=0.01), 0.3, freedom, alpha=0.01) == pytest.approx(0.8, abs=1e-6)
    assert np.isnan(power(0.1, float("nan"), 3.0))
    assert 0.1 < power(0.009, 0.0012, 2.0, alpha=0.05 / 22) < 0.15  # where scipy's cdf of the noncentral t gives up


def test_seeds_needed_agree_with_simulation() -> None:
    from scipy.stats import ttest_1samp

    count = seeds_needed(0.05, 0.06)
    rng = np.random.default_rng(0)
    for seeds, enough in ((count, True), (count - 2, False)):
        found = (ttest_1samp(0.05 + 0.06 * rng.standard_normal((4000, seeds)), 0, axis=1).pvalue <= 0.05).mean()
        assert (found >= 0.78) == enough


def test_seeds_needed_at_the_edges() -> None:
    assert seeds_needed(0.1, 0.0) == 2
    with pytest.raises(ValueError, match="effect of 0"):
        seeds_needed(0.0, 0.1)
    with pytest.raises(ValueError, match="more than 100,000"):
        seeds_needed(1e-9, 0.1)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="no number of seeds"):
            seeds_needed(bad, 0.1)


@pytest.mark.parametrize("differences", [[0.10, 0.12], [0.05, 0.06, 0.09], [0.1, -0.02, 0.07, 0.04]])
def test_a_few_single_values_give_the_p_value_of_a_t_test(differences: list[float]) -> None:
    from scipy.stats import ttest_1samp

    values = np.array(differences)[:, None, None, None]
    found = paired_difference(values, np.zeros_like(values)).p_value[0]
    assert found == pytest.approx(ttest_1samp(differences, 0).pvalue)


@pytest.mark.parametrize(("runs", "subjects"), [(1, 16), (5, 4), (3, 3)])
def test_it_is_the_paired_t_test_over_subjects(runs: int, subjects: int) -> None:
    """Seeds and images scatter the subjects' means already: nothing of them is counted a second time."""
    from scipy.stats import ttest_rel

    on, off = arms(7, effect=0.05, runs=runs, subjects=subjects)
    found, known = paired_difference(on, off, prompts=PROMPTS), ttest_rel(on.mean((0, 3)), off.mean((0, 3)))
    interval = known.confidence_interval(0.95)
    assert found.p_value == pytest.approx(known.pvalue)
    assert found.low == pytest.approx(interval.low) and found.high == pytest.approx(interval.high)
    assert found.freedom == pytest.approx(known.df)


def test_one_value_has_no_p_value() -> None:
    found = paired_difference(np.full((1, 1, 1, 1), 0.1), np.zeros((1, 1, 1, 1)))
    assert np.isnan(found.p_value).all()
    assert found.levels == ()


def _wrong(effects: dict[str, float], tries: int = 400, subjects: int = 3, alpha: float = 0.05) -> float:
    """How often no difference is called one: 2 seeds, 4 prompts of 4 images, with effects of these sizes."""
    wrong = 0
    for seed in range(tries):
        rng = np.random.default_rng((seed, 23))
        on = (
            effects.get("subject", 0.0) * rng.standard_normal((1, subjects, 1, 1))
            + effects.get("run", 0.0) * rng.standard_normal((2, subjects, 1, 1))
            + effects.get("prompt", 0.0) * rng.standard_normal((1, 1, 1, 4))[..., PROMPTS]
            + 0.03 * rng.standard_normal((2, subjects, 1, 16))
        )
        wrong += paired_difference(on, np.zeros_like(on), prompts=PROMPTS, sampled_prompts=True).p_value[0] <= alpha
    return wrong / tries


@pytest.mark.parametrize(
    "effects",
    [{}, {"subject": 0.1}, {"run": 0.1}, {"prompt": 0.1}, {"subject": 0.1, "run": 0.1}, {"subject": 0.1, "prompt": 0.1}],
    ids=lambda effects: "+".join(effects) or "images alone",
)
def test_whichever_level_varies_an_absent_difference_is_seldom_found(effects: dict[str, float]) -> None:
    """Of prompts that are a sample: what a prompt does to all cells alike does not average out over cells."""
    assert _wrong(effects) <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 400)  # 99 % of tries at exactly 5 %


@pytest.mark.parametrize(("subjects", "level"), [(1, "run"), (2, "subject"), (3, "subject")])
def test_few_runs_that_agree_by_chance_are_not_believed(subjects: int, level: str) -> None:
    """Also far out, where a table's correction looks."""
    effects = {level: 0.4, "prompt": 0.05}
    assert _wrong(effects, subjects=subjects) <= 0.05
    assert _wrong(effects, subjects=subjects, alpha=0.01) <= 0.01


def test_the_degrees_of_freedom_are_those_of_the_level_that_varies() -> None:
    rng = np.random.default_rng(0)
    subjects = np.broadcast_to(rng.standard_normal((1, 5, 1, 1)), (3, 5, 1, 16))
    prompts = np.broadcast_to(rng.standard_normal((1, 1, 1, 4))[..., PROMPTS], (3, 5, 1, 16))
    assert paired_difference(subjects, 0 * subjects, prompts=PROMPTS).freedom == pytest.approx([4])
    assert paired_difference(prompts, 0 * prompts, prompts=PROMPTS, sampled_prompts=True).freedom == pytest.approx([3])
    assert paired_difference(subjects[:1, :1], 0 * subjects[:1, :1]).levels == ("prompts",)


@pytest.mark.parametrize("runs", [3, 6, 20])
def test_what_is_detectable_is_found_that_often(runs: int) -> None:
    from scipy.stats import ttest_1samp

    effect = detectable(1 / np.sqrt(runs), runs - 1, alpha=0.05 / 4)
    values = effect + np.random.default_rng(runs).standard_normal((4000, runs))
    assert (ttest_1samp(values, 0, axis=1).pvalue <= 0.05 / 4).mean() == pytest.approx(0.8, abs=0.02)
    assert np.isnan(detectable(float("nan"), 3))


def test_a_difference_that_is_the_same_in_every_run_has_no_p_value() -> None:
    """Flagged in both runs and in neither of the other arm: nothing says how much it could vary."""
    found = paired_difference(np.ones((2, 1, 1, 1)), np.zeros((2, 1, 1, 1)))
    assert np.isnan(found.p_value).all()
    assert found.of_runs
