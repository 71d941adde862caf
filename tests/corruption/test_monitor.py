"""The running verdict: fed checkpoint by checkpoint, it says what the whole curve says."""

from __future__ import annotations

import numpy as np
import pytest

from bayesdiff.corruption import detect_corruption
from bayesdiff.corruption.monitor import CorruptionMonitor, may_stop, reason_to_stop, warning
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
    reasons = [reason_to_stop(verdict, TWELVE[: index + 2]) for index, verdict in enumerate(verdicts)]
    assert [bool(reason) for reason in reasons] == [may_stop(verdict) for verdict in verdicts]
    assert reasons[-1].endswith(f"keep step {verdicts[-1].best_step}")


def test_patience_counts_the_checkpoints_behind_the_last_that_may_be_the_best() -> None:
    falling = np.linspace(0.9, 0.3, 8)[:, None] + 0.001 * np.random.default_rng(0).standard_normal((8, 6))
    verdict = detect_corruption(range(8), falling)
    newest = max(verdict.best_steps)
    assert newest < 3
    assert reason_to_stop(verdict, range(8), 7 - newest).startswith(f"{7 - newest} checkpoints after step {newest}")
    assert not reason_to_stop(verdict, range(8), 8 - newest)
    assert not reason_to_stop(verdict, range(8))
