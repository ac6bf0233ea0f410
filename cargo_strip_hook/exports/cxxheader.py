"""The C symbols of a preprocessed C++ header: a scanner for declarations, not a C++ parser.

It knows what cbindgen writes (namespaces, ``extern "C"``, templates, ``enum class``, ``constexpr``,
``using``) and skips what has no C linkage. Rules: ISO C++17 [dcl.link], [basic.link].
"""

from __future__ import annotations

from collections.abc import Sequence

from cargo_strip_hook.core.errors import HeaderError
from cargo_strip_hook.exports.ctokens import HELP_EXPORT, Token
from cargo_strip_hook.exports.cxxclass import class_members
from cargo_strip_hook.exports.cxxnames import CxxName
from cargo_strip_hook.exports.declarations import (
    Declared,
    closing,
    closing_angle,
    not_understood,
    read_declaration,
)
from cargo_strip_hook.exports.words import words

_TYPE_WORDS = words(
    """auto bool char char8_t char16_t char32_t const double enum extern float int long short
    signed struct class union unsigned void wchar_t"""
)
_POINTERS = frozenset({"*", "&", "&&"})
_OWN = frozenset({"static", "inline", "constexpr", "consteval", "constinit", "friend"})
_STATEMENTS = frozenset({"using", "typedef", "static_assert", "_Static_assert", "concept", "asm"})


def cxx_symbols(tokens: Sequence[Token]) -> tuple[list[Declared], list[CxxName]]:
    """The functions and variables with C linkage, and those with C++ linkage, methods included.

    Raises `HeaderError` with file and line for a declaration with C linkage that cannot be
    understood.
    """
    scanner = _Scanner(tokens)
    scanner.scope(c_linkage=False)
    if scanner.index < len(tokens):
        where = tokens[scanner.index].where
        raise HeaderError(f"{where}: `}}` is not expected here", help=HELP_EXPORT)
    return scanner.declared, scanner.foreign


class _Scanner:
    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.index = 0
        self.declared: list[Declared] = []
        self.foreign: list[CxxName] = []
        self.scopes: tuple[str, ...] = ()  # the enclosing namespaces

    def text(self, distance: int = 0) -> str:
        index = self.index + distance
        return self.tokens[index].text if index < len(self.tokens) else ""

    def scope(self, c_linkage: bool) -> None:
        """Read everything up to the ``}`` that ends the current scope."""
        while self.index < len(self.tokens) and self.text() != "}":
            self.one(c_linkage)

    def block(self, c_linkage: bool) -> None:
        """Read a ``{ … }`` of declarations."""
        end = closing(self.tokens, self.index)
        self.index += 1
        self.scope(c_linkage)
        if self.index != end:  # or behind all tokens, where a declaration swallowed the `}`
            where = self.tokens[min(self.index, len(self.tokens) - 1)].where
            raise HeaderError(f"{where}: `}}` is not expected here", help=HELP_EXPORT)
        self.index = end + 1

    def one(self, c_linkage: bool) -> None:
        text = self.text()
        following = self.tokens[self.index + 1] if self.index + 1 < len(self.tokens) else None
        if text == ";":
            self.index += 1
        elif text == "namespace" or (text == "inline" and self.text(1) == "namespace"):
            self.namespace(c_linkage)
        elif text == "extern" and following is not None and following.kind == "s":
            linkage = following.text == '"C"'
            self.index += 2
            if self.text() == "{":
                self.block(linkage)
            else:
                self.declaration(linkage, extern=True)
        elif text == "template" or (text == "extern" and self.text(1) == "template"):
            self.template()
        elif text in _STATEMENTS:
            self.statement()
        else:
            self.declaration(c_linkage, extern=False)

    def namespace(self, c_linkage: bool) -> None:
        outer = self.scopes
        while self.index < len(self.tokens) and self.text() not in {"{", ";"}:
            token = self.tokens[self.index]
            if token.kind == "i" and token.text not in {"inline", "namespace", "__attribute__"}:
                self.scopes += (token.text,)
            self.index += 1
            if self.text() in {"(", "["}:
                self.index = closing(self.tokens, self.index) + 1
        if self.text() == "{":
            self.block(c_linkage)
        else:  # namespace a = b;
            self.index += 1
        self.scopes = outer

    def template(self) -> None:
        while self.text() in {"extern", "template"}:
            self.index += 1
        if self.text() == "<":
            self.index = closing_angle(self.tokens, self.index) + 1
        if self.text() == "template":
            self.template()
        elif self.text() in _STATEMENTS:
            self.statement()
        else:
            _, self.index = read_declaration(self.tokens, self.index, cxx=True)

    def statement(self) -> None:
        """Skip to the ``;``."""
        while self.index < len(self.tokens) and self.text() != ";":
            if self.text() in {"(", "{", "["}:
                self.index = closing(self.tokens, self.index)
            self.index += 1
        self.index += 1

    def declaration(self, c_linkage: bool, *, extern: bool) -> None:
        declaration, self.index = read_declaration(self.tokens, self.index, cxx=True)
        tokens = declaration.tokens
        if not tokens or not tokens[0].source.public:
            return
        self.foreign += class_members(declaration.original, self.scopes)
        outer = _outer(tokens)
        texts = {t.text for t in outer}
        if texts & {*_OWN, "typedef"} or declaration.body:
            return
        # `struct S { … };`, `enum E : int;`
        if len(tokens) <= 2 and tokens[0].text in {"struct", "union", "enum", "class"}:
            return
        extern = extern or "extern" in texts
        const = _specifier_const(tokens)
        for index, declarator in enumerate(_declarators(tokens)):
            named = _named(declarator, first=index == 0)
            if named is None:
                if c_linkage:
                    raise not_understood(declaration)
                continue
            name, function, constant = named
            if index and not function:
                constant = constant or (const and not _has_pointer(declarator))
            if name.text == "operator" or index in declaration.initialised:
                continue
            if not function and constant and not extern:
                continue  # a namespace-scope constant has internal linkage [basic.link]
            label = declaration.labels.get(index)
            symbol = Declared(
                label or name.text,
                "function" if function else "variable",
                name.where,
                declaration.convention if function else "cdecl",
                label is not None,
            )
            if c_linkage or label:
                self.declared.append(symbol)
            else:
                self.foreign.append(CxxName((*self.scopes, name.text), name.where))


