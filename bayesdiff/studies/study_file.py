"""Reading a study's YAML file as strictly as a configuration: what is wrong is named with its line.

Scalars are what the file says: ``off`` and ``on`` without quotes are these words (YAML takes them for false and true),
``1e-4`` is a number, and ``${…}`` is refused, since a study of someone else's must not read your environment.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from bayesdiff.config.checks import SECRET
from bayesdiff.config.compose import CONF
from bayesdiff.config.derive import setting_error, settings_there_are
from bayesdiff.config.structured import check_yaml
from bayesdiff.config.suggestions import NEW_EVALUATION, evaluation_words
from bayesdiff.config.words import override, parsed
from bayesdiff.core.errors import UserError, did_you_mean, first_line, shortened
from bayesdiff.core.files import read_file
from bayesdiff.core.privacy import has_secret

REQUIRED = {"title": str, "experiment": str, "grid": dict, "models": dict}
OPTIONAL = {
    "paper": str, "feeds": list, "overrides": list, "compare": dict, "x": str, "cost": bool, "verdicts": bool, "evaluations": list,
}  # fmt: skip
OF_MODEL = {"minutes": float, "title": str, "experiment": str, "overrides": list, "grid": dict}
"""What a study's file has to have, may have, and may say of a model; with the kind of value."""
OPEN = ("bnn.options.", "evaluations")
"""Settings whose names are a user's own, added with a +; what they hold is seen when the runs are composed."""
GIVEN = {
    "model": "a study's runs have the model of their part of models; leave it out and add one there",
    "experiment": "a study names its experiment by itself; leave it out and give experiment: NAME",
    "paths.runs": "a study's runs lie where --runs says; leave it out",
}
"""What a study's words may not set, because the study does: such a run would be filed under another's name."""
KINDS = {str: "a text", dict: "a mapping", list: "a list", bool: "true or false", float: "a number"}
MOST_RUNS = 100_000
SEE = "docs/extending.md has a study of your own"
_FLOAT = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Where = tuple[str, ...]
"""Keys from the top of the file to a value."""


