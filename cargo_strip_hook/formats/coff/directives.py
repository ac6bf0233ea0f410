"""What a file asks of the linker: the words of `.drectve`.

Sources: Microsoft, "PE Format", "The .drectve Section"; link.exe's options; GNU ld,
`bfd_pe` (`-aligncomm`, `-exclude-symbols`); quoting as in LLVM's `COFFDirectiveParser`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_WORD = re.compile(rb'(?:"[^"]*"|[^\s"\0])+')
_OPTION = re.compile(rb"[-/]([A-Za-z_-]+):?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Directives:
    """The words of one file, apart from `-exclude-symbols`, which are far too many.

    `hidden`: names that a DLL does not export of itself. `alternate`: name -> what stands for it.
    `aligned`: alignment in bytes of common symbols.
    """

    words: tuple[bytes, ...] = ()
    included: tuple[bytes, ...] = ()
    alternate: tuple[tuple[bytes, bytes], ...] = ()
    aligned: tuple[tuple[bytes, int], ...] = ()
    hidden: frozenset[bytes] = frozenset()


def parse(text: bytes) -> Directives:
    """Read the contents of `.drectve`."""
    words: list[bytes] = []
    included: list[bytes] = []
    alternate: list[tuple[bytes, bytes]] = []
    aligned: list[tuple[bytes, int]] = []
    hidden: list[bytes] = []
    for word in _WORD.findall(text.removeprefix(b"\xef\xbb\xbf")):
        name, value = option(word)
        if name == b"exclude-symbols":
            hidden += value.split(b",")
            continue
        words.append(word)
        if name == b"include":
            included.append(value)
        elif name == b"alternatename" and b"=" in value:
            left, _, right = value.partition(b"=")
            alternate.append((left, right))
        elif name == b"aligncomm":
            left, _, right = value.rpartition(b",")
            if right.isdigit() and int(right) < 14:
                aligned.append((left, 1 << int(right)))
    return Directives(
        tuple(words), tuple(included), tuple(alternate), tuple(aligned), frozenset(hidden)
    )


def option(word: bytes) -> tuple[bytes, bytes]:
    """(name in lower case, value without quotes) of a word; no name for what is no option."""
    match = _OPTION.fullmatch(word.replace(b'"', b""))
    return (match[1].lower(), match[2]) if match else (b"", word)


def merge(
    every: Iterable[Directives],
    exports: frozenset[bytes],
    undefined: frozenset[bytes],
    prefix: bytes,
) -> bytes:
    """The contents of the new object's `.drectve`, empty where nothing is left to say.

    `exports` and `undefined` are the names that stay; `prefix` is what C names begin with.
    """
    kept: dict[bytes, None] = {}
    hidden: set[bytes] = set()
    for one in every:
        hidden |= one.hidden
        for word in one.words:
            name, value = option(word)
            if name == b"export":
                # NAME[=INTERNAL][,@ORDINAL][,NONAME][,PRIVATE][,DATA]
                inner = value.split(b",")[0].rpartition(b"=")[2]
                wanted = inner in exports or prefix + inner in exports
            elif name == b"include":
                wanted = value in undefined or value in exports
            elif name == b"alternatename":
                wanted = value.partition(b"=")[0] in undefined
            elif name == b"aligncomm":
                wanted = value.rpartition(b",")[0] in exports
            else:
                wanted = True
            if wanted:
                kept[word] = None
    for symbol in sorted(hidden):
        if symbol in exports or prefix + symbol in exports:
            kept[b'-exclude-symbols:"' + symbol + b'"'] = None
    return b"".join(b" " + word for word in kept)


__all__ = ["Directives", "merge", "option", "parse"]
