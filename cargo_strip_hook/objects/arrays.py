"""Small things about arrays that numpy's own way would take long to import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


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
    at = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.asarray(ordered[at] == values)


def join(parts: Sequence[Array]) -> Array:
    """The rows of arrays of one structured type, at least one of them, as `np.concatenate`.

    That works out a common type anew for each part, field by field.
    """
    record = parts[0].dtype
    rows = [np.ascontiguousarray(part).view(f"V{record.itemsize}") for part in parts]
    return np.concatenate(rows).view(record)


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
    """For each row `counts` places from `begin` on, `step` apart; one behind the other."""
    total = int(counts.sum())
    inner = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    if not isinstance(step, int):
        step = np.repeat(step, counts)
    out: Array = np.repeat(begin, counts) + step * inner
    return out


def begins(counts: Array) -> Array:
    """Where each of several tables begins when they stand behind one another, and the total."""
    return np.concatenate([[0], np.cumsum(counts)])


def together(parts: Sequence[memoryview]) -> tuple[Array, Array]:
    """(uint8 array, where in it each part begins). Several parts are views of one buffer."""
    if len(parts) == 1:
        return np.frombuffer(parts[0], np.uint8), np.zeros(1, np.int64)
    whole = np.frombuffer(memoryview(parts[0].obj), np.uint8)
    address = whole.__array_interface__["data"][0]
    places = [np.frombuffer(p, np.uint8).__array_interface__["data"][0] for p in parts]
    return whole, np.array(places, np.int64) - address
