"""Which exports of which libraries need an atom: what a consumer's linker drops as one."""

from __future__ import annotations

import numpy as np

from cargo_strip_hook.link.model import Int32, Int64
from cargo_strip_hook.link.reach import (
    always_live,
    by_appearance,
    graph_of,
    mark,
    parted,
)
from cargo_strip_hook.link.share.find import Shared


def stands_for(shared: Shared) -> Int64:
    """For each atom the one that it is counted as: of shared equal ones the first."""
    out = np.arange(len(shared.number))
    rows = np.flatnonzero(shared.number >= 0)
    first = np.full(shared.classes, -1, np.int64)
    first[shared.number[rows[::-1]]] = rows[::-1]
    out[rows] = first[shared.number[rows]]
    return out


def classes(shared: Shared) -> Int32:
    """Number the liveness classes of all libraries together; -1 for dead atoms.

    Atoms that the same exports of the same libraries need have one number. What always lives in
    a library counts as needed by one more export of it, and is one class where it is not shared.
    """
    joined, program = shared.joined, shared.joined.program
    count, libraries = len(joined.live), len(joined.libraries)
    one = stands_for(shared)
    inside = shared.refers.target >= 0
    sources = [one[shared.refers.source[inside]]]
    targets = [one[shared.refers.target[inside]]]
    roots: list[int] = []
    always = []
    for number, library in enumerate(joined.libraries):
        base = int(joined.atom_base[number])
        rows = np.array(sorted(library.program.exported), np.int64)
        atoms = library.program.symbols["atom"][rows]
        roots += one[base + atoms[atoms >= 0]].tolist()
        mine = always_live(library.program).astype(np.int64) + base
        mine = mine[joined.live[mine]]
        always.append(mine)
        sources.append(np.full(len(mine), count + number))
        targets.append(one[mine])
    for linker_set in program.sets:
        for end in (linker_set.start_atom, linker_set.stop_atom):
            elements = linker_set.elements[joined.live[linker_set.elements]]
            if joined.live[end]:
                sources.append(elements.astype(np.int64))
                targets.append(np.full(len(elements), end))
    graph = graph_of(
        np.concatenate(sources), np.concatenate(targets).astype(np.int32), count + libraries
    )
    every = np.array([*dict.fromkeys(roots), *range(count, count + libraries)], np.int64)
    group = parted(graph, every, count + libraries)
    for number, mine in enumerate(always):
        everywhere = mark(graph, mine, count + libraries)[:count] & (shared.number < 0)
        group[:count][everywhere] = -1 - number
    out: Int32 = by_appearance(group[one])
    out[~joined.live] = -1
    return out


__all__ = ["classes", "stands_for"]
