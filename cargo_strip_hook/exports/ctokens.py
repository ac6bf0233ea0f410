"""Splitting C and C++ text into preprocessing tokens that know their file and line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from cargo_strip_hook.core.errors import HeaderError

# i identifier, n number, s string, q character, p punctuator
Kind = Literal["i", "n", "s", "q", "p"]

HELP_EXPORT = "name the public symbols yourself with --export PATTERN or --exports-file FILE"

_SCAN = re.compile(
    r"""(?P<w>[^\S\n]+|[\0\ufeff]+)|(?P<l>\n)|(?P<c>//[^\n]*|/\*(?s:.*?)\*/)
    |(?P<r>(?:u8|[uUL])?R"[^\s()\\"]{0,16}\()
    |(?P<s>(?:u8|[uUL])?"(?:[^"\\\n]|\\.)*")|(?P<q>(?:u8|[uUL])?'(?:[^'\\\n]|\\.)*')
    |(?P<i>[^\W\d][\w$]*|\$[\w$]*)|(?P<n>\.?\d(?:[eEpP][+-]|[\w.]|'\w)*)
    |(?P<p>\#\#|\.\.\.|<<=|>>=|->|::|[-+*/%&|^=!<>]=|\+\+|--|&&|\|\||<<|>>|["'][^\n]*|[^\s\w])""",
    re.VERBOSE,
)
_SPLICE = re.compile(r"\\[ \t\f\v]*\n")


class Source:
    """A header file: its name in messages, and whether its declarations are public.

    Messages do not quote a file that is not `quotable`: it may be any file of the machine.
    """

    __slots__ = ("name", "public", "quotable")

    def __init__(self, name: str, public: bool, quotable: bool = True) -> None:
        self.name = name
        self.public = public
        self.quotable = quotable


class Token(NamedTuple):
    """A preprocessing token; a `painted` one is no longer expanded (C11 6.10.3.4)."""

    kind: Kind
    text: str
    source: Source
    line: int
    space: bool = False
    painted: bool = False

    @property
    def where(self) -> str:
        """``file:line``."""
        return f"{self.source.name}:{self.line}"


def tokenize(text: str, source: Source, *, raw: bool = True) -> list[list[Token]]:
    """The tokens of each logical line, without comments, spliced lines joined.

    C11 5.1.1.2, phases 2 and 3 (no trigraphs); a line ends at a line feed. `raw`: the compiler
    knows raw strings (C++17 5.13.5, GCC's and clang's C too), which become ordinary ones. Raises
    `HeaderError` for an unterminated comment or raw string.
    """
    removed: list[int] = []  # offsets in the spliced text where a line ended in a backslash
    if "\\" in text:
        text = _without_splices(text, removed)
    removed.append(len(text) + 1)
    lines: list[list[Token]] = []
    current: list[Token] = []
    line, space, splice = 1, False, 0
    offset = 0
    while m := _SCAN.match(text, offset):
        kind = m.lastgroup
        offset = m.end()
        while removed[splice] <= m.start():
            splice += 1
            line += 1
        if kind == "w":
            space = True
        elif kind == "l":
            line += 1
            space = False
            if current:
                lines.append(current)
                current = []
        elif kind == "c":
            line += m[0].count("\n")
            space = True
        elif kind == "r" and raw:
            prefix, _, delimiter = m[0][:-1].partition('R"')
            end = text.find(f'){delimiter}"', offset)
            if end < 0:
                raise HeaderError(f"{source.name}:{line}: the raw string has no end")
            value = f'{prefix}"{_escaped(text[offset:end])}"'
            current.append(Token("s", value, source, line, space))
            line += text.count("\n", offset, end)
            offset = end + len(delimiter) + 2
            space = False
        else:
            if kind == "r":  # a name followed by a string
                kind, offset = "i", m.start() + m[0].index('"')
            value = text[m.start() : offset]
            if value == "/" and text.startswith("/*", m.start()):
                raise HeaderError(f"{source.name}:{line}: the comment has no end")
            current.append(Token(kind, value, source, line, space))  # type: ignore[arg-type]
            space = False
    if current:
        lines.append(current)
    return lines


def _escaped(text: str) -> str:
    """The contents of a raw string as those of an ordinary one."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _without_splices(text: str, removed: list[int]) -> str:
    """`text` without its backslash-newlines, whose offsets are added to `removed`."""
    parts: list[str] = []
    begin = length = 0
    for m in _SPLICE.finditer(text):
        parts.append(text[begin : m.start()])
        length += m.start() - begin
        removed.append(length)
        begin = m.end()
    parts.append(text[begin:])
    return "".join(parts)


def spell(tokens: Iterable[Token]) -> str:
    """The tokens as text again, on one line."""
    words: list[str] = []
    for token in tokens:
        if words and token.space:
            words.append(" ")
        words.append(token.text)
    return "".join(words)


def quoted(tokens: Iterable[Token], limit: int = 200) -> str:
    """Tokens for a message: those on the first one's line, none of files that are not quotable."""
    line: list[Token] = []
    for token in tokens:
        if not token.source.quotable or (line and token.where != line[0].where):
            break
        line.append(token)
        if len(line) > limit:
            break
    text = spell(line)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
