"""A table of names as object files have them."""

from __future__ import annotations

from collections.abc import Sequence


def string_at(table: memoryview, start: int) -> bytes:
    """The name that begins at `start` of a table; a zero byte or the table's end ends it."""
    end = start + 64  # most names are short, and tables are long
    while True:
        text = bytes(table[start:end])
        stop = text.find(b"\0")
        if stop >= 0 or end >= len(table):
            return text[:stop] if stop >= 0 else text
        end += 256


def strings_at(table: memoryview, starts: Sequence[int]) -> list[bytes]:
    """Many names at once; empty ones for places outside of the table."""
    raw = bytes(table) if starts else b""
    if raw[-1:] != b"\0":
        raw += b"\0"
    find, end = raw.find, len(raw)
    return [raw[s : find(b"\0", s)] if 0 <= s < end else b"" for s in starts]


class StringTable:
    """Names behind one another, equal ones once. Offset 0 is the empty name.

    `start`: where the first name stands, in bytes; what is before it is zeros here.
    """

    def __init__(self, start: int = 1) -> None:
        self.names: list[bytes] = [bytes(start)]
        self.size = start
        self.known: dict[bytes, int] = {b"": 0}

    def add(self, name: bytes) -> int:
        """The offset of a name, which is put at the end where it is new."""
        offset = self.known.get(name)
        if offset is None:
            offset = self.known[name] = self.size
            self.names.append(name + b"\0")
            self.size += len(name) + 1
        return offset

    def bytes(self, align: int = 1) -> bytes:
        """The whole table, filled up with zeros to a multiple of `align` bytes."""
        return b"".join(self.names) + bytes(-self.size % align)
