"""Splitting a token stream into declarations, without what does not name a symbol.

A declaration keeps its specifiers, declarators and parameters; attributes, bodies, initialisers
and array sizes are removed. Shared by the C parser and the C++ scanner.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cargo_strip_hook.core.errors import HeaderError
from cargo_strip_hook.exports.ctokens import HELP_EXPORT, Token, quoted
from cargo_strip_hook.exports.words import words


@dataclass(frozen=True, slots=True)
class Declared:
    """One external symbol of a header.

    `name` is the C name, or the object file's own where `label` says that the header gave it
    with ``__asm__``. `convention` is the calling convention, ``cdecl`` unless the header says so.
    """

    name: str
    kind: Literal["function", "variable"]
    where: str
    convention: str = "cdecl"
    label: bool = False


@dataclass(frozen=True, slots=True)
class Declaration:
    """A declaration without what does not name a symbol; `body`: it defines a function."""

    tokens: tuple[Token, ...]
    original: tuple[Token, ...]
    body: bool
    convention: str
    labels: dict[int, str]  # by the position of the declarator
    initialised: frozenset[int]


CONVENTIONS = {
    spelling: name
    for name in ("cdecl", "stdcall", "fastcall", "thiscall", "vectorcall", "pascal", "regcall")
    for spelling in (f"__{name}", f"_{name}")
}
_CALL_ATTRIBUTES = frozenset(
    {"cdecl", "stdcall", "fastcall", "thiscall", "vectorcall", "pascal", "regcall"}
)
_DROP = words(
    """__extension__ _Nonnull _Nullable _Null_unspecified _Nullable_result __nonnull __nullable
    __null_unspecified __restrict __restrict__ restrict _Noreturn noreturn __volatile __volatile__
    volatile __unaligned __ptr32 __ptr64 __sptr __uptr __w64 _Thread_local thread_local __thread
    register __complex__ _Complex __unsafe_unretained __strong __weak __autoreleasing __single
    explicit virtual override final mutable typename __block WINAPI_INLINE"""
)
_DROP_WITH_ARGUMENTS = words(
    """__attribute__ __attribute __declspec _declspec _Alignas alignas __pragma _Pragma noexcept
    throw _Static_assert static_assert __counted_by __sized_by requires"""
)
_ASM = frozenset({"asm", "__asm__", "__asm"})
_AS_INT = frozenset({"typeof", "__typeof__", "__typeof", "typeof_unqual", "decltype", "_BitInt"})
_TAGS = frozenset({"struct", "union", "enum", "class"})
_RENAME = {
    "__inline": "inline",
    "__inline__": "inline",
    "__forceinline": "inline",
    "_inline": "inline",
    "__const": "const",
    "__const__": "const",
    "__signed": "signed",
    "__signed__": "signed",
}
STORAGE = frozenset({"extern", "static", "typedef", "inline", "const", "constexpr"})
_CLOSING = {"(": ")", "[": "]", "{": "}"}


# Calling conventions by the macros of Windows headers.
_KNOWN_CALLS = dict.fromkeys(
    ("WINAPI", "APIENTRY", "CALLBACK", "NTAPI", "WSAAPI", "PASCAL", "STDCALL", "STDMETHODCALLTYPE"),
    "__stdcall",
) | dict.fromkeys(("WINAPIV", "CDECL"), "__cdecl")
_MACRO_LIKE = re.compile(r"[A-Z_][A-Z0-9_]{2,}")


def not_understood(declaration: Declaration, said: str = "") -> HeaderError:
    """The error for a declaration that cannot be read, with a likely cause.

    `said` is the parser's message. Only the declaration's first line is quoted.
    """
    tokens = declaration.original
    text = quoted(tokens)
    quotable = all(t.source.quotable for t in tokens)
    helps = []
    candidates = [t.text for t in tokens if t.kind == "i" and _MACRO_LIKE.fullmatch(t.text)]
    for name in dict.fromkeys(candidates if quotable else ()):
        if name in _KNOWN_CALLS:
            helps.append(
                f"`{name}` is not defined: include windows.h, or give it with "
                f"-D {name}={_KNOWN_CALLS[name]}"
            )
        elif name not in CONVENTIONS and not name.startswith("_") and len(helps) < 2:
            helps.append(f"if `{name}` is a macro, -D {name}= makes it nothing")
    helps.append("a macro that the header expects is given with -D NAME[=VALUE]")
    helps.append(f"or {HELP_EXPORT}")
    if said and quotable:
        helps.append(f"the parser said: {said.rpartition(': ')[2][:200]}")
    shown = text or "its text is not shown, since the file is in no folder of the headers"
    return HeaderError(
        f"{tokens[0].where}: this declaration is not understood: {shown}", help=helps
    )


def closing(tokens: Sequence[Token], opening: int) -> int:
    """The index of the bracket that closes the one at `opening`. Raises `HeaderError`."""
    expected: list[str] = []
    for index in range(opening, len(tokens)):
        text = tokens[index].text
        if text in _CLOSING:
            expected.append(_CLOSING[text])
        elif text in {")", "]", "}"}:
            if text != expected[-1]:
                break
            expected.pop()
            if not expected:
                return index
    bracket = tokens[opening]
    raise HeaderError(
        f"{bracket.where}: the `{bracket.text}` has no `{_CLOSING[bracket.text]}`",
        help=HELP_EXPORT,
    )


def closing_angle(tokens: Sequence[Token], opening: int) -> int:
    """The index of the ``>`` that closes the template list opened at `opening`."""
    depth = 0
    index = opening
    while index < len(tokens):
        text = tokens[index].text
        if text == "<":
            depth += 1
        elif text in {">", ">>"}:
            depth -= len(text)
            if depth <= 0:
                return index
        elif text in _CLOSING:
            index = closing(tokens, index)
        elif text == ";":
            break
        index += 1
    raise HeaderError(f"{tokens[opening].where}: the `<` has no `>`", help=HELP_EXPORT)


def read_declaration(
    tokens: Sequence[Token], start: int, *, cxx: bool = False
) -> tuple[Declaration, int]:
    """The declaration that starts at `start`, and the index after it."""
    return _Reader(tokens, start, cxx).read()


class _Reader:
    def __init__(self, tokens: Sequence[Token], start: int, cxx: bool) -> None:
        self.tokens, self.index, self.start, self.cxx = tokens, start, start, cxx
        self.out: list[Token] = []
        self.depth = self.angle = self.declarator = 0
        self.plain = 0  # tokens of the type and name before the first parenthesis
        self.called = False  # a parenthesis was seen
        self.convention = "cdecl"
        self.labels: dict[int, str] = {}
        self.initialised: set[int] = set()

    def read(self) -> tuple[Declaration, int]:
        tokens = self.tokens
        body = False
        while self.index < len(tokens):
            token = tokens[self.index]
            if self.depth == 0:
                if token.text == ";":
                    self.index += 1
                    break
                if token.text == "}":
                    break
                if token.text == "{":
                    end = closing(tokens, self.index)
                    self.index = end + 1
                    after = tokens[self.index].text if self.index < len(tokens) else ""
                    if self.cxx and not self.called and after in {";", ","}:
                        self.initialised.add(self.declarator)
                        continue
                    body = True
                    break
                if token.text == "=":
                    self.initialised.add(self.declarator)
                    self.skip_initialiser({",", ";"})
                    continue
            elif token.text == "=":
                self.skip_initialiser({",", ")"})
                continue
            self.one(token)
        original = tuple(tokens[self.start : self.index])
        done = Declaration(
            tuple(self.out),
            original,
            body,
            self.convention,
            self.labels,
            frozenset(self.initialised),
        )
        return done, self.index

    def skip_initialiser(self, stop: set[str]) -> None:
        while self.index < len(self.tokens) and self.tokens[self.index].text not in stop:
            if self.tokens[self.index].text in _CLOSING:
                self.index = closing(self.tokens, self.index)
            self.index += 1

    def peek(self, distance: int = 1) -> str:
        index = self.index + distance
        return self.tokens[index].text if index < len(self.tokens) else ""

    def group_end(self) -> int:
        """The index after the current token and its parenthesised arguments, if any."""
        if self.peek() == "(":
            return closing(self.tokens, self.index + 1) + 1
        return self.index + 1

    def emit(self, token: Token) -> None:
        self.out.append(token)
        if not self.called and token.text not in STORAGE:
            self.plain += 1
        self.index += 1

    def one(self, token: Token) -> None:
        text = token.text
        if token.kind == "i":
            self.word(token, text)
        elif text == "[":
            end = closing(self.tokens, self.index)
            # one pair of brackets is enough to see that it is an array
            if self.peek() != "[" and (not self.out or self.out[-1].text != "]"):
                self.out += [token, self.tokens[end]]
            self.index = end + 1
        elif text == "(":
            self.called = self.called or self.depth == 0
            self.depth += 1
            self.emit(token)
        elif text == ")":
            if self.depth == 0:
                raise HeaderError(f"{token.where}: `)` is not expected here", help=HELP_EXPORT)
            self.depth -= 1
            self.emit(token)
        elif text == "," and self.depth == 0 and self.angle == 0:
            self.declarator += 1
            self.emit(token)
        elif text == "{":  # in a parameter list: a compound literal or a lambda as default
            self.index = closing(self.tokens, self.index) + 1
        elif text == "^" and not self.cxx:
            self.emit(token._replace(text="*"))  # an Apple block
        elif self.cxx and text == "<" and self.out and self.out[-1].kind == "i":
            end = closing_angle(self.tokens, self.index)
            self.index = end + 1  # template arguments name no symbol
        else:
            self.emit(token)

    def word(self, token: Token, text: str) -> None:
        if text in _DROP:
            self.index += 1
        elif text in _DROP_WITH_ARGUMENTS:
            end = self.group_end()
            for inner in self.tokens[self.index + 1 : end]:
                # __attribute__((stdcall))
                if inner.kind == "i" and inner.text.strip("_") in _CALL_ATTRIBUTES:
                    self.set_convention(inner.text.strip("_"))
            self.index = end
        elif text in CONVENTIONS:
            self.set_convention(CONVENTIONS[text])
            self.index += 1
        elif text in _ASM and self.peek() in {"(", "volatile"}:
            end = self.group_end()
            strings = [t.text for t in self.tokens[self.index + 1 : end] if t.kind == "s"]
            if self.depth == 0 and strings:
                self.labels[self.declarator] = "".join(s[s.index('"') + 1 : -1] for s in strings)
            self.index = end
        elif text == "_Atomic":
            self.as_int(token) if self.peek() == "(" else self.skip()
        elif text in _AS_INT and self.peek() == "(":
            self.as_int(token)
        elif text in _TAGS:
            self.tag(token)
        elif text in _RENAME:
            self.emit(token._replace(text=_RENAME[text]))
        elif self.unknown_attribute():
            self.index = self.group_end()
        else:
            self.emit(token)

    def skip(self) -> None:
        self.index += 1

    def set_convention(self, name: str) -> None:
        if self.depth == 0:
            self.convention = name

    def as_int(self, token: Token) -> None:
        end = self.group_end()
        self.emit(token._replace(text="int"))
        self.index = end

    def unknown_attribute(self) -> bool:
        """``void f(void) SOME_MACRO(x);`` with a macro that no header defines."""
        if self.cxx or self.depth or self.plain < 2 or not self.out or self.out[-1].text != ")":
            return False
        name = self.tokens[self.index].text
        if not name.isupper() and not name.startswith("__"):
            return False
        end = self.group_end()
        return end < len(self.tokens) and (
            self.tokens[end].text in {";", ","} or self.tokens[end].kind == "i"
        )

    def tag(self, token: Token) -> None:
        """``struct S { … }`` without its body; one without a name gets one."""
        if token.text == "class" and self.out and self.out[-1].text == "enum":
            self.index += 1
            return
        if token.text == "class" and not self.cxx:
            self.emit(token)
            return
        self.emit(token)
        tokens = self.tokens
        named = False
        while self.index < len(tokens):
            text = tokens[self.index].text
            if text in _DROP_WITH_ARGUMENTS:
                self.index = self.group_end()
            elif text == "[" and self.peek() == "[":
                self.index = closing(tokens, self.index) + 1
            elif text in {"class", "struct"} and token.text == "enum":
                self.index += 1
            elif tokens[self.index].kind == "i" and not named and text not in _DROP:
                named = True
                self.emit(tokens[self.index])
                while self.peek(0) == "::" and self.cxx:
                    self.index += 2
                if self.peek(0) == "<" and self.cxx:
                    self.index = closing_angle(tokens, self.index) + 1
            else:
                break
        if self.peek(0) == "final":
            self.index += 1
        if self.peek(0) == ":" and (self.cxx or token.text == "enum"):
            while self.index < len(tokens) and tokens[self.index].text not in {"{", ";"}:
                self.index += 1
        if not named:
            self.out.append(token._replace(kind="i", text=f"__anonymous_{self.index}", space=True))
        if self.peek(0) == "{":
            self.index = closing(tokens, self.index) + 1
