"""From words to a validated configuration: the one place that registers the schema and asks Hydra to compose."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bayesdiff.config.checks import check, check_used
from bayesdiff.config.identity import as_dict, misfit
from bayesdiff.config.proportion import in_proportion
from bayesdiff.config.schema import Config
from bayesdiff.config.suggestions import explain, wrong_value
from bayesdiff.core.arguments import Parser, called
from bayesdiff.core.errors import UserError, shortened

PACKAGE = Path(__file__).resolve().parents[1]
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
"""The configuration folder: inside an installed wheel, beside the package in a checkout."""

ConfigStore.instance().store(name="config_schema", node=Config)


OPTION = re.compile(r"(?!(?:null|true|false)\Z)(?=.*[^\d.])[\w.,/-]+|\$\{.*\}")
"""What can be the name of a group's option, or several for a sweep."""
EXAMPLES_OF_GROUPS = {"shots": "shots.count=3", "schedule": "schedule.steps=200"}
_INTERPOLATED = re.compile(r"(\\*)\$\{")


def literal(content: Any) -> Any:
    """A structure whose texts OmegaConf takes as they are: ``${oc.env:KEY}`` of a stranger's file reads no environment."""
    if isinstance(content, str):
        return _INTERPOLATED.sub(lambda found: found[1] * 2 + "\\${", content)
    if isinstance(content, Mapping):
        return {name: literal(one) for name, one in content.items()}
    return [literal(one) for one in content] if isinstance(content, list) else content


def of_record(content: Mapping[str, Any], path: Path) -> Config:
    """The validated configuration that a record holds; raises ``UserError`` with the record's file."""
    try:
        return resolve(OmegaConf.create(literal(content)), asked=False)
    except (UserError, OmegaConfBaseException) as error:
        said = error if isinstance(error, UserError) else explain(error)
        raise UserError(f"{path}: {said}; repeat the run with this version, or name another") from error


def resolve(raw: DictConfig, asked: bool = True) -> Config:
    """Validate a composed configuration; raises ``UserError`` in one line.

    Args:
        asked: whether somebody asks for it now, so that settings which nothing reads are refused; a record may have some.
    """
    try:
        plain = OmegaConf.to_container(raw, resolve=True, throw_on_missing=True)
        typed = OmegaConf.merge(OmegaConf.structured(Config), plain)
        cfg = OmegaConf.to_object(typed)
    except OmegaConfBaseException as error:
        raise UserError(f"configuration: {explain(error)}; all keys: python -m bayesdiff.run --cfg job") from error
    assert isinstance(cfg, Config)
    check_kinds(cfg)
    cfg = in_proportion(cfg)
    check(cfg)
    if asked:
        check_used(cfg)
    return cfg


def check_kinds(cfg: Config) -> None:
    """Raises ``UserError`` for a list with an element of another kind: OmegaConf takes a list or a mapping among texts."""
    if key := misfit(content := as_dict(cfg)):
        value = reduce(lambda part, name: part[name], key.split("."), content)
        raise UserError(f"configuration: {wrong_value(key, value)}")


def check_options(words: Sequence[str], command: str) -> None:
    """Raises ``UserError`` for an option that Hydra's parser does not take; Hydra itself prints its usage and ends the process."""
    from hydra._internal.utils import get_args_parser

    _check_unnamed(words)
    parser = get_args_parser()
    parser.__class__, parser.prog = Parser, called(command)
    parser.parse_args(words if not {"--help", "-h", "--version"} & set(words) else [])


def _check_unnamed(words: Sequence[str]) -> None:
    """Raises ``UserError`` for words that Hydra's own parser fails on with a traceback."""
    if "--resolve" in words and not any(word.startswith(("--cfg", "-c")) for word in words):
        raise UserError("--resolve: shows a configuration; give it with --cfg job")
    if unnamed := [word for word in words if word.lstrip("+~").startswith("=")]:
        raise UserError(f"{shortened(unnamed[0])}: names no setting; give KEY=VALUE, as --cfg job lists them")


def options_of(group: str) -> list[str]:
    """The names that a group of the configuration can be given; none for what is no group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def check_groups(words: Sequence[str]) -> None:
    """Raises ``UserError`` for a group's option that is no name: Hydra fails on a number or a mapping with a traceback."""
    for word in words:
        group, equal, value = word.lstrip("+~").partition("=")
        group, value = group.partition("@")[0], value.strip("'\"")
        if not equal or not group or not (CONF / group).is_dir() or OPTION.fullmatch(value):
            continue
        inside = f"; a value goes into one of its keys ({EXAMPLES_OF_GROUPS.get(group, f'{group}.KEY=VALUE')})"
        raise UserError(f"{shortened(word)}: no such choice; allowed: {', '.join(options_of(group))}{inside}")


def composed(overrides: Sequence[str], name: str = "config") -> DictConfig:
    """What Hydra makes of a command line's words and ``conf/<name>.yaml``, typed but not validated: values may be missing.

    In a Hydra job the job's own state is put aside meanwhile; elsewhere there is none, and putting it aside would look
    for plugins anew each time. Raises Hydra's exceptions for words that do not compose.
    """
    if not GlobalHydra.instance().is_initialized():
        return _composed(overrides, name)
    outer = Singleton.get_state()
    try:
        GlobalHydra.instance().clear()
        return _composed(overrides, name)
    finally:
        Singleton.set_state(outer)


def _composed(overrides: Sequence[str], name: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose(name, list(overrides))


def compose(overrides: Sequence[str]) -> Config:
    """The validated configuration of a command line's words, composed by Hydra as the command of record does.

    Raises ``UserError`` for values that cannot be run, and Hydra's own exceptions for words that do not compose.
    """
    return resolve(composed(overrides))
