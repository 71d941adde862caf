"""What a run is called: a hash of every setting that can change its results, and a readable name that ends with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from bayesdiff.config.schema import Config, Sigma
from bayesdiff.core.privacy import at_home


def as_dict(cfg: Config) -> dict[str, Any]:
    """Plain, JSON-ready values (enums as their names)."""
    return {name: _plain(getattr(cfg, name)) for name in _names(Config)}


def _plain(value: Any) -> Any:
    """What JSON would give back, in a third of the time: a table of 10,000 records takes two of each configuration."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    kind: Any = type(value)
    if names := _names(kind):
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.value if isinstance(value, Enum) else value


@lru_cache(maxsize=64)
def _names(kind: Any) -> tuple[str, ...]:
    """Of a dataclass's fields; none of another type."""
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()


def key_content(cfg: Config) -> dict[str, Any]:
    """The part of a configuration that can change results. What lies in a local folder is not seen by it
    (see ``RunRecord.weights`` and the photographs' hashes). A leading ``~`` is the home folder: records write it so."""
    content = as_dict(cfg)
    for group, key in (("data", "path"), ("model", "path"), ("metrics", "clip"), ("metrics", "dino"), ("metrics", "clip_iqa")):
        content[group][key] = content[group][key] and at_home(content[group][key])
    for place in ("paths", "tracker", "device", "experiment_name", "evaluations", "probes", "report"):
        del content[place]
    del content["training"]["graph"]
    del content["schedule"]["keep"], content["schedule"]["log_every"], content["model"]["size"], content["model"]["gated"]
    del content["model"]["sigma_learning_rate_factor"]  # bnn has the one that is used
    return content


def misfit(content: Mapping[str, Any], kind: Any = Config, prefix: str = "") -> str:
    """The first setting of a plain mapping whose value is of another type than the schema's; empty where all fit.

    Settings that are missing or of another version are passed over.
    """
    hints = _hints(kind)
    for name, value in content.items():
        if (wanted := hints.get(name)) is None:
            continue
        inner = is_dataclass(wanted)
        if not isinstance(value, dict) if inner else not fits(value, wanted):
            return f"{prefix}{name}"
        if inner and (found := misfit(value, wanted, f"{prefix}{name}.")):
            return found
    return ""


@lru_cache(maxsize=32)
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


@lru_cache(maxsize=256)  # every record of a study asks for the same few
def _kinds(wanted: Any) -> list[tuple[Any, Any]]:
    """What a type allows, and each without what it holds: ``list[int] | None`` is ``list[int]``, a list, and None."""
    kinds = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    return [(kind, get_origin(kind) or kind) for kind in kinds]


def fits(value: Any, wanted: Any) -> bool:
    """Whether a plain value can be what a setting holds; of an enumeration its value."""
    for kind, plain in _kinds(wanted):
        if isinstance(plain, type) and issubclass(plain, Enum):
            good = value in [member.value for member in plain]
        elif plain is float:
            good = isinstance(value, int | float) and not isinstance(value, bool)
        elif plain is int:
            good = isinstance(value, int) and not isinstance(value, bool)
        elif plain is tuple:
            good = isinstance(value, list | tuple) and _tuple_fits(value, get_args(kind))
        elif plain in (list, dict):
            good = isinstance(value, plain) and _inside_fits(value, get_args(kind))
        else:
            good = isinstance(value, plain)
        if good:
            return True
    return False


def _tuple_fits(value: list[Any] | tuple[Any, ...], kinds: tuple[Any, ...]) -> bool:
    """Whether the elements of a tuple, which JSON has as a list, are of their kinds: ``(int, int)``, or ``(int, ...)`` for any number."""
    kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
    return len(value) == len(kinds) and all(fits(one, kind) for one, kind in zip(value, kinds, strict=True))


def _inside_fits(value: Any, kinds: tuple[Any, ...]) -> bool:
    """Whether the elements of a list, or the values of a mapping, are of their kind; without one anything is."""
    wanted = kinds[-1] if kinds else Any
    if wanted is Any:
        return True
    parts = value.values() if isinstance(value, dict) else value
    if is_dataclass(wanted):
        return all(isinstance(one, dict) and not misfit(one, wanted) for one in parts)
    return all(fits(one, wanted) for one in parts)


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


@lru_cache(maxsize=1)
def usual() -> dict[str, Any]:
    """Every setting's default, as dotted keys; those that have none are ``???``."""
    made = {part.name: part.default_factory() if callable(part.default_factory) else part.default for part in fields(Config)}
    return _flat(_plain(made))


def run_key(cfg: Config) -> str:
    """Twelve hex digits that name the run: a hash of every setting that can change its results.

    Settings at their default do not enter, so that an option that is added later leaves the names of old
    records as they are.
    """
    default = usual()
    content = {key: value for key, value in _flat(key_content(cfg)).items() if key not in default or default[key] != value}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def arm_name(bnn: Mapping[str, Any]) -> str:
    """One word for the arm of a configuration or record: plain, bnn, weight_noise, or the control's own name."""
    kind, sigma = str(bnn["kind"]), Sigma(bnn["sigma"])
    if kind == "gaussian":
        return "weight_noise" if sigma is Sigma.fixed else "bnn"
    return "plain" if kind == "off" else kind.rpartition(".")[2]


def run_name(cfg: Config) -> str:
    """A readable folder name that ends with the run key."""
    shots = "all" if cfg.shots.count is None else str(cfg.shots.count)
    parts = [
        cfg.model.name,
        cfg.method.name,
        arm_name(vars(cfg.bnn)),
        cfg.data.subject,
        f"{shots}shot",
        f"seed{cfg.seed}",
        run_key(cfg),
    ]
    return "-".join("".join(c if c.isalnum() or c in "_." else "_" for c in part)[:40] for part in parts)
