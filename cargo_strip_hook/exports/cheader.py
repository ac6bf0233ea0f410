"""The external symbols of a preprocessed C header, by pycparser."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from cargo_strip_hook.core.errors import HeaderError
from cargo_strip_hook.exports.ctokens import HELP_EXPORT, Token
from cargo_strip_hook.exports.declarations import (
    Declaration,
    Declared,
    not_understood,
    read_declaration,
)
from cargo_strip_hook.exports.words import words

_QUALIFIERS = words("auto const extern inline register static typedef volatile")
_BASIC = words("char double float int long short signed unsigned void _Bool")
_TAGS = words("enum struct union")
_A_TYPE = "$"  # stands for every type name; no header uses it, and no name is shorter
_CXX_STARTS = frozenset({"namespace", "template", "class", "using"})


class NotC(Exception):
    """The header was preprocessed as C and contains C++."""


def c_symbols(tokens: Sequence[Token]) -> list[Declared]:
    """Every function and variable with external linkage that the public headers declare.

    Definitions (with a body or an initialiser), ``static`` and ``inline`` declarations are the
    consumer's own, and left out. Raises `HeaderError` with file, line and text for a declaration
    that cannot be understood: no symbol is lost silently. Raises `NotC` for C++.
    """
    parser = _Parser()
    index = 0
    while index < len(tokens):
        token = tokens[index]
        if token.text == ";":
            index += 1
            continue
        _refuse_cxx(tokens, index)
        if token.text == "}":
            raise HeaderError(f"{token.where}: `}}` is not expected here", help=HELP_EXPORT)
        declaration, index = read_declaration(tokens, index)
        # One word alone declares nothing: `int;`, or an unknown macro at the end of the file.
        if token.source.public and len(declaration.tokens) > 1:
            parser.declaration(declaration)
    return parser.declared


def _refuse_cxx(tokens: Sequence[Token], index: int) -> None:
    text = tokens[index].text
    following = tokens[index + 1] if index + 1 < len(tokens) else None
    if following is None:
        return
    if (
        (text in _CXX_STARTS and (following.kind == "i" or following.text in {"<", "{"}))
        or (text == "extern" and following.kind == "s")
        or (text == "inline" and following.text == "namespace")
        or (text == "enum" and following.text in {"class", "struct"})
    ):
        raise NotC(tokens[index].where)


class _Parser:
    def __init__(self) -> None:
        from pycparser.c_parser import CParser

        self.parser = CParser()
        self.function_types: set[str] = set()
        self.declared: list[Declared] = []

    def declaration(self, declaration: Declaration) -> None:
        tokens = declaration.tokens
        texts = [t.text for t in tokens]
        typedef = "typedef" in texts
        if not typedef and (declaration.body or _is_private(tokens)):
            return
        if len(texts) == 2 and texts[0] in {"struct", "union", "enum"}:
            return
        if typedef and "(" not in texts and "," not in texts:
            name = next(t.text for t in reversed(tokens) if t.kind == "i")
            if "*" not in texts and "[" not in texts and texts[-2] in self.function_types:
                self.function_types.add(name)
            return
        types = type_positions(tokens)
        nodes = self.parse(declaration, types)
        positions = _Positions(tokens)
        # The type of a declarator without parentheses, if it is one name.
        base = tokens[types[0]].text if types else ""
        for index, node in enumerate(nodes):
            if node.name is None:
                continue
            kind = type(node.type).__name__
            function = kind == "FuncDecl" or (
                kind == "TypeDecl"
                and getattr(node.type.type, "names", None) == [_A_TYPE]
                and base in self.function_types
            )
            if typedef:
                if function:
                    self.function_types.add(node.name)
            elif index not in declaration.initialised:
                self.add(declaration, index, node, function, positions)

    def add(
        self, declaration: Declaration, index: int, node: Any, function: bool, positions: _Positions
    ) -> None:
        name: str = node.name
        coordinate = node.coord
        column = coordinate.column if coordinate and coordinate.column else 1
        position = positions.find(name, column)
        label = declaration.labels.get(index)
        self.declared.append(
            Declared(
                label or name,
                "function" if function else "variable",
                position,
                declaration.convention if function else "cdecl",
                label is not None,
            )
        )

    def parse(self, declaration: Declaration, types: Sequence[int]) -> list[Any]:
        """The declarators of a declaration whose type names are replaced by one that is known."""
        from pycparser.c_parser import ParseError

        texts = [t.text for t in declaration.tokens]
        for index in types:
            # Of the same length, so that columns stay the same.
            texts[index] = _A_TYPE.ljust(len(texts[index]))
        try:
            tree = self.parser.parse(f"typedef int {_A_TYPE};\n{' '.join(texts)};\n")
        except ParseError as e:
            raise not_understood(declaration, str(e)) from None
        return list(tree.ext[1:])


def type_positions(tokens: Sequence[Token]) -> list[int]:
    """The positions of identifiers of a declaration where C wants a type (6.7, 6.7.6.3).

    So types of headers that are not read need not be known.
    """
    positions: list[int] = []
    parameters: list[bool] = []  # for each open parenthesis: does it hold parameters?
    typed = False  # the current specifiers have their type
    before = ""  # the last token: a type, the name, a closing bracket
    for index, token in enumerate(tokens):
        text = token.text
        if text == "(":
            holds = before in {"name", "closed"}
            parameters.append(holds)
            typed, before = not holds, ""
        elif text in {")", "]"}:
            if text == ")" and parameters:
                parameters.pop()
            typed, before = True, "closed"
        elif text == ",":
            typed, before = not (parameters and parameters[-1]), ""
        elif token.kind != "i" or text in _QUALIFIERS:
            continue
        elif text in _BASIC or text in _TAGS:
            typed, before = True, "type"
        elif index and tokens[index - 1].text in _TAGS:
            before = "type"
        elif typed:
            before = "name"
        else:
            positions.append(index)
            typed, before = True, "type"
    return positions


def _is_private(tokens: Sequence[Token]) -> bool:
    depth = 0
    for token in tokens:
        if token.text == "(":
            depth += 1
        elif token.text == ")":
            depth -= 1
        elif depth == 0 and token.text in {"static", "inline", "constexpr"}:
            return True
    return False


class _Positions:
    """Finds tokens of a declaration by their columns when they are joined by single spaces."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.columns = _columns(tokens)

    def find(self, name: str, column: int) -> str:
        """The file and line of the first token `name` at a column or after it."""
        for index in range(bisect_left(self.columns, column), len(self.tokens)):
            if self.tokens[index].text == name:
                return self.tokens[index].where
        return self.tokens[0].where


def _columns(tokens: Sequence[Token]) -> list[int]:
    """The columns, from 1, of the tokens when they are joined by single spaces."""
    columns = []
    column = 1
    for token in tokens:
        columns.append(column)
        column += len(token.text) + 1
    return columns
