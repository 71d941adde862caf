"""The verdict with all columns: overfitting, broken sampling, and the checkpoint to keep."""

from __future__ import annotations

import numpy as np
import pytest

from bayesdiff.corruption import detect_corruption
from bayesdiff.corruption.best import trade_off
from bayesdiff.corruption.diagnosis import diagnose

Curve = np.ndarray
STEPS = [0, 50, 100, 200, 300, 400, 500, 600, 800, 1000, 1500, 2000]


def images(mean: list[float] | Curve, seed: int, sd: float = 0.02, count: int = 16) -> Curve:
    rng = np.random.default_rng((seed, 77))
    return np.asarray(mean)[:, None] + 0.05 * rng.standard_normal(count) + sd * rng.standard_normal((len(mean), count))


RISE = np.array([0.3, 0.5, 0.65, 0.72, 0.76, 0.78, 0.79, 0.8, 0.8, 0.8, 0.8, 0.8])
STAGE = np.array([0.3, 0.55, 0.7, 0.8, 0.6, 0.42, 0.4, 0.45, 0.6, 0.75, 0.82, 0.83])
STEADY = np.full(12, 0.3)
LOST = np.array([0.3, 0.3, 0.3, 0.29, 0.28, 0.27, 0.26, 0.24, 0.22, 0.2, 0.19, 0.18])


def test_fidelity_alone_gives_the_verdict_of_the_test() -> None:
    scores = images(STAGE, 0)
    assert diagnose(STEPS, {"dino": scores}) == detect_corruption(STEPS, scores)


@pytest.mark.parametrize("column", ["clip_t", "diversity"])
def test_copies_that_lose_the_prompt_or_their_variety_are_overfit(column: str) -> None:
    verdict = diagnose(STEPS, {"dino": images(RISE, 0), column: images(LOST, 1, 0.01)}, ceiling=0.7)
    assert (verdict.flagged, verdict.kind) == (False, "overfit")
    assert verdict.sentence.startswith(f"Keep step {verdict.best_step}") and " Overfit: " in verdict.sentence
    assert verdict.labels[-1] == "overfit"
    assert verdict.labels[:3] == ("rising", "rising", "rising")


def test_high_fidelity_that_costs_nothing_is_no_overfitting() -> None:
    assert diagnose(STEPS, {"dino": images(RISE, 0), "clip_t": images(STEADY, 1, 0.01)}, ceiling=0.7).kind == "none"


def test_lost_prompts_below_the_ceiling_are_no_overfitting() -> None:
    assert diagnose(STEPS, {"dino": images(RISE, 0), "clip_t": images(LOST, 1, 0.01)}, ceiling=0.9).kind == "none"


def test_one_photograph_has_no_ceiling_to_overfit_to() -> None:
    assert diagnose(STEPS, {"dino": images(RISE, 0), "clip_t": images(LOST, 1, 0.01)}).kind == "none"


def test_overfitting_is_seldom_found_where_there_is_none() -> None:
    kinds = [
        diagnose(STEPS, {"dino": images(RISE, s), "clip_t": images(STEADY, s + 1), "diversity": images(STEADY, s + 2)}, ceiling=0.7).kind
        for s in range(60)
    ]
    assert kinds.count("overfit") <= 6


def test_a_stage_stays_a_stage_and_its_end_may_be_overfit() -> None:
    verdict = diagnose(STEPS, {"dino": images(STAGE, 0), "clip_t": images(LOST, 1, 0.01)}, ceiling=0.7)
    assert (verdict.flagged, verdict.kind) == (True, "corruption")
    assert verdict.labels[4] == "corrupted"
    assert verdict.labels[-1] == "overfit"


def test_images_that_fail_from_the_start_are_the_sampler_s_fault() -> None:
    failed = np.ones((12, 16))
    verdict = diagnose(STEPS, {"dino": images(STAGE, 0), "failed": failed})
    assert (verdict.flagged, verdict.kind) == (False, "broken_sampling")
    assert "step 0" in verdict.sentence


def test_a_few_failed_images_change_nothing() -> None:
    failed = np.zeros((12, 16))
    failed[5, :3] = 1
    assert diagnose(STEPS, {"dino": images(STAGE, 0), "failed": failed}).kind == "corruption"


def test_images_that_fail_later_are_part_of_the_stage() -> None:
    failed = np.zeros((12, 16))
    failed[5:8] = 1
    assert diagnose(STEPS, {"dino": images(STAGE, 0), "failed": failed}).kind == "corruption"


