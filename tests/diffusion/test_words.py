"""Texts that a tokenizer cuts or does not know are refused or named, before any model is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import Make
from transformers import AutoTokenizer
from twins import build_twin

from bayesdiff.config.prompts import PROMPT_SETS, Prompt, TextReader, evaluation_prompts
from bayesdiff.config.schema import Config, ModelConf
from bayesdiff.core.errors import UserError
from bayesdiff.diffusion.subject import DREAMBOOTH_CLASSES, Subject
from bayesdiff.diffusion.words import check_texts, model_readers, unknown_to
from bayesdiff.scoring.encoders import clip_reader
from bayesdiff.toybox.subjects import SUBJECTS
from bayesdiff.toybox.vocabulary import CLASSES
from bayesdiff.toybox.weights import PIPELINE

TOYBOX = ModelConf("toybox", "toybox")
SUBJECT = Subject("x", "dog", "qwe", ())
LONG = "on top of a purple rug in a forest " * 3


@pytest.fixture(scope="module")
def readers() -> tuple[list[TextReader], list[TextReader]]:
    return model_readers(TOYBOX), [clip_reader("toybox")]


Check = Callable[..., list[str]]


@pytest.fixture
def check(make_config: Make, readers: tuple[list[TextReader], list[TextReader]]) -> Check:
    def run(*templates: str, subject: Subject = SUBJECT, overrides: tuple[str, ...] = (), clips: Any = None, **settings: Any) -> list[str]:
        cfg: Config = make_config("+experiment=smoke", *overrides)
        for key, value in settings.items():
            setattr(cfg.data, key, value)
        prompts = evaluation_prompts(list(templates), subject.identifier, subject.class_noun, True)
        return check_texts(cfg, subject, prompts, readers[0], readers[1] if clips is None else clips)

    return run


@pytest.mark.parametrize("noun", sorted(set(SUBJECTS.values())))
def test_nothing_is_said_of_what_the_toybox_reads_whole(check: Check, noun: str) -> None:
    subject = replace(SUBJECT, class_noun=noun)
    assert check("auto", "a photo of {identifier} {class_noun}", subject=subject, overrides=("method.prior_preservation=true",)) == []


UNKNOWN = sorted(set(DREAMBOOTH_CLASSES.values()) - set(CLASSES) - {"glasses"})
"""Glasses are something that the toybox's animals wear."""


def test_twelve_subjects_of_the_dreambooth_set_have_a_noun_that_the_toybox_lacks() -> None:
    assert sum(noun in UNKNOWN for noun in DREAMBOOTH_CLASSES.values()) == 12


@pytest.mark.parametrize("noun", UNKNOWN)
def test_a_noun_without_a_token_is_refused_with_the_known_ones(check: Check, noun: str) -> None:
    remedy = "the toybox knows backpack, ball,.*model=sd15"
    with pytest.raises(UserError, match=rf"data\.class_noun={noun}: this model has no token for it; {remedy}"):
        check("a {class_noun} here", subject=replace(SUBJECT, class_noun=noun))


def test_an_identifier_without_a_token_is_refused_with_the_known_ones(check: Check) -> None:
    with pytest.raises(UserError, match=r"data\.identifier=zwx: this model has no token for it; the toybox knows qwe, sks: give one"):
        check("a {class_noun} here", subject=replace(SUBJECT, identifier="zwx"))


def test_other_words_without_a_token_are_named_once_a_reader(check: Check) -> None:
    lines = check("a {identifier} {class_noun} beside a Giraffe", "a Giraffe and a zebra")
    assert lines == [
        "Words that the model does not know, and reads as one and the same: beside, Giraffe, zebra",
        "Words that metrics.clip does not know, and reads as one and the same: beside, Giraffe, zebra",
    ]


def test_a_prompt_that_is_cut_is_named_with_the_tokens_it_loses(check: Check) -> None:
    lines = check(f"a {{identifier}} {{class_noun}} {LONG}")
    assert len(lines) == 2
    assert lines[0].startswith("Cut by the model, which reads 28 tokens: 'a qwe dog on top of")
    assert lines[0].endswith("' by 4")
    assert lines[1].startswith("Cut by metrics.clip, which reads 28 tokens: ")
    assert lines[1].count("' by ") == 2  # with the identifier by 4, without it by 3
    assert all("\n" not in line for line in lines)


def test_texts_up_to_the_limit_are_not_cut(check: Check, readers: tuple[list[TextReader], list[TextReader]]) -> None:
    words = ["dog"] * 23
    assert check(" ".join(["a", "{identifier}", *words, "dog"])) == []
    assert len(check(" ".join(["a", "{identifier}", *words, "dog", "dog"]))) == 2


