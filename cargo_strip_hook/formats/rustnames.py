"""Mangled names of Rust without what is never shown of them.

A name of a crate comes with a hash of some twelve letters, a fifth of all that names take. It
keeps global names apart; static ones need not differ, and demanglers leave it out. So do they with
where an impl block stands, and with the crate that instantiated a generic function.

Source: Rust RFC 2603 and the rustc book, "v0 Symbol Format": the grammar rule by rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_DECIMAL = re.compile(rb"0|[1-9][0-9]*")
_BASE62 = re.compile(rb"[0-9a-zA-Z]*_")
_CONSTANT = re.compile(rb"n?[0-9a-f]*_")
_OF_LTO = re.compile(rb"\.llvm\.[0-9]+")  # keeps functions apart that ThinLTO made global
_DIGITS = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DEEPEST = 200
_NO_CRATE = b"C0"
_PATHS = b"CMXYNI"
_END = ord("E")


class _Other(Exception):
    """The name follows another grammar."""


def shorten(name: bytes) -> bytes:
    """The shorter form of a v0 name, which demanglers show as they do `name`.

    Other names, and what this grammar does not know, are returned as they are.
    """
    if not name.startswith(b"_R") or not name[2:3].isalpha():
        return name
    text = _Text(name[2:])
    try:
        text.path()
        found = bytes(text.out)
        if text.peek() not in (-1, ord(".")):
            text.path()  # the crate that instantiated it
        suffix = text.text[text.at :]
    except (_Other, IndexError):
        return name
    if suffix and not suffix.startswith(b"."):
        return name
    short = b"_R" + found + (b"" if _OF_LTO.fullmatch(suffix) else suffix)
    return min(name, short, key=len)


class _Text:
    """A name while it is read and written again.

    `places`: where what stood at a position of the name is in the new one; references to what
    came before count from there. What is `hidden` is read only: the first reference to something
    in it becomes that itself.
    """

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = 0
        self.out = bytearray()
        self.places: dict[int, int] = {}
        self.depth = 0
        self.hidden = False

    def peek(self) -> int:
        return self.text[self.at] if self.at < len(self.text) else -1

    def letter(self) -> int:
        """The next letter, which stays."""
        found = self.text[self.at]
        self.out.append(found)
        self.at += 1
        return found

    def keep(self, pattern: re.Pattern[bytes]) -> None:
        self.out += self.skip(pattern)

    def skip(self, pattern: re.Pattern[bytes]) -> bytes:
        found = pattern.match(self.text, self.at)
        if not found:
            raise _Other
        self.at = found.end()
        return found[0]

    def refers(self, read: Callable[[], None]) -> bool:
        """Note where a path, type or constant begins; True if it is a reference to another.

        `read` reads one of its kind.
        """
        if self.peek() != ord("B"):
            if not self.hidden:
                self.places.setdefault(self.at, len(self.out))
            return False
        first = self.at
        self.at += 1
        number = _number(self.skip(_BASE62))
        if number >= first:
            raise _Other
        if self.hidden:
            return True
        where = self.places.get(number)
        if where is not None:
            self.out += b"B" + _base62(where)
        else:
            end, self.at = self.at, number
            read()
            self.at = end
        return True

    def impl(self) -> None:
        """The path of an impl block, which is not shown: it does not stay."""
        hidden, out = self.hidden, self.out
        self.hidden, self.out = True, bytearray()
        self.disambiguator()
        self.path()
        self.hidden, self.out = hidden, out

    def disambiguator(self, *, shown: bool = False) -> None:
        if self.peek() == ord("s"):
            self.at += 1
            number = self.skip(_BASE62)
            if shown:
                self.out += b"s" + number

    def identifier(self) -> None:
        first = self.at
        if self.peek() == ord("u"):
            self.at += 1
        size = int(self.skip(_DECIMAL))
        if self.peek() == ord("_"):
            self.at += 1
        self.at += size
        if self.at > len(self.text):
            raise _Other
        self.out += self.text[first : self.at]

    def path(self) -> None:
        if self.refers(self.path):
            return
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _Other
        kind = self.letter()
        if kind == ord("C"):
            self.disambiguator()
            self.identifier()
        elif kind == ord("M"):
            self.impl()
            self.out += _NO_CRATE
            self.type()
        elif kind == ord("X"):
            self.impl()
            self.out[-1:] = b"Y"  # shown alike: a trait's own item
            self.type()
            self.path()
        elif kind == ord("Y"):
            self.type()
            self.path()
        elif kind == ord("N"):
            special = self.letter() <= ord("Z")  # of closures and shims the number is shown
            self.path()
            self.disambiguator(shown=special)
            self.identifier()
        elif kind == ord("I"):
            self.path()
            while self.peek() != _END:
                self.argument()
            self.letter()
        else:
            raise _Other
        self.depth -= 1

    def argument(self) -> None:
        if self.peek() == ord("L"):
            self.lifetime()
        elif self.peek() == ord("K"):
            self.letter()
            self.constant()
        else:
            self.type()

    def lifetime(self) -> None:
        if self.letter() != ord("L"):
            raise _Other
        self.keep(_BASE62)

    def type(self) -> None:
        if self.text[self.at] in _PATHS:
            return self.path()
        if ord("a") <= self.text[self.at] <= ord("z"):
            self.letter()
            return None
        if self.refers(self.type):
            return None
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _Other
        kind = self.letter()
        if kind == ord("A"):
            self.type()
            self.constant()
        elif kind in b"SPO":
            self.type()
        elif kind in b"RQ":
            if self.peek() == ord("L"):
                self.lifetime()
            self.type()
        elif kind == ord("T"):
            self.types()
        elif kind == ord("F"):
            self.signature()
        elif kind == ord("D"):
            self.traits()
        else:
            raise _Other
        self.depth -= 1
        return None

    def types(self) -> None:
        while self.peek() != _END:
            self.type()
        self.letter()

    def binder(self) -> None:
        if self.peek() == ord("G"):
            self.letter()
            self.keep(_BASE62)

    def signature(self) -> None:
        self.binder()
        if self.peek() == ord("U"):
            self.letter()
        if self.peek() == ord("K"):
            self.letter()
            if self.peek() == ord("C"):
                self.letter()
            else:
                self.identifier()
        self.types()
        self.type()

    def traits(self) -> None:
        self.binder()
        while self.peek() != _END:
            self.path()
            while self.peek() == ord("p"):
                self.letter()
                self.identifier()
                self.type()
        self.letter()
        self.lifetime()

    def constant(self) -> None:
        if self.peek() == ord("p"):
            self.letter()
        elif not self.refers(self.constant):
            if self.letter() not in b"ahstmlxyoijnbc":
                raise _Other
            self.keep(_CONSTANT)


def _number(text: bytes) -> int:
    """The value of a base-62 number with its `_`, which alone is 0."""
    value = -1 if text == b"_" else 0
    for digit in text[:-1]:
        value = value * 62 + _DIGITS.index(digit)
    return value + 1


def _base62(value: int) -> bytes:
    out, value = b"_", value - 1
    while value >= 0:
        value, digit = divmod(value, 62)
        out = _DIGITS[digit : digit + 1] + out
        value = value if value else -1
    return out
