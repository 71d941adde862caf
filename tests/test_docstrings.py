"""Every public function that takes or returns arrays says their shapes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "bayesdiff"
ARRAY = re.compile(r"\b(Array|NDArray|ArrayLike|ndarray|Tensor)\b")
_SIZE = r"[\w…][\w.…]*(?: ?[-+*×/] ?[\w.]+)*"
SHAPE = re.compile(rf"\((?:|…|{_SIZE},|{_SIZE}(?:, {_SIZE})+,?)\)")
"""(), (…), (T,), (B, 3, H, W), (…, T - width + 1)."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def trees() -> dict[str, ast.Module]:
    paths = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {name: ast.parse(path.read_text()) for name, path in paths.items()}


def classes() -> dict[str, ast.ClassDef]:
    return {node.name: node for tree in trees().values() for node in tree.body if isinstance(node, ast.ClassDef)}


def takes_arrays(function: Function) -> bool:
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return any(ARRAY.search(ast.unparse(one)) for one in [*(argument.annotation for argument in given), function.returns] if one)


def docstring(function: Function, owner: ast.ClassDef | None) -> str:
    """A method that overrides a hook without a docstring has the hook's."""
    said = ast.get_docstring(function)
    if said or owner is None:
        return said or ""
    known = classes()
    bases = [known[base] for base in map(ast.unparse, owner.bases) if base in known]
    hooks = [(hook, base) for base in bases for hook in base.body if isinstance(hook, Function) and hook.name == function.name]
    return docstring(*hooks[0]) if hooks else ""


def public(body: list[ast.stmt], owner: ast.ClassDef | None = None) -> Iterator[tuple[str, str]]:
    """Name and docstring of the public functions that take or return arrays, those of public classes among them."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from ((f"{node.name}.{name}", said) for name, said in public(node.body, node))
        elif isinstance(node, Function) and not node.name.startswith("_") and takes_arrays(node):
            yield node.name, docstring(node, owner)


@cache
def all_said() -> dict[str, str]:
    return {f"{module}.{name}": said for module, tree in trees().items() for name, said in public(tree.body)}


def test_there_are_functions_of_arrays() -> None:
    assert len(all_said()) > 100
    assert "arms.ema.Ema.state" in all_said(), "methods are among them"


def test_public_functions_say_the_shapes_of_their_arrays() -> None:
    assert {name for name, said in all_said().items() if not SHAPE.search(said)} == set()


@pytest.mark.parametrize("said", ["(T,)", "(…)", "()", "(B, 3, H, W)", "(…, T - width + 1)", "(T, images)", "(draws, T)"])
def test_a_shape_is_seen(said: str) -> None:
    assert SHAPE.search(f"Means of windows, {said}.")


@pytest.mark.parametrize("said", ["the mean (see there)", "(least squares)", "f(x)", "(eq. 13)", "(progressive distillation, eq. 13)"])
def test_other_brackets_are_no_shape(said: str) -> None:
    assert not SHAPE.search(said)
