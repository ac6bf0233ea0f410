"""A library as the program that a linker makes of it, and what its exports need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.analysis.graphs import edges, make_graph, reached
from cargo_strip_hook.analysis.objects import Objects, symbol_names
from cargo_strip_hook.archive import Archive
from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.formats.members import load
from cargo_strip_hook.link.arrays import join
from cargo_strip_hook.link.model import (
    SIZE,
    Binding,
    Bool,
    Contents,
    Format,
    Int64,
    Program,
    SpecialIndex,
)
from cargo_strip_hook.link.reach import Graph, always_live, build_graph
from cargo_strip_hook.link.resolve import resolve


@dataclass(frozen=True, slots=True)
class Library:
    """A resolved library. Nodes of `graph` are the atoms of `program`.

    `export_atoms` is the atom of each of `exports`, -1 where it is in none (common, absolute);
    `export_units` is the unit that is loaded for it. `initialisers` are live whenever their object
    is loaded. `live` are the atoms of a stripped library.
    """

    format: Format
    program: Program
    graph: Graph
    exports: tuple[str, ...]
    export_atoms: Int64
    export_units: Int64
    initialisers: Int64
    live: Bool

    @property
    def roots(self) -> Int64:
        """The roots: atoms of exports, then initialisers."""
        return np.concatenate([self.export_atoms[self.export_atoms >= 0], self.initialisers])


def resolve_library(archive: Archive, target: Target, exports: Sequence[str]) -> Library:
    """Resolve an archive as the native engine does, and find what is live.

    Raises `LinkError` where there are no exports, and for what does not resolve; `InputError` for
    a damaged archive.
    """
    if not exports:
        raise LinkError(
            "nothing is public, so nothing is needed",
            help="name the public symbols with `--header`, `--export` or `--cdylib`",
        )
    loaded = load(archive, target)
    names = [n.encode("utf-8", "surrogateescape") for n in exports]
    program = resolve(loaded.members, loaded.index, names, loaded.format, target.linker)
    needs = build_graph(program)
    symbols = [program.globals[n] for n in names]
    atoms = program.symbols["atom"][symbols].astype(np.int64)
    always = always_live(program).astype(np.int64)
    count = len(program.atoms)
    graph = make_graph(*edges(needs), count)
    roots = np.concatenate([atoms[atoms >= 0], always])
    units = np.searchsorted(program.symbol_base, symbols, side="right") - 1
    live = reached(graph, roots)
    return Library(loaded.format, program, graph, tuple(exports), atoms, units, always, live)


def as_objects(library: Library) -> Objects:
    """The live atoms of a resolved library, with references bound to prevailing definitions."""
    program, format = library.program, library.format
    units = program.units
    # the synthetic object, for commons and pointers, has no sections
    synthetic = np.zeros(1, SIZE)
    synthetic["kind"] = Contents.DATA
    sections = [synthetic if u.index < 0 else format.sizes(u) for u in units]
    section_base = np.cumsum([0, *map(len, sections)])
    section = program.atoms["section"].astype(np.int64)
    counts = np.diff(program.atom_base)
    section = np.where(section >= 0, section, 0) + np.repeat(section_base[:-1], counts)
    symbols, relocations = program.symbols.copy(), program.relocations.copy()
    atom = symbols["atom"]
    atom[(atom >= 0) & ~library.live[atom]] = SpecialIndex.ELSEWHERE
    relocations["symbol"] = program.definition[relocations["symbol"]]
    return Objects(
        units,
        tuple(u.index for u in units),
        program.atoms,
        symbols,
        symbol_names(units),
        relocations,
        program.edges,
        join(sections),
        section,
        np.repeat(np.arange(len(sections)), [len(p) for p in sections]),
    )


def loading(library: Library) -> Graph:
    """What needs what, loading included: the graph has a node for each object behind the atoms.

    An object needs its initialisers, and the objects that define what it refers to strongly, as a
    linker loads them from an archive.
    """
    program = library.program
    count, units = len(program.atoms), len(program.units)
    symbols = program.symbols
    loaded = program.unit_of(library.initialisers)
    strong = (symbols["atom"] == SpecialIndex.UNDEFINED) & (symbols["binding"] == Binding.GLOBAL)
    rows = np.flatnonzero(strong)
    of = np.searchsorted(program.symbol_base, rows, side="right") - 1
    needed = symbols["atom"][program.definition[rows]].astype(np.int64)
    of, needed = of[needed >= 0], needed[needed >= 0]
    there = program.unit_of(needed)
    needing, needs = edges(library.graph)
    sources = [needing, count + loaded, count + of]
    targets = [needs, library.initialisers, count + there]
    # a reference to a synthetic pointer loads what the pointer points to
    for unit in (n for n, u in enumerate(program.units) if u.index < 0):
        for atom, pointed in _pointers(program, unit):
            users = of[needed == atom]
            sources.append(count + users)
            targets.append(np.full(len(users), count + pointed))
    return make_graph(np.concatenate(sources), np.concatenate(targets), count + units)


def _pointers(program: Program, unit: int) -> list[tuple[int, int]]:
    """(atom, unit that it points into) of the pointers in a unit."""
    first, end = program.atom_base[unit : unit + 2].tolist()
    rows = program.relocations
    rows = rows[(rows["atom"] >= first) & (rows["atom"] < end)]
    target = program.symbols["atom"][program.definition[rows["symbol"]]]
    pairs = zip(rows["atom"].tolist(), program.unit_of(target).tolist(), strict=True)
    return [pair for pair, defined in zip(pairs, (target >= 0).tolist(), strict=True) if defined]