@pytest.mark.parametrize(
    ("template", "key", "word"), [("{class_noun} {identifier}", "identifier", "qwe"), ("{identifier} {class_noun}", "class_noun", "dog")]
)
@pytest.mark.parametrize("where", ["instance", "evaluation", "clip"])
def test_a_text_whose_subject_is_cut_off_is_refused(check: Check, template: str, key: str, word: str, where: str) -> None:
    """The second word stands just behind the last token that is read."""
    first, second = template.split()
    text = " ".join([first, *(["red"] * 25), second])
    settings: dict[str, Any] = {"instance_prompt": text} if where == "instance" else {}
    clips = [TextReader("metrics.clip", 20, lambda t: len(t.split()) + 2)] if where == "clip" else None
    short = " ".join([first, *(["red"] * 20), second])
    evaluation = {"evaluation": text, "clip": short}.get(where, "a {identifier} {class_noun}")
    with pytest.raises(UserError, match=rf"reads 2[08] tokens, and not data\.{key}={word} in '.*': shorten the text"):
        check(evaluation, clips=clips, **settings)


def test_a_class_prompt_is_looked_at_where_it_is_used(check: Check) -> None:
    settings = {"class_prompt": " ".join(["red"] * 30) + " {class_noun}"}
    assert check("a {identifier} {class_noun}", **settings) == []
    with pytest.raises(UserError, match=r"data\.class_noun=dog in 'red red"):
        check("a {identifier} {class_noun}", overrides=("method.prior_preservation=true",), **settings)


def test_both_tokenizers_of_sdxl_are_asked(tmp_path: Path) -> None:
    assert len(model_readers(ModelConf("mine", str(build_twin("sdxl", tmp_path / "sdxl"))))) == 2
    assert len(model_readers(ModelConf("mine", str(build_twin("sd15", tmp_path / "sd15"))))) == 1


def test_clips_own_tokenizer_spells_words_out() -> None:
    reader = clip_reader("ViT-B-32/openai")
    assert (reader.limit, reader.count("a photo of a dog")) == (77, 7)
    assert reader.count("word " * 100) == 102
    assert reader.unknown("zwxqv giraffe") == []


@pytest.mark.parametrize("where", ["nowhere", "nobody/nothing"])
def test_a_model_that_is_not_there_names_the_remedy(tmp_path: Path, where: str) -> None:
    with pytest.raises(UserError, match=rf"model {where}: cannot be loaded .*model\.path") as caught:
        model_readers(ModelConf("mine", where))
    assert "\n" not in str(caught.value)


def test_missing_files_of_a_clip_name_its_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metrics\.clip=local-dir:.*none: cannot be loaded"):
        clip_reader(f"local-dir:{tmp_path}/none")


def test_looking_takes_no_time_worth_mentioning(check: Check) -> None:
    began = time.perf_counter()
    for name in PROMPT_SETS:
        check(name)
    assert time.perf_counter() - began < 5


def test_a_prompt_that_names_no_subject_is_only_said(check: Check) -> None:
    lines = check("a {identifier} {class_noun}", " ".join(["red"] * 30))
    assert [line.partition(":")[0] for line in lines] == [
        "Cut by the model, which reads 28 tokens", "Cut by metrics.clip, which reads 28 tokens",
    ]  # fmt: skip


def test_an_instance_prompt_without_the_identifier_is_said(check: Check) -> None:
    lines = check("a {identifier} {class_noun}", instance_prompt="a photo of {class_noun}")
    assert lines == ["data.instance_prompt has no {identifier}: 'a photo of dog' is what is trained"]


def test_a_word_inside_another_is_not_the_word() -> None:
    reader = TextReader("it", 4, lambda text: len(text.split()) + 2)
    assert reader.loses("a b dog", "dog")
    assert not reader.loses("a b dogged", "dog")
    assert not reader.loses("dog b dog", "dog")
    assert Prompt("a", "b", "c").plain_text == "c"


def test_words_without_a_token_are_named_once() -> None:
    tokenizer = AutoTokenizer.from_pretrained(PIPELINE, subfolder="tokenizer")
    assert unknown_to(tokenizer, "a photo of qwe dog in the jungle a shiny sks backpack, wet") == []
    assert unknown_to(tokenizer, "a photo of a zwx dog A Giraffe beside a zwx dog") == ["zwx", "Giraffe", "beside"]
    tokenizer.unk_token = tokenizer.eos_token  # as Stable Diffusion's, which spells words out
    assert unknown_to(tokenizer, "a photo of a zwx dog") == []
