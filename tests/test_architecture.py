"""docs/architecture.md says where every module stands; the code keeps to it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMES = slice(15, 55)  # columns of the drawing: a label, names, what they do


def _floors() -> dict[str, int]:
    """Module -> floor, 0 on top, as the drawing has them; lines without a label belong to the one above."""
    drawing = (ROOT / "docs" / "architecture.md").read_text().split("```")[1]
    floors: dict[str, int] = {}
    floor, package = -1, ""
    for line in drawing.splitlines():
        if not line.strip() or line.startswith("─"):
            continue
        label = line[: NAMES.start].strip()
        if label:
            floor, package = floor + 1, label if label.endswith("/") else ""
        names = line[NAMES]
        if "/" in names:  # a package on the floor of its commands
            package, names = names.split()[0], names.split("(")[1]
        for name in names.replace("←", " ").replace(",", " ").replace(")", " ").split():
            inside = "" if name.endswith(".py") else package.replace("/", ".")
            module = inside + name.removesuffix(".py")
            assert module not in floors, f"{module} stands twice in docs/architecture.md"
            floors[module] = floor
    return floors | {"methods": floors["methods.lora"], "corruption": floors["corruption.detector"]}  # their faces


def _modules() -> dict[str, Path]:
    """Dotted name below ``bayesdiff`` -> file; packages' faces aside."""
    package = ROOT / "bayesdiff"
    files = {".".join(path.relative_to(package).with_suffix("").parts): path for path in package.rglob("*.py")}
    return {name: path for name, path in files.items() if path.name != "__init__.py"}


def _imports(path: Path) -> set[str]:
    """What a file imports of ours, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bayesdiff"):
            below = (node.module or "").removeprefix("bayesdiff").removeprefix(".")
            found |= {below} | {f"{below}.{alias.name}".removeprefix(".") for alias in node.names}
    return found


def test_every_module_stands_in_the_drawing() -> None:
    assert set(_floors()) - {"methods", "corruption"} == set(_modules())


@pytest.mark.parametrize("module", sorted(_modules()))
def test_no_room_imports_a_higher_one(module: str) -> None:
    floors = _floors()
    higher = [name for name in _imports(_modules()[module]) if name in floors and floors[name] < floors[module]]
    assert not higher, f"{module} (floor {floors[module]}) imports {higher}"
