"""The running verdict: fed checkpoint by checkpoint, it says what the whole curve says."""

from __future__ import annotations

import numpy as np
import pytest

from bayesdiff.corruption import CorruptionVerdict, detect_corruption
from bayesdiff.corruption.monitor import CorruptionMonitor, may_stop, measured, reason_to_stop, warning
from tests.corruption.test_detector import CLEAR, TWELVE, saturating, simulate


def test_the_last_verdict_is_the_verdict_of_the_whole_curve() -> None:
    monitor = CorruptionMonitor()
    for step, row in zip(TWELVE, CLEAR, strict=True):
        verdict = monitor.update(step, row)
    assert verdict == detect_corruption(TWELVE, CLEAR) == monitor.verdict


def test_the_stage_is_told_as_it_goes() -> None:
    kinds, stops = [], []
    monitor = CorruptionMonitor()
    for step, row in zip(TWELVE, CLEAR, strict=True):
        verdict = monitor.update(step, row)
        kinds.append(verdict.kind)
        stops.append(may_stop(verdict))
    assert kinds[:5] == ["too_few_points"] * 5
    assert "in_progress" in kinds
    assert kinds[-1] == "corruption"
    assert stops.index(True) >= TWELVE.index(700)


def test_a_curve_without_a_stage_never_stops_a_run() -> None:
    scores = simulate(saturating(12), 1)
    monitor = CorruptionMonitor()
    assert not any(may_stop(monitor.update(step, row)) for step, row in zip(TWELVE, scores, strict=True))


def test_a_bare_value_is_a_checkpoint_too() -> None:
    monitor = CorruptionMonitor()
    for step, row in zip(TWELVE, CLEAR, strict=True):
        monitor.update(step, float(row.mean()))
    assert monitor.verdict == detect_corruption(TWELVE, CLEAR.mean(1))


def test_steps_that_go_back_and_other_image_counts_are_refused() -> None:
    monitor = CorruptionMonitor()
    monitor.update(10, [0.1, 0.2])
    with pytest.raises(ValueError, match="step 10 does not come after step 10"):
        monitor.update(10, [0.1, 0.2])
    with pytest.raises(ValueError, match="3 scores, and the checkpoints before it 2"):
        monitor.update(20, [0.1, 0.2, 0.3])
    assert monitor.steps == [10]


def test_a_step_that_goes_back_replaces_what_came_after_it_where_that_is_asked_for() -> None:
    monitor = CorruptionMonitor()
    for step, row in zip(TWELVE, CLEAR, strict=True):
        monitor.update(step, row)
    for step, row in zip(TWELVE[5:], CLEAR[5:], strict=True):
        verdict = monitor.update(step, row + 0.01, replace=True)
    assert monitor.steps == TWELVE
    assert verdict == detect_corruption(TWELVE, [*CLEAR[:5], *(CLEAR[5:] + 0.01)])


def test_a_judge_that_fails_leaves_the_monitor_as_it_was() -> None:
    def judge(steps: object, scores: object) -> CorruptionVerdict:
        if fails:
            raise RuntimeError("lost")
        return detect_corruption(steps, scores)

    fails, monitor = False, CorruptionMonitor(judge)
    monitor.update(1, [0.1, 0.2])
    fails = True
    with pytest.raises(RuntimeError, match="lost"):
        monitor.update(2, [0.3, 0.4])
    fails = False
    monitor.update(3, [0.3, 0.4])
    assert monitor.steps == [1, 3]


def test_scores_that_are_not_finite_are_left_out_where_finite_ones_follow() -> None:
    scores = CLEAR.copy()
    scores[6] = np.nan
    monitor = CorruptionMonitor()
    kinds = [monitor.update(step, row).kind for step, row in zip(TWELVE, scores, strict=True)]
    assert [kind == "diverged" for kind in kinds] == [i == 6 for i in range(12)]
    assert monitor.verdict == detect_corruption(np.delete(TWELVE, 6), np.delete(CLEAR, 6, axis=0))
    assert monitor.judged == np.delete(TWELVE, 6).tolist()


def test_an_image_without_a_score_goes_or_where_each_lacks_one_the_checkpoints() -> None:
    scores = np.arange(12.0).reshape(4, 3)
    scores[1, 2] = np.inf
    rows, columns = measured(scores)
    assert (rows.tolist(), columns.tolist()) == ([True] * 4, [True, True, False])
    scores[0, 0] = scores[2, 1] = np.nan
    rows, columns = measured(scores)
    assert (rows.tolist(), columns.tolist()) == ([False, False, False, True], [True] * 3)
    scores = np.full((3, 2), np.nan)
    assert [kept.all() for kept in measured(scores)] == [True, True], "divergence stays"


