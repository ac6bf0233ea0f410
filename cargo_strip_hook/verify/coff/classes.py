"""Sections of the result that hold several of the original: no linker could tell these apart.

Sources: LLVM's lld, `COFF/MarkLive.cpp` (what keeps what); Microsoft PE/COFF specification,
"COMDAT Sections (Object Only)" and "The .pdata Section".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from cargo_strip_hook.core.requests import Granularity
from cargo_strip_hook.verify.arrays import is_among, unique
from cargo_strip_hook.verify.coff.compare import IMPORT, Made
from cargo_strip_hook.verify.coff.constraints import Rest, included
from cargo_strip_hook.verify.coff.facts import LISTS
from cargo_strip_hook.verify.coff.frames import describes
from cargo_strip_hook.verify.coff.groups import rooted
from cargo_strip_hook.verify.coff.locations import LOCATION, STEP, Definitions, Pair, fallback
from cargo_strip_hook.verify.coff.machine import UNWOUND
from cargo_strip_hook.verify.coff.read import (
    ASSOCIATIVE,
    COMDAT,
    EXTERNAL,
    NODUPLICATES,
    WEAK,
    Array,
)
from cargo_strip_hook.verify.kit.classes import Needs, of_several, told_apart
from cargo_strip_hook.verify.kit.names import encoded

_Edges = list[tuple[Array, Array]]


def check(pair: Pair, definitions: Definitions, made: Made, rest: Rest) -> None:
    """What is one section was one before, or the same exports need each part of it.

    Another file's COMDAT may take the place of one that linkers choose, and so that is alone.
    """
    granularity = pair.expectation.granularity
    if granularity is None:
        return
    graph = _Graph(pair, definitions, made)
    homes, roots = graph.homes(), graph.roots()
    _check_kept(pair, homes, roots)
    alone = homes.copy()
    if granularity is Granularity.SECTION:  # but what always lives, in an order
        alone[is_among(homes, homes[roots])] = -1
    else:
        chosen = [n for n in range(len(pair.after.names)) if _is_chosen(pair, n)]
        alone[~is_among(homes, np.array(chosen, np.int64))] = -1
    wrong = of_several(alone, np.arange(len(homes)))
    if granularity is Granularity.CLASS:
        names = {name for o in pair.objects for name in included(o)}
        apart = told_apart(homes, graph.needs(roots, names))
        if len(apart):  # members that nothing is from may ask for something, too
            names |= {name for o in rest.objects for name in included(o)}
            apart = told_apart(homes, graph.needs(roots, names))
        wrong = np.append(wrong, apart)
    for location in graph.location[unique(wrong)].tolist():
        pair.findings.add("parts of a section that linkers could tell apart", pair.where(location))


def _check_kept(pair: Pair, homes: Array, roots: Array) -> None:
    """Linkers keep each section with something that lives in every program, and no other."""
    o = pair.after
    comdat = o.sections["flags"] & COMDAT != 0
    always = np.zeros(len(comdat), np.bool_)
    always[homes[roots][homes[roots] >= 0]] = True
    for n in unique(homes[homes >= 0]).tolist():
        if o.bare(n) != b".eh_frame" and comdat[n] == always[n]:
            what = "can be dropped" if always[n] else "is always kept"
            pair.findings.add("COMDAT", f"{pair.where(n << STEP)} {what}")


def _is_chosen(pair: Pair, section: int) -> bool:
    """Whether another file's COMDAT may take a section's place."""
    selection, _, _ = pair.after.selections.get(section, (0, 0, -1))
    return selection not in (0, NODUPLICATES, ASSOCIATIVE)


class _Graph:
    """Who needs whom: the first piece of each section, each entry of .pdata, and what was made.

    `location`: of each in the result. Of a section's other pieces, which records of unwind
    information are, nothing is told.
    """

    def __init__(self, pair: Pair, definitions: Definitions, made: Made) -> None:
        self.pair, self.definitions = pair, definitions
        count = len(pair.rows)
        first = np.searchsorted(pair.section, np.arange(pair.first[-1] + 1))
        self._first = np.where(np.diff(first) > 0, first[:-1], -1)  # of each section
        self._table = np.concatenate([o.unwind_tables for o in pair.objects])  # of each section
        self._commons = {name: count + n for n, name in enumerate(made.common)}
        count += len(self._commons)
        self._pointers = {name: count + n for n, name in enumerate(made.pointer)}
        self.count = count + len(self._pointers)
        locations = [*made.common.values(), *made.pointer.values()]
        self.location = np.append(pair.location, np.array(locations, np.int64))
        self._by_location = np.lexsort((pair.rows["size"], pair.location))
        self._defined = self._of_definitions()

    def homes(self) -> Array:
        """The section of the result that each is in; -1 for what may be with any other.

        Unwind entries are where their functions are, and initialisers are one list.
        """
        pair = self.pair
        homes = self.location >> STEP
        lists = [name.startswith(LISTS) for name in pair.after.names]
        homes[np.array(lists, np.bool_)[homes]] = -1
        rows = np.arange(len(pair.rows))
        other = self._table[pair.section] | (self._first[pair.section] != rows)
        homes[rows[other | (pair.rows["size"] == 0)]] = -1
        return homes

    def roots(self) -> Array:
        """What lives in every program."""
        first = self.pair.first
        members = range(len(self.pair.objects))
        numbers = [first[m] + n for m in members for n in rooted(self.pair, m)]
        rows = self._first[np.array(numbers, np.int64)]
        return np.asarray(rows[rows >= 0])

    def needs(self, roots: Array, names: Collection[bytes]) -> Needs:
        """The needs of all; `names` live always, too."""
        edges = [*self._references(), *self._associated(), *self._imports()]
        source, target = (np.concatenate(side) for side in zip(*edges, strict=True))
        exports = self._of_texts(encoded(self.pair.expectation.exports))
        asked = self._of_texts(names)
        always = np.concatenate([roots, asked[asked >= 0]])
        return Needs(self.count, source, target, exports, always)

    def _of_definitions(self) -> Array:
        """What defines each name, -1 for none; by the name's number."""
        pair = self.pair
        defined = np.full(len(self.definitions.location), -1, np.int64)
        for m, (o, ext) in enumerate(zip(pair.objects, pair.before, strict=True)):
            section = o.symbols["section"][ext.index].astype(np.int64)
            rows = self._first[pair.first[m] + np.maximum(section, 0)]
            there = (section > 0) & (rows >= 0)
            defined[ext.name[there]] = rows[there]
        return defined

    def _of_texts(self, names: Collection[bytes]) -> Array:
        numbers = [self.pair.names.number.get(name, -1) for name in sorted(names)]
        return self._of_names(np.array([n for n in numbers if n >= 0], np.int64))

    def _of_names(self, names: Array) -> Array:
        """What each name means, -1 for what is not there."""
        out = np.full(len(names), -1, np.int64)
        known = names < len(self._defined)
        out[known] = self._defined[names[known]]
        for i in np.flatnonzero(out < 0).tolist():
            out[i] = self._of_other(int(names[i]))
        return out

    def _of_other(self, name: int) -> int:
        """What a name that no placed section defines means: what stands for it, or was made."""
        for table in (self._commons, self._pointers):
            if name in table:
                return table[name]
        location = int(self.definitions.location[name]) if name < len(self._defined) else -1
        if location < 0 and name in self.definitions.fallback:
            kind, base = fallback(self.pair, self.definitions, name)
            location = base if kind == LOCATION else -1
        if location < 0:
            return -1
        row = (
            int(np.searchsorted(self.pair.location[self._by_location], location, side="right")) - 1
        )
        if row < 0:
            return -1
        row = int(self._by_location[row])
        inside = location <= int(self.pair.location[row]) + int(self.pair.rows["size"][row])
        return int(self._first[self.pair.section[row]]) if inside else -1

    def _of_symbols(self, member: int, symbols: Array) -> Array:
        """What each symbol of a member means, -1 for what is not there."""
        pair, o, ext = self.pair, self.pair.objects[member], self.pair.before[member]
        used = unique(symbols)
        section = o.symbols["section"][used].astype(np.int64)
        number = pair.first[member] + np.maximum(section, 0)
        means = np.where((section > 0) & ~self._table[number], self._first[number], -1)
        shown = np.flatnonzero(is_among(o.symbols["class"][used], np.array([EXTERNAL, WEAK])))
        means[shown] = self._of_names(ext.name[np.searchsorted(ext.index, used[shown])])
        return np.asarray(means[np.searchsorted(used, symbols)])

    def _references(self) -> Iterator[tuple[Array, Array]]:
        """A section needs what it refers to; a function what describes it."""
        pair = self.pair
        entry = UNWOUND.get(pair.after.machine, 8)
        for m, o in enumerate(pair.objects):
            section = pair.first[m] + o.relocations["section"].astype(np.int64)
            alive = (self._first[section] >= 0) & (o.relocations["type"] != 0)
            relocations, section = o.relocations[alive], section[alive]
            source, about = self._first[section], describes(o, relocations)
            in_table = np.flatnonzero(self._table[section])
            if len(in_table):
                offset = relocations["offset"][in_table]
                key = (section[in_table] << STEP) + offset - offset % entry
                row = np.searchsorted(pair.key, key)
                source[in_table] = row
                gone = pair.key[np.minimum(row, len(pair.key) - 1)] != key
                source[in_table[gone]] = -1
                about[in_table] = offset % entry < (4 if entry == 8 else 8)
            target = self._of_symbols(m, relocations["symbol"])
            yield np.where(about, target, source), np.where(about, source, target)

    def _associated(self) -> Iterator[tuple[Array, Array]]:
        """A section needs those that are associated to it."""
        for m, o in enumerate(self.pair.objects):
            size = len(o.names)
            pairs = [
                (parent, child)
                for child, (selection, parent, _) in o.selections.items()
                if selection == ASSOCIATIVE and parent < size
            ]
            if pairs:
                numbers = self.pair.first[m] + np.array(pairs, np.int64)
                child = np.where(self._table[numbers[:, 1]], -1, self._first[numbers[:, 1]])
                yield self._first[numbers[:, 0]], child

    def _imports(self) -> Iterator[tuple[Array, Array]]:
        """A pointer needs what it points to."""
        text = self.pair.names.text
        names = [text[n].removeprefix(IMPORT) for n in self._pointers]
        numbers = np.array([self.pair.names.number.get(name, -1) for name in names], np.int64)
        source = np.array(list(self._pointers.values()), np.int64)[numbers >= 0]
        yield source, self._of_names(numbers[numbers >= 0])


__all__ = ["check"]
