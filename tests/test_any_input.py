"""Anything at all as a word of a configuration, a record or a table: taken as it is, or refused in one line.

A few hundred examples each; the slow tests take more than ten thousand.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_records import make_run, prepare

from bayesdiff.config.compose import compose, literal
from bayesdiff.config.derive import derive
from bayesdiff.config.words import override, parsed
from bayesdiff.core.errors import UserError
from bayesdiff.readings import Naming
from bayesdiff.readings.sources import read_bytes
from bayesdiff.recording.columns import Damaged, parse_curve, parse_images
from bayesdiff.recording.record import parse_record
from bayesdiff.studies.study_file import check_word

FEW, MANY = 150, 3_000
QUICK = {"deadline": None, "suppress_health_check": list(HealthCheck)}
KEYS = st.sampled_from([
    "seed", "bnn", "bnn.layers", "data.subject", "data.class_noun", "shots.count", "method.learning_rate", "metrics.extra",
    "sampler.prompts", "bnn.options", "schedule.keep", "evaluations", "nosuch", "+bnn.options.a", "",
])  # fmt: skip
TEXTS = st.text(max_size=12) | st.text(alphabet="\\'\"=,:[](){}$ ~+?*%#@!&|\n\tnulofeé中1e.-", max_size=12)
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.lists(TEXTS | st.integers(), max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 100) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8,
)  # fmt: skip


def in_one_line(error: UserError) -> None:
    assert len(str(error)) > 8
    assert len(str(error)) < 3000


def any_word(key: str, value: Any, raw: str) -> None:
    """A word of a study: quoted by us, or as somebody typed it."""
    for word in (raw, f"{key}={raw}"):
        try:
            check_word(word)
        except UserError as error:
            in_one_line(error)
    try:
        word = override(key, value)
        check_word(word)
    except UserError as error:
        in_one_line(error)
        return
    try:
        derived = derive(("+experiment=smoke", word))
    except UserError as error:
        in_one_line(error)
        return
    if key in ("data.subject", "data.class_noun", "bnn.layers") and isinstance(value, str):
        group, _, name = key.partition(".")
        assert getattr(getattr(derived, group), name) == value == parsed(word).value()


def any_record(good: dict[str, Any], path: list[int], value: Any, cut: int, as_bytes: bytes) -> None:
    """A record with one value replaced, a record cut off, and bytes that are none."""
    changed = json.loads(json.dumps(good))
    part: Any = changed
    for step in path:
        if not isinstance(part, dict) or not part:
            break
        key = sorted(part)[step % len(part)]
        if not isinstance(part[key], dict) or step == path[-1]:
            part[key] = value
            break
        part = part[key]
    text = json.dumps(changed).encode()
    for content in (text, text[:cut], as_bytes):
        try:
            record = parse_record(content)
        except (ValueError, TypeError, RecursionError):
            continue
        assert isinstance(record.config, dict)
        assert literal(record.config) is not None


def any_table(data: bytes, rows: list[list[str]]) -> None:
    """A table of a curve, and the collected tables of a record."""
    from pathlib import Path

    text = "\n".join(",".join(row) for row in rows).encode("utf-8", "replace")
    for content in (data, text, b"step,prompt,image,dino\n" + text, b"step,dino\n" + text):
        for parse in (parse_images, parse_curve):
            try:
                parse(content, Path("FILE"))
            except Damaged as error:
                assert str(error).startswith("FILE")
        try:
            read_bytes(content, "FILE", Naming())
        except UserError as error:
            assert str(error).startswith("FILE")


WORD = (KEYS, VALUES, TEXTS)
RECORD = (st.lists(st.integers(0, 30), min_size=1, max_size=4), JSON, st.integers(0, 3000), st.binary(max_size=60))
CELLS = st.sampled_from(["0", "10", "1.5", "nan", "inf", "-1", "", "a", '"', "1e400", "٣"]) | st.text(max_size=4)
TABLE = (st.binary(max_size=120), st.lists(st.lists(CELLS, max_size=5), max_size=6))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from bayesdiff.studies import plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "EXPERIMENTS", plan.EXPERIMENTS)
        folder = tmp_path_factory.mktemp("made")
        run = make_run(prepare(folder / "studies").cells[0], folder / "runs")
        content: dict[str, Any] = json.loads((run / "record.json").read_text())
    return content


@settings(max_examples=FEW, **QUICK)
@given(*WORD)
def test_any_word(key: str, value: Any, raw: str) -> None:
    any_word(key, value, raw)


@settings(max_examples=FEW, **QUICK)
@given(*RECORD)
def test_any_record(good: dict[str, Any], path: list[int], value: Any, cut: int, as_bytes: bytes) -> None:
    any_record(good, path, value, cut, as_bytes)


@settings(max_examples=FEW, **QUICK)
@given(*TABLE)
def test_any_table(data: bytes, rows: list[list[str]]) -> None:
    any_table(data, rows)


@pytest.mark.slow
@settings(max_examples=MANY, **QUICK)
@given(*WORD)
def test_three_thousand_words(key: str, value: Any, raw: str) -> None:
    any_word(key, value, raw)


@pytest.mark.slow
@settings(max_examples=2 * MANY, **QUICK)
@given(*RECORD)
def test_six_thousand_records(good: dict[str, Any], path: list[int], value: Any, cut: int, as_bytes: bytes) -> None:
    any_record(good, path, value, cut, as_bytes)


@pytest.mark.slow
@settings(max_examples=MANY, **QUICK)
@given(*TABLE)
def test_three_thousand_tables(data: bytes, rows: list[list[str]]) -> None:
    any_table(data, rows)


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_texts_with_interpolations_are_kept_as_they_are(text: str) -> None:
    from omegaconf import OmegaConf

    kept = OmegaConf.to_container(OmegaConf.create(literal({"a": f"x{text}${{oc.env:HOME}}"})), resolve=True)
    assert kept == {"a": f"x{text}${{oc.env:HOME}}"}


def test_compose_says_no_to_what_a_study_may_not_say() -> None:
    with pytest.raises(Exception, match=r"bnn\.options"):
        compose(["+experiment=smoke", "bnn.options={a:1}"])
    with pytest.raises(UserError, match=r"\+bnn\.options\.name=1"):
        check_word("bnn.options={a:1}")
    assert derive(("+experiment=smoke", "+bnn.options.a=1")).bnn.options == {"a": 1}
