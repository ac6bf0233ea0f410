"""The kinds of findings that the sources of `cargo_strip_hook/verify` can make, read from them.

A finding is made by `Findings.add(kind, text)`, `.each(kind, …)` or `.more(kind, …)`. The kind is
written there, or is a name for one of a few texts: a parameter, whose arguments are then looked at,
or a variable.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAKERS = ("add", "each", "more")


@dataclass(frozen=True, order=True)
class Kind:
    """How a finding begins, and where that is written; `text` is "" where it cannot be told."""

    text: str
    file: str
    line: int


class _Module:
    def __init__(self, name: str, tree: ast.Module) -> None:
        self.name, self.tree = name, tree
        self.homes: dict[ast.AST, ast.FunctionDef] = {}
        for function in ast.walk(tree):  # the innermost one comes last
            if isinstance(function, ast.FunctionDef):
                nodes = set(ast.walk(function)) - {function}
                self.homes.update(dict.fromkeys(nodes, function))

    def kinds(self) -> Iterator[Kind]:
        for call in ast.walk(self.tree):
            if isinstance(call, ast.Call) and call.args and _makes(call.func):
                for text in self._texts(call.args[0], ()):
                    yield Kind(text, self.name, call.lineno)

    def _texts(self, node: ast.expr, seen: tuple[ast.expr, ...]) -> Iterator[str]:
        """What an expression may be; `seen` are those that it was found through."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.IfExp):
            yield from self._texts(node.body, seen)
            yield from self._texts(node.orelse, seen)
        elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            yield str(node.values[0].value)
        elif isinstance(node, ast.Name):
            values = [value for value in self._values(node) if value not in seen]
            texts = [text for value in values for text in self._texts(value, (*seen, node))]
            yield from texts or [""]
        else:
            yield ""

    def _values(self, name: ast.Name) -> list[ast.expr]:
        """What a name may stand for: a parameter, a variable of the function or the module."""
        function = self.homes.get(name)
        found: list[ast.expr] = []
        while function is not None and not found:
            arguments = [*function.args.posonlyargs, *function.args.args]
            for place, argument in enumerate(arguments):
                if argument.arg == name.id:
                    found += self._arguments(function, place, name.id)
            found += _assigned(function, name.id)
            function = self.homes.get(function)
        return found or list(_assigned(self.tree, name.id))

    def _arguments(self, function: ast.FunctionDef, place: int, name: str) -> Iterator[ast.expr]:
        """What is given for a parameter wherever a function is called."""
        for call in ast.walk(self.homes.get(function, self.tree)):
            if not isinstance(call, ast.Call):
                continue
            called, skip = call.func, 0
            if isinstance(called, ast.Attribute) and _text_of(called.value) == "self":
                called, skip = ast.Name(called.attr), 1
            if isinstance(called, ast.Name) and called.id == function.name:
                yield from call.args[place - skip : place - skip + 1]
                yield from (k.value for k in call.keywords if k.arg == name)


def _assigned(scope: ast.AST, name: str) -> Iterator[ast.expr]:
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _bound(target, node.value, name)
        elif isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple | ast.List):
            for each in node.iter.elts:
                yield from _bound(node.target, each, name)


def _bound(target: ast.expr, value: ast.expr, name: str) -> Iterator[ast.expr]:
    if isinstance(target, ast.Name) and target.id == name:
        yield value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, its in zip(target.elts, value.elts, strict=False):
            yield from _bound(one, its, name)


def _text_of(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _makes(function: ast.expr) -> bool:
    """Whether a finding is made by calling this: `pair.findings.add`, or a plain `add`."""
    if isinstance(function, ast.Attribute):
        return function.attr in _MAKERS and _text_of(function.value).endswith("findings")
    return isinstance(function, ast.Name) and function.id == "add"


def kinds(folder: Path) -> list[Kind]:
    """Of all sources in a folder, each once."""
    found: set[Kind] = set()
    for path in folder.glob("*.py"):
        name = f"{folder.name}/{path.name}"
        found.update(_Module(name, ast.parse(path.read_text("utf-8"))).kinds())
    return sorted(found)


__all__ = ["Kind", "kinds"]
