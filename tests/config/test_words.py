"""Words for Hydra: every value arrives as it was, in a plan and in a command."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bayesdiff.config.compose import compose
from bayesdiff.config.words import override, parsed
from bayesdiff.core.errors import UserError

TEXTS = st.text(max_size=12) | st.text(alphabet="\\'\"=,:[](){}$ ~+?*%#@!&|\n\tnulofeé中1e.-", max_size=12)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS


def possible(value: Any) -> bool:
    return not isinstance(value, str) or not ("${" in value or "\0" in value or value == "???")


@settings(max_examples=400, deadline=None)
@given(LEAVES.filter(possible))
@example("null")
@example("off")
@example("1e3")
@example(".0")
@example(".5e3")
@example("it's")
@example("\\'")
@example("ends in \\")
@example("dog, sitting")
@example("photos=1")
@example("(attn1|ff)\\.")
def test_hydra_reads_every_value_as_it_was(value: Any) -> None:
    read = parsed(override("data.path", value))
    assert read.key_or_group == "data.path"
    assert read.value() == value
    assert type(read.value()) is type(value)


@settings(max_examples=100, deadline=None)
@given(st.lists(LEAVES.filter(possible), max_size=4))
def test_lists_arrive_whole(values: list[Any]) -> None:
    assert parsed(override("a", values)).value() == values


def test_what_is_not_a_number_arrives_too() -> None:
    assert math.isnan(parsed(override("a", math.nan)).value())


@settings(max_examples=10, deadline=None)
@given(TEXTS.filter(possible))
@example("proj (copy)")
@example("zoë")
@example("\\")
@example("[a, b]={c}")
def test_the_configuration_has_the_text(text: str) -> None:
    assert compose(["+experiment=smoke", override("data.path", text)]).data.path == text


def test_words_that_need_no_quotes_have_none() -> None:
    """Commands of committed records stay as they are written."""
    said = [override("bnn", "off"), override("seed", 3), override("method.learning_rate", 5e-4), override("shots.count", None)]
    assert said == ["bnn=off", "seed=3", "method.learning_rate=0.0005", "shots.count=null"]
    assert override("data.subject", "1") == "data.subject='1'"


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "a\0b", "???", object()])
def test_what_no_setting_can_hold_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"^data\.path"):
        override("data.path", value)


def test_a_word_outside_the_grammar_is_refused_with_the_remedy() -> None:
    with pytest.raises(UserError, match="put the value in quotes"):
        parsed("bnn.layers=(attn1|ff)")