class Source:
    """A study's file: its content, and the line of every value."""

    def __init__(self, path: Path, text: str):
        self.path = path
        self.lines: dict[Where, int] = {}
        try:
            check_yaml(text)
            node = yaml.compose(text, Loader=_Loader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark is not None else ""
            raise UserError(
                f"{path}{line}: cannot be read ({getattr(error, 'problem', None) or first_line(error)}); correct it: {SEE}"
            ) from error
        if not isinstance(node, yaml.MappingNode):
            raise UserError(f"{path}: is not a mapping; write keys and values: {SEE}")
        self.content: dict[str, Any] = self._value(node, ())

    def error(self, where: Where, message: str) -> UserError:
        """What is wrong, with the line of the nearest value that the file has."""
        line = next((self.lines[where[:i]] for i in range(len(where), -1, -1) if where[:i] in self.lines), 1)
        return UserError(f"{self.path}:{line}: {'.'.join(where)}{': ' if where else ''}{message}")

    def _value(self, node: yaml.Node, where: Where) -> Any:
        self.lines.setdefault(where, node.start_mark.line + 1)  # of a key's line, where it has one
        if isinstance(node, yaml.SequenceNode):
            return [self._value(one, (*where, str(i))) for i, one in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        text = str(node.value)
        if "${" in text:
            raise self.error(where, f"{text}: ${{…}} is not resolved in studies; write the value itself")
        if has_secret(text):
            raise self.error(where, SECRET)
        return _scalar(node, text)

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in node.value:
            key = str(name.value)
            self.lines[(*where, key)] = name.start_mark.line + 1
            if not isinstance(name, yaml.ScalarNode):
                raise self.error(where, "has a key that is no word; give a text")
            if key in found:
                raise self.error((*where, key), "stands twice; leave one out")
            found[key] = self._value(value, (*where, key))
        return found


def _scalar(node: yaml.Node, text: str) -> Any:
    """The value of one word: its own text but for null, true, false and numbers without quotes."""
    if node.style in tuple("'\"|>"):
        return text
    if node.tag.endswith(":null"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if node.tag.endswith(":int") and re.fullmatch(r"[-+]?\d+", text):
        return int(text)
    return float(text.replace(".inf", "inf").replace(".nan", "nan").lower()) if _FLOAT.fullmatch(text) else text


@lru_cache(maxsize=256)
def _source(path: Path, text: str) -> Source:
    source = Source(path, text)
    _check(source)
    return source


def read_source(path: Path) -> Source:
    """A study's file, checked.

    Raises:
        UserError: a file that cannot be read, an unknown key, or a value of another kind; with the line.
    """
    try:
        return _source(path, read_file(path).decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}); write it in UTF-8") from error


def _check(source: Source) -> None:
    """Everything of a file that does not depend on the model."""
    content, path = source.content, source.path
    _check_kinds(source, (), REQUIRED | OPTIONAL)
    if lacking := set(REQUIRED) - set(content):
        raise UserError(f"{path}: lacks {', '.join(sorted(lacking))}; add what is missing: {SEE}")
    for name in content.get("evaluations", []):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise source.error(("evaluations",), f"{name}: is no name of a folder; use letters, digits, _, - and .")
    for i, name in enumerate(content.get("feeds", [])):
        if not isinstance(name, str):
            raise source.error(("feeds", str(i)), f"{name}: give a text")
    _check_experiment(source, (), content["experiment"])
    _check_size(source, ("grid",), content["grid"])
    _check_words(source, ("overrides",), content.get("overrides", []))
    _check_grid(source, ("grid",), content["grid"])
    for model, part in content["models"].items():
        _check_model(source, model, part)


def _check_model(source: Source, model: str, part: Any) -> None:
    where = ("models", model)
    if not isinstance(part, dict) or "minutes" not in part:
        raise source.error(where, "lacks minutes; add minutes: of one run, a number")
    if model not in _options("model"):
        raise source.error(where, f"no such model{did_you_mean(model, _options('model'))}; choose one of {', '.join(_options('model'))}")
    _check_kinds(source, where, OF_MODEL)
    if not 0 < part["minutes"] < math.inf:
        raise source.error((*where, "minutes"), f"{part['minutes']}: must be greater than 0 and finite")
    _check_experiment(source, where, part.get("experiment", source.content["experiment"]))
    _check_words(source, (*where, "overrides"), part.get("overrides", []))
    _check_size(source, (*where, "grid"), {**source.content["grid"], **part.get("grid", {})})
    _check_grid(source, (*where, "grid"), part.get("grid", {}))


def _check_kinds(source: Source, where: Where, kinds: dict[str, type]) -> None:
    content = source.content
    for key in where:
        content = content[key]
    for key, value in content.items():
        if key not in kinds:
            place = f"{'.'.join(where)} has the " if where else ""
            raise source.error((*where, key), f"{place}unknown key {key}{did_you_mean(key, kinds)}; use one of {', '.join(sorted(kinds))}")
        wanted = kinds[key]
        fits = isinstance(value, int | float) and not isinstance(value, bool) if wanted is float else isinstance(value, wanted)
        if not fits or (wanted in (str, dict) and not value and key not in ("paper", "x", "compare")):
            raise source.error((*where, key), f"is {'empty' if fits else f'not {KINDS[wanted]}'}; give {KINDS[wanted]}: {SEE}")


def _check_experiment(source: Source, where: Where, name: str) -> None:
    if name not in (known := _options("experiment")):
        raise source.error((*where, "experiment"), f"{name}: unknown{did_you_mean(name, known)}; choose one of {', '.join(known)}")


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _check_words(source: Source, where: Where, words: list[Any]) -> None:
    for i, word in enumerate(words):
        if not isinstance(word, str):
            raise source.error((*where, str(i)), f"{word}: give a text such as shots.count=4")
        _check_word(source, (*where, str(i)), word)


def _check_word(source: Source, where: Where, word: str) -> None:
    """One ``key=value`` word, as ``check_word``, with its line."""
    try:
        check_word(word)
    except UserError as error:
        raise source.error(where, str(error)) from error


def check_word(word: str) -> None:
    """Raises ``UserError`` for a word that no study can have: Hydra's grammar, a key there is, a value of its kind."""
    shown = shortened(word)
    if "${" in word:
        raise UserError(f"{shown}: ${{…}} is not resolved in studies; write the value itself")
    read = parsed(word)
    key, value = str(read.key_or_group), read.value()
    if "=" not in word or read.is_sweep_override() or read.is_delete():
        raise UserError(f"{shown}: give one key=value")
    if (why := GIVEN.get(key)) is not None:
        raise UserError(f"{shown}: {why}")
    if (CONF / key).is_dir():
        known = _options(key)
        if value not in known:
            raise UserError(f"{shown}: no such choice; allowed: {', '.join(known)}{did_you_mean(str(value), known)}")
        return
    if key.startswith("evaluations."):
        raise UserError(f"{shown}: {evaluation_words(word)}")
    if read.is_add() and key.startswith(OPEN):
        return
    if read.is_add() or read.is_force_add():
        raise UserError(f"{shown}: a study sets keys that there are; leave the + out")
    if key == "evaluations":
        raise UserError(f"{shown}: new names are added with a +, such as {NEW_EVALUATION}")
    if (wrong := setting_error(word)) is not None:
        known = settings_there_are()
        raise UserError(
            f"{shown}: {wrong}{'' if key in known else did_you_mean(key, known) or '; all keys: python -m bayesdiff.run --cfg job'}"
        )


def _check_size(source: Source, where: Where, grid: dict[str, Any]) -> None:
    """Refuses a grid whose product nobody can run, before it takes all memory."""
    runs = math.prod(len(values) for values in grid.values() if isinstance(values, dict | list))
    if runs > MOST_RUNS:
        raise source.error(where, f"{runs:,} runs are too many; leave values out until there are {MOST_RUNS:,} or fewer")


def _check_grid(source: Source, where: Where, grid: dict[str, Any]) -> None:
    for axis, values in grid.items():
        _check_axis(source, (*where, axis), axis, values)


def _check_axis(source: Source, where: Where, axis: str, values: Any) -> None:
    if isinstance(values, dict) and values:
        for label, words in values.items():
            if isinstance(words, str):
                _check_word(source, (*where, label), words)
            elif isinstance(words, list) and words:
                _check_words(source, (*where, label), words)
            else:
                raise source.error((*where, label), f"{words}: give an override, or a list of them")
        return
    if not isinstance(values, list) or not values:
        raise source.error(where, "give a list of values, or a mapping from labels to overrides")
    seen: dict[str, str] = {}
    for i, value in enumerate(values):
        word = _axis_word(source, (*where, str(i)), axis, value)
        if seen.setdefault(label_of(value), word) != word:
            raise source.error((*where, str(i)), f"two values have the label {label_of(value)}; give a mapping from labels to overrides")


def _axis_word(source: Source, where: Where, axis: str, value: Any) -> str:
    if isinstance(value, dict):
        raise source.error(where, f"{value}: a value is a text, a number, true, false, null, or a list")
    try:
        word = override(axis, value)
    except UserError as error:
        raise source.error(where, str(error)) from error
    _check_word(source, where, word)
    return word


def label_of(value: Any) -> str:
    """What a value of an axis is called in tables and by ``--only``."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
