"""The prompts of samples: from a file, from the names of folders, from captions beside the pictures, or from PNG text chunks."""

from __future__ import annotations

import re
import tomllib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from bayesdiff.config.prompts import Prompt, fill
from bayesdiff.core.errors import UserError, first_line, shortened
from bayesdiff.core.files import from_json, read_file
from bayesdiff.judging.layouts import Seen

CHUNKS = ("prompt", "caption", "description", "parameters")
"""Keys of PNG text chunks that hold a prompt, lower-case."""
_OPTIONS = re.compile(r"\s--[a-z]\w*(?:\s|$)", re.IGNORECASE)
"""Where the options of a prompt of kohya (``--w 512``, ``--rcfg 1``) or of ai-toolkit (``--seed 42``, ``--ctrl_img FILE``) begin."""
TRIGGERS = ("[trigger]", "[name]")
"""Words for which ai-toolkit puts the trigger word when it samples."""
_SETTINGS = re.compile(r"\n?(?:Negative prompt:|Steps: \d)")
"""Where the settings behind a prompt begin that the web UI writes as ``parameters``."""


def read_prompts(file: Path) -> list[str] | dict[str, str]:
    """The prompts of ``--prompts``: one a line (kohya's options are cut off), a JSON object of names and prompts, or kohya's TOML or JSON.

    Raises ``UserError``.
    """
    kind = file.suffix.lower()
    if kind in (".yaml", ".yml"):
        raise UserError(f"--prompts {file}: settings of a trainer, and no list of prompts; copy the prompts into a text file, one a line")
    try:
        text = _decoded(read_file(file))
        named = from_json(text) if kind == ".json" else tomllib.loads(text)["prompt"]["subset"] if kind == ".toml" else None
        if isinstance(named, dict):
            return {name: _text(prompt) for name, prompt in named.items()}
        if kind not in (".json", ".toml"):
            lines = text.splitlines()
        elif not isinstance(named, list):
            raise TypeError("no list and no object of prompts")
        else:
            lines = [_text(one["prompt"] if isinstance(one, dict) else one) for one in named]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"--prompts {file}: cannot be read ({first_line(error)}); give one prompt a line, or a JSON object") from error
    stripped = [str(line).strip() for line in lines]
    return [_OPTIONS.split(line)[0].strip() for line in stripped if line and not line.startswith("#")]


def _decoded(content: bytes) -> str:
    """Text in UTF-8, or in UTF-16 with its mark, as PowerShell's ``>`` and Notepad write it."""
    return content.decode("utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")


def _text(prompt: object) -> str:
    if not isinstance(prompt, str):
        raise TypeError(f"a prompt is {shortened(prompt)}, and no text")
    return prompt


def _of_file(file: Path, given: list[str] | dict[str, str], prompts: dict[int, tuple[Seen, ...]]) -> dict[int, str]:
    if isinstance(given, dict):
        found = {number: given.get(seen[0].prompt, "") for number, seen in prompts.items()}
    elif len(given) == len(prompts):  # also where a trainer counts from 1
        found = dict(zip(sorted(prompts), given, strict=True))
    else:
        found = {number: given[number] if number < len(given) else "" for number in prompts}
    if lacking := [seen[0].prompt for number, seen in sorted(prompts.items()) if not found[number]]:
        raise UserError(f"--prompts {file}: {len(given)} prompts, and none for prompt {lacking[0]} of the samples; add it in its place")
    return found


def _beside(path: Path) -> str:
    try:
        return path.with_suffix(".txt").read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError):
        return ""


def _inside(path: Path) -> str:
    """The prompt in a PNG's text chunks; empty where there is none, and for a workflow in JSON."""
    if path.suffix.lower() != ".png":
        return ""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            chunks = {str(key).lower(): value for key, value in image.info.items() if isinstance(value, str)}
    except Exception:  # a damaged picture is refused by name when it is scored
        return ""
    texts = (_SETTINGS.split(chunks[key])[0].strip() for key in CHUNKS if key in chunks)
    return next((text for text in texts if text and not text.startswith(("{", "["))), "")


def texts_of(prompts: dict[int, tuple[Seen, ...]], file: Path | None) -> tuple[dict[int, str], str]:
    """Number of a prompt -> its text, and where they come from; nothing unless every prompt has one. Raises ``UserError``."""
    if file is not None:
        given = read_prompts(file)
        return _of_file(file, given, prompts), f"{file.name}{_order(given, prompts)}"
    ways = (("the names of folders", lambda one: one.text), ("captions", lambda one: _beside(one.path)),
            ("PNG text chunks", lambda one: _inside(one.path)))  # fmt: skip
    for source, look in ways:
        found = {number: look(seen[0]) for number, seen in prompts.items()}
        if all(found.values()):
            return found, source
    return {}, ""


def _order(given: list[str] | dict[str, str], prompts: dict[int, tuple[Seen, ...]]) -> str:
    """Which line went to which samples, where a list does not say so itself: other numbers of both, and samples with names."""
    if isinstance(given, dict):
        return ""
    names = [seen[0].prompt for _, seen in sorted(prompts.items())]
    if len(given) != len(prompts):
        return f" ({len(given)} lines for {len(prompts)} prompts of the samples: line 1 is prompt 0; check that no line is a heading)"
    named = not all(name.isdecimal() for name in names)
    return f" (its lines in the order of the names {', '.join(names)}; a JSON object can name them)" if named else ""


def as_prompts(texts: Sequence[str], identifier: str, class_noun: str, with_identifier: bool) -> list[Prompt]:
    """Prompts with the words filled in, and without the identifier where CLIP-T leaves it out. Raises ``UserError``."""
    found = []
    for text in texts:
        words = _triggered(text if "{" not in text else fill(text, identifier, class_noun), identifier)
        plain = without(words, identifier)
        found.append(Prompt(words, words if with_identifier else plain, plain))
    return found


def literal(text: str) -> str:
    """A prompt that was sampled as it stands: braces in it are a web UI's emphasis or choices, and no template."""
    return text.replace("{", "{{").replace("}", "}}") if "{" in text else text


def _triggered(text: str, identifier: str) -> str:
    """A prompt as ai-toolkit samples it."""
    for word in TRIGGERS:
        text = text.replace(word, identifier)
    return text.strip()


def without(text: str, identifier: str) -> str:
    """A prompt without the identifier, one word or several in any case, and without what is punctuated around it."""
    if not identifier.strip():
        return " ".join(text.split())
    words = r"\s+".join(map(re.escape, identifier.split()))
    return " ".join(re.sub(rf"(?<!\S)[^\w\s]*{words}[^\w\s]*(?!\S)", " ", text, flags=re.IGNORECASE).split())
