"""What must not be written down: secrets, and whose machine it was.

A secret is a text that looks like a token of a service, or the value of an environment variable that is called like one.
Settings that hold a secret are refused (``config.checks``); what is written or said all the same goes through ``public``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

REMOVED = "[removed]"
"""Stands where a secret was."""
SHORTEST = 8
"""Letters of an environment variable's value from which on it is a secret, and not a word of the language."""
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:hf|sk|pk|rk)[_-](?:[A-Za-z0-9_-]{24,}|(?=[A-Za-z0-9_-]{0,40}[A-Z0-9])[A-Za-z0-9_-]{8,})"
    r"|(?:gh[pousr]|github_pat|glpat|xox[abprs]|wandb_v\d|AIza|AKIA|ASIA)[_-]?[A-Za-z0-9_-]{12,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
    r")"
)
_NAMED = re.compile(
    r"(?i)(?<![a-z0-9])([a-z0-9_.-]*(?:api[_-]?key|access[_-]?key|token|secret|passwor[dt]|passwd|passphrase))=([^\s,'\"]{8,})"
)
_NAME_ENDS = ("key=", "token=", "secret=", "passwort=", "password=", "passwd=", "passphrase=")
"""One of these is in every text that ``_NAMED`` matches. Looking for them first is a tenth of the time; tables read 10,000 records."""
_SECRET_NAME = re.compile(r"(?i)(?:^|_)(?:\w*API_?KEY|ACCESS_?KEY|SECRET_?KEY|PRIVATE_?KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE)$")


@lru_cache(maxsize=8)
def _one_of(values: frozenset[str]) -> re.Pattern[str]:
    longest_first = sorted(values, key=lambda value: (-len(value), value))
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _of_environment() -> re.Pattern[str]:
    """The values of environment variables that are called like secrets; paths (of a file with the secret) are none."""
    found = (value for name, value in os.environ.items() if _SECRET_NAME.search(name))
    return _one_of(frozenset(value for value in found if len(value) >= SHORTEST and not value.startswith(("/", "~"))))


def has_secret(text: str) -> bool:
    """Whether a text holds what looks like a token, ``…KEY=value``, or the value of a secret environment variable."""
    named = _may_be_named(text) and _NAMED.search(text)
    return bool(named or any(pattern.search(text) for pattern in (_TOKEN, _of_environment())))


def _may_be_named(text: str) -> bool:
    folded = text.casefold()  # what the pattern takes for the same letters, such as the long s
    return any(end in folded for end in _NAME_ENDS)


def redacted(text: str) -> str:
    """A text without its secrets."""
    return _redacted(text, _of_environment())


def _redacted(text: str, secrets: re.Pattern[str]) -> str:
    text = _TOKEN.sub(REMOVED, secrets.sub(REMOVED, text))
    return _NAMED.sub(rf"\1={REMOVED}", text) if _may_be_named(text) else text


def without_home(text: str) -> str:
    """A text in which the user's home folder is ``~``."""
    return _home().sub("~", text)


def _home() -> re.Pattern[str]:
    home = str(Path.home())
    return re.compile(rf"(?<![\w./~-]){re.escape(home)}(?![\w.-])" if len(home) > 1 else "(?!)")


def at_home(text: str) -> str:
    """The opposite of ``without_home`` for a path, also behind ``local-dir:``: a leading ``~`` is the user's home folder."""
    return re.sub(r"\A(local-dir:)?~(?=/|\Z)", lambda found: f"{found[1] or ''}{Path.home()}", text)


def public(value: Any) -> Any:
    """A text, or any structure of JSON with texts in it, without secrets and home folder."""
    return _public(value, _home(), _of_environment())


def _public(value: Any, home: re.Pattern[str], secrets: re.Pattern[str]) -> Any:
    """The environment is read once for all of a structure: it has as many names as a record has texts."""
    if isinstance(value, str):
        return _redacted(home.sub("~", value), secrets)
    if isinstance(value, Mapping):
        names = [_public(name, home, secrets) if isinstance(name, str) else name for name in value]
        return dict(zip(names, (_public(one, home, secrets) for one in value.values()), strict=True))
    return [_public(one, home, secrets) for one in value] if isinstance(value, list | tuple) else value
