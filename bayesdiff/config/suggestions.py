"""What Hydra and OmegaConf say about a word they do not take, in one line: the setting, what is wrong, and what it takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from hydra.errors import MissingConfigException
from omegaconf import MISSING
from omegaconf.errors import ConfigKeyError, InterpolationResolutionError, MissingMandatoryValue

from bayesdiff.config.schema import Config
from bayesdiff.core.errors import did_you_mean, shortened

_NO_KEY = re.compile(r"(?:Could not override|Could not append to config\.|Could not delete from config\.) '([^']+)'")
_MERGING = re.compile(r"Error merging override (.*)", re.DOTALL)
_MISSING_FILE = re.compile(r"Could not (?:find|load) '([^']*)'")
NEW_EVALUATION = "+evaluations={plain:{guidance_scale:1}}"
"""How a command adds an evaluation: Hydra makes no typed group for a key below a name that is new."""
MOST_LINES = 12
"""Lines of a message of Hydra's that are shown: one may list every group there is."""
NOUNS = {int: "a whole number", float: "a number", str: "a text", list: "a list", dict: "a mapping"}
ELEMENTS = {int: "whole numbers", float: "numbers", str: "texts"}
EXAMPLES = {int: "8", float: "0.5", str: "'a text'", list: "[a,b]", dict: "{name: 1}"}


def _below(kind: type, prefix: str) -> Iterator[str]:
    hints = get_type_hints(kind)
    for field in fields(kind):
        name = f"{prefix}{field.name}"
        yield name
        if is_dataclass(hints[field.name]):
            yield from _below(hints[field.name], f"{name}.")


@cache
def known_keys() -> tuple[str, ...]:
    """Every key of a configuration with its groups, such as ``bnn`` and ``bnn.sigma``, and the group ``experiment``."""
    return ("experiment", *_below(Config, ""))


def nearest_key(key: str) -> str:
    """The clause of ``did_you_mean`` for a key that is not in the schema: a key of the same name elsewhere, or the nearest one."""
    last = key.rpartition(".")[2]
    same = [known for known in known_keys() if known.rpartition(".")[2] == last and known != key]
    if len(same) == 1:
        return f"; did you mean {same[0]}?"
    return did_you_mean(key, (known for known in known_keys() if known != key))


def _setting(key: str) -> tuple[Any, Field[Any]] | None:
    """The type of a setting, and the field that holds it; None for no setting of the schema."""
    kind: Any = Config
    field: Field[Any] | None = None
    for name in re.sub(r"\[.*", "", key).split("."):
        if get_origin(kind) is dict:  # evaluations.NAME
            kind = get_args(kind)[1]
            continue
        own = {one.name: one for one in fields(kind)} if is_dataclass(kind) else {}
        if name not in own:
            return None
        kind, field = get_type_hints(kind)[name], own[name]
    return None if field is None else (kind, field)


def choices(kind: Any) -> tuple[str, ...]:
    """What a setting with few values takes: members of an enumeration, or true and false; nothing for any other."""
    kinds = [kind, *get_args(kind)]
    if bool in kinds:
        return ("true", "false")
    return tuple(str(member.value) for one in kinds if isinstance(one, type) and issubclass(one, Enum) for member in one)


def wrong_value(key: str, value: Any) -> str:
    """``KEY=VALUE: not a whole number; give one …``: what is wrong with a value that its setting's type does not take."""
    said = f"{key}={shortened('null' if value is None else value)}"
    found = _setting(key)
    if found is None:
        return f"{said}: no such setting{nearest_key(key)}"
    kind, field = found
    if key == "evaluations":
        settings = ", ".join(_below(get_args(kind)[1], ""))
        return f"{said}: not evaluations by name; write one such as {NEW_EVALUATION}, of the settings {settings}"
    optional = NoneType in get_args(kind)
    if known := choices(kind):
        allowed = ", ".join((*known, "null") if optional else known)
        return f"{said}: no such choice; allowed: {allowed}{did_you_mean(str(value), known)}"
    plain = next((one for one in (kind, *get_args(kind)) if (get_origin(one) or one) in NOUNS), None)
    if plain is None:  # a group of settings
        return f"{said}: a group of settings; set one of its keys, such as {next(_below(kind, f'{key}.'), key)}=…"
    of = get_origin(plain) or plain
    noun = NOUNS[of] + (f" of {ELEMENTS[get_args(plain)[0]]}" if of is list and get_args(plain)[0] in ELEMENTS else "")
    return f"{said}: not {noun}{' or null' if optional else ''}; give {noun}, such as {key}={_example(plain, field)}"


