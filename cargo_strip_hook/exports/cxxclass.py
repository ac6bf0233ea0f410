"""The members of a class that a C++ header declares and does not define."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cargo_strip_hook.core.errors import HeaderError
from cargo_strip_hook.exports.ctokens import Token
from cargo_strip_hook.exports.cxxnames import CxxName
from cargo_strip_hook.exports.declarations import closing, closing_angle, read_declaration

_TAGS = frozenset({"class", "struct", "union"})
_ACCESS = frozenset({"public", "protected", "private"})
_SKIPPED = frozenset({"using", "typedef", "friend", "static_assert", "template", "enum"})


def class_members(tokens: Sequence[Token], scopes: tuple[str, ...]) -> Iterator[CxxName]:
    """The members of the class that a declaration defines, those of nested classes, too.

    Yields nothing for a declaration without a class body, and for what is not understood: members
    only appear in warnings, they never become public.
    """
    index = 0
    while index < len(tokens) and tokens[index].text not in _TAGS:
        if tokens[index].text in {"(", "{", ";", "="}:
            return
        index += 1
    index += 1
    name = ""
    while index < len(tokens) and tokens[index].text not in {"{", ";", ":", "="}:
        token = tokens[index]
        if token.text in {"(", "["}:
            index = closing(tokens, index)
        elif token.text == "<":
            return  # a specialisation
        elif token.kind == "i" and token.text not in {"final", "__attribute__", "__declspec"}:
            name = token.text
        index += 1
    while index < len(tokens) and tokens[index].text not in {"{", ";"}:
        index += 1
    if name and index < len(tokens) and tokens[index].text == "{":
        try:
            yield from _body(tokens[index + 1 : closing(tokens, index)], (*scopes, name))
        except HeaderError:
            return


def _body(tokens: Sequence[Token], scopes: tuple[str, ...]) -> Iterator[CxxName]:
    index = 0
    while index < len(tokens):
        text = tokens[index].text
        following = tokens[index + 1].text if index + 1 < len(tokens) else ""
        if text in {";", "}"}:
            index += 1
        elif text in _ACCESS and following == ":":
            index += 2
        elif text in _SKIPPED:
            if text == "template" and following == "<":
                index = closing_angle(tokens, index + 1) + 1
            _, index = read_declaration(tokens, index, cxx=True)
        else:
            start = index
            declaration, index = read_declaration(tokens, index, cxx=True)
            index = max(index, start + 1)
            if text in _TAGS:
                yield from class_members(declaration.original, scopes)
            elif not declaration.body and not declaration.initialised:
                yield from _member(declaration.original, scopes)


def _member(tokens: Sequence[Token], scopes: tuple[str, ...]) -> Iterator[CxxName]:
    """The name before the first parenthesis: a method; static data otherwise."""
    texts = [t.text for t in tokens]
    for index, token in enumerate(tokens):
        if token.text == "operator":
            sign = ""
            for later in tokens[index + 1 :]:
                if later.text == "(" and sign:
                    break
                sign += later.text
            sign = "()" if sign.startswith("()") else sign
            yield CxxName((*scopes, f"operator{sign}"), token.where)
            return
        if token.text == "(" and index and tokens[index - 1].kind == "i":
            name = texts[index - 1]
            if name.startswith("__") or name in {"alignas", "decltype", "noexcept", "explicit"}:
                continue
            name = f"~{name}" if index > 1 and texts[index - 2] == "~" else name
            yield CxxName((*scopes, name), tokens[index - 1].where)
            return
    if "static" in texts:
        last = [t for t in tokens if t.kind == "i"]
        if last:
            yield CxxName((*scopes, last[-1].text), last[-1].where)
