"""The link map of each library of a set: where in which object each live range of it went."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cargo_strip_hook.link.arrays import ramps, unique
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
    for position, (part, rows) in enumerate(zip(split.common, common, strict=True), 1):
        atoms, rows = _held(shared, part, rows, first_section)
        for library in part.libraries:
            pairs = _copies(shared, part, library, copying)
            mine = _pairs(shared, split, part, library, pairs)
            moved = _translated(shared, part, library, mine, (atoms, rows))
            moved["object"] = position
            found[library].append(moved)
    return [np.concatenate(parts) for parts in found]


def _held(shared: Shared, part: Part, rows: Array, first_section: int) -> tuple[Int64, Array]:
    """(atom of the part's library, its LINK_MAP row) for those `rows` that are of atoms, by atom.

    An atom has several rows where its parts went to different places.
    """
    table = part.program.atoms
    kind = table["flags"] & (AtomFlag.SEPARATE | AtomFlag.ORDERED)
    chosen = np.flatnonzero(part.live & (kind != AtomFlag.SEPARATE) & (table["section"] >= 0))
    if not len(chosen):
        return np.zeros(0, np.int64), rows[:0]
    program = shared.joined.libraries[part.library].program
    members = np.array([unit.index for unit in program.units], np.int64)
    section = rows["section"].astype(np.int64) - first_section
    most = int(max(table["section"].max(), section.max())) + 1
    home = members[program.unit_of(part.atoms[chosen])] * most + table["section"][chosen]
    order = np.lexsort((table["size"][chosen], table["offset"][chosen], home))
    home, chosen = home[order], chosen[order]
    offset = table["offset"][chosen]
    # the last atom of the section that begins where the row does or before
    step = int(offset.max()) + 2
    wanted = rows["member"].astype(np.int64) * most + section
    key = wanted * step + np.minimum(rows["offset"], step - 1)
    near = np.maximum(np.searchsorted(home * step + offset, key, side="right") - 1, 0)
    inside = (home[near] == wanted) & (rows["offset"] >= offset[near])
    inside &= rows["offset"] + rows["size"] <= offset[near] + table["size"][chosen[near]]
    atoms = part.atoms[chosen[near[inside]]]
    by_atom = np.argsort(atoms, kind="stable")
    return atoms[by_atom], rows[inside][by_atom]


def _translated(
    shared: Shared, part: Part, library: int, pairs: tuple[Int64, Int64], held: tuple[Int64, Array]
) -> Array:
    """SET_MAP of atoms of a library, for each of which one of the part's library stands."""
    (mine, there), (atoms, rows) = pairs, held
    first = np.searchsorted(atoms, there)
    counts = np.searchsorted(atoms, there, "right") - first
    of = np.repeat(np.arange(len(mine)), counts)
    chosen = rows[ramps(first, counts, 1)]
    program = shared.joined.libraries[library].program
    other = shared.joined.libraries[part.library].program
    members = np.array([unit.index for unit in program.units], np.int32)
    to, of_home = program.atoms[mine[of]], other.atoms[there[of]]
    out = np.zeros(len(of), SET_MAP)
    for name in LINK_MAP.names or ():
        out[name] = chosen[name]
    out["member"] = members[program.unit_of(mine[of])]
    # what comes before a file's first section counts in both
    out["section"] += to["section"] - of_home["section"]
    out["offset"] += to["offset"] - of_home["offset"]
    return out[to["section"] >= 0]


def _pairs(
    shared: Shared, split: Split, part: Part, library: int, copies: tuple[Int64, Int64]
) -> tuple[Int64, Int64]:
    """(atom of a library, the one of the part's that stands for it) of what it shares there."""
    joined = shared.joined
    home, after = joined.atom_base[part.library : part.library + 2].tolist()
    first, end = joined.atom_base[library : library + 2].tolist()
    number = shared.number[first:end]
    mine = np.flatnonzero(number >= 0)
    there = split.homes[number[mine]]
    inside = (there >= home) & (there < after)
    copy, original = copies
    return (
        np.concatenate([mine[inside], copy]),
        np.concatenate([there[inside] - home, original]),
    )


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
