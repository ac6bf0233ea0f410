"""Lay out: put the live atoms into output sections."""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.job import Granularity
from cargo_strip_hook.objects.model import (
    AtomFlag,
    Bool,
    Format,
    Int32,
    Layout,
    OutputSection,
    Program,
)


def lay_out(
    program: Program, format: Format, live: Bool, classes: Int32, granularity: Granularity
) -> Layout:
    """Group the live atoms by bucket and class, and give each its offset.

    `classes` numbers the equivalence classes (any constant for other granularities). The order of
    the input is kept within a section.
    """
    separate = program.atoms["flags"] & AtomFlag.SEPARATE != 0
    atoms = np.flatnonzero(live & ~separate).astype(np.int32)
    if not len(atoms):  # only absolute symbols are exported
        nowhere = np.full(len(program.atoms), -1, np.int32)
        return Layout((), (), nowhere, np.zeros(len(program.atoms), np.int64))
    bucket, buckets = format.buckets(program, atoms)
    single = np.array([b.single for b in buckets], np.bool_)[bucket]
    whole = np.array([b.whole for b in buckets], np.bool_)[bucket]
    if granularity is Granularity.CLASS:
        part = classes[atoms].astype(np.int64)
    elif granularity is Granularity.SECTION:
        part = np.arange(len(atoms), dtype=np.int64)
    else:
        part = np.zeros(len(atoms), np.int64)
    part[whole] = 0
    part[single] = np.arange(len(atoms), dtype=np.int64)[single]

    rank = np.zeros(len(program.atoms), np.int8)
    for element_set in program.sets:
        rank[element_set.start_atom], rank[element_set.stop_atom] = -1, 1
    order = np.lexsort((atoms, rank[atoms], part, bucket))
    atoms, bucket, part = atoms[order], bucket[order], part[order]
    border = np.flatnonzero(
        np.r_[True, (bucket[1:] != bucket[:-1]) | (part[1:] != part[:-1])] if len(atoms) else []
    ).tolist()
    limit = format.section_limit(program)
    sizes = program.atoms["size"][atoms].tolist()
    aligns = program.atoms["align"][atoms].tolist()
    section = np.full(len(program.atoms), -1, np.int32)
    offset = np.zeros(len(program.atoms), np.int64)
    sections: list[OutputSection] = []
    offsets: list[int] = []

    def close(first: int, end: int, size: int, align: int) -> None:
        members = atoms[first:end]
        section[members] = len(sections)
        offset[members] = offsets
        sections.append(OutputSection(int(bucket[first]), members, size, align))
        offsets.clear()

    for first, end in zip(border, [*border[1:], len(atoms)], strict=True):
        at, most, begin = 0, 1, first
        for i in range(first, end):
            align = aligns[i]
            start = -(-at // align) * align
            if start + sizes[i] > limit and i > begin and not buckets[bucket[i]].whole:
                close(begin, i, at, most)
                begin, start, most = i, 0, 1
            offsets.append(start)
            most = max(most, align)
            at = start + sizes[i]
        close(begin, end, at, most)
    return Layout(buckets, tuple(sections), section, offset)
