"""Resolve: load the members that the exports need, as a linker would, and bind every symbol.

Source: gABI, "Symbol Table" (binding rules, archive search) and "Section Groups".
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from cargo_strip_hook.archive.index import Entries
from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.core.target import Linker
from cargo_strip_hook.link.arrays import isin, join
from cargo_strip_hook.link.batch import read_all
from cargo_strip_hook.link.entries import (
    StaleIndexError,
    defines,
    names_for,
    own_entries,
)
from cargo_strip_hook.link.loading import Names, Search
from cargo_strip_hook.link.loading import search as find
from cargo_strip_hook.link.model import (
    ATOM,
    EDGE,
    RELOCATION,
    SYMBOL,
    Array,
    Binding,
    Format,
    Group,
    Input,
    Int32,
    LinkerSet,
    Program,
    SpecialIndex,
    Unit,
)
from cargo_strip_hook.link.numbering import numbered_through
from cargo_strip_hook.link.ordering import by_need
from cargo_strip_hook.link.pages import release

# How definitions of one name compete: a higher one replaces a lower one.
_WANTED, _UNDEFINED, _WEAK, _COMMON, _STRONG = -1, 0, 1, 2, 3


class _Loader:
    """The state of resolution: which name is defined where, and which units are loaded."""

    def __init__(self, members: Mapping[int, Input], format: Format) -> None:
        self.members = members
        self.format = format
        self.units: list[Unit] = []
        self.loaded: dict[int, Unit] = {}
        # read, and perhaps loaded later, with how strongly each global symbol is defined
        self.ahead: dict[int, tuple[Unit, list[int]]] = {}
        self.needs: dict[int, list[bytes]] = {}
        self.symbol_base = 0
        self.atom_base = 0
        # of each name, the row of the symbol that wins so far, times four, and its strength
        self.table: dict[bytes, int] = {}
        self.commons: dict[bytes, tuple[int, int]] = {}  # size, alignment
        self.weaker: dict[bytes, int] = {}  # the member with the weak one that a common replaced
        # of each signature the group that wins so far, its unit and that one's first atom
        self.signatures: dict[bytes, tuple[Group, Unit, int]] = {}
        self.discarded: list[int] = []
        self.replaced_atoms: list[tuple[int, int]] = []  # discarded atom, atom of the winner
        self.queue: list[bytes] = []
        self.asked: set[bytes] = set()  # which were in the queue
        self.done = 0  # how many names of the queue were looked at

    def strength(self, name: bytes) -> int:
        """How strongly a name is defined; 0 for one that nobody knows."""
        return self.table.get(name, _UNDEFINED) & 3

    def row(self, name: bytes) -> int:
        """The program-wide symbol that a known name resolves to."""
        return self.table[name] >> 2

    def load(self, member: int, name: bytes) -> bool:
        """See `State`. Raises `StaleIndexError` where the member does not define the name."""
        if member not in self.members:
            return False
        self.load_whole(member)
        # a definition of a COMDAT group that lost is none, but the index is right
        if not self.strength(name) and not defines(self.loaded[member], name):
            raise StaleIndexError(name)
        return True

    def load_whole(self, member: int) -> None:
        """Load a member whatever it defines, unless it is loaded."""
        if member not in self.loaded:
            if member not in self.ahead:
                self.read_ahead([member])
            unit, strengths = self.ahead.pop(member)
            self.loaded[member] = unit
            self.add(unit, strengths)

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

    def read_needed(self, names: Iterable[bytes], index: Names) -> None:
        """Read ahead what will most likely be loaded for names: as much as can be at once."""
        known: set[bytes] = set()
        while True:
            known.update(names)
            members = index.members(names)
            known_members = self.ahead.keys() | self.loaded.keys()
            read = sorted((members & self.members.keys()) - known_members)
            if not read:
                return
            self.read_ahead(read)
            names = set().union(*(self.needed(self.ahead[n][0]) for n in read)) - known

    def needed(self, unit: Unit) -> list[bytes]:
        """The names that a unit refers to strongly, in its order."""
        names = self.needs.get(unit.index)
        if names is None:
            symbols = unit.globals
            wanted = symbols["atom"] == SpecialIndex.UNDEFINED
            wanted &= symbols["binding"] == Binding.GLOBAL
            names = list(itertools.compress(unit.names, wanted.tolist()))
            self.needs[unit.index] = names
        return names

    def new(self) -> list[bytes]:
        names = self.queue[self.done :]
        self.done = len(self.queue)
        return names

    def wanted(self, name: bytes) -> bool:
        return not self.strength(name)

    def common(self, name: bytes) -> bool:
        return self.strength(name) == _COMMON

    def replaced(self, name: bytes) -> int | None:
        return self.weaker.get(name)

    def overrides(self, name: bytes, member: int) -> bool:
        if not self.common(name) or member in self.loaded or member not in self.members:
            return False
        if member not in self.ahead:
            self.read_ahead([member])
        unit, strengths = self.ahead[member]
        row = unit.names.index(name) if name in unit.names else -1
        if row < 0 or strengths[row] != _STRONG:
            return False
        kinds = self.format.symbol_kinds
        return kinds.get(int(unit.globals["kind"][row])) != "function"

    def load_for_aliases(self, index: Names) -> bool:
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
            known = index.first(source) is not None
            if source not in wanted or self.strength(source) or known:
                continue
            member = index.member(target)
            if member is None or self.strength(target) or member in self.loaded:
                continue
            if self.load(member, target):
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
                self.replaced_atoms += zip(mine, (base + a for a in winner.atoms), strict=True)
        self.discarded.extend(self.atom_base + a for a in dropped)

        symbols = unit.globals
        table, queue, asked = self.table, self.queue, self.asked
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
                if new == _WANTED and old & 3 == _UNDEFINED and name not in asked:
                    asked.add(name)
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
                if new == _COMMON:
                    queue.append(name)
                    if old & 3 == _WEAK:
                        self.weaker[name] = self.unit_of(old >> 2).index
            elif new == old & 3 == _STRONG:
                raise LinkError(
                    f"the symbol `{name.decode(errors='replace')}` is defined twice: in "
                    f"{self.unit_of(old >> 2).name} and in {unit.name}",
                    help="a program that uses both members does not link with the original either",
                )
        self.symbol_base += len(unit.symbols)
        self.atom_base += len(unit.atoms)

    def put_in_order(self, sets: Sequence[LinkerSet], roots: Sequence[bytes]) -> bool:
        """Order the units by need, where that may be."""
        needs = [self.needed(unit) for unit in self.units]
        new = by_need(self.units, needs, self.table, sets, roots)
        if new is None:
            return False
        self.units = [self.units[n] for n in new.order.tolist()]
        rows = np.fromiter(self.table.values(), np.int64, len(self.table))
        rows = (new.symbols(rows >> 2) << 2) | (rows & 3)
        self.table = dict(zip(self.table, rows.tolist(), strict=True))
        self.discarded = new.atoms(np.array(self.discarded, np.int64)).tolist()
        pairs = new.atoms(np.array(self.replaced_atoms, np.int64).reshape(-1, 2))
        self.replaced_atoms = [(loser, winner) for loser, winner in pairs.tolist()]
        return True

    def overtaken(self, group: Group, unit: Unit, won: tuple[Group, Unit, int]) -> bool:
        """Whether a group prevails over the one that won so far, which is then discarded.

        Raises `LinkError` where the two differ in what must be equal.
        """
        winner, owner, base = won
        new, old = group.selection, winner.selection
        if new.equal != old.equal and None not in (new.equal, old.equal):
            raise LinkError(
                f"`{group.signature.decode(errors='replace')}` differs in {owner.name} and in "
                f"{unit.name}, which say that it must not",
                help="a program that uses both members does not link with the original either",
            )
        if new.preference <= old.preference:
            return False
        self.discarded.extend(base + a for a in winner.atoms)
        atoms = owner.globals["atom"]
        for n in np.flatnonzero(np.isin(atoms, winner.atoms)).tolist():
            name = owner.names[n]
            if name in self.table:  # in a damaged object a group has what defines nothing
                self.table[name] &= ~3
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
    undefined, is_global = atoms == SpecialIndex.UNDEFINED, binding == Binding.GLOBAL
    strengths = np.where(is_global, _STRONG, _WEAK)
    strengths[atoms == SpecialIndex.COMMON] = _COMMON
    strengths[undefined] = _UNDEFINED
    strengths[undefined & is_global] = _WANTED
    flat = strengths.tolist()
    ends = list(itertools.accumulate(len(u.globals) for u in units))
    return [flat[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def resolve(
    members: Mapping[int, Input],
    index: Entries | Mapping[bytes, int] | None,
    roots: Sequence[bytes],
    format: Format,
    linker: Linker = "gnu",
) -> Program:
    """Load what `roots` need, in the order in which `linker` does, and bind the symbols.

    `index` is the archive's; where it is missing or wrong the members' own symbols are used, as
    LLVM's linkers do. Names whose first member is not in `members` stay undefined. Raises
    `LinkError` for roots that no member defines and for two strong definitions of one name, and
    what the format's reader raises.
    """
    names = names_for(members, index, roots, format)
    try:
        return _resolve(members, names, roots, format, linker)
    except StaleIndexError:
        names = Names(own_entries(members, format))
    try:
        return _resolve(members, names, roots, format, linker)
    except StaleIndexError as e:
        raise _missing(e.args) from e


def _resolve(
    members: Mapping[int, Input],
    index: Names,
    roots: Sequence[bytes],
    format: Format,
    linker: Linker,
) -> Program:
    loader = _Loader(members, format)
    missing = [r for r in roots if index.member(r) not in members]
    if missing:
        raise _missing(missing)
    unasked = format.loaded_always(list(members.values()), index.listed())
    loader.read_ahead(unasked)
    for number in unasked:  # linkers load these when they come to the archive
        loader.load_whole(number)
    loader.read_needed(roots, index)
    loader.queue += roots
    loader.asked.update(roots)
    search = find(linker, index, loader)
    search()
    while loader.load_for_aliases(index):
        search()
    for root in roots:
        home = loader.loaded.get(index.member(root) or 0)
        if not loader.strength(root) and not (home and defines(home, root)):
            raise StaleIndexError(root)
    pointers, undefined = _load_for_pointers(loader, index, search)
    sets = format.find_sets(loader.units, undefined)
    if loader.put_in_order(sets, roots):
        sets = format.find_sets(loader.units, undefined)
    sets = _add_synthetic(loader, sets, pointers, frozenset(roots))
    return _program(loader, sets)


def _missing(names: Sequence[bytes]) -> LinkError:
    shown = ", ".join(f"`{name.decode(errors='replace')}`" for name in names)
    return LinkError(
        f"the library does not define {shown}",
        help="check the names in the header or the patterns against the library's symbols",
    )


def _load_for_pointers(
    loader: _Loader, index: Names, search: Search
) -> tuple[dict[bytes, bytes], list[bytes]]:
    """The pointers to be made, what each points to, which is loaded, and what nobody defines."""
    while True:
        undefined = loader.undefined()
        wanted = loader.format.find_pointers(undefined)
        missing = [t for t in wanted.values() if not loader.strength(t)]
        missing = [t for t in missing if index.member(t) in loader.members]
        if not missing:
            return {n: t for n, t in wanted.items() if loader.strength(t)}, undefined
        loader.queue += missing
        search()


def _add_synthetic(
    loader: _Loader,
    sets: Sequence[LinkerSet],
    pointers: Mapping[bytes, bytes],
    exported: frozenset[bytes],
) -> list[LinkerSet]:
    """Give commons and pointers a place, and linker sets their ends.

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
    symbols["atom"] = SpecialIndex.UNDEFINED
    symbols["atom"][1 : 1 + len(atoms)] = np.arange(len(atoms))
    symbols["binding"][1:] = Binding.GLOBAL
    atoms["section"] = atoms["contents"] = -1
    atoms["align"] = 1
    names: list[bytes] = list(commons)
    for i, name in enumerate(commons):
        size, align = loader.commons[name]
        atoms["size"][i], atoms["align"][i] = size, align
        symbols["size"][i + 1] = size
        loader.table[name] &= ~3  # undefined: the synthetic definition takes its place
    finished: list[LinkerSet] = []
    for i, linker_set in enumerate(sets):
        first = len(commons) + 2 * i
        names += [linker_set.start, linker_set.stop]
        finished.append(
            replace(
                linker_set,
                start_atom=loader.atom_base + first,
                stop_atom=loader.atom_base + first + 1,
            )
        )
    ends = np.zeros(len(pointers), EDGE)
    ends["source"] = before + np.arange(len(pointers))
    ends["target"] = 1 + len(atoms) + np.arange(len(pointers))
    names += [*sorted(pointers), *(pointers[n] for n in sorted(pointers))]
    nothing = np.zeros(0, RELOCATION), np.zeros(0, EDGE)
    plain = Unit(-1, "", memoryview(b""), atoms, symbols, 1, names, *nothing, (), None)
    unit = loader.format.synthetic(loader.units[0], plain, ends)
    loader.add(unit, *_strengths([unit]))
    return finished


