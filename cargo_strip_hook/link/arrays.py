"""Small things about arrays that numpy's own way would take long to import."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from typing_extensions import Self

Array = npt.NDArray[Any]


class Columns:
    """A table whose fields are its columns: arrays with one item for each row."""

    __slots__ = ()

    def columns(self) -> list[Array]:
        """The columns in the order of the fields."""
        return [getattr(self, field.name) for field in fields(self)]  # type: ignore[arg-type]

    def rows(self, which: Array) -> Self:
        """The rows that `which` marks (bool) or numbers (int, in this order)."""
        return type(self)(*(column[which] for column in self.columns()))

    @classmethod
    def joined(cls, tables: Sequence[Self]) -> Self:
        """The rows of all tables, one behind the other."""
        every = zip(*(table.columns() for table in tables), strict=True)
        return cls(*(np.concatenate(columns) for columns in every))


def unique(values: Array) -> Array:
    """The values of a one-dimensional array, sorted, each once.

    `np.unique` imports `numpy.ma`, which takes a tenth of a short run.
    """
    ordered = np.sort(values)
    if not len(ordered):
        return ordered
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))]


def isin(values: Array, among: Array) -> Array:
    """bool for each value: whether `among` has it. `np.isin` imports `numpy.ma`, too."""
    ordered = np.sort(among)
    if not len(ordered):
        return np.zeros(len(values), np.bool_)
    nearest = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.asarray(ordered[nearest] == values)


def equal_rows(columns: Sequence[Array]) -> tuple[Array, Array]:
    """Groups of rows that agree in all columns, of 16 bytes at most, of equal length.

    (int64 group of each row, int64 the first row of each group). Equal rows have one group, but
    where hashes collide, which costs time only, some have one of their own.
    """
    count = len(columns[0])
    mixed = np.zeros(count, np.uint64)
    for column in columns:
        for word in _words(column):
            mixed = (mixed ^ word) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
    order = np.argsort(mixed, kind="stable")
    ordered = mixed[order]
    begins = np.ones(count, np.bool_)
    begins[1:] = ordered[1:] != ordered[:-1]
    group = np.empty(count, np.int64)
    group[order] = np.cumsum(begins) - 1
    first = order[begins]
    same = np.ones(count, np.bool_)
    for column in columns:
        same &= column == column[first[group]]
    odd = np.flatnonzero(~same)
    group[odd] = len(first) + np.arange(len(odd))
    return group, np.concatenate([first, odd])


def _words(column: Array) -> list[Array]:
    """A column's bytes as one or two uint64 for each row."""
    if column.dtype.kind == "S":
        wide = column.astype("S16").view(np.uint64).reshape(-1, 2)
        return [wide[:, 0], wide[:, 1]]
    return [column.astype(np.uint64)]


def join(tables: Sequence[Array]) -> Array:
    """The rows of arrays of one structured type, at least one of them, as `np.concatenate`.

    That works out a common type anew for each table, field by field.
    """
    record = tables[0].dtype
    rows = [np.ascontiguousarray(table).view(f"V{record.itemsize}") for table in tables]
    return np.concatenate(rows).view(record)


def rows_of(record: np.dtype[Any], count: int, **columns: Any) -> Array:
    """`count` rows of a structured type with these columns, arrays or one value; the rest is 0."""
    rows = np.zeros(count, record)
    for name, column in columns.items():
        rows[name] = column
    return rows


def gather(octets: Array, starts: Array, record: np.dtype[Any]) -> Array:
    """The records that begin at `starts` of a uint8 array, whatever their alignment.

    All of them must lie inside. A window at every byte lets numpy copy whole records.
    """
    if not len(starts):
        return np.zeros(0, record)
    shape = (len(octets) - record.itemsize + 1,)
    windows: Array = np.ndarray(shape, f"V{record.itemsize}", octets.data, strides=(1,))
    return windows[starts].view(record)


def ramps(begin: Array, counts: Array, step: Array | int) -> Array:
    """For each row `counts` numbers from `begin` on, `step` apart; one behind the other."""
    total = int(counts.sum())
    inner = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    if not isinstance(step, int):
        step = np.repeat(step, counts)
    out: Array = np.repeat(begin, counts) + step * inner
    return out


def begins(counts: Array | Sequence[int]) -> Array:
    """Where each of several tables begins when they stand behind one another, and the total."""
    return np.concatenate([[0], np.cumsum(counts)])


def runs(*columns: Array) -> Iterator[tuple[int, int]]:
    """(first row, row behind the last) of each run of rows that agree in all columns."""
    differ = np.ones(len(columns[0]), np.bool_)
    differ[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    border = np.flatnonzero(differ).tolist()
    return zip(border, [*border[1:], len(differ)], strict=len(border) > 0)


def together(buffers: Sequence[memoryview]) -> tuple[Array, Array]:
    """(uint8 array, where in it each buffer begins). Several are views of one buffer."""
    if len(buffers) == 1:
        return np.frombuffer(buffers[0], np.uint8), np.zeros(1, np.int64)
    whole = np.frombuffer(memoryview(buffers[0].obj), np.uint8)
    address = whole.__array_interface__["data"][0]
    addresses = [np.frombuffer(b, np.uint8).__array_interface__["data"][0] for b in buffers]
    return whole, np.array(addresses, np.int64) - address
