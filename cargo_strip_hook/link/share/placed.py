"""The link map of each library of a set: where in which object each live range of it went."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.model import LINK_MAP, Array, AtomFlag, Bool, Int64
from cargo_strip_hook.link.share.find import Shared
from cargo_strip_hook.link.share.model import Sort
from cargo_strip_hook.link.share.split import Part, Split
from cargo_strip_hook.link.share.together import Together

# `object`: 0 is the library's own, from 1 on those of the common library in their order
SET_MAP = np.dtype([*((n, LINK_MAP[n]) for n in LINK_MAP.names or ()), ("object", "<i4")])


def link_maps(
    shared: Shared,
    split: Split,
    small: Sequence[Array],
    common: Sequence[Array],
    first_section: int,
) -> list[Array]:
    """SET_MAP for each library, of the objects' own link maps (LINK_MAP).

    `first_section`: see `Sharing`.
    """
    found = []
    for own in small:
        rows = np.zeros(len(own), SET_MAP)
        for name in LINK_MAP.names or ():
            rows[name] = own[name]
        found.append([rows])
    copying = _copying(shared)
    for location, (part, rows) in enumerate(zip(split.common, common, strict=True), 1):
        table = _table(shared, part, rows)
        for library in part.libraries:
            pairs = _copies(shared, part, library, copying)
            moved = _rows(shared, split, part, library, table, pairs)
            moved["section"] += first_section
            moved["object"] = location
            found[library].append(moved)
    return [np.concatenate(parts) for parts in found]


def _table(shared: Shared, part: Part, rows: Array) -> tuple[Int64, Int64]:
    """(output section, offset) by atom of the part's library; -1 for what is not in it."""
    atoms = part.program.atoms
    kind = atoms["flags"] & (AtomFlag.SEPARATE | AtomFlag.ORDERED)
    pieces = part.live & (kind != AtomFlag.SEPARATE) & (atoms["section"] >= 0)
    chosen = part.atoms[pieces]
    count = int(np.diff(shared.joined.atom_base)[part.library])
    section, offset = np.full(count, -1, np.int64), np.zeros(count, np.int64)
    section[chosen] = rows["out_section"][: len(chosen)]
    offset[chosen] = rows["out_offset"][: len(chosen)]
    return section, offset


def _rows(
    shared: Shared,
    split: Split,
    part: Part,
    library: int,
    table: tuple[Int64, Int64],
    pairs: tuple[Int64, Int64],
) -> Array:
    """Where what a library shares went, in one object of the common library."""
    joined = shared.joined
    section, offset = table
    home = int(joined.atom_base[part.library])
    first, end = joined.atom_base[library : library + 2].tolist()
    number = shared.number[first:end]
    mine = np.flatnonzero(number >= 0)
    there = split.homes[number[mine]] - home
    inside = (there >= 0) & (there < len(section))
    mine, there = mine[inside], there[inside]
    held = section[there] >= 0
    mine, there = mine[held], there[held]
    copy, original = pairs
    held = section[original] >= 0
    mine = np.concatenate([mine, copy[held]])
    there = np.concatenate([there, original[held]])
    program = joined.libraries[library].program
    members = np.array([unit.index for unit in program.units], np.int32)
    out = np.zeros(len(mine), SET_MAP)
    out["member"] = members[program.unit_of(mine)]
    out["section"] = program.atoms["section"][mine]
    out["offset"] = program.atoms["offset"][mine]
    out["size"] = program.atoms["size"][mine]
    out["out_section"], out["out_offset"] = section[there], offset[there]
    return out[out["section"] >= 0]


def _copying(shared: Shared) -> Int64:
    """The references of shared atoms to what each object has copies of, but for unwind records."""
    refers = shared.refers
    rows = np.flatnonzero((refers.target >= 0) & (refers.shape[:, 0] == 1))
    rows = rows[shared.copied[refers.target[rows]] & (shared.number[refers.source[rows]] >= 0)]
    found: Int64 = rows[shared.joined.described.sort[refers.target[rows]] != Sort.RECORD]
    return found