def test_the_best_checkpoint_weighs_prompts_against_fidelity() -> None:
    """Fidelity gains 0.02 after the stage and the prompt loses 40 %: the peak before the stage is kept."""
    scores = {"dino": images(STAGE, 0, 0.005), "clip_t": images(LOST, 1, 0.005)}
    assert diagnose(STEPS, {"dino": scores["dino"]}).best_step in (1500, 2000)
    verdict = diagnose(STEPS, scores)
    assert verdict.best_step == 200
    assert "trade-off" in verdict.best_reason
    assert verdict.sentence.startswith("Keep step 200. Avoid steps ")
    assert 200 in verdict.best_steps
    assert not {300, 400, 500} & set(verdict.best_steps)


def test_steps_that_images_cannot_tell_apart_are_all_named() -> None:
    scores = {"dino": images(RISE, 0, 0.1), "clip_t": images(STEADY, 1, 0.1)}
    near, clear = (
        diagnose(STEPS, scores),
        diagnose(STEPS, {name: s.mean(1, keepdims=True) + images(0 * RISE, 3, 1e-4) for name, s in scores.items()}),
    )
    assert len(near.best_steps) >= len(clear.best_steps)
    assert 0 not in near.best_steps


def test_diverged_and_too_short_curves_pass_through() -> None:
    scores = images(STAGE, 0)
    scores[9:, 0] = np.nan
    assert diagnose(STEPS, {"dino": scores, "clip_t": images(STEADY, 1)}).kind == "diverged"
    assert diagnose(STEPS[:3], {"dino": images(STAGE[:3], 0), "clip_t": images(STEADY[:3], 1)}).kind == "too_few_points"


def test_the_best_checkpoint_is_chosen_alike_from_the_first_ones_on() -> None:
    """Checkpoints are deleted while a run is young: what is kept then must be what counts later."""
    alignment = np.linspace(0.3, 0.05, 12)
    for seed in range(5):
        columns = {"dino": images(RISE, seed, 0.01), "clip_t": images(alignment, seed + 9, 0.01)}
        kept: set[int] = set()
        for count in range(1, 13):
            best = diagnose(STEPS[:count], {name: scores[:count] for name, scores in columns.items()}).best_step
            assert best in kept | {STEPS[count - 1]}
            kept = {best}


def test_percent_and_shares_keep_the_same_checkpoint() -> None:
    columns = {"dino": images(RISE, 0), "clip_t": images(LOST, 1, 0.01)}
    share = diagnose(STEPS, columns)
    percent = diagnose(STEPS, {**columns, "dino": 100 * columns["dino"]}, min_depth=3.0, whole=100.0)
    assert (percent.best_step, percent.best_steps) == (share.best_step, share.best_steps)


def test_alignment_that_is_not_finite_does_not_choose() -> None:
    columns = {"dino": images(RISE, 0), "clip_t": images(STEADY, 1)}
    columns["clip_t"][2, 0] = np.nan
    assert diagnose(STEPS, columns) == detect_corruption(STEPS, columns["dino"])


def test_means_of_alignment_beside_images_of_fidelity_are_weighed() -> None:
    dino = images(RISE, 0)
    verdict = diagnose(STEPS, {"dino": dino, "clip_t": LOST})
    assert verdict.best_step == STEPS[int(trade_off(dino.mean(1), LOST, 1.0).argmax())]


def test_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="clip_t has 5 checkpoints, and dino 12"):
        diagnose(STEPS, {"dino": images(RISE, 0), "clip_t": images(STEADY[:5], 1)})
    with pytest.raises(ValueError, match="several are for detect_corruption"):
        diagnose(STEPS, {"dino": np.stack([images(RISE, 0), images(RISE, 1)])})


def test_black_images_from_the_start_are_broken_sampling_also_without_scores() -> None:
    nothing = np.full((12, 16), np.nan)
    assert diagnose(STEPS, {"dino": nothing, "failed": np.ones((12, 16))}).kind == "broken_sampling"


def test_other_columns_say_what_a_fall_was() -> None:
    noisy = np.where(STAGE < 0.5, 0.5, 0.2)
    columns = {"dino": images(STAGE, 0), "clip_i": images(STAGE, 2), "hf_energy": images(noisy, 3)}
    verdict = diagnose(STEPS, columns)
    assert verdict.flagged
    assert "From peak to trough CLIP-I falls by 0." in verdict.sentence and "high-frequency energy rises by 0.3" in verdict.sentence
    assert verdict.sentence.startswith(f"Keep step {verdict.best_step}; ")
    assert ". Avoid steps 300 to 1000 (noise pattern: high-frequency energy" in verdict.sentence
    assert verdict.avoid_kinds == ("noise_pattern",)
    assert "From peak" not in diagnose(STEPS, {**columns, "clip_i": images(STEADY, 2), "hf_energy": images(STEADY, 3)}).sentence


