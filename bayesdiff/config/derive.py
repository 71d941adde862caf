"""Configurations of many runs without composing each: Hydra composes every choice of groups once.

The runs of a study differ in few groups and many values. Hydra applies values after groups, one by one, to typed nodes.
So a run's configuration is that of its groups with its values put in, each converted by the same typed node; a setting of
the groups that is made of one of these is made anew. Words that do more (new keys, deletions, packages, interpolations) are
left to Hydra. A test holds ``derive`` equal to ``compose``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, get_args, get_origin, get_type_hints

from bayesdiff.config.checks import check, check_used
from bayesdiff.config.compose import CONF, compose, composed
from bayesdiff.config.identity import fits
from bayesdiff.config.proportion import in_proportion
from bayesdiff.config.schema import Config
from bayesdiff.config.suggestions import wrong_value
from bayesdiff.config.words import parsed

MISSING = "???"
"""What OmegaConf holds where a value is still to be given."""

REFERENCE = re.compile(r"\$\{([\w.]+)\}")
"""Another setting within a setting's text."""

Values = dict[str, Any]
Texts = dict[tuple[str, str], Any]


def derive(overrides: tuple[str, ...]) -> Config:
    """The validated configuration of a command's words, equal to ``compose(overrides)``.

    Raises:
        UserError: as ``compose``; Hydra's own exceptions for words that do not compose.
    """
    plain = [_plain(word) for word in overrides]
    groups = tuple(word for word, value in zip(overrides, plain, strict=True) if value is None)
    values = [value for value in plain if value is not None]
    if (found := _of_groups(groups)) is None:
        return compose(overrides)
    content, made_of = found
    content = {name: dict(part) if isinstance(part, dict) else part for name, part in content.items()}
    if not all(_put(content, *value) for value in values) or not _refer(content, made_of, {value[:2] for value in values}):
        return compose(overrides)  # says which, and why
    if _has_missing(content):
        return compose(overrides)
    cfg = in_proportion(_config(content))
    check(cfg)
    check_used(cfg)
    return cfg


@lru_cache(maxsize=65_536)
def _plain(word: str) -> tuple[str, str, str] | None:
    """Group, key and word of a value that is put into the composed configuration; None for what Hydra has to see."""
    from hydra.core.override_parser.types import OverrideType

    read = parsed(word)
    group, _, key = str(read.key_or_group).rpartition(".")
    changes = read.type == OverrideType.CHANGE and read.package is None and not read.is_sweep_override()
    return (group, key, word) if changes and (group, key) in _leaves() and "${" not in word and MISSING not in word else None


@lru_cache(maxsize=1)
def _leaves() -> frozenset[tuple[str, str]]:
    """(group, key) of every setting; the settings of no group have an empty one."""
    found = set()
    for part in fields(Config):
        kind = _kinds()[part.name]
        found |= (
            {(part.name, leaf.name) for leaf in fields(kind)}
            if is_dataclass(kind)
            else {("", part.name)}
            if get_origin(kind) is None
            else set()
        )
    return frozenset(found)


def settings_there_are() -> list[str]:
    """Every setting of a configuration, by its dotted key."""
    return sorted(_dotted(group, key) for group, key in _leaves())


def setting_error(word: str) -> str | None:
    """What is wrong with a ``key=value`` word, whatever else is set; None where nothing is."""
    from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

    group, _, key = str(parsed(word).key_or_group).rpartition(".")
    if (group, key) not in _leaves():
        return "no such setting"
    try:
        _typed(group, key, word)
    except OmegaConfBaseException as error:
        if isinstance(error, ConfigKeyError) or "struct" in str(error):
            return f"{_dotted(group, key)} takes new names with a +, such as +{_dotted(group, key)}.name=1"
        return wrong_value(_dotted(group, key), parsed(word).value()).partition(": ")[2]
    return None


def _dotted(group: str, key: str) -> str:
    return f"{group}.{key}" if group else key


