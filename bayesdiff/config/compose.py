"""From words to a validated configuration: the one place that registers the schema and asks Hydra to compose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from bayesdiff.config.checks import check
from bayesdiff.config.schema import Config
from bayesdiff.config.suggestions import nearest_key
from bayesdiff.core.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
"""The configuration folder: inside an installed wheel, beside the package in a checkout."""

ConfigStore.instance().store(name="config_schema", node=Config)


def resolve(raw: DictConfig) -> Config:
    """Validate a composed configuration; raises ``UserError`` in one line."""
    try:
        plain = OmegaConf.to_container(raw, resolve=True, throw_on_missing=True)
        typed = OmegaConf.merge(OmegaConf.structured(Config), plain)
        cfg = OmegaConf.to_object(typed)
    except OmegaConfBaseException as error:
        near = nearest_key(error.full_key) if isinstance(error, ConfigKeyError) and error.full_key else ""
        raise UserError(f"configuration: {str(error).splitlines()[0]} ({error.full_key or 'top level'}){near}") from error
    assert isinstance(cfg, Config)
    check(cfg)
    return cfg


def composed(overrides: Sequence[str]) -> DictConfig:
    """What Hydra makes of a command line's words, typed but not validated: values may be missing.

    In a Hydra job the job's own state is put aside meanwhile; elsewhere there is none, and putting it aside would look
    for plugins anew each time. Raises Hydra's exceptions for words that do not compose.
    """
    if not GlobalHydra.instance().is_initialized():
        return _composed(overrides)
    outer = Singleton.get_state()
    try:
        GlobalHydra.instance().clear()
        return _composed(overrides)
    finally:
        Singleton.set_state(outer)


def _composed(overrides: Sequence[str]) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose("config", list(overrides))


def compose(overrides: Sequence[str]) -> Config:
    """The validated configuration of a command line's words, composed by Hydra as the command of record does.

    Raises ``UserError`` for values that cannot be run, and Hydra's own exceptions for words that do not compose.
    """
    return resolve(composed(overrides))
