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
    places = [sentence.index(word) for word in ("Keep step", "Avoid steps 200 to", "noise pattern", "error rate", "Corrupted", "no swing")]
    assert places == sorted(places)


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
    assert verdict.best_step != 0
    assert "base model" in verdict.best_reason


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