def _outer(tokens: Sequence[Token]) -> list[Token]:
    """The tokens outside of every bracket."""
    out: list[Token] = []
    index = 0
    while index < len(tokens):
        if tokens[index].text in {"(", "["}:
            index = closing(tokens, index)
        else:
            out.append(tokens[index])
        index += 1
    return out


def _declarators(tokens: Sequence[Token]) -> list[Sequence[Token]]:
    """The declaration split at its outer commas; the first declarator has the specifiers, too."""
    parts: list[Sequence[Token]] = []
    start = index = 0
    while index < len(tokens):
        if tokens[index].text in {"(", "["}:
            index = closing(tokens, index)
        elif tokens[index].text == ",":
            parts.append(tokens[start:index])
            start = index + 1
        index += 1
    parts.append(tokens[start:])
    return parts


def _specifier_const(tokens: Sequence[Token]) -> bool:
    for token in tokens:
        if token.text in _POINTERS or token.text == "(":
            return False
        if token.text == "const":
            return True
    return False


def _has_pointer(declarator: Sequence[Token]) -> bool:
    return any(t.text in _POINTERS for t in declarator)


def _named(declarator: Sequence[Token], *, first: bool) -> tuple[Token, bool, bool] | None:
    """The name that a declarator declares, whether it is a function, and whether it is const.

    `first` says that the specifiers come before it. None where there is no name.
    """
    last: Token | None = None  # the latest identifier that may be the name
    seen = 0  # identifiers and type words so far
    constant = False
    index = 0
    while index < len(declarator):
        token = declarator[index]
        text = token.text
        if text == "operator":
            return token, True, False
        if text == "(":
            end = closing(declarator, index)
            inner = declarator[index + 1 : end]
            after = declarator[end + 1].text if end + 1 < len(declarator) else ""
            if _is_nested(inner, after, has_name=last is not None and (seen > 1 or not first)):
                return _nested(inner, declarator[end + 1 :], constant)
            if last is None or (first and seen < 2):
                return None
            return last, True, False
        if text in {"[", "->"}:
            break
        if text in _POINTERS:
            constant = False
            last = None
        elif text == "const":
            constant = True
        elif text == "::":
            last = None
            seen -= 1 if index and declarator[index - 1].kind == "i" else 0
        elif token.kind == "i":
            if text not in _TYPE_WORDS:
                last = token
            if text not in {"const", "extern"}:
                seen += 1
        index += 1
    if last is None or (first and seen < 2):
        return None
    return last, False, constant


def _is_nested(inner: Sequence[Token], after: str, *, has_name: bool) -> bool:
    """Whether parentheses enclose a declarator, not parameters."""
    if not inner:
        return False
    if inner[0].text in _POINTERS:
        return True
    if has_name:
        return False
    # `int (name)(void)`, `int ((*name))(void)`
    return inner[0].text == "(" or (
        after in {"(", "[", ""} and inner[0].kind == "i" and inner[0].text not in _TYPE_WORDS
    )


def _nested(
    inner: Sequence[Token], suffix: Sequence[Token], constant: bool
) -> tuple[Token, bool, bool] | None:
    named = _named(inner, first=False)
    if named is None:
        return None
    name, function, inner_constant = named
    if function:
        return name, True, False
    if _has_pointer(inner):
        return name, False, inner_constant
    return name, bool(suffix) and suffix[0].text == "(", constant