def _program(loader: _Loader, sets: Sequence[LinkerSet]) -> Program:
    units = loader.units
    atom_base = np.cumsum([0, *(len(u.atoms) for u in units)])
    symbol_base = np.cumsum([0, *(len(u.symbols) for u in units)])
    atoms = join([u.atoms for u in units])
    symbols, relocations, edges = numbered_through(
        atom_base,
        symbol_base,
        [u.symbols for u in units],
        [u.relocations for u in units],
        [_edges(u) for u in units],
    )
    for name, (size, align) in loader.commons.items():
        if loader.strength(name) == _COMMON:  # an exported one: the largest of all counts
            symbols["size"][loader.row(name)] = size
            symbols["value"][loader.row(name)] = align
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
        prevailing=_prevailing(loader, atoms),
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
            if symbols["atom"][old] == SpecialIndex.UNDEFINED and symbols["atom"][new] >= 0:
                definition[definition == old] = new
                changed = True
        if not changed:
            break


def _prevailing(loader: _Loader, atoms: Array) -> Int32:
    """For each discarded atom the one of the winning group that has its place and size."""
    prevailing = np.full(len(atoms), -1, np.int32)
    if loader.replaced_atoms:
        loser, winner = np.array(loader.replaced_atoms, np.int32).T
        same = atoms["size"][loser] == atoms["size"][winner]
        prevailing[loser[same]] = winner[same]
    return prevailing


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


def _set_edges(linker_set: LinkerSet) -> Array:
    """Whoever refers to an end of a set needs all of its elements."""
    elements = linker_set.elements
    edges = np.zeros(2 * len(elements), EDGE)
    edges["source"][: len(elements)] = linker_set.start_atom
    edges["source"][len(elements) :] = linker_set.stop_atom
    edges["target"] = np.concatenate([elements, elements])
    return edges
