"""What a run is called: a hash of every setting that can change its results, and a readable name that ends with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import lru_cache
from typing import Any

from bayesdiff.config.schema import Config, Sigma


def as_dict(cfg: Config) -> dict[str, Any]:
    """Plain, JSON-ready values (enums as their names)."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(cfg)))
    return plain


def key_content(cfg: Config) -> dict[str, Any]:
    """The part of a configuration that can change results. What lies in a local folder is not seen by it
    (see ``RunRecord.weights`` and the photographs' hashes)."""
    content = as_dict(cfg)
    for place in ("paths", "tracker", "device", "experiment_name", "evaluations", "probes"):
        del content[place]
    del content["training"]["graph"]
    del content["schedule"]["keep"], content["schedule"]["log_every"], content["model"]["size"], content["model"]["gated"]
    del content["model"]["sigma_learning_rate_factor"]  # bnn has the one that is used
    return content


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


@lru_cache(maxsize=1)
def _usual() -> dict[str, Any]:
    """Every setting's default, as dotted keys; those that have none are ``???``."""
    made = {part.name: part.default_factory() if callable(part.default_factory) else part.default for part in fields(Config)}
    content = {name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value for name, value in made.items()}
    return _flat(json.loads(json.dumps(content)))


def run_key(cfg: Config) -> str:
    """Twelve hex digits that name the run: a hash of every setting that can change its results.

    Settings at their default do not enter, so that an option that is added later leaves the names of old
    records as they are.
    """
    usual = _usual()
    content = {key: value for key, value in _flat(key_content(cfg)).items() if key not in usual or usual[key] != value}
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
