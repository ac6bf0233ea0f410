"""Reach: which atoms live, and which of them always live and die together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.objects.arrays import unique
from cargo_strip_hook.objects.model import (
    Array,
    AtomFlag,
    Bool,
    Int32,
    Int64,
    Program,
    Reach,
)


@dataclass(frozen=True, slots=True)
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
    return _graph(sources[kept], targets[kept], len(program.atoms))


def _graph(sources: Array, targets: Array, count: int) -> Graph:
    order = np.argsort(sources, kind="stable")
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(sources, minlength=count), out=starts[1:])
    return Graph(starts, targets[order])


def always_live(program: Program) -> Int32:
    """The atoms that live in any program that the object is linked into."""
    roots = (program.atoms["flags"] & AtomFlag.ROOT != 0) & ~program.discarded
    return np.flatnonzero(roots).astype(np.int32)


def mark(graph: Graph, roots: Array, count: int) -> Bool:
    """bool[count]: the atoms that can be reached from `roots`."""
    live = np.zeros(count, np.bool_)
    frontier = unique(roots)
    live[frontier] = True
    while len(frontier):
        _, found = graph.needed_by(frontier)
        found = found[~live[found]]
        live[found] = True
        frontier = unique(found)
    return live


def classes(program: Program, graph: Graph, live: Bool, exports: Array, always: Array) -> Int32:
    """Number the equivalence classes: atoms reached from the same exports, -1 for dead ones.

    `exports`: the atom of each export. What lives always is one class, whatever else reaches it.
    Elements of a live set are one class: they stand in one section.
    """
    number = np.full(len(live), -1, np.int32)
    members = np.flatnonzero(live)
    number[members] = np.arange(len(members), dtype=np.int32)
    position, target = graph.needed_by(members)
    sources, targets = [position.astype(np.int64)], [number[target].astype(np.int64)]
    for element_set in program.sets:
        elements = number[element_set.elements[live[element_set.elements]]]
        for end in (element_set.start_atom, element_set.stop_atom):
            if live[end]:
                sources.append(elements.astype(np.int64))
                targets.append(np.full(len(elements), number[end], np.int64))
    small = _graph(np.concatenate(sources), np.concatenate(targets), len(members))

    words = (len(exports) + 1 + 63) // 64
    bits = np.zeros((len(members), words), np.uint64)
    bits[number[always], 0] |= np.uint64(1)
    for i, atom in enumerate(exports.tolist(), start=1):
        bits[number[atom], i // 64] |= np.uint64(1 << (i % 64))
    changed = np.flatnonzero(bits.any(axis=1))
    while len(changed):
        position, target = small.needed_by(changed)
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
    everywhere = bits[:, 0] & np.uint64(1) != 0
    bits[everywhere] = 0
    bits[everywhere, 0] = 1
    out = np.full(len(live), -1, np.int32)
    rows = np.ascontiguousarray(bits).view(np.dtype((np.void, 8 * words))).reshape(-1)
    keys = bits[:, 0] if words == 1 else rows
    _, first_row, inverse = np.unique(keys, return_index=True, return_inverse=True)
    # number them by first appearance, so that the order of the input decides
    rank = np.empty(len(first_row), np.int32)
    rank[np.argsort(first_row, kind="stable")] = np.arange(len(first_row), dtype=np.int32)
    out[members] = rank[inverse]
    return out
