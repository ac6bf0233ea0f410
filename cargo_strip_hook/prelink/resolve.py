"""Resolve: load the members that the exports need, as a linker would, and bind every symbol.

Source: gABI, "Symbol Table" (binding rules, archive search) and "Section Groups".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.errors import LinkError
from cargo_strip_hook.objects.model import (
    ATOM,
    EDGE,
    RELOCATION,
    SYMBOL,
    Array,
    Binding,
    ElementSet,
    Format,
    Int32,
    Place,
    Program,
    Unit,
)
from cargo_strip_hook.objects.pages import release

# How definitions of one name compete: a higher one replaces a lower one.
_UNDEFINED, _WEAK, _COMMON, _STRONG = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Input:
    """One member of the archive that may be loaded."""

    index: int
    name: str
    data: memoryview


class _Loader:
    """The state of resolution: which name is defined where, and which units are loaded."""

    def __init__(self, members: Mapping[int, Input], format: Format) -> None:
        self.members = members
        self.format = format
        self.units: list[Unit] = []
        self.loaded: set[int] = set()
        self.symbol_base = 0
        self.atom_base = 0
        self.table: dict[bytes, int] = {}
        self.strength: dict[bytes, int] = {}
        self.owner: dict[bytes, int] = {}  # unit number of the winner
        self.commons: dict[bytes, tuple[int, int]] = {}  # size, alignment
        self.signatures: dict[bytes, tuple[int, ...]] = {}  # program-wide atoms of the group
        self.discarded: list[int] = []
        self.twins: list[tuple[int, int]] = []  # discarded atom, atom of the winner
        self.queue: list[bytes] = []
        self.done = 0  # how many names of the queue were looked at

    def load(self, index: int) -> None:
        if index in self.loaded:
            return
        self.loaded.add(index)
        member = self.members[index]
        self.add(self.format.read(member.index, member.name, member.data))
        release(member.data)

    def load_needed(self, index: Mapping[bytes, int]) -> None:
        """Load what defines the symbols that are referred to, and what those refer to."""
        while self.done < len(self.queue):
            name = self.queue[self.done]
            self.done += 1
            if self.strength[name] == _UNDEFINED:
                member = index.get(name)
                if member is not None and member in self.members:
                    self.load(member)

    def load_for_commons(self) -> bool:
        """Load a member that defines what is so far only common; False where there is none.

        GNU ld and lld do so. The index tells the first member of a name only, so look into all.
        """
        commons = {name for name, strength in self.strength.items() if strength == _COMMON}
        if not commons:
            return False
        for number, member in self.members.items():
            if number in self.loaded:
                continue
            unit = self.format.read(member.index, member.name, member.data)
            atoms = unit.symbols["atom"][unit.first_global :].tolist()
            if any(a >= 0 and n in commons for n, a in zip(unit.names, atoms, strict=True)):
                self.load(number)
                return True
        return False

    def add(self, unit: Unit) -> None:
        number = len(self.units)
        self.units.append(unit)
        dropped: set[int] = set()
        for group in unit.groups:
            if not group.comdat:
                continue
            winner = self.signatures.get(group.signature)
            if winner is None:
                self.signatures[group.signature] = tuple(self.atom_base + a for a in group.atoms)
                continue
            dropped.update(group.atoms)
            if len(winner) == len(group.atoms):
                mine = (self.atom_base + a for a in group.atoms)
                self.twins += zip(mine, winner, strict=True)
        self.discarded.extend(self.atom_base + a for a in dropped)

        symbols = unit.symbols[unit.first_global :]
        atoms = symbols["atom"].tolist()
        bindings = symbols["binding"].tolist()
        table, strength = self.table, self.strength
        row = self.symbol_base + unit.first_global - 1
        for i, name in enumerate(unit.names):
            row += 1
            atom = atoms[i]
            binding = bindings[i]
            if atom == Place.UNDEFINED or atom in dropped:
                if name not in table:
                    table[name] = row
                    strength[name] = _UNDEFINED
                    self.owner[name] = number
                if binding == Binding.GLOBAL:
                    self.queue.append(name)
                continue
            if atom == Place.COMMON:
                new = _COMMON
                size, align = self.commons.get(name, (0, 1))
                entry = symbols[i]
                self.commons[name] = (
                    max(size, int(entry["size"])),
                    max(align, int(entry["value"])),
                )
            else:
                new = _STRONG if binding == Binding.GLOBAL else _WEAK
            old = strength.get(name, _UNDEFINED)
            if new > old:
                table[name] = row
                strength[name] = new
                self.owner[name] = number
            elif new == old == _STRONG:
                raise LinkError(
                    f"the symbol `{name.decode(errors='replace')}` is defined twice: in "
                    f"{self.units[self.owner[name]].name} and in {unit.name}",
                    help="a program that uses both members does not link with the original either",
                )
        self.symbol_base += len(unit.symbols)
        self.atom_base += len(unit.atoms)


def resolve(
    members: Mapping[int, Input],
    index: Mapping[bytes, int],
    roots: Sequence[bytes],
    format: Format,
) -> Program:
    """Load what `roots` need, lazily and in a fixed order, and bind the symbols.

    `index` maps each name to the member that defines it first; names of members that are not in
    `members` stay undefined. Raises `LinkError` for roots that no member defines and for two
    strong definitions of one name, and what the format's reader raises.
    """
    loader = _Loader(members, format)
    missing = [r for r in roots if index.get(r) not in members]
    if missing:
        names = ", ".join(f"`{m.decode(errors='replace')}`" for m in missing)
        raise LinkError(
            f"the library does not define {names}",
            help="check the names in the header or the patterns against the library's symbols",
        )
    for root in roots:
        loader.load(index[root])
    loader.load_needed(index)
    while loader.load_for_commons():
        loader.load_needed(index)
    undefined_roots = [r for r in roots if not loader.strength.get(r)]
    if undefined_roots:
        names = ", ".join(f"`{m.decode(errors='replace')}`" for m in undefined_roots)
        raise LinkError(
            f"the library's symbol index names {names}, but the member does not define it",
            help="rebuild the index with `ranlib`, or the library",
        )
    undefined = [n for n, s in loader.strength.items() if s == _UNDEFINED]
    sets = format.find_sets(loader.units, undefined)
    sets = _add_synthetic(loader, sets, frozenset(roots))
    return _program(loader, sets)


def _add_synthetic(
    loader: _Loader, sets: Sequence[ElementSet], exported: frozenset[bytes]
) -> list[ElementSet]:
    """Give commons a place, and element sets their ends. An exported common stays one."""
    commons = sorted(n for n, s in loader.strength.items() if s == _COMMON and n not in exported)
    if not commons and not sets:
        return []
    atoms = np.zeros(len(commons) + 2 * len(sets), ATOM)
    symbols = np.zeros(1 + len(atoms), SYMBOL)
    symbols["atom"][0] = Place.UNDEFINED
    symbols["atom"][1:] = np.arange(len(atoms))
    symbols["binding"][1:] = Binding.GLOBAL
    atoms["section"] = -1
    atoms["align"] = 1
    names: list[bytes] = list(commons)
    for i, name in enumerate(commons):
        size, align = loader.commons[name]
        atoms["size"][i], atoms["align"][i] = size, align
        symbols["size"][i + 1] = size
        loader.strength[name] = _UNDEFINED  # the synthetic definition takes its place
    finished: list[ElementSet] = []
    for i, element_set in enumerate(sets):
        at = len(commons) + 2 * i
        names += [element_set.start, element_set.stop]
        finished.append(
            replace(
                element_set,
                start_atom=loader.atom_base + at,
                stop_atom=loader.atom_base + at + 1,
            )
        )
    loader.add(loader.format.synthetic(atoms, symbols, names))
    return finished


def _program(loader: _Loader, sets: Sequence[ElementSet]) -> Program:
    units = loader.units
    atom_base = np.cumsum([0, *(len(u.atoms) for u in units)])
    symbol_base = np.cumsum([0, *(len(u.symbols) for u in units)])
    atoms = np.concatenate([u.atoms for u in units])
    symbols = np.concatenate([u.symbols for u in units])
    relocations = np.concatenate([u.relocations for u in units])
    edges = np.concatenate([_edges(u) for u in units])

    for name, (size, align) in loader.commons.items():
        if loader.strength[name] == _COMMON:  # an exported one: the largest of all counts
            symbols["size"][loader.table[name]] = size
            symbols["value"][loader.table[name]] = align
    per_symbol = np.repeat(atom_base[:-1], np.diff(symbol_base))
    placed = symbols["atom"] >= 0
    symbols["atom"][placed] += per_symbol[placed].astype(np.int32)
    counts = [len(u.relocations) for u in units]
    relocations["atom"] += np.repeat(atom_base[:-1], counts).astype(np.int32)
    relocations["symbol"] += np.repeat(symbol_base[:-1], counts).astype(np.int32)
    per_edge = np.repeat(atom_base[:-1], [len(_edges(u)) for u in units]).astype(np.int32)
    edges["source"] += per_edge
    edges["target"] += per_edge
    set_edges = [_set_edges(s) for s in sets]
    edges = np.concatenate([edges, *set_edges])

    definition = np.arange(len(symbols), dtype=np.int32)
    table = loader.table
    for base, unit in zip(symbol_base.tolist(), units, strict=False):
        if unit.names:
            first = base + unit.first_global
            definition[first : first + len(unit.names)] = [table[n] for n in unit.names]
    discarded = np.zeros(len(atoms), np.bool_)
    discarded[loader.discarded] = True
    # the program-wide tables replace the units' own, whose memory is large
    none, no_edges = np.zeros(0, RELOCATION), np.zeros(0, EDGE)
    return Program(
        tuple(replace(u, relocations=none, edges=no_edges) for u in units),
        atom_base,
        symbol_base,
        atoms,
        symbols,
        relocations,
        edges,
        definition,
        discarded,
        table,
        tuple(sets),
        twin=_twins(loader, atoms),
    )


def _twins(loader: _Loader, atoms: Array) -> Int32:
    """For each discarded atom the one of the winning group that has its place and size."""
    twin = np.full(len(atoms), -1, np.int32)
    if loader.twins:
        loser, winner = np.array(loader.twins, np.int32).T
        alike = atoms["size"][loser] == atoms["size"][winner]
        twin[loser[alike]] = winner[alike]
    return twin


def _edges(unit: Unit) -> Array:
    """The unit's own edges, and those that keep the members of a group together."""
    pairs = [(g.atoms[0], other) for g in unit.groups if g.atoms for other in g.atoms[1:]]
    if not pairs:
        return unit.edges
    both = np.array([*pairs, *((b, a) for a, b in pairs)], np.int32)
    star = np.zeros(len(both), EDGE)
    star["source"], star["target"] = both[:, 0], both[:, 1]
    return np.concatenate([unit.edges, star])


def _set_edges(element_set: ElementSet) -> Array:
    """Whoever refers to an end of a set needs all of its elements."""
    elements = element_set.elements
    edges = np.zeros(2 * len(elements), EDGE)
    edges["source"][: len(elements)] = element_set.start_atom
    edges["source"][len(elements) :] = element_set.stop_atom
    edges["target"] = np.concatenate([elements, elements])
    return edges
