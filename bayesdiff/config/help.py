"""The help of a command whose words Hydra reads: the template of its configuration file, filled in.

Hydra fills it in as well, but copies its whole store for each group that it lists, twice over: a second of the two that a help
may take (hydra-core 1.3, ``CachingConfigRepository``).
"""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

from omegaconf import OmegaConf

from bayesdiff.config.compose import CONF, composed, options_of

ASKING = (["--help"], ["-h"])
"""Words that ask for nothing but the help."""


def print_help(name: str, words: Sequence[str]) -> bool:
    """Print the help if the words ask for it alone, and say whether they do; beside others, such as --config-dir, Hydra prints its own."""
    if asked := list(words) in ASKING:
        print(help_of(name))
    return asked


def help_of(name: str) -> str:
    """The text of ``conf/<name>.yaml`` under ``hydra.help``, as Hydra prints it."""
    template = Template(OmegaConf.load(CONF / f"{name}.yaml").hydra.help.template)
    keys = OmegaConf.to_yaml(composed([], name)) if "CONFIG" in template.get_identifiers() else ""
    return template.substitute(APP_CONFIG_GROUPS=_groups(), CONFIG=keys)


def _groups() -> str:
    """A line a group: its name and its options."""
    options = {folder.name: options_of(folder.name) for folder in sorted(CONF.iterdir()) if folder.is_dir()}
    return "".join(f"{group}: {', '.join(names)}\n" for group, names in options.items() if names)
