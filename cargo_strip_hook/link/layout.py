"""Lay out: put the live atoms into output sections."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from cargo_strip_hook.core.requests import Granularity
from cargo_strip_hook.link.arrays import runs
from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Bool,
    Format,
    Int32,
    Layout,
    OutputSection,
    Program,
    SectionKey,
)


def lay_out(
    program: Program, format: Format, live: Bool, classes: Int32, granularity: Granularity
) -> Layout:
    """Group the live atoms by section key and liveness class, and give each its offset.

    `classes` numbers the liveness classes (any constant for other granularities). The order of
    the input is kept within a section, but for what hardly ever runs: that stands behind.
    """
    separate = program.atoms["flags"] & AtomFlag.SEPARATE != 0
    atoms = np.flatnonzero(live & ~separate).astype(np.int32)
    if not len(atoms):  # only absolute symbols are exported
        nowhere = np.full(len(program.atoms), -1, np.int32)
        return Layout((), (), nowhere, np.zeros(len(program.atoms), np.int64))
    section_key, section_keys = format.section_keys(program, atoms)
    single = np.array([k.single for k in section_keys], np.bool_)[section_key]
    whole = np.array([k.whole for k in section_keys], np.bool_)[section_key]
    if granularity is Granularity.CLASS:
        group = classes[atoms].astype(np.int64)
    elif granularity is Granularity.SECTION:
        group = _sections(program, atoms)
    else:
        group = np.zeros(len(atoms), np.int64)
    group[whole] = 0
    group[single] = np.arange(len(atoms), dtype=np.int64)[single]

    cold = program.atoms["flags"] & AtomFlag.COLD != 0
    side = np.where(cold, np.int8(1), np.int8(0))
    for linker_set in program.sets:
        side[linker_set.start_atom], side[linker_set.stop_atom] = -1, 2
    order = np.lexsort((atoms, side[atoms], group, section_key))
    atoms, section_key, group = atoms[order], section_key[order], group[order]
    first = _interchangeable(section_keys, atoms, section_key, group)
    shared = first != atoms
    others, originals = atoms[shared], first[shared]
    atoms, section_key, group = atoms[~shared], section_key[~shared], group[~shared]
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
        sections.append(OutputSection(int(section_key[first]), members, size, align))
        offsets.clear()

    for lowest, end in runs(section_key, group):
        size, most, begin = 0, 1, lowest
        for i in range(lowest, end):
            align = aligns[i]
            start = -(-size // align) * align
            if start + sizes[i] > limit and i > begin and not section_keys[section_key[i]].whole:
                close(begin, i, size, most)
                begin, start, most = i, 0, 1
            offsets.append(start)
            most = max(most, align)
            size = start + sizes[i]
        close(begin, end, size, most)
    section[others], offset[others] = section[originals], offset[originals]
    return Layout(section_keys, tuple(sections), section, offset)


def _sections(program: Program, atoms: Int32) -> Array:
    """int64 for each atom: its own number, for elements of a section that of the first of them."""
    own = np.arange(len(atoms), dtype=np.int64)
    element = program.atoms["flags"][atoms] & AtomFlag.ELEMENT != 0
    if not element.any():
        return own
    unit, section = program.unit_of(atoms), program.atoms["section"][atoms]
    follows = np.zeros(len(atoms), np.bool_)
    follows[1:] = (unit[1:] == unit[:-1]) & (section[1:] == section[:-1])
    first: Array = np.maximum.accumulate(np.where(element & follows, 0, own))
    return first


def _interchangeable(
    section_keys: Sequence[SectionKey], atoms: Int32, section_key: Int32, group: Array
) -> Int32:
    """For each atom the first one in its section that can stand for it, mostly itself."""
    out: Int32 = atoms.copy()
    for number, kind in enumerate(section_keys):
        if kind.identity is None:
            continue
        mine = np.flatnonzero(section_key == number)
        known: dict[tuple[int, Hashable], int] = {}
        for row, atom, home, identity in zip(
            mine.tolist(),
            atoms[mine].tolist(),
            group[mine].tolist(),
            kind.identity(atoms[mine]),
            strict=True,
        ):
            if identity is not None:
                out[row] = known.setdefault((home, identity), atom)
    return out
