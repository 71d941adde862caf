"""What Hydra and OmegaConf say about a word they do not know, in one line with the nearest name that exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import get_type_hints

from hydra.errors import MissingConfigException

from bayesdiff.config.schema import Config
from bayesdiff.core.errors import did_you_mean

_NO_KEY = re.compile(r"(?:Could not override|Could not append to config\.|Could not delete from config\.) '([^']+)'")
_NO_VALUE = re.compile(r"Invalid value '([^']*)', expected one of \[([^\]]*)\]")
MOST_LINES = 12
"""Lines of a message of Hydra's that are shown: one may list every group there is."""


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
    return f"; did you mean {same[0]}?" if len(same) == 1 else did_you_mean(key, known_keys())


def explain(error: Exception) -> str:
    """An error of Hydra or OmegaConf in one line: the override, what is wrong with it, the nearest name."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"no option {group}/{option}; {group} has {', '.join(error.options)}{did_you_mean(option, error.options)}"
    if match := _NO_KEY.search(str(error)):
        return f"no key {match[1]}{nearest_key(match[1])}"
    lines = [line.strip() for line in f"{error}\n{_reason(error)}".splitlines() if line.strip()]
    override = getattr(error, "override", None)
    return f"{f'{override}: ' if override else ''}{'; '.join(lines[:MOST_LINES])}"


def _reason(error: Exception) -> str:
    """What an error was raised from says first, with the nearest of the values it expected."""
    cause = error.__cause__
    said = str(cause).strip().splitlines()[0] if cause and str(cause).strip() else ""
    match = _NO_VALUE.search(said)
    return said + (did_you_mean(match[1], match[2].split(", ")) if match else "")
