"""What the code of an experiment is: the declared function and what it reaches in its own module.

Comments, docstrings, layout, the declaration's words and other experiments of the same module do
not count, so that a reformat never makes finished seeds void.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["fingerprint"]


def fingerprint(function: Callable[..., Any]) -> str:
    """16 hexadecimal digits of the code that a function runs in its module."""
    try:
        tree = _tree(function)
    except (OSError, SyntaxError):  # typed into an interpreter: only this process knows it
        return hashlib.sha256(repr(function).encode()).hexdigest()[:16]
    return hashlib.sha256("\n".join(_reached(tree, function.__name__)).encode()).hexdigest()[:16]


def _tree(function: Callable[..., Any]) -> ast.Module:
    """The module that holds the function; the function alone where it is nested in another."""
    if "<locals>" in function.__qualname__:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))
    return ast.parse(Path(function.__code__.co_filename).read_text(encoding="utf-8"))


def _reached(tree: ast.Module, start: str) -> Iterator[str]:
    """Dumps of the definitions that are reached by name from `start`, in the order of the module.
    An import counts by what it binds: code elsewhere is the library's, not the experiment's."""
    places: dict[str, list[int]] = {}
    for place, node in enumerate(tree.body):
        for name in _bound(node):
            places.setdefault(name, []).append(place)
    wanted, seen = [start], set[int]()
    while wanted:
        for place in places.get(wanted.pop(), []):
            if place not in seen:
                seen.add(place)
                wanted += [n.id for n in ast.walk(tree.body[place]) if isinstance(n, ast.Name)]
    for place in sorted(seen):
        yield ast.dump(_Bare(start).visit(tree.body[place]))


def _bound(node: ast.stmt) -> list[str]:
    """The names that a statement of a module gives a meaning to."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(a.asname or a.name).split(".")[0] for a in node.names]
    stored = (n for n in ast.walk(node) if isinstance(n, ast.Name))
    return [n.id for n in stored if isinstance(n.ctx, ast.Store)]


class _Bare(ast.NodeTransformer):
    """Without docstrings, and without the declaration above the experiment itself."""

    def __init__(self, start: str) -> None:
        self.start = start

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        if node.name == self.start:
            node.decorator_list = []
        return _without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        return _without_docstring(node)


def _without_docstring(node: ast.FunctionDef | ast.ClassDef) -> ast.AST:
    if ast.get_docstring(node, clean=False) is not None:
        node.body = node.body[1:] or [ast.Pass()]
    return node
