"""Debug sections of one name, of all members, one behind the other.

Nothing of a program refers to them, so that they are no atoms. What an input section gives to an
output section is its *contribution*.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cargo_strip_hook.link.arrays import rows_of
from cargo_strip_hook.link.model import Array, Int64

CONTRIBUTION = np.dtype(
    [
        ("unit", "<i4"),  # number in the program
        ("section", "<i4"),  # index in the unit's file
        ("out", "<i4"),  # number of the output section, from 0 among these
        ("align", "<i4"),  # bytes
        ("size", "<i8"),  # bytes
    ]
)
# These tables end at an entry of zeros (DWARF 4, sections 2.6.2 and 2.17.3): there, the address of
# what is gone is 1. It is 0 in all others.
ENDED_BY_ZEROS = (b".debug_ranges", b".debug_loc")


def collected(
    sections: Iterable[tuple[bytes, int, int, int, int]],
) -> tuple[Array, tuple[bytes, ...]]:
    """(CONTRIBUTION rows sorted by output section and unit, the names of these sections).

    `sections`: name in the output, unit, section, alignment and size of each. Output sections are
    in the order in which their names come.
    """
    order: dict[bytes, int] = {}
    rows = sorted((order.setdefault(name, len(order)), *rest) for name, *rest in sections)
    names = ("out", "unit", "section", "align", "size")
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return rows_of(CONTRIBUTION, len(rows), **dict(zip(names, columns, strict=True))), tuple(order)


def stacked(rows: Array, sizes: Int64, count: int) -> tuple[Int64, Int64, Int64]:
    """(offset of each row in its output section; size and alignment of each output section).

    `sizes` are those of the contributions (int64, by row); there are `count` output sections.
    """
    ends, aligns = [0] * count, [1] * count
    offsets = []
    for out, align, size in zip(
        rows["out"].tolist(), rows["align"].tolist(), sizes.tolist(), strict=True
    ):
        offsets.append(-(-ends[out] // align) * align)
        ends[out], aligns[out] = offsets[-1] + size, max(aligns[out], align)
    return np.array(offsets, np.int64), np.array(ends, np.int64), np.array(aligns, np.int64)


__all__ = ["CONTRIBUTION", "ENDED_BY_ZEROS", "collected", "stacked"]
