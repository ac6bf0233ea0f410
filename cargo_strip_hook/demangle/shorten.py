"""Mangled names of Rust without what is never shown of them.

A name of a crate comes with a hash of some twelve letters, a fifth of all that names take. It
keeps global names apart; static ones need not differ, and demanglers leave it out. So do they with
where an impl block stands, and with the crate that instantiated a generic function.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from cargo_strip_hook.demangle.v0 import DIGITS, NAMED, InvalidNameError, Reader

_OF_LTO = re.compile(r"\.llvm\.[0-9]+")  # keeps functions apart that ThinLTO made global
_NO_CRATE = "C0"


def shorten(name: bytes) -> bytes:
    """The shorter form of a v0 name, which demanglers show as they do `name`.

    Other names, and what this grammar does not know, are returned as they are.
    """
    if not name.startswith(b"_R"):
        return name
    shorter = _Shorter(name[2:].decode("latin-1"))
    try:
        rest = shorter.name()
    except InvalidNameError:
        return name
    if rest.startswith("@"):
        return name
    short = "_R" + shorter.short + ("" if _OF_LTO.fullmatch(rest) else rest)
    return min(name, short.encode("ascii"), key=len)


class _Shorter(Reader):
    """Writes to `short` what it has read up to `copied`, but for what is not shown.

    `places`: where what began at a position of the name is in the new one; references to what
    came before count from there. What is `hidden` is read only: the first reference to something
    in it becomes that itself.
    """

    def __init__(self, body: str) -> None:
        super().__init__(body)
        self.short = ""
        self.copied = 0
        self.places: dict[int, int] = {}
        self.hidden = False

    def copy(self, end: int) -> None:
        """Write what was read before `end`."""
        self.short += self.body[self.copied : end]

    def deeper(self) -> None:
        super().deeper()
        if not self.hidden and self.body[self.at] != "B":
            self.places.setdefault(self.at, len(self.short) + self.at - self.copied)

    def named(self, *, shown: bool = False) -> tuple[int, str]:
        start = self.at
        read = self.match(NAMED)
        if read[1] is not None and not shown:
            self.copy(start)
            self.copied = read.end(1) + 1
        return 0, self.text(read)

    def text(self, read: re.Match[str]) -> str:
        self.at += int(read[3])
        if self.at >= len(self.body):
            raise InvalidNameError
        return ""

    def impl(self, tag: str) -> None:
        self.copy(self.at - 1)
        # a trait's own item (`Y`) is shown as that of an impl is
        short, hidden = self.short + ("Y" if tag == "X" else tag + _NO_CRATE), self.hidden
        self.hidden = True
        super().impl(tag)
        self.hidden, self.short, self.copied = hidden, short, self.at

    def behind(self, read: Callable[[], object]) -> None:
        self.copy(self.at - 1)
        target = self.reference()
        where = self.places.get(target)
        if where is not None:
            self.short += "B" + _base62(where)
        elif not self.hidden:
            after, self.at, self.copied = self.at, target, target
            read()
            self.copy(self.at)
            self.at = after
        self.copied = self.at

    def instance(self) -> None:
        self.copy(self.at)
        short, self.hidden = self.short, True
        super().instance()
        self.short = short

    def lifetime(self, index: int) -> None:
        """Whether it is bound here does not matter."""

    def expression(self, tag: str) -> None:  # noqa: ARG002 - constants of no plain type
        raise InvalidNameError

    def string(self) -> None:
        raise InvalidNameError


def _base62(value: int) -> str:
    """A number as names have it, with its `_`."""
    digits, value = "", value - 1
    while value >= 0:
        value, digit = divmod(value, 62)
        digits = DIGITS[digit] + digits
        value = value or -1
    return digits + "_"
