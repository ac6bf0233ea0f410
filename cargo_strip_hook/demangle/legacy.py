"""Rust's legacy mangling: paths in the manner of Itanium C++ names, with escapes and a hash.

Source: `rustc_symbol_mangling/src/legacy.rs`, and rustc-demangle's `legacy.rs` for what is read.
"""

from __future__ import annotations

import re
from functools import cache

_LENGTH = re.compile(r"[0-9]{1,6}")
_END = re.compile(r"17h[0-9a-f]{16}E(?:[.@]|\Z)")
_HASH = re.compile(r"h[0-9a-f]{16}\Z")
_ESCAPE = re.compile(r"\$(?:(SP|BP|RF|LT|GT|LP|RP|C)|u([0-9a-f]{1,6}))\$")
_ESCAPES = {
    "SP": "@",
    "BP": "*",
    "RF": "&",
    "LT": "<",
    "GT": ">",
    "LP": "(",
    "RP": ")",
    "C": ",",
}
_POINTERS = re.compile(r"(?:&(?:'\w+ )?(?:mut )?|\*const |\*mut |\[|\(|dyn |impl )+")
_CRATE = re.compile(r"(\w+)::")


def _elements(body: str) -> tuple[list[str], str] | None:
    """The parts of the path, the hash not among them, and what follows the end of the name."""
    elements: list[str] = []
    at = 0
    while at < len(body) and body[at] != "E":
        end = at
        while "0" <= body[end : end + 1] <= "9":
            end += 1
        length = int(body[at:end]) if at < end <= at + 6 else 0
        if not length or end + length > len(body):
            return None
        elements.append(body[end : end + length])
        at = end + length
    # C++ names look alike, but have no hash
    if at >= len(body) or len(elements) < 2 or not _HASH.match(elements[-1]) or not body.isascii():
        return None
    rest = body[at + 1 :]
    return (elements[:-1], rest) if not rest or rest[0] in ".@" else None


def demangle(body: str) -> str | None:
    """The name whose mangled form continues with `body` behind `_ZN`; None if it is none."""
    read = _elements(body)
    if read is None:
        return None
    elements, rest = read
    return "::".join(map(_text, elements)) + rest


def _text(element: str) -> str:
    """One part of the path, escapes decoded: `..` is `::`, `$LT$` is `<`, `$u20$` a space."""
    if element.startswith("_$"):
        element = element[1:]
    parts: list[str] = []
    at = 0
    while at < len(element):
        sign = element[at]
        if sign == ".":
            is_path = element.startswith("..", at)
            parts.append("::" if is_path else ".")
            at += 1 + is_path
        elif sign == "$":
            escape = _ESCAPE.match(element, at)
            text = _escaped(escape) if escape else None
            if escape is None or text is None:
                parts.append(element[at:])
                break
            parts.append(text)
            at = escape.end()
        else:
            end = at
            while end < len(element) and element[end] not in "$.":
                end += 1
            parts.append(element[at:end])
            at = end
    return "".join(parts)


def _escaped(escape: re.Match[str]) -> str | None:
    name, code = escape.groups()
    if name:
        return _ESCAPES[name]
    number = int(code, 16)
    # no control characters (Cc) and no surrogates: neither is in an identifier
    if number < 0x20 or 0x7F <= number < 0xA0 or 0xD800 <= number < 0xE000 or number > 0x10FFFF:
        return None
    return chr(number)


def crate_of(body: str) -> str | None:
    """The crate of the name that continues with `body` behind `_ZN`."""
    # as many names are asked for as a library has: this looks at no more than it must
    length = _LENGTH.match(body)
    if length is None or not _END.search(body):
        return None
    first = body[length.end() : length.end() + int(length[0])]
    return _crate_of_type(first) if first.startswith(("_$LT$", "$LT$")) else first


@cache
def _crate_of_type(element: str) -> str | None:
    """The crate of `<T as Trait>` or `<impl …>`, the first part of many names."""
    text = _text(element)[1:]
    own, trait = _split(text)
    for path in (own, trait):
        crate = _CRATE.match(_POINTERS.sub("", path, count=1))
        if crate:
            return crate[1]
    return None


def _split(text: str) -> tuple[str, str]:
    """`T as Trait>…` at the ` as ` that stands in no brackets of its own."""
    depth = 0
    for at, sign in enumerate(text):
        if sign in "<([":
            depth += 1
        elif sign in ">)]" and text[at - 1 : at] != "-":
            depth -= 1
        elif not depth and text.startswith(" as ", at):
            return text[:at], text[at + 4 :]
        if depth < 0:
            break
    return text, ""
