"""The sentence for a person: its order, and that it says what the fields say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from bayesdiff.corruption import detect_corruption
from bayesdiff.corruption.diagnosis import diagnose
from bayesdiff.corruption.outcome import DETECTOR_VERSION, CorruptionVerdict
from bayesdiff.corruption.words import NAMES, sentence_of
from tests.corruption.test_detector import CLEAR, TWELVE, swinging


def test_what_to_keep_comes_first_then_what_to_avoid_then_how_sure() -> None:
    noisy = 0.3 + 0.2 * (CLEAR.mean(1) < 0.65)[:, None] + 0.01 * np.random.default_rng(0).standard_normal(CLEAR.shape)
    sentence = diagnose(TWELVE, {"dino": CLEAR, "hf_energy": noisy}).sentence
    places = [
        sentence.index(word) for word in ("Keep step", "Avoid steps 200 to", "noise pattern", "error rate", "Corrupted", "swings alone")
    ]
    assert places == sorted(places)


def test_a_way_back_is_half_of_the_depth_and_is_called_that() -> None:
    """``recovery_step`` is where half of the depth is won back: steps up to there and beyond may still be ones to avoid."""
    verdict = diagnose(TWELVE, {"dino": CLEAR})
    assert f"and is half way back by step {verdict.recovery_step}." in verdict.sentence


def test_a_dip_that_is_not_told_from_a_swing_says_what_would_tell() -> None:
    verdicts = [detect_corruption(TWELVE, swinging(seed, 0.15), seed=seed) for seed in range(20)]
    for verdict in verdicts:
        if verdict.extra_steps:
            assert verdict.level_3 == "not_measured"
            assert f"at steps {verdict.extra_steps[0]}" in verdict.sentence
        if verdict.kind == "unstable":
            assert verdict.avoid and "Avoid steps" in verdict.sentence and "swings by" in verdict.sentence
    assert any(verdict.kind == "unstable" for verdict in verdicts)


def test_nothing_better_than_the_base_model_keeps_nothing() -> None:
    rng = np.random.default_rng(0)
    scores = np.array([0.8, *[0.6] * 11])[:, None] + 0.03 * rng.standard_normal((12, 8))
    verdict = detect_corruption(TWELVE, scores)
    assert (verdict.kind, verdict.better_than_base) == ("nothing_better_than_base", False)
    assert verdict.sentence.startswith("Keep nothing yet")
    assert "prompts have the identifier; if so, train longer" in verdict.sentence, "what to do instead"
    assert verdict.best_step != 0
    assert "base model" in verdict.best_reason


def test_a_rise_whose_prompt_is_lost_is_not_told_to_train_on() -> None:
    rng = np.random.default_rng(0)
    rising = np.linspace(0.5, 0.7, 12)[:, None] + 0.01 * rng.standard_normal((12, 8))
    forgets = np.linspace(0.3, 0.05, 12)[:, None] + 0.01 * rng.standard_normal((12, 8))
    kept, lost = diagnose(TWELVE, {"dino": rising}), diagnose(TWELVE, {"dino": rising, "clip_t": forgets}, ceiling=0.9)
    assert (kept.kind, lost.kind, kept.best_step) == ("undertrained", "undertrained", TWELVE[-1])
    assert "train on to know" in kept.sentence and "train on" not in lost.sentence
    assert lost.best_step < TWELVE[-1] and f"step {lost.best_step} is kept for its prompt alignment" in lost.sentence


def test_step_0_is_never_kept_even_where_it_is_best() -> None:
    for scores in (np.linspace(0.9, 0.1, 12), np.full(12, 0.5), np.array([0.9, 0.3, 0.3, 0.3, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9])):
        assert detect_corruption(TWELVE, scores).best_step != 0
    assert detect_corruption(np.array(TWELVE) + 1, np.linspace(0.9, 0.1, 12)).best_step == 1  # no base model: its first checkpoint


def test_every_kind_of_bad_has_words() -> None:
    verdict = detect_corruption(TWELVE, CLEAR)
    for kind, words in NAMES.items():
        assert words in sentence_of(replace(verdict, avoid_kinds=(kind,), avoid_evidence=("why",)))


def test_a_verdict_of_an_older_version_is_read_and_unknown_fields_are_left_out() -> None:
    stored = json.loads(json.dumps(detect_corruption(TWELVE, CLEAR).to_dict()))
    for name in ("avoid", "level_3", "better_than_base", "remarks"):
        del stored[name]
    read = CorruptionVerdict.from_dict({**stored, "of_another_version": [1, 2]})
    assert (read.kind, read.avoid, read.level_3) == ("corruption", (), "")
    assert DETECTOR_VERSION >= 2


def test_other_steps_that_may_be_kept_are_named() -> None:
    verdict = detect_corruption(TWELVE, CLEAR)
    for others, words in (((), "."), ((100,), "; step 100 may be as good."), ((100, 300), "; steps 100 and 300 may be as good."),
                          ((1, 2, 3, 4, 5), "; 5 others from step 1 to 5 may be as good.")):  # fmt: skip
        said = sentence_of(replace(verdict, best_steps=(*others, verdict.best_step)))
        assert said.startswith(f"Keep step {verdict.best_step}{words} ")


def test_a_stage_of_a_bare_curve_says_what_to_avoid() -> None:
    verdict = detect_corruption(TWELVE, CLEAR.mean(1), checkpoint_noise=0.005)
    assert verdict.flagged and not verdict.avoid
    assert f"Avoid the steps from {verdict.onset_step} to before {verdict.recovery_step}." in verdict.sentence


def test_a_small_p_value_without_a_stage_is_explained() -> None:
    none = replace(detect_corruption(TWELVE, np.linspace(0.1, 0.9, 12)), kind="none", p_value=0.02, alpha=0.05)
    for fields, words in (({"level_3": "none"}, "shallower"), ({"level_3": "slow"}, "outlast"), ({"level_3": "not_measured"}, "not known")):
        assert words in sentence_of(replace(none, **fields))
        assert words not in sentence_of(replace(none, p_value=0.3, **fields))
    assert "(p = 0.0496)" in sentence_of(replace(none, p_value=0.0496))


def test_a_curve_that_falls_at_its_end_says_so_though_no_fall_is_told_from_noise() -> None:
    """A user would otherwise read of the deepest dip alone, of which this curve has none."""
    curve = [
        0.3017, 0.4438, 0.5601, 0.6241, 0.632, 0.6895, 0.693, 0.7337, 0.7333, 0.7432, 0.7311, 0.7628, 0.7665, 0.7369, 0.7521, 0.7422, 0.699,
        0.6368, 0.6183, 0.5401, 0.4969,
    ]  # fmt: skip
    verdict = detect_corruption(range(0, 2100, 100), curve)
    assert verdict.kind == "none"
    assert "The last 4 checkpoints fall, to 0.270 below step 1200" in verdict.sentence
