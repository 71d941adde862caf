"""Every word of the evaluation has a meaning in the toybox, and identifiers have none."""

from __future__ import annotations

import numpy as np
import pytest

from bayesdiff.config.prompts import PROMPT_SETS, fill
from bayesdiff.pretraining.tokenizer import build_tokenizer
from bayesdiff.toybox.vocabulary import (
    BOS,
    CLASSES,
    COLOURS,
    CONTEXTS,
    EOS,
    FINISHES,
    LIVE_CLASSES,
    MAX_TOKENS,
    OBJECT_CLASSES,
    OPENINGS,
    OUTFITS,
    PAD,
    PATTERNS,
    RARE_TOKENS,
    UNKNOWN,
    vocabulary,
)
from bayesdiff.toybox.world import caption, sample_picture

TOKENIZER = build_tokenizer()
WORDS = vocabulary()


def captions(count: int) -> list[str]:
    """Captions of the pretraining distribution, without their pictures."""
    generators = [np.random.default_rng((77, index)) for index in range(count)]
    return [caption(rng, sample_picture(rng)) for rng in generators]


@pytest.mark.parametrize("identifier", ["qwe", "sks", ""])
@pytest.mark.parametrize("name", ["object", "live"])
def test_every_prompt_of_the_lists_is_known_and_fits_for_every_class(name: str, identifier: str) -> None:
    prompts = [fill(template, identifier, noun) for template in PROMPT_SETS[name] for noun in CLASSES]
    tokens = TOKENIZER(prompts)["input_ids"]
    assert len(tokens) == 25 * 16
    assert WORDS[UNKNOWN] not in {token for row in tokens for token in row}
    assert max(map(len, tokens)) <= MAX_TOKENS


def test_every_caption_is_known_and_fits() -> None:
    tokens = TOKENIZER(captions(1500))["input_ids"]
    assert WORDS[UNKNOWN] not in {token for row in tokens for token in row}
    assert max(map(len, tokens)) <= MAX_TOKENS


def test_the_longest_caption_there_can_be_fits_with_an_identifier() -> None:
    def longest(phrases: tuple[str, ...]) -> str:
        return max(phrases, key=lambda phrase: len(phrase.split()))

    dressed = [longest(OPENINGS), "red", "striped", "dog", longest(OUTFITS), longest(CONTEXTS)]
    finished = [longest(OPENINGS), longest(FINISHES), "red", "striped", "dog", longest(CONTEXTS)]
    words = max(len(" ".join(parts).split()) for parts in (dressed, finished))
    assert words == 24
    assert words + 3 <= MAX_TOKENS


def test_rare_tokens_are_words_that_no_caption_uses() -> None:
    used = {word for text in captions(1500) for word in text.split()}
    assert used.isdisjoint(RARE_TOKENS)
    assert set(CLASSES) | set(COLOURS) <= used
    assert set(RARE_TOKENS) <= set(WORDS)


def test_the_end_has_the_largest_id() -> None:
    assert WORDS[EOS] == max(WORDS.values())
    padded = TOKENIZER(["a dog", "a photo of a red dog"], padding="max_length", max_length=MAX_TOKENS, return_tensors="np")["input_ids"]
    assert padded.argmax(-1).tolist() == [3, 7]


def test_ids_are_consecutive_and_padding_is_zero() -> None:
    assert sorted(WORDS.values()) == list(range(len(WORDS)))
    assert WORDS[PAD] == 0
    assert len(TOKENIZER) == len(WORDS)
    assert vocabulary() == WORDS


def test_a_prompt_is_framed_by_begin_and_end() -> None:
    tokens = TOKENIZER("a qwe dog")["input_ids"]
    assert tokens == [WORDS[BOS], WORDS["a"], WORDS["qwe"], WORDS["dog"], WORDS[EOS]]
    assert TOKENIZER("")["input_ids"] == [WORDS[BOS], WORDS[EOS]]


def test_capital_letters_do_not_matter_and_other_words_are_unknown() -> None:
    assert TOKENIZER("A Qwe DOG")["input_ids"] == TOKENIZER("a qwe dog")["input_ids"]
    assert TOKENIZER("a dragon")["input_ids"][2] == WORDS[UNKNOWN]


def test_a_text_that_is_too_long_is_cut_and_keeps_its_end() -> None:
    tokens = TOKENIZER("dog " * 60, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    assert len(tokens) == MAX_TOKENS
    assert tokens[-1] == WORDS[EOS]


def test_classes_are_objects_or_live_and_nothing_is_named_twice() -> None:
    assert (len(OBJECT_CLASSES), len(LIVE_CLASSES), len(set(CLASSES))) == (12, 4, 16)
    for names in (CONTEXTS, OUTFITS, PATTERNS, FINISHES, tuple(COLOURS), tuple(COLOURS.values())):
        assert len(set(names)) == len(names)
