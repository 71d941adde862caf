"""Templates, named lists, and the text that CLIP-T sees."""

from __future__ import annotations

import pytest

from bayesdiff.config.prompts import PROMPT_SETS, Prompt, evaluation_prompts, fill, fitting_set
from bayesdiff.core.errors import UserError
from bayesdiff.diffusion.subject import DREAMBOOTH_CLASSES
from bayesdiff.toybox.subjects import SUBJECTS
from bayesdiff.toybox.vocabulary import CONTEXTS, OUTFITS


@pytest.mark.parametrize("name", ["object", "live", "face"])
def test_a_list_has_25_different_prompts_with_both_words(name: str) -> None:
    templates = PROMPT_SETS[name]
    assert len(templates) == len(set(templates)) == 25
    assert all("{identifier} {class_noun}" in template for template in templates)


def test_the_lists_share_ten_scenes_and_five_adjectives() -> None:
    assert len(set(PROMPT_SETS["object"]) & set(PROMPT_SETS["live"])) == 15
    assert PROMPT_SETS["object"][-1] == PROMPT_SETS["live"][-1] == "a cube shaped {identifier} {class_noun}"


@pytest.mark.parametrize(("name", "endings"), [("object", CONTEXTS), ("live", (*CONTEXTS[:10], *OUTFITS))])
def test_the_lists_are_what_the_toybox_can_draw(name: str, endings: tuple[str, ...]) -> None:
    scenes = [template.removeprefix("a {identifier} {class_noun} ").lower() for template in PROMPT_SETS[name][:20]]
    assert scenes == list(endings)


def test_words_are_filled_in() -> None:
    assert fill("a photo of {identifier} {class_noun}", "qwe", "dog") == "a photo of qwe dog"


def test_no_identifier_leaves_no_double_space() -> None:
    assert fill("a photo of {identifier} {class_noun} ", "", "dog") == "a photo of dog"


def test_double_braces_are_braces() -> None:
    assert fill("a {{red}} {class_noun}", "qwe", "dog") == "a {red} dog"


@pytest.mark.parametrize("template", ["a {colour} dog", "a {} dog", "a {0} dog", "a {identifier dog", "a dog}", "a {class_noun!x}"])
def test_any_other_brace_is_refused_with_the_template(template: str) -> None:
    with pytest.raises(UserError, match=r"only \{identifier\} and \{class_noun\}") as caught:
        fill(template, "qwe", "dog")
    assert template in str(caught.value)


@pytest.mark.parametrize("template", ["a {identifier.name} dog", "a {identifier[name]} dog"])
def test_a_lookup_inside_braces_is_refused(template: str) -> None:
    with pytest.raises(UserError, match=r"only \{identifier\} and \{class_noun\}"):
        fill(template, "qwe", "dog")


@pytest.mark.parametrize(("noun", "expected"), [("dog", "live"), ("can", "object"), ("stuffed animal", "object"), ("person", "face")])
def test_auto_takes_the_list_that_fits(noun: str, expected: str) -> None:
    prompts = evaluation_prompts(["auto"], "qwe", noun, True)
    assert [p.text for p in prompts] == [fill(template, "qwe", noun) for template in PROMPT_SETS[expected]]


def test_animals_are_live_people_have_faces_and_things_neither() -> None:
    assert {noun for noun in SUBJECTS.values() if fitting_set(noun) == "live"} == {"bear", "cat", "dog", "duck"}
    assert {noun for noun in DREAMBOOTH_CLASSES.values() if fitting_set(noun) == "live"} == {"cat", "dog"}
    assert not any(fitting_set(noun) == "face" for noun in DREAMBOOTH_CLASSES.values())


def test_a_named_list_is_taken_whatever_the_class() -> None:
    assert evaluation_prompts(["live"], "qwe", "can", True)[10].text == "a qwe can wearing a red hat"


def test_own_templates_keep_their_order() -> None:
    prompts = evaluation_prompts(["a {class_noun} at sea", "two of {identifier}"], "qwe", "dog", True)
    assert prompts == [Prompt("a dog at sea", "a dog at sea", "a dog at sea"), Prompt("two of qwe", "two of qwe", "two of")]


def test_a_single_own_template_is_no_list() -> None:
    assert evaluation_prompts(["a photo of {identifier}"], "qwe", "dog", False) == [Prompt("a photo of qwe", "a photo of", "a photo of")]


def test_the_identifier_can_be_kept_from_clip() -> None:
    kept, left_out = (evaluation_prompts(["object"], "qwe", "can", keep) for keep in (True, False))
    assert [p.text for p in kept] == [p.text for p in left_out] == [p.clip_text for p in kept]
    assert not any("qwe" in p.clip_text or "  " in p.clip_text for p in left_out)
    assert [p.plain_text for p in kept] == [p.plain_text for p in left_out] == [p.clip_text for p in left_out]


def test_an_unknown_list_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"sampler\.prompts=\[objects\].*object, live, face or auto"):
        evaluation_prompts(["objects"], "qwe", "can", True)


def test_lists_can_be_joined_with_templates() -> None:
    prompts = evaluation_prompts(["object", "a photo of {class_noun}"], "qwe", "can", True)
    assert len(prompts) == len(PROMPT_SETS["object"]) + 1
    assert prompts[-1].text == "a photo of can"
