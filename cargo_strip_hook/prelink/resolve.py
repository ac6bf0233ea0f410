"""Resolve: load the members that the exports need, as a linker would, and bind every symbol.

Source: gABI, "Symbol Table" (binding rules, archive search) and "Section Groups".
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from cargo_strip_hook.errors import LinkError
from cargo_strip_hook.objects.arrays import isin, join
from cargo_strip_hook.objects.batch import read_all
from cargo_strip_hook.objects.model import (
    ATOM,
    EDGE,
    RELOCATION,
    SYMBOL,
    Array,
    Binding,
    ElementSet,
    Format,
    Group,
    Input,
    Int32,
    Place,
    Program,
    Unit,
)
from cargo_strip_hook.objects.pages import release

# How definitions of one name compete: a higher one replaces a lower one.
_WANTED, _UNDEFINED, _WEAK, _COMMON, _STRONG = -1, 0, 1, 2, 3


class _Loader:
    """The state of resolution: which name is defined where, and which units are loaded."""

    def __init__(self, members: Mapping[int, Input], format: Format) -> None:
        self.members = members
        self.format = format
        self.units: list[Unit] = []
        self.loaded: set[int] = set()
        # read, and perhaps loaded later, with how strongly each global symbol is defined
        self.ahead: dict[int, tuple[Unit, list[int]]] = {}
        self.symbol_base = 0
        self.atom_base = 0
        # of each name, the row of the symbol that wins so far, times four, and its strength
        self.table: dict[bytes, int] = {}
        self.commons: dict[bytes, tuple[int, int]] = {}  # size, alignment
        # of each signature the group that wins so far, its unit and that one's first atom
        self.signatures: dict[bytes, tuple[Group, Unit, int]] = {}
        self.discarded: list[int] = []
        self.twins: list[tuple[int, int]] = []  # discarded atom, atom of the winner
        self.queue: list[bytes] = []
        self.done = 0  # how many names of the queue were looked at

    def strength(self, name: bytes) -> int:
        """How strongly a name is defined; 0 for one that nobody knows."""
        return self.table.get(name, _UNDEFINED) & 3

    def row(self, name: bytes) -> int:
        """The program-wide symbol that a known name resolves to."""
        return self.table[name] >> 2

    def load(self, index: int) -> None:
        if index in self.loaded:
            return
        if index not in self.ahead:
            self.read_ahead([index])
        self.loaded.add(index)
        self.add(*self.ahead.pop(index))

    def read_ahead(self, indices: Iterable[int]) -> None:
        """Read members of which most will be loaded: together they take far less time."""
        new = [i for i in dict.fromkeys(indices) if i not in self.loaded and i not in self.ahead]
        units = []
        for unit in read_all(self.format, [self.members[i] for i in new]):
            units.append(unit)
            release(unit.data)
        for unit, strengths in zip(units, _strengths(units), strict=True):
            self.ahead[unit.index] = unit, strengths

    def undefined(self) -> list[bytes]:
        """The names that nobody defines so far."""
        return [n for n, entry in self.table.items() if entry & 3 == _UNDEFINED]

    def load_needed(self, index: Mapping[bytes, int]) -> None:
        """Load what defines the symbols that are referred to, and what those refer to."""
        while self.done < len(self.queue):
            waiting = self.queue[self.done :]
            self.done = len(self.queue)
            wanted = [(n, index[n]) for n in waiting if n in index and not self.strength(n)]
            wanted = [(n, member) for n, member in wanted if member in self.members]
            self.read_ahead(member for _, member in wanted)
            for name, member in wanted:
                if member not in self.loaded and not self.strength(name):
                    self.load(member)

    def load_for_commons(self) -> bool:
        """Load a member that defines what is so far only common; False where there is none.

        GNU ld and lld do so. The index tells the first member of a name only, so look into all.
        """
        commons = {name for name in self.commons if self.strength(name) == _COMMON}
        if not commons:
            return False
        for number, member in self.members.items():
            if number in self.loaded:
                continue
            [unit] = self.format.read([member])
            atoms = unit.globals["atom"].tolist()
            if any(a >= 0 and n in commons for n, a in zip(unit.names, atoms, strict=True)):
                self.load(number)
                return True
        return False

    def load_for_aliases(self, index: Mapping[bytes, int]) -> bool:
        """Load what stands for a name that is wanted and that no member defines; False for none."""
        pairs = [
            (u.names[source - u.first_global], u.names[target - u.first_global])
            for u in self.units
            for source, target in u.aliases.tolist()
            if min(source, target) >= u.first_global
        ]
        wanted = set(self.queue) if pairs else set()
        for _ in pairs:  # what stands for a name may have another one that stands for it
            more = {t for s, t in pairs if s in wanted and not self.strength(s)} - wanted
            if not more:
                break
            wanted |= more
        for source, target in pairs:
            if source not in wanted or self.strength(source) or source in index:
                continue
            member = index.get(target, -1)
            if not self.strength(target) and member in self.members and member not in self.loaded:
                self.load(member)
                return True
        return False

    def add(self, unit: Unit, strengths: list[int]) -> None:
        self.units.append(unit)
        dropped: set[int] = set()
        for group in unit.groups:
            if not group.comdat:
                continue
            won = self.signatures.get(group.signature)
            if won is None or self.overtaken(group, unit, won):
                self.signatures[group.signature] = group, unit, self.atom_base
                continue
            winner, _, base = won
            dropped.update(group.atoms)
            if len(winner.atoms) == len(group.atoms):
                mine = (self.atom_base + a for a in group.atoms)
                self.twins += zip(mine, (base + a for a in winner.atoms), strict=True)
        self.discarded.extend(self.atom_base + a for a in dropped)

        symbols = unit.globals
        table, queue = self.table, self.queue
        first = (self.symbol_base + unit.first_global) << 2
        if dropped:
            gone = np.flatnonzero(isin(symbols["atom"], np.array(sorted(dropped))))
            strong = (symbols["binding"][gone] == Binding.GLOBAL).tolist()
            for n, is_global in zip(gone.tolist(), strong, strict=True):
                strengths[n] = _WANTED if is_global else _UNDEFINED
        rows = range(first, first + 4 * len(strengths), 4)
        for row, name, new in zip(rows, unit.names, strengths, strict=True):
            if new <= _UNDEFINED:
                old = table.setdefault(name, row)
                if new == _WANTED and old & 3 == _UNDEFINED:
                    queue.append(name)
                continue
            if new == _COMMON:
                size, align = self.commons.get(name, (0, 1))
                entry = symbols[(row - first) >> 2]
                self.commons[name] = (
                    max(size, int(entry["size"])),
                    max(align, int(entry["value"])),
                )
            old = table.get(name, _UNDEFINED)
            if new > old & 3:
                table[name] = row | new
            elif new == old & 3 == _STRONG:
                raise LinkError(
                    f"the symbol `{name.decode(errors='replace')}` is defined twice: in "
                    f"{self.unit_of(old >> 2).name} and in {unit.name}",
                    help="a program that uses both members does not link with the original either",
                )
        self.symbol_base += len(unit.symbols)
        self.atom_base += len(unit.atoms)

    def overtaken(self, group: Group, unit: Unit, won: tuple[Group, Unit, int]) -> bool:
        """Whether a group takes the place of the one that won so far, which is then discarded.

        Raises `LinkError` where the two must be alike and are not.
        """
        winner, owner, base = won
        if group.alike != winner.alike and None not in (group.alike, winner.alike):
            raise LinkError(
                f"`{group.signature.decode(errors='replace')}` differs in {owner.name} and in "
                f"{unit.name}, which say that it must not",
                help="a program that uses both members does not link with the original either",
            )
        if group.rank <= winner.rank:
            return False
        self.discarded.extend(base + a for a in winner.atoms)
        atoms = owner.globals["atom"]
        for n in np.flatnonzero(np.isin(atoms, winner.atoms)).tolist():
            self.table[owner.names[n]] &= ~3
        return True

    def unit_of(self, row: int) -> Unit:
        """The loaded unit that has a program-wide symbol."""
        end = 0
        for unit in self.units:
            end += len(unit.symbols)
            if row < end:
                break
        return unit


def _strengths(units: Sequence[Unit]) -> list[list[int]]:
    """How strongly each unit's global symbols are defined, `_WANTED` for strong references."""
    if not units:
        return []
    atoms, binding = (
        np.concatenate([u.globals[field] for u in units]) for field in ("atom", "binding")
    )
    undefined, is_global = atoms == Place.UNDEFINED, binding == Binding.GLOBAL
    strengths = np.where(is_global, _STRONG, _WEAK)
    strengths[atoms == Place.COMMON] = _COMMON
    strengths[undefined] = _UNDEFINED
    strengths[undefined & is_global] = _WANTED
    found = strengths.tolist()
    ends = list(itertools.accumulate(len(u.globals) for u in units))
    return [found[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


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
    unasked = format.loaded_always(list(members.values()), index)
    loader.read_ahead([*unasked, *(index[root] for root in roots)])
    for number in unasked:  # linkers load these when they come to the archive
        loader.load(number)
    for root in roots:
        loader.load(index[root])
    loader.load_needed(index)
    while loader.load_for_commons() or loader.load_for_aliases(index):
        loader.load_needed(index)
    undefined_roots = [r for r in roots if not loader.strength(r)]
    if undefined_roots:
        names = ", ".join(f"`{m.decode(errors='replace')}`" for m in undefined_roots)
        raise LinkError(
            f"the library's symbol index names {names}, but the member does not define it",
            help="rebuild the index with `ranlib`, or the library",
        )
    pointers, undefined = _load_for_pointers(loader, index)
    sets = format.find_sets(loader.units, undefined)
    sets = _add_synthetic(loader, sets, pointers, frozenset(roots))
    return _program(loader, sets)


def _load_for_pointers(
    loader: _Loader, index: Mapping[bytes, int]
) -> tuple[dict[bytes, bytes], list[bytes]]:
    """The pointers to be made, what each points to, which is loaded, and what nobody defines."""
    while True:
        undefined = loader.undefined()
        wanted = loader.format.find_pointers(undefined)
        missing = [t for t in wanted.values() if not loader.strength(t)]
        missing = [t for t in missing if index.get(t) in loader.members]
        if not missing:
            return {n: t for n, t in wanted.items() if loader.strength(t)}, undefined
        for target in missing:
            loader.load(index[target])
            if not loader.strength(target):
                raise LinkError(
                    f"the library's symbol index names `{target.decode(errors='replace')}`, but "
                    "the member does not define it",
                    help="rebuild the index with `ranlib`, or the library",
                )
        loader.load_needed(index)


def _add_synthetic(
    loader: _Loader,
    sets: Sequence[ElementSet],
    pointers: Mapping[bytes, bytes],
    exported: frozenset[bytes],
) -> list[ElementSet]:
    """Give commons and pointers a place, and element sets their ends.

    An exported common stays one.
    """
    commons = sorted(
        n for n in loader.commons if loader.strength(n) == _COMMON and n not in exported
    )
    if not commons and not sets and not pointers:
        return []
    before = len(commons) + 2 * len(sets)
    atoms = np.zeros(before + len(pointers), ATOM)
    symbols = np.zeros(1 + len(atoms) + len(pointers), SYMBOL)
    symbols["atom"] = Place.UNDEFINED
    symbols["atom"][1 : 1 + len(atoms)] = np.arange(len(atoms))
    symbols["binding"][1:] = Binding.GLOBAL
    atoms["section"] = -1
    atoms["align"] = 1
    names: list[bytes] = list(commons)
    for i, name in enumerate(commons):
        size, align = loader.commons[name]
        atoms["size"][i], atoms["align"][i] = size, align
        symbols["size"][i + 1] = size
        loader.table[name] &= ~3  # undefined: the synthetic definition takes its place
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
    ends = np.zeros(len(pointers), EDGE)
    ends["source"] = before + np.arange(len(pointers))
    ends["target"] = 1 + len(atoms) + np.arange(len(pointers))
    names += [*sorted(pointers), *(pointers[n] for n in sorted(pointers))]
    unit = loader.format.synthetic(atoms, symbols, names, ends)
    loader.add(unit, *_strengths([unit]))
    return finished


def _program(loader: _Loader, sets: Sequence[ElementSet]) -> Program:
    units = loader.units
    atom_base = np.cumsum([0, *(len(u.atoms) for u in units)])
    symbol_base = np.cumsum([0, *(len(u.symbols) for u in units)])
    atoms = join([u.atoms for u in units])
    symbols = join([u.symbols for u in units])
    relocations = join([u.relocations for u in units])
    edges = join([_edges(u) for u in units])

    for name, (size, align) in loader.commons.items():
        if loader.strength(name) == _COMMON:  # an exported one: the largest of all counts
            symbols["size"][loader.row(name)] = size
            symbols["value"][loader.row(name)] = align
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
    entry = loader.table.__getitem__
    for base, unit in zip(symbol_base.tolist(), units, strict=False):
        if unit.names:
            first = base + unit.first_global
            rows = np.fromiter(map(entry, unit.names), np.int64, len(unit.names))
            definition[first : first + len(unit.names)] = rows >> 2
    _follow_aliases(units, symbol_base, symbols, definition)
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
        _winners(loader.table, definition),
        tuple(sets),
        twin=_twins(loader, atoms),
    )


def _winners(table: Mapping[bytes, int], definition: Int32) -> dict[bytes, int]:
    """For each name the symbol that it resolves to."""
    rows = np.fromiter(table.values(), np.int64, len(table)) >> 2
    return dict(zip(table, definition[rows].tolist(), strict=True))


def _follow_aliases(
    units: Sequence[Unit], symbol_base: Array, symbols: Array, definition: Int32
) -> None:
    """Bind what nobody defines to what stands for it; changes `definition`."""
    pairs = [
        (base + source, base + target)
        for base, unit in zip(symbol_base.tolist(), units, strict=False)
        for source, target in unit.aliases.tolist()
    ]
    for _ in pairs:  # an alias may stand for another one
        changed = False
        for source, target in pairs:
            old, new = int(definition[source]), int(definition[target])
            if symbols["atom"][old] == Place.UNDEFINED and symbols["atom"][new] >= 0:
                definition[definition == old] = new
                changed = True
        if not changed:
            break


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
    pairs = [
        (g.atoms[0], other) for g in unit.groups if g.bound and g.atoms for other in g.atoms[1:]
    ]
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
