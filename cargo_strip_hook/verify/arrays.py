"""Small things about arrays that every format's checker needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def gather(data: Array, starts: Array, layout: np.dtype[Any]) -> Array:
    """The records that begin at `starts` (bytes, any alignment). Raises `IndexError`."""
    count = len(data) - layout.itemsize + 1
    if len(starts) == 0:
        return np.empty(0, layout)
    if count <= 0 or starts.min() < 0 or starts.max() >= count:
        raise IndexError("a table lies outside the file")
    # a window at every byte: copying whole records by memcpy is what makes this fast
    windows: Array = np.ndarray(
        (count,), f"V{layout.itemsize}", buffer=data.data, offset=0, strides=(1,)
    )
    return windows[starts].view(layout)


def put(data: Array, starts: Array, records: Array) -> None:
    """Write records into octets, to begin at `starts` (bytes, any alignment; all inside).

    Where two overlap it is not said which is there in the end.
    """
    if len(starts):
        kind = f"V{records.itemsize}"
        room = (len(data) - records.itemsize + 1,)
        windows: Array = np.ndarray(room, kind, buffer=data.data, offset=0, strides=(1,))
        windows[starts] = records.view(kind)


def rows_of(table: Array, which: Array) -> Array:
    """The records of a table at positions, or where `which` (bool) is true.

    What `table[which]` gives; that copies field by field, and takes ten times as long.
    """
    windows = table.view(f"V{table.dtype.itemsize}")
    return np.asarray(windows[which].view(table.dtype))


def spread(starts: Array, counts: Array, step: int) -> Array:
    """`starts[i] + step * k` for each i and each k below `counts[i]`, one behind the other."""
    counts = counts.astype(np.int64)
    total = int(counts.sum())
    before = np.cumsum(counts) - counts
    return np.repeat(starts.astype(np.int64) - step * before, counts) + step * np.arange(total)


def unique(values: Array) -> Array:
    """The values, sorted, each once. `np.unique` imports `numpy.ma`, a tenth of a short run."""
    ordered = np.sort(values)
    first = np.ones(len(ordered), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return np.asarray(ordered[first])


def is_among(values: Array, among: Array) -> Array:
    """bool for each value: whether `among` has it, as `np.isin` says (see `unique`)."""
    ordered = unique(among)
    if not len(ordered):
        return np.zeros(len(values), np.bool_)
    at = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.asarray(ordered[at] == values)


def nearest(starts: Array, wanted: Array) -> tuple[Array, Array]:
    """(position of the last start at or before each, the distance from it), of ascending starts.

    The distance is negative where there is none; there has to be one start at least.
    """
    near = np.maximum(np.searchsorted(starts, wanted, side="right") - 1, 0)
    return near, wanted - starts[near]


def positions(ordered: Array, wanted: Array) -> Array:
    """int64 for each: the position of the same value in `ordered`, which ascends; -1 for none."""
    if not len(ordered):
        return np.full(len(wanted), -1, np.int64)
    near = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return np.where(ordered[near] == wanted, near, -1)


def keys(location: Array) -> Array:
    """Distinct sortable keys: records at one place are told apart by their order."""
    order = np.argsort(location, kind="stable")
    ordered = location[order]
    first = np.concatenate(([True], ordered[1:] != ordered[:-1])) if len(location) else ordered
    start = np.maximum.accumulate(np.where(first, np.arange(len(location)), 0))
    keys = np.empty(len(location), np.int64)
    keys[order] = ordered * 8 + np.minimum(np.arange(len(location)) - start, 7)
    return keys


def match_keys(old: Array, new: Array) -> Array:
    """For each old key the position of the equal new one, -1 where there is none."""
    order = np.argsort(new, kind="stable")
    found = positions(new[order], old)
    return np.append(order, -1)[found]