def test_overfitting_is_not_told_to_train_on() -> None:
    climbing = np.linspace(0.3, 0.9, 12)
    verdict = diagnose(STEPS, {"dino": images(climbing, 0), "clip_t": images(LOST, 1, 0.01)}, ceiling=0.7)
    assert verdict.kind == "overfit"
    assert "train on" not in verdict.sentence


@pytest.mark.parametrize("level", [0.15, 0.9])
def test_the_set_of_best_checkpoints_has_the_best_and_counts_swings_as_their_own(level: float) -> None:
    """At low fidelity, where the trade-off is steep, as at high. What moves all images of a checkpoint is in the file that is kept."""
    left_out, missed, sizes = 0, 0, []
    for seed in range(25):
        moves, steady = 0.03 * np.random.default_rng(seed).standard_normal(10), {"clip_t": images(np.full(10, 0.3), 2 * seed + 1, 0.01)}
        swings = diagnose(range(0, 1000, 100), {"dino": images(level + moves, 2 * seed, 0.03), **steady}).best_steps
        equal = diagnose(range(0, 1000, 100), {"dino": images(np.full(10, level), 2 * seed, 0.03), **steady}).best_steps
        missed += 100 * (1 + int(moves[1:].argmax())) not in swings
        left_out += 500 not in equal
        sizes.append((len(swings), len(equal)))
    assert missed <= 4 and left_out <= 4  # 1 expected
    assert np.mean(sizes, axis=0)[0] < 0.6 * np.mean(sizes, axis=0)[1]


def test_sampled_prompts_make_more_checkpoints_as_good_as_the_best() -> None:
    """What a prompt adds to all its images is four draws, not sixteen."""
    groups = np.repeat(np.arange(4), 4)
    of_prompts = 0.06 * np.random.default_rng(0).standard_normal((12, 4))[:, groups]
    scores = {"dino": images(RISE, 0, 0.01) + of_prompts, "clip_t": images(STEADY, 1, 0.01)}
    alone, together = (diagnose(STEPS, scores, groups=g, checkpoint_noise=0.0) for g in (None, groups))
    assert len(together.best_steps) > len(alone.best_steps)


def test_speckle_that_fidelity_does_not_see_is_not_kept() -> None:
    grainy = np.array([1.0, 1, 1, 1, 1, 1, 1.6, 1.5, 1, 1, 1, 1])
    steady = np.array([0.3, 0.5, 0.65, 0.72, 0.75, 0.75, 0.85, 0.85, 0.75, 0.75, 0.75, 0.75])
    verdict = diagnose(STEPS, {"dino": images(steady, 0), "hf_relative": images(grainy, 1)})
    assert verdict.grainy == ((500, 600),)
    assert verdict.best_step not in (500, 600)
    assert f"Keep step {verdict.best_step}. Avoid steps 500 to 600 (high-frequency energy 1.5" in verdict.sentence
    assert not diagnose(STEPS, {"dino": images(steady, 0), "hf_relative": images(0.6 * grainy, 1)}).grainy, "smoother than the photograph"
    energy = {"dino": images(steady, 0), "hf_energy": 0.3 * images(grainy, 1)}
    assert diagnose(STEPS, energy, photo_hf=0.3).grainy == ((500, 600),)
    assert not diagnose(STEPS, energy).grainy, "without the photograph nothing says what is too much"


def test_fewer_images_than_four_have_no_first_level() -> None:
    verdict = diagnose(STEPS, {"dino": images(STAGE, 0, count=3), "clip_t": images(STEADY, 1, count=3)})
    assert not verdict.images_judged and not verdict.avoid


def test_the_kind_is_named_for_each_run_to_avoid() -> None:
    noisy = np.where(STAGE < 0.65, 0.5, 0.3)
    columns = {"dino": images(STAGE, 0), "hf_energy": images(noisy, 3)}
    verdict = diagnose(STEPS, columns, photo_hf=0.32)
    assert len(verdict.avoid) == len(verdict.avoid_kinds) == len(verdict.avoid_evidence) == len(verdict.avoid_depths) > 0
    assert "of the photograph's" in verdict.avoid_evidence[0]
    assert diagnose(STEPS, {"dino": columns["dino"]}).avoid_kinds == ()


def test_a_photograph_of_one_colour_is_no_measure_of_grain() -> None:
    """A share of nothing is any number: here hundreds of millions."""
    steady, grainy = [0.8] * 12, np.array([1.0] * 5 + [1.5] * 3 + [1.0] * 4)
    energy = images(0.2 * grainy, 1)
    columns = {"dino": images(steady, 0), "hf_energy": energy}
    assert diagnose(STEPS, columns, photo_hf=0.2).grainy, "the curve has grain where the photographs do"
    for photo_hf in (0.0, 1e-9, 5e-4):
        assert not diagnose(STEPS, {**columns, "hf_relative": energy / max(photo_hf, 1e-9)}, photo_hf=photo_hf).grainy
