"""Values as words of a command: the one place that knows how Hydra's grammar quotes.

A study, a worker and a sweep write ``key=value`` words that Hydra reads again, in another process. Every value that a
program puts into such a word goes through ``override``, so that it arrives as it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from bayesdiff.core.errors import UserError, first_line, shortened

_PLAIN = re.compile(r"(?!\.\d)[A-Za-z_/.][A-Za-z0-9_/.-]*")
"""Texts that Hydra reads as themselves, but for those of ``_SPECIAL``; ``.5`` is a number."""
_SPECIAL = re.compile(r"null|true|false|nan|inf", re.IGNORECASE)
_BEFORE_A_QUOTE = re.compile(r"(\\*)('|\Z)")


def override(key: str, value: Any) -> str:
    """One ``key=value`` word that gives ``key`` exactly this value, whoever reads it.

    Raises:
        UserError: a value that no command line or configuration can hold.
    """
    return f"{key}={_word(value, key)}"


def _word(value: Any, key: str) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)  # nan, inf and -inf are Hydra's words too
    if isinstance(value, str):
        return _text(value, key)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_text(str(name), key)}:{_word(one, key)}" for name, one in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(_word(one, key) for one in value) + "]"
    raise UserError(f"{key}: a {type(value).__name__} is no setting; give a text, a number, a list or null")


def _text(text: str, key: str) -> str:
    """A text, in quotes unless Hydra reads it as itself without them."""
    if "${" in text:
        raise UserError(f"{key}={text}: ${{…}} is an interpolation, and not resolved here; write the value itself")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UserError(f"{key}: a letter of {text!r} cannot stand in a command; leave it out")
    if text == "???":
        raise UserError(f"{key}=???: stands for a missing value; give another text")
    if _PLAIN.fullmatch(text) and not _SPECIAL.fullmatch(text):
        return text
    return "'" + _BEFORE_A_QUOTE.sub(lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"


@lru_cache(maxsize=65_536)
def parsed(word: str) -> Any:
    """Hydra's own reading of one word, an ``Override``.

    Raises:
        UserError: a word outside Hydra's grammar.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise UserError(f"{shortened(word)}: {first_line(error)}; put the value in quotes: key='…'") from error
