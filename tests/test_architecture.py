"""docs/architecture.md says where every module stands; the code keeps to it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from bayesdiff.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bayesdiff"
FLOOR, ROOM, MODULES = slice(0, 7), slice(7, 21), slice(21, 71)
"""Columns of the drawing."""
LONGEST_COMMAND = 120
TOP = "commands"


def _drawing() -> tuple[dict[str, int], dict[str, list[str]]]:
    """Room -> floor, 0 on top, and room -> its modules, as the drawing has them."""
    floors: dict[str, int] = {}
    modules: dict[str, list[str]] = {}
    floor, room = -1, ""
    for line in (ROOT / "docs" / "architecture.md").read_text().split("```")[1].strip().splitlines()[1:]:
        floor = int(line[FLOOR]) if line[FLOOR].strip() else floor
        room = line[ROOM].strip() or room
        floors.setdefault(room, floor)
        modules.setdefault(room, []).extend(line[MODULES].split())
    return floors, modules


def _files() -> dict[str, Path]:
    """Dotted name below ``bayesdiff`` -> file; a room's face has the name of its room, the package's own is left out."""
    files = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in files.items() if name != "__init__"}


FILES = _files()
FACES = {name for name, path in FILES.items() if path.name == "__init__.py"}


def _room(module: str) -> str:
    return module.partition(".")[0] if "." in module or module in FACES else TOP


def _imported(node: ast.AST, module: str) -> Iterator[str]:
    """Dotted names that one statement imports; relative ones made absolute."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        inside = ["bayesdiff", *module.split(".")] if module in FACES else ["bayesdiff", *module.split(".")[:-1]]
        above = inside[: len(inside) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:  # a module of a room, or a name of the module or face
            inner = f"{base}.{alias.name}"
            yield inner if inner.removeprefix("bayesdiff.") in FILES else base


def _imports(module: str, text: str) -> set[str]:
    """The modules of ours that a text imports, wherever in it the import stands."""
    found = {name for node in ast.walk(ast.parse(text)) for name in _imported(node, module)}
    return {name.removeprefix("bayesdiff.") for name in found if name.startswith("bayesdiff.")}


def _without_types(text: str) -> str:
    """A text without its ``if TYPE_CHECKING:`` blocks."""
    tree = ast.parse(text)
    tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")]
    return ast.unparse(tree)


@cache
def seen(module: str) -> set[str]:
    """Our modules that a module imports."""
    return _imports(module, FILES[module].read_text())


def run(module: str) -> set[str]:
    """The same, but for types alone."""
    return _imports(module, _without_types(FILES[module].read_text()))


EVERY_FORM = """
import bayesdiff.config.schema as schema, os
from bayesdiff import stats
from bayesdiff.core.errors import UserError
from . import loop
from .objective import step_loss
from ..methods import lora
if TYPE_CHECKING:
    from bayesdiff.scoring import curve
def later():
    import bayesdiff.runs.experiment
    class Inner:
        from ..arms import gaussian as g
"""


def test_every_form_of_an_import_is_seen() -> None:
    seen = {"config.schema", "stats", "core.errors", "training.loop", "training.objective", "methods.lora", "scoring.curve"}
    assert _imports("training.batches", EVERY_FORM) == seen | {"runs.experiment", "arms.gaussian"}


def test_every_module_stands_in_the_drawing_once() -> None:
    drawn = [f"{room}.{name}" for room, names in _drawing()[1].items() for name in names]
    there = [f"{_room(name)}.{name.rpartition('.')[2]}" for name in FILES if name not in FACES]
    assert sorted(drawn) == sorted(there)


@pytest.mark.parametrize("module", sorted(FILES))
def test_no_room_imports_one_of_its_floor_or_higher(module: str) -> None:
    floors = _drawing()[0]
    room = _room(module)
    higher = {(room, _room(name)) for name in seen(module) if _room(name) != room and floors[_room(name)] <= floors[room]}
    assert not higher, f"{module} (floor {floors[room]})"


def test_no_module_imports_in_a_circle() -> None:
    """Not even inside a room; there an import for types alone may look back."""
    assert list(TopologicalSorter({module: run(module) for module in FILES}).static_order())  # raises CycleError, which names the circle


def test_commands_import_no_command() -> None:
    assert not {(name, other) for name in COMMANDS for other in seen(name) if other in COMMANDS}


def test_the_top_level_has_short_commands_only() -> None:
    top = {path.stem: len(path.read_text().splitlines()) for path in PACKAGE.glob("*.py")}
    assert set(top) - {"__init__", "__main__"} == set(COMMANDS)
    assert not {name: lines for name, lines in top.items() if lines > LONGEST_COMMAND}


@pytest.mark.parametrize("room", sorted(FACES))
def test_the_face_of_a_room_only_re_exports(room: str) -> None:
    for node in ast.parse(FILES[room].read_text()).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        exported = isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]
        assert docstring or exported or isinstance(node, ast.ImportFrom), f"{room}/__init__.py: {ast.unparse(node)[:80]}"
