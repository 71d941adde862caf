"""Prompts come from a file, names, captions or PNG chunks, and are used only where every prompt has one."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bayesdiff.core.errors import UserError
from bayesdiff.judging.captions import as_prompts, literal, read_prompts, texts_of
from bayesdiff.judging.layouts import Seen


def seen(folder: Path, count: int = 2) -> dict[int, tuple[Seen, ...]]:
    return {i: (Seen(folder / f"{i}.png", 100, f"name{i}", ""),) for i in range(count)}


NAMED = " (its lines in the order of the names name0, name1; a JSON object can name them)"


def test_kohyas_prompt_file_gives_prompts_without_options_and_comments(tmp_path: Path) -> None:
    (file := tmp_path / "prompts.txt").write_text(
        "# a comment\na photo of sks dog --n bad, blurry --w 512\n\na long-haired sks dog --d 1\n"
    )
    assert read_prompts(file) == ["a photo of sks dog", "a long-haired sks dog"]
    assert texts_of(seen(tmp_path), file) == ({0: "a photo of sks dog", 1: "a long-haired sks dog"}, f"prompts.txt{NAMED}")


def test_a_json_object_gives_prompts_by_name(tmp_path: Path) -> None:
    (file := tmp_path / "library.json").write_text('{"name1": "one", "name0": "zero", "other": "x"}')
    assert texts_of(seen(tmp_path), file)[0] == {0: "zero", 1: "one"}


def test_kohyas_other_prompt_files_are_read(tmp_path: Path) -> None:
    (toml := tmp_path / "a.toml").write_text(
        '[prompt]\nwidth = 512\n[[prompt.subset]]\nprompt = "a photo of sks dog"\n[[prompt.subset]]\nprompt = "a sks dog"\nseed = 1\n'
    )
    (listed := tmp_path / "a.json").write_text('[{"prompt": "a photo of sks dog", "width": 512}, {"prompt": "a sks dog"}]')
    assert read_prompts(toml) == read_prompts(listed) == ["a photo of sks dog", "a sks dog"]
    toml.write_text("[other]\n")
    with pytest.raises(UserError, match="cannot be read"):
        read_prompts(toml)


def test_as_many_lines_as_prompts_are_in_the_order_of_the_samples(tmp_path: Path) -> None:
    """Also where their numbers begin at 1; a longer file is one of a trainer that counts its lines from 0."""
    counted: dict[int, tuple[Seen, ...]] = {i: (Seen(tmp_path / f"{i}.png", 100, str(i), ""),) for i in (1, 2)}
    (file := tmp_path / "prompts.txt").write_text("one\ntwo\n")
    assert texts_of(counted, file)[0] == {1: "one", 2: "two"}
    file.write_text("zero\none\ntwo\n")
    assert texts_of(counted, file)[0] == {1: "one", 2: "two"}


def test_a_list_says_which_line_went_where_when_it_is_not_plain(tmp_path: Path) -> None:
    """A heading above the prompts would move every line by one."""
    counted: dict[int, tuple[Seen, ...]] = {i: (Seen(tmp_path / f"{i}.png", 100, str(i), ""),) for i in (0, 1)}
    (file := tmp_path / "prompts.txt").write_text("one\ntwo\n")
    assert texts_of(counted, file)[1] == "prompts.txt"
    file.write_text("my prompts\none\ntwo\n")
    assert "3 lines for 2 prompts of the samples: line 1 is prompt 0; check that no line is a heading" in texts_of(counted, file)[1]
    (named := tmp_path / "a.json").write_text('{"name0": "zero", "name1": "one"}')
    assert texts_of(seen(tmp_path), named)[1] == "a.json"


def test_a_trainers_settings_are_no_list_of_prompts(tmp_path: Path) -> None:
    (file := tmp_path / "config.yaml").write_text("job: extension\nconfig:\n  name: dog\n")
    with pytest.raises(UserError, match="settings of a trainer, and no list of prompts; copy the prompts into a text file"):
        texts_of(seen(tmp_path), file)


@pytest.mark.parametrize(("name", "text"), [("a.txt", "only one"), ("a.json", '{"name0": "zero"}')])
def test_a_file_that_lacks_a_prompt_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (file := tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="none for prompt name1"):
        texts_of(seen(tmp_path), file)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (broken := tmp_path / "a.json").write_text("{")
    (twice := tmp_path / "b.json").write_text('{"a": "one", "a": "two"}')
    others = [tmp_path / f"{number}.json" for number in range(5)]
    for file, text in zip(others, ("null", "3", "[1, 2]", '{"a": {"b": 1}}', '[{"prompt": 1}]'), strict=True):
        file.write_text(text)
    for file in (broken, twice, *others, tmp_path / "none.txt"):
        with pytest.raises(UserError, match="cannot be read"):
            read_prompts(file)


def test_captions_count_only_where_every_prompt_has_one(tmp_path: Path) -> None:
    (tmp_path / "0.txt").write_text("zero\n")
    assert texts_of(seen(tmp_path), None) == ({}, "")
    (tmp_path / "1.txt").write_text("one")
    assert texts_of(seen(tmp_path), None) == ({0: "zero", 1: "one"}, "captions")


CHUNKS = [
    ("prompt", "a dog", "a dog"),
    ("parameters", "a dog, red\nNegative prompt: bad\nSteps: 20, Sampler: Euler", "a dog, red"),
    ("prompt", '{"3": {"class_type": "KSampler"}}', ""),
    ("Software", "a dog", ""),
]


@pytest.mark.parametrize(("key", "value", "text"), CHUNKS)
def test_text_chunks_of_a_png_hold_prompts(tmp_path: Path, key: str, value: str, text: str) -> None:
    chunks = PngInfo()
    chunks.add_text(key, value)
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png", pnginfo=chunks)
    assert texts_of(seen(tmp_path, 1), None)[0] == ({0: text} if text else {})


def test_the_identifier_stays_out_of_the_text_of_clip_where_the_metrics_say_so() -> None:
    (plain,) = as_prompts(["a photo of sks dog, on sksgrass"], "sks", "dog", with_identifier=False)
    assert (plain.text, plain.clip_text) == ("a photo of sks dog, on sksgrass", "a photo of dog, on sksgrass")
    (kept,) = as_prompts(["a {identifier} {class_noun}"], "sks", "dog", with_identifier=True)
    assert (kept.clip_text, kept.plain_text) == ("a sks dog", "a dog")


def test_options_are_cut_off_as_kohya_and_ai_toolkit_cut_them(tmp_path: Path) -> None:
    options = ("--rcfg 1.0 --w 512", "--ctrl_img /in/a.png --seed 42", "--network_multiplier 0.5")
    lines = [*(f"a sks dog {one}" for one in options), "a dog -- asleep"]
    (file := tmp_path / "prompts.txt").write_text("\n".join(lines))
    assert read_prompts(file) == ["a sks dog"] * 3 + ["a dog -- asleep"]


def test_the_trigger_word_stands_where_ai_toolkit_puts_it() -> None:
    (known,) = as_prompts(["[trigger] holding a sign"], "p3r5on", "", with_identifier=False)
    assert (known.text, known.clip_text) == ("p3r5on holding a sign", "holding a sign")
    (unknown,) = as_prompts(["a photo of [trigger] dog"], "", "", with_identifier=False)
    assert unknown.clip_text == "a photo of dog", "no word for CLIP to look for"


IDENTIFIERS = [
    ("a photo of ohwx man, smiling", "ohwx man", "a photo of smiling"),
    ("Sks dog on grass", "sks", "dog on grass"),
    ("sks: a dog", "sks", "a dog"),
    ('a dog called "sks"!', "sks", "a dog called"),
    ("a sksdog, a dog-sks", "sks", "a sksdog, a dog-sks"),
]


@pytest.mark.parametrize(("text", "identifier", "plain"), IDENTIFIERS)
def test_an_identifier_is_left_out_whatever_stands_around_it(text: str, identifier: str, plain: str) -> None:
    assert as_prompts([text], identifier, "dog", with_identifier=False)[0].clip_text == plain


@pytest.mark.parametrize("text", ["a {red|blue} sks dog", "{{best}}, a dog", "a dog }", "{identifier}"])
def test_a_prompt_that_was_found_is_no_template(text: str) -> None:
    assert as_prompts([literal(text)], "", "dog", with_identifier=True)[0].text == text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_file_that_notepad_or_powershell_wrote_is_read(tmp_path: Path, encoding: str) -> None:
    text = "\ufeff" if encoding == "utf-16-be" else ""
    (file := tmp_path / "prompts.txt").write_bytes((text + "ein grüner Hund\na dog\n").encode(encoding))
    assert read_prompts(file) == ["ein grüner Hund", "a dog"]
