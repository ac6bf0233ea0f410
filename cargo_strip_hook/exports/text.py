"""Decoding headers and symbol lists: encodings and ends of lines."""

from __future__ import annotations

import codecs
import re

# What ends a line for GCC and clang (GCC's manual, "Initial processing").
_LINE_END = re.compile(r"\r\n?")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def is_utf16(data: bytes) -> bool:
    """Whether it is UTF-16: it has the byte order mark, or every other byte at its start is 0."""
    start = data[:64]
    return start.startswith(_UTF16) or (
        len(start) > 3 and (not any(start[1::2]) or not any(start[::2]))
    )


def decoded(data: bytes, *, errors: str = "strict") -> str:
    """The text, in which lines end with line feeds.

    UTF-8, or UTF-16 with a byte order mark. Raises `UnicodeDecodeError` unless `errors` says
    otherwise.
    """
    text = data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig", errors)
    return _LINE_END.sub("\n", text) if "\r" in text else text
