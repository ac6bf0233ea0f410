"""Reach: which atoms live, and which of them always live and die together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.model import (
    Array,
    AtomFlag,
    Bool,
    Int32,
    Int64,
    Program,
    Reach,
)

# Exports looked at together: a bit for each in every live atom. Many take several rounds, so that
# memory does not grow with their number.
_AT_ONCE = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Who needs whom, in compressed rows: `targets[starts[a]:starts[a + 1]]` are needed by `a`."""

    starts: Int64
    targets: Int32

    def needed_by(self, atoms: Array) -> tuple[Array, Array]:
        """(position in `atoms`, target) of all edges that leave `atoms`."""
        first = self.starts[atoms]
        counts = self.starts[atoms + 1] - first
        total = int(counts.sum())
        shift = np.repeat(first - (np.cumsum(counts) - counts), counts)
        return np.repeat(np.arange(len(atoms)), counts), self.targets[shift + np.arange(total)]


def build_graph(program: Program) -> Graph:
    """The graph of all atoms. Edges from or to discarded atoms are left out."""
    relocations = program.relocations
    target = program.symbols["atom"][program.definition[relocations["symbol"]]]
    reach = relocations["reach"]
    forward = ((reach == Reach.FORWARD) | (reach == Reach.BOTH)) & (target >= 0)
    reverse = ((reach == Reach.REVERSE) | (reach == Reach.BOTH)) & (target >= 0)
    atom = relocations["atom"]
    sources = np.concatenate([atom[forward], target[reverse], program.edges["source"]])
    targets = np.concatenate([target[forward], atom[reverse], program.edges["target"]])
    kept = ~(program.discarded[sources] | program.discarded[targets]) & (sources != targets)
    return graph_of(sources[kept], targets[kept], len(program.atoms))


def graph_of(sources: Array, targets: Array, count: int) -> Graph:
    """The graph of `count` nodes with these edges."""
    order = np.argsort(sources, kind="stable")
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(sources, minlength=count), out=starts[1:])
    return Graph(starts, targets[order])


def always_live(program: Program) -> Int32:
    """The atoms that live in any program that the object is linked into."""
    flags = program.atoms["flags"]
    listed = flags & AtomFlag.LISTED != 0
    for linker_set in program.sets:  # the library's own: it lives with what refers to its ends
        listed[linker_set.elements] = False
    roots = ((flags & AtomFlag.ROOT != 0) | listed) & ~program.discarded
    return np.flatnonzero(roots).astype(np.int32)


def mark(graph: Graph, roots: Array, count: int, avoid: Array | None = None) -> Bool:
    """bool[count]: the atoms that can be reached from `roots` on a way that passes no `avoid`."""
    live = np.zeros(count, np.bool_)
    frontier = unique(roots)
    if avoid is not None:
        live[avoid] = True  # nothing goes on from there
        frontier = frontier[~live[frontier]]
    live[frontier] = True
    while len(frontier):
        _, reached = graph.needed_by(frontier)
        reached = reached[~live[reached]]
        live[reached] = True
        frontier = unique(reached)
    if avoid is not None:
        live[avoid] = False
    return live


def follow(program: Program, live: Bool) -> Bool:
    """`live` (by atom), and what follows from it without being a part of a program.

    That lives where its file does, unless it refers to others and all of those are dead.
    """
    flags = program.atoms["flags"]
    atoms = np.flatnonzero((flags & AtomFlag.FOLLOWS != 0) & ~program.discarded)
    if not len(atoms):
        return live
    loaded = np.zeros(len(program.units), np.bool_)
    loaded[program.live_units(live)] = True
    alive, refers = np.zeros(len(live), np.bool_), np.zeros(len(live), np.bool_)
    rows = program.relocations
    rows = rows[flags[rows["atom"]] & AtomFlag.FOLLOWS != 0]
    target = program.symbols["atom"][program.definition[rows["symbol"]]]
    rows, target = rows[target >= 0], target[target >= 0]
    needed = flags[target] & AtomFlag.ASIDE == 0
    refers[rows["atom"][needed]] = True
    alive[rows["atom"][needed & live[target]]] = True
    out: Bool = live.copy()
    out[atoms] |= loaded[program.unit_of(atoms)] & (alive | ~refers)[atoms]
    return out


