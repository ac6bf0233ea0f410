"""C++ names of a header and the symbols of a library that they stand for.

Itanium C++ ABI 5.1 ("_ZN", lengths and names, "E") and Microsoft's order from the inside out
("?f@Class@space@@"). Only the scopes and the name are compared, not the types: overloads are found
together.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cargo_strip_hook.core.target import Target

_OPERATORS = {
    "==": "eq",
    "!=": "ne",
    "=": "aS",
    "()": "cl",
    "[]": "ix",
    "<": "lt",
    "<=": "le",
    ">": "gt",
    ">=": "ge",
    "+": "pl",
    "-": "mi",
    "*": "ml",
    "/": "dv",
    "%": "rm",
    "<<": "ls",
    ">>": "rs",
    "->": "pt",
    "++": "pp",
    "--": "mm",
    "!": "nt",
    "~": "co",
    "&": "an",
    "|": "or",
    "^": "eo",
    "+=": "pL",
    "-=": "mI",
    "&&": "aa",
    "||": "oo",
    "new": "nw",
    "delete": "dl",
    "bool": "cvb",
}


@dataclass(frozen=True, slots=True)
class CxxName:
    """A function, method or variable with C++ linkage: its scopes and name, its file and line.

    The name of a constructor is that of its class, that of a destructor ``~CLASS``, that of an
    operator ``operator`` and its sign.
    """

    path: tuple[str, ...]
    where: str

    @property
    def text(self) -> str:
        """The name as in C++."""
        return "::".join(self.path)


def symbols_of(
    names: Sequence[CxxName], defined: Collection[str], target: Target
) -> dict[CxxName, list[str]]:
    """The definitions of an archive that each name stands for; without names that have none."""
    by_start: dict[str, list[str]] = {}
    for symbol in defined:
        if symbol.startswith("?"):
            by_start.setdefault(symbol.partition("@@")[0], []).append(symbol)
        elif symbol.startswith(f"{target.symbol_prefix}_Z"):
            by_start.setdefault(_path(symbol[len(target.symbol_prefix) :]), []).append(symbol)
    out: dict[CxxName, list[str]] = {}
    for name in names:
        keys = [*_itanium(name.path), *_microsoft(name.path)]
        symbols = [symbol for key in keys for symbol in by_start.get(key, ())]
        if symbols:
            out.setdefault(name, symbols)
    return out


def pattern_of(symbol: str, target: Target) -> str:
    """A pattern for a symbol and its overloads, as ``--export`` takes it."""
    if symbol.startswith("?"):
        return symbol.partition("@@")[0] + "@@*"
    plain = symbol[len(target.symbol_prefix) :]
    m = re.match(r"_ZN[rVK]*[RO]?", plain)
    start = m[0] if m else "_Z"
    return f"{start}{_path(plain)}{'E' if m else ''}*"


def _path(symbol: str) -> str:
    """The names in an Itanium symbol, with their lengths: ``3org4demo4make``."""
    end = 2
    nested = symbol.startswith("_ZN")
    if nested:
        m = re.match(r"_ZN[rVK]*[RO]?", symbol)
        end = m.end() if m else 3
    elif symbol.startswith("_ZL"):
        end = 3
    begin = end
    while m := re.compile(r"\d+").match(symbol, end):
        end = m.end() + int(m[0][:6])
        if not nested:
            return symbol[begin:end]
    m = re.compile(r"[CD][0-9]|[a-z][a-zA-Z]b?").match(symbol, end)
    return symbol[begin : m.end()] if m else symbol[begin:end]


def _itanium(path: Sequence[str]) -> list[str]:
    *scopes, name = path
    start = "".join(f"{len(s)}{s}" for s in scopes)
    if scopes and name == scopes[-1]:
        return [f"{start}C{n}" for n in (1, 2)]
    if name.startswith("~"):
        return [f"{start}D{n}" for n in (0, 1, 2)]
    if name.startswith("operator"):
        code = _OPERATORS.get(name.removeprefix("operator").strip(), "")
        return [start + code] if code else []
    return [f"{start}{len(name)}{name}"]


def _microsoft(path: Sequence[str]) -> list[str]:
    *scopes, name = path
    end = "".join(f"@{s}" for s in reversed(scopes))
    if scopes and name == scopes[-1]:
        return [f"??0{scopes[-1]}{end.removeprefix('@' + scopes[-1])}"]
    if name.startswith("~"):
        return [f"??1{scopes[-1]}{end.removeprefix('@' + scopes[-1])}"] if scopes else []
    return [f"?{name}{end}"]