@lru_cache(maxsize=4096)
def _of_groups(words: tuple[str, ...]) -> tuple[Values, Texts] | None:
    """The typed values of a choice of groups, missing ones as ``MISSING``, and the texts of those that are made of others.

    None where a word is more than a choice of a group.
    """
    from omegaconf import OmegaConf

    for word in words:
        read = parsed(word)
        if not (CONF / str(read.key_or_group)).is_dir() or not isinstance(read.value(), str):
            return None
    raw = composed(words)
    content, texts = OmegaConf.to_container(raw, resolve=True), OmegaConf.to_container(raw)
    assert isinstance(content, dict)
    assert isinstance(texts, dict)
    leaves = [(group, key, (texts[group] if group else texts)[key]) for group, key in sorted(_leaves())]
    return {str(name): part for name, part in content.items()}, {(group, key): text for group, key, text in leaves if "${" in str(text)}


@lru_cache(maxsize=65_536)
def _typed(group: str, key: str, word: str) -> Any:
    """A value as the typed node of its setting holds it; raises OmegaConf's exceptions for one of another type."""
    from omegaconf import OmegaConf
    from omegaconf.errors import ValidationError

    node = _node(group)
    OmegaConf.update(node, key, parsed(word).value(), merge=True)
    value = node._get_node(key)
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else node[key]
    if isinstance(plain, list | dict) and not fits(plain, get_type_hints(_kinds()[group] if group else Config)[key]):
        raise ValidationError(f"an element of {key} is of another kind")  # OmegaConf takes a list or a mapping among texts
    return plain


@lru_cache(maxsize=64)
def _node(group: str) -> Any:
    """The typed node of a group, in which one value after the other is put to be converted."""
    from omegaconf import OmegaConf

    node = OmegaConf.structured(_kinds()[group] if group else Config)
    OmegaConf.set_struct(node, True)  # as Hydra's is: a mapping gets no new names without a +
    return node


@lru_cache(maxsize=1)
def _kinds() -> dict[str, Any]:
    """The dataclass of every group."""
    return get_type_hints(Config)


def _put(content: Values, group: str, key: str, word: str) -> bool:
    """Put a value in; False for one that Hydra would refuse, so that Hydra says why."""
    from omegaconf.errors import OmegaConfBaseException

    try:
        value = _typed(group, key, word)
    except OmegaConfBaseException:
        return False
    _set(content, (group, key), value)
    return True


def _refer(content: Values, made_of: Texts, given: set[tuple[str, str]]) -> bool:
    """Make anew what is made of settings that were ``given``; False for what is more than other settings in a text."""
    for setting, text in made_of.items():
        names = [_split(name) for name in REFERENCE.findall(str(text))]
        if setting in given or not given & set(names):
            continue
        if not set(names) <= _leaves() or set(names) & set(made_of) or "$" in REFERENCE.sub("", str(text)):
            return False
        _set(content, setting, _text_with(content, str(text)))
    return True


def _text_with(content: Values, text: str) -> Any:
    """A text with settings in it, or one setting, as Hydra makes it of the content."""
    if whole := REFERENCE.fullmatch(text):
        return _get(content, _split(whole[1]))
    return REFERENCE.sub(lambda found: str(_get(content, _split(found[1]))), text)


def _split(name: str) -> tuple[str, str]:
    group, _, key = name.rpartition(".")
    return group, key


def _get(content: Values, setting: tuple[str, str]) -> Any:
    group, key = setting
    return (content[group] if group else content)[key]


def _set(content: Values, setting: tuple[str, str], value: Any) -> None:
    group, key = setting
    (content[group] if group else content)[key] = value


def _has_missing(content: Mapping[str, Any]) -> bool:
    return any(_has_missing(part) if isinstance(part, dict) else part == MISSING for part in content.values())


def _config(content: Values) -> Config:
    """The dataclasses of a configuration, lists of their own."""
    return Config(**{name: _part(_kinds()[name], part) for name, part in content.items()})


def _part(kind: Any, part: Any) -> Any:
    """A group's dataclass, a mapping of dataclasses by name, or a plain value."""
    if get_origin(kind) is dict:
        value: Callable[..., Any] = get_args(kind)[1]
        return {name: value(**_own(one)) if is_dataclass(value) else one for name, one in part.items()}
    made: Callable[..., Any] = kind
    return made(**_own(part)) if is_dataclass(kind) else part


def _own(part: Values) -> Values:
    return {key: list(value) if isinstance(value, list) else value for key, value in part.items()}