def _example(kind: Any, field: Field[Any]) -> Any:
    """A value that a setting takes: its default, where it has one that says something."""
    default = field.default if field.default not in (NO_DEFAULT, MISSING, None, "") else None
    if kind == list[int]:
        return "[0,100,200]"
    if kind == list[float]:
        return "[0.9,0.99]"
    return EXAMPLES[get_origin(kind) or kind] if default is None or isinstance(default, list) else default


def evaluation_words(word: str) -> str:
    """How to write what ``evaluations.NAME.KEY=VALUE`` means."""
    name, _, key = word.lstrip("+~").partition("=")[0].removeprefix("evaluations.").partition(".")
    value = word.partition("=")[2] or "…"
    said = f"+evaluations={{{name}:{{{key}:{value}}}}}" if key and "." not in key else NEW_EVALUATION
    return f"evaluations are given as one mapping; write {shortened(said)}"


def missing(key: str) -> str:
    return f"{key}: missing; add {key}=…"


def explain(error: Exception) -> str:
    """An error of Hydra or OmegaConf in one line: the override, what is wrong with it, what can be given."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"no option {group}/{option}; allowed: {', '.join(error.options)}{did_you_mean(option, error.options)}"
    if (match := _NO_KEY.search(str(error)) or _MERGING.search(str(error))) and match[1].lstrip("+~").startswith("evaluations."):
        return f"{shortened(match[1])}: {evaluation_words(match[1])}"
    if (match := _NO_KEY.search(str(error))) and match[1].startswith(("bnn.options", "evaluations")):
        example = NEW_EVALUATION if match[1] == "evaluations" else f"+{match[1]}{'={name: 1}' if match[1] == 'bnn.options' else '=…'}"
        return f"{match[1]}: new names are added with a +, such as {example}"
    if match := _NO_KEY.search(str(error)):
        return f"no key {match[1]}{nearest_key(match[1])}"
    for one in (error, error.__cause__):
        if (said := _typed(error, one)) is not None:
            return said
    lines = [line.strip() for line in f"{error}\n{_reason(error)}".splitlines() if line.strip()]
    override = getattr(error, "override", None)
    said = "; ".join(map(shortened, (line for line in lines[:MOST_LINES] if "hydra.cc" not in line)))
    return f"{shortened(override)}: {said}; put the value in quotes: key='…'" if override else said


def _typed(error: Exception, one: BaseException | None) -> str | None:
    """What OmegaConf's exception says of one setting; None where it names none."""
    key = str(getattr(one, "full_key", "") or "")
    if isinstance(one, MissingMandatoryValue):
        return missing(key)
    if isinstance(one, InterpolationResolutionError):
        return f"{key}: {shortened(str(one).splitlines()[0])}; write the value itself"
    match = _MERGING.fullmatch(str(error))
    word = match[1] if match else ""
    if isinstance(one, ConfigKeyError):
        return f"no key {key}{nearest_key(key)}" if key else None
    if not word and not key:
        return None
    name, _, value = word.partition("=")
    name = name.lstrip("+~").partition("@")[0] or key
    return wrong_value(name, value if word else getattr(one, "value", "…")) if _setting(name) else None


def _reason(error: Exception) -> str:
    """What an error was raised from says first."""
    cause = error.__cause__
    return str(cause).strip().splitlines()[0] if cause and str(cause).strip() else ""