def classes(program: Program, graph: Graph, live: Bool, exports: Array, always: Array) -> Int32:
    """Number the liveness classes: atoms reached from the same exports, -1 for dead ones.

    `exports`: the atom of each export. What lives always is one class, whatever else reaches it.
    Elements of a live set are one class: they stand in one section.
    """
    number = np.full(len(live), -1, np.int32)
    members = np.flatnonzero(live)
    number[members] = np.arange(len(members), dtype=np.int32)
    position, target = graph.needed_by(members)
    sources, targets = [position.astype(np.int64)], [number[target].astype(np.int64)]
    for linker_set in program.sets:
        elements = number[linker_set.elements[live[linker_set.elements]]]
        for end in (linker_set.start_atom, linker_set.stop_atom):
            if live[end]:
                sources.append(elements.astype(np.int64))
                targets.append(np.full(len(elements), number[end], np.int64))
    source, target = np.concatenate(sources), np.concatenate(targets)
    small = graph_of(source, target, len(members))
    everywhere = mark(small, number[always], len(members))
    if everywhere.any():
        kept = ~everywhere[target]
        small = graph_of(source[kept], target[kept], len(members))

    roots = unique(number[exports])
    group = parted(small, roots[~everywhere[roots]], len(members))
    group[everywhere] = -1
    out = np.full(len(live), -1, np.int32)
    out[members] = by_appearance(group)
    return out


def parted(graph: Graph, roots: Array, count: int) -> Int64:
    """int64[count]: nodes that the same `roots` reach have one number."""
    group = np.zeros(count, np.int64)
    for first in range(0, len(roots), _AT_ONCE):
        reached = reached_by(graph, roots[first : first + _AT_ONCE], count)
        for bits in reached.T:
            part_by(group, bits)
    return group


def by_appearance(group: Int64) -> Int32:
    """The same groups numbered by where each is first, so that the order of the input decides."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = ordered[1:] != ordered[:-1]
    first_row = order[begins]
    numbers = np.empty(len(first_row), np.int32)
    numbers[np.argsort(first_row)] = np.arange(len(first_row), dtype=np.int32)
    out = np.empty(len(group), np.int32)
    out[order] = numbers[np.cumsum(begins) - 1]
    return out


def reached_by(graph: Graph, roots: Array, count: int) -> Array:
    """uint64[count, words]: bit `i` of a row tells whether `roots[i]` reaches the atom."""
    bits = np.zeros((count, (len(roots) + 63) // 64), np.uint64)
    bit = np.arange(len(roots))
    bits[roots, bit // 64] = np.uint64(1) << (bit % 64).astype(np.uint64)
    changed = roots
    while len(changed):
        position, target = graph.needed_by(changed)
        if not len(target):
            break
        order = np.argsort(target, kind="stable")
        target = target[order]
        first = np.flatnonzero(np.r_[True, target[1:] != target[:-1]])
        gained = np.bitwise_or.reduceat(bits[changed[position[order]]], first, axis=0)
        reached = target[first]
        merged = bits[reached] | gained
        grew = (merged != bits[reached]).any(axis=1)
        bits[reached[grew]] = merged[grew]
        changed = reached[grew]
    return bits


def part_by(group: Int64, bits: Array) -> None:
    """Part every group by what `bits` (uint64) says of its atoms: none stays what it is."""
    rows = np.flatnonzero(bits)
    if not len(rows):
        return
    order = np.lexsort((bits[rows], group[rows]))
    rows = rows[order]
    old, said = group[rows], bits[rows]
    begins = np.ones(len(rows), np.int64)
    begins[1:] = (old[1:] != old[:-1]) | (said[1:] != said[:-1])
    group[rows] = group.max() + np.cumsum(begins)
