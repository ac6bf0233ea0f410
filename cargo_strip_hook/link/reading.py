"""What readers of all formats do alike: errors that tell the place, and tables of many files.

Several files are read together, so that the cost of numpy's calls is shared: tables of one kind
stand behind one another, and what they hold is *numbered through*.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.link.arrays import begins
from cargo_strip_hook.link.model import Array, Bool, Input, Int64


class InputFile:
    """One object while it is read: its errors name the member, and the offset in it."""

    def __init__(self, name: str, data: memoryview) -> None:
        self.name = name
        self.data = data

    def fail(self, what: str, offset: int = 0, *help: str) -> ObjectError:
        """The error that tells what is wrong `offset` bytes from the beginning."""
        return ObjectError(what, member=self.name, offset=offset, help=help)

    def check(self, bad: Bool | np.bool_, what: str, offset: int | Int64 = 0) -> None:
        """Raise `ObjectError` where anything is bad; `offset` may be that of each."""
        if bad.any():
            first = offset if isinstance(offset, int) else int(offset[bad.argmax()])
            raise self.fail(what, first)

    def table(self, record: np.dtype[Any], offset: int, count: int, what: str) -> Array:
        """`count` records at an offset, without a copy.

        Raises `ObjectError` where they are not in the file; `what` reaches beyond its end.
        """
        if not 0 <= offset <= offset + count * record.itemsize <= len(self.data):
            raise self.fail(f"{what} beyond the end of the file", offset)
        return np.frombuffer(self.data, record, count, offset)


class InputFiles:
    """Several objects of one kind while they are read together."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self.inputs = inputs
        self.files = [InputFile(i.name, i.data) for i in inputs]

    def fail(self, file: int, what: str, offset: int = 0) -> ObjectError:
        """The error that tells what is wrong in a file, `offset` bytes from its beginning."""
        return self.files[file].fail(what, offset)

    def headers_at(self, file: int) -> int:  # noqa: ARG002
        """Where the section headers of a file are: what errors of sections tell."""
        return 0

    def check(self, bad: Bool, owner: Array, what: str, offset: Array | None = None) -> None:
        """Raise `ObjectError` for the first that is bad; `owner` is the file of each.

        `offset` of each in its file; that of the section headers where it is None.
        """
        if bad.any():
            first = int(bad.argmax())
            file = int(owner[first])
            position = self.headers_at(file) if offset is None else int(offset[first])
            raise self.fail(file, what, position)


def numbered(counts: Sequence[int] | Int64) -> tuple[Int64, Int64]:
    """(the number of each file's first row, and the total; the file of each row).

    `counts`: how many rows of one table each file has.
    """
    return begins(np.asarray(counts, np.int64)), np.repeat(np.arange(len(counts)), counts)


def per_file(table: Array, first: Int64) -> list[Array]:
    """The rows of each file, without a copy; `first`: as `numbered` gives it."""
    return [table[start:end] for start, end in itertools.pairwise(first.tolist())]


def by_file(table: Array, owner: Array, files: int) -> list[Array]:
    """The rows of each of so many files, in their order. `owner` is the file of each row."""
    if (owner[1:] < owner[:-1]).any():
        table = table[np.argsort(owner, kind="stable")]
    return per_file(table, begins(np.bincount(owner, minlength=files)))


def uleb(data: bytes | memoryview, position: int, most: int = sys.maxsize) -> tuple[int, int]:
    """(the number in ULEB128 form at `position`, where it ends).

    Raises `IndexError` at the end, and for a number that goes on behind `most` bits.
    """
    value, shift = 0, 0
    while True:
        octet = data[position]
        value |= (octet & 0x7F) << shift
        shift += 7
        position += 1
        if octet < 0x80:
            return value, position
        if shift > most:
            raise IndexError


__all__ = ["InputFile", "InputFiles", "by_file", "numbered", "per_file", "uleb"]