def test_another_judge_may_be_given() -> None:
    strict = CorruptionMonitor(lambda steps, scores: detect_corruption(steps, scores, min_depth=0.9))
    for step, row in zip(TWELVE, CLEAR, strict=True):
        verdict = strict.update(step, row)
    assert not verdict.flagged


def test_a_fallen_checkpoint_is_warned_of() -> None:
    falling = detect_corruption(TWELVE[:7], CLEAR[:7])
    assert falling.labels[-1] == "corrupted"
    assert warning(falling) == "fidelity has fallen since step 100; do not keep this checkpoint"
    assert warning(detect_corruption(TWELVE, simulate(saturating(12), 1))) == ""


def test_divergence_is_warned_of() -> None:
    assert "not finite" in warning(detect_corruption(TWELVE, np.full((12, 2), np.nan)))


def test_a_fall_behind_a_recovery_is_warned_of_and_stops_nothing() -> None:
    mean = np.interp(np.arange(30), [0, 3, 7, 9, 12, 14, 20, 21, 29], [0.3, 0.75, 0.75, 0.4, 0.4, 0.75, 0.75, 0.2, 0.2])
    verdict = detect_corruption(list(range(0, 3000, 100)), simulate(mean, 0, residual=0.02, checkpoint=0.005))
    assert "fallen again" in warning(verdict)
    assert not may_stop(verdict)


def test_there_is_a_reason_to_stop_behind_a_stage_and_none_before_it() -> None:
    verdicts = [detect_corruption(TWELVE[:count], CLEAR[:count]) for count in range(2, len(TWELVE) + 1)]
    means = CLEAR.mean(axis=1)
    reasons = [reason_to_stop(verdict, TWELVE[: index + 2], means[: index + 2]) for index, verdict in enumerate(verdicts)]
    assert [bool(reason) for reason in reasons] == [may_stop(verdict) for verdict in verdicts]
    assert reasons[-1].endswith(f"keep step {verdicts[-1].best_step}")


def test_divergence_is_three_checkpoints_in_a_row_at_the_end() -> None:
    for count in range(1, 5):
        scores = CLEAR.copy()
        scores[12 - count :] = np.nan
        verdict = detect_corruption(TWELVE, scores)
        assert bool(reason_to_stop(verdict, TWELVE, scores.mean(axis=1))) == (count >= 3) == ("diverged." in warning(verdict))
        assert "not finite" in warning(verdict)


def test_patience_counts_the_checkpoints_behind_the_last_that_may_be_the_best() -> None:
    falling = np.linspace(0.9, 0.88, 8)[:, None] + 0.0001 * np.random.default_rng(0).standard_normal((8, 6))
    verdict, means = detect_corruption(range(8), falling), falling.mean(axis=1)
    newest = max(verdict.best_steps)
    assert newest < 3
    assert reason_to_stop(verdict, range(8), means, 7 - newest).startswith(f"{7 - newest} checkpoints after step {newest}")
    assert not reason_to_stop(verdict, range(8), means, 8 - newest)
    assert not reason_to_stop(verdict, range(8), means)


def patient(mean: np.ndarray, seed: int, patience: int = 4) -> str:
    """The first reason to stop along a curve of 8 images; empty where there is none."""
    steps, scores, monitor = list(range(0, 100 * len(mean), 100)), simulate(mean, seed, residual=0.02, checkpoint=0.01), CorruptionMonitor()
    for i, (step, row) in enumerate(zip(steps, scores, strict=True), 1):
        if reason := reason_to_stop(monitor.update(step, row), steps[:i], scores[:i].mean(axis=1), patience):
            return reason
    return ""


def test_patience_outlasts_a_stage_and_ends_a_fall_for_good() -> None:
    at = np.arange(26)
    rise = 0.3 + 0.45 * (1 - np.exp(-at / 2.5))
    stage = rise - 0.3 * np.exp(-(((at - 11) / 3.6) ** 4))
    half = np.where(at > 11, np.minimum(stage, 0.6), stage)
    for seed in range(2):
        assert "stage has been passed" in patient(stage, seed)
        assert "may be better" in patient(rise - np.clip(0.03 * (at - 8), 0, 0.4), seed), "a fall for good ends"
        assert "may be better" in patient(half, seed), "and so does a climb that ends half way"
        assert patient(rise, seed) == "", "on a plateau any checkpoint may be the best"