def _copies(shared: Shared, part: Part, library: int, rows: Int64) -> tuple[Int64, Int64]:
    """(atom of a library, atom of the part's) of what both have copies of, for shared code."""
    home = int(shared.joined.atom_base[part.library])
    number = shared.number
    wanted = np.zeros(shared.classes, np.bool_)
    live = part.atoms[part.live] + home
    wanted[number[live[number[live] >= 0]]] = True
    return _alike(shared, wanted, library, part.library, rows)


def _alike(
    shared: Shared, wanted: Bool, library: int, other: int, rows: Int64
) -> tuple[Int64, Int64]:
    """(atom, atom of the other library) of what `wanted` classes have copies of in both."""
    if not len(rows):
        return rows, rows
    joined = shared.joined
    refers, number = shared.refers, shared.number
    mine = np.zeros(shared.classes, np.bool_)
    mine[number[(number >= 0) & (joined.library == library)]] = True
    # a member may hold what not all that load it have
    rows = rows[(wanted & mine)[number[refers.source[rows]]]]
    sides = []
    for one in (library, other):
        mine = rows[joined.library[refers.source[rows]] == one]
        shape = refers.shape[mine]
        order = np.lexsort((shape[:, 2], shape[:, 1], number[refers.source[mine]]))
        sides.append(refers.target[mine[order]] - int(joined.atom_base[one]))
    copies, originals = sides
    if len(copies) != len(originals):  # folded ones refer to nothing, so that cannot be
        raise AssertionError("equal atoms refer to different numbers of atoms")
    keys = np.unique(np.stack([copies, originals], axis=1), axis=0)
    return keys[:, 0], keys[:, 1]


def maps_of_one(shared: Shared, one: Together, rows: Array) -> list[Array]:
    """SET_MAP for each library of an object of all of them; `rows` (LINK_MAP) is its own.

    Its members are the numbers of units.
    """
    joined = shared.joined
    program, base = one.program, joined.atom_base
    kind = program.atoms["flags"] & (AtomFlag.SEPARATE | AtomFlag.ORDERED)
    pieces = one.live & (kind != AtomFlag.SEPARATE) & (program.atoms["section"] >= 0)
    placed = np.flatnonzero(pieces)
    section, offset = np.full(len(pieces), -1, np.int64), np.zeros(len(pieces), np.int64)
    section[placed] = rows["out_section"][: len(placed)]
    offset[placed] = rows["out_offset"][: len(placed)]
    about = rows[len(placed) :]  # of debug information
    members = np.array([unit.index for p in joined.libraries for unit in p.program.units], np.int32)
    units = [len(one.program.units) for one in joined.libraries]
    owner = np.repeat(np.arange(len(units)), units)
    copying = _copying(shared)
    homes = joined.library[one.homes]
    found = []
    for library in range(len(joined.libraries)):
        first, end = base[library : library + 2].tolist()
        here = np.arange(first, end)
        shares = here[(shared.number[first:end] >= 0) & (section[first:end] < 0)]
        pairs = [(here[section[first:end] >= 0],) * 2, (shares, one.homes[shared.number[shares]])]
        for other in unique(homes[homes != library]).tolist():
            copy, original = _alike(shared, homes == other, library, other, copying)
            pairs.append((copy + first, original + int(base[other])))
        atoms = np.unique(
            np.stack([np.concatenate(side) for side in zip(*pairs, strict=True)], axis=1), axis=0
        )
        atoms = atoms[section[atoms[:, 1]] >= 0]
        mine, there = atoms[:, 0], atoms[:, 1]
        out = np.zeros(len(mine), SET_MAP)
        out["member"] = members[joined.program.unit_of(mine)]
        for name in ("section", "offset", "size"):
            out[name] = joined.program.atoms[name][mine]
        out["out_section"], out["out_offset"] = section[there], offset[there]
        told = about[owner[about["member"]] == library]
        debug = np.zeros(len(told), SET_MAP)
        for name in LINK_MAP.names or ():
            debug[name] = told[name]
        debug["member"] = members[told["member"]]
        found.append(np.concatenate([out[out["section"] >= 0], debug]))
    return found


__all__ = ["SET_MAP", "link_maps", "maps_of_one"]
