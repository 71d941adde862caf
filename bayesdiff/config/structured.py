"""YAML files that are held to a dataclass; what a stranger wrote in them is text, and no interpolation is resolved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bayesdiff.config.compose import literal
from bayesdiff.core.errors import UserError, first_line, shortened
from bayesdiff.core.files import read_file

Kind = TypeVar("Kind")


def read_entries(path: Path, kind: type[Kind], name: str, remedy: str, renamed: Mapping[str, str] = MappingProxyType({})) -> list[Kind]:
    """The file's list as dataclasses of a kind; raises ``UserError`` as ``read_as``, and where it is no list of mappings.

    ``name`` is what the entries are called; ``renamed`` has the fields of keys that are words of Python.
    """
    content = _read(path, remedy)
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise UserError(f"{path}: is no list of {name}; {remedy}")
    return [_typed({renamed.get(key, key): value for key, value in entry.items()}, kind, path, remedy) for entry in content]


def read_as(path: Path, kind: type[Kind], remedy: str) -> Kind:
    """The file as a dataclass; raises ``UserError`` for a file that cannot be read, an unknown key or a value of another type."""
    return _typed(_read(path, remedy), kind, path, remedy)


MOST_NESTED = 50
"""Levels of a YAML file."""
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_yaml(text: str) -> None:
    """Raises ``YAMLError`` for a value that is repeated by its name (``*a``), and for very many levels.

    A few lines of repeated values stand for billions, and every level costs a reader a part of its stack.
    """
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem=f"*{event.anchor} repeats another value; write it out", problem_mark=event.start_mark)
        if depth > MOST_NESTED:
            raise yaml.MarkedYAMLError(problem=f"more than {MOST_NESTED} levels", problem_mark=event.start_mark)


def _check_keys(node: yaml.Node | None) -> None:
    """Raises ``YAMLError`` for a key that stands twice in a mapping: the later value would win in silence."""
    seen = set[str]()
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if (word := str(key.value)) in seen:
            raise yaml.MarkedYAMLError(problem=f"line {key.start_mark.line + 1}: key {shortened(word)} stands twice; leave one out")
        seen.add(word)
        _check_keys(value)
    for one in node.value if isinstance(node, yaml.SequenceNode) else ():
        _check_keys(one)


def _read(path: Path, remedy: str) -> Any:
    try:
        text = read_file(path).decode("utf-8")
        check_yaml(text)
        _check_keys(yaml.compose(text, Loader=LOADER))
        return yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: {first_line(error)}; {remedy}") from error


def _typed(content: Any, kind: type[Kind], path: Path, remedy: str) -> Kind:
    try:
        loaded = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), literal(content)))
    except (OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: {first_line(error)}; {remedy}") from error
    assert isinstance(loaded, kind)
    return loaded
