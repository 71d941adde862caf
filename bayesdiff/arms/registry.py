"""Arms by name: the shipped ones, and any module of your own by its dotted name."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

from bayesdiff.arms.protocol import Arm, Site
from bayesdiff.core.errors import UserError

MODULES = {"off": "protocol", "gaussian": "gaussian"}
"""Modules of this room whose name is not the arm's."""


class ArmModule(Protocol):
    """What the module of an arm offers."""

    def attach(self, site: Site) -> Arm: ...


def arm_of(kind: str) -> ArmModule:
    """The module of an arm: a shipped one by its name, any other by its dotted name on the Python path.

    Raises:
        UserError: no such module, or one without ``attach``.
    """
    dotted = kind if "." in kind else f"bayesdiff.arms.{MODULES.get(kind, kind)}"
    try:
        module = import_module(dotted)
    except (ImportError, TypeError, ValueError) as error:
        raise UserError(f"bnn.kind={kind}: cannot be imported ({error}); put its folder on PYTHONPATH") from error
    if not hasattr(module, "attach"):
        raise UserError(f"bnn.kind={kind}: has no attach(site); see docs/extending.md")
    return cast(ArmModule, module)
