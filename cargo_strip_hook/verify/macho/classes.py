"""Subsections of the result that hold several of the original: no linker could tell these apart.

Sources: ld64.lld, `MarkLive.cpp` (what keeps what); mach-o/loader.h (`S_ATTR_LIVE_SUPPORT`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cargo_strip_hook.core.requests import Granularity
from cargo_strip_hook.verify.arrays import Array, is_among, unique
from cargo_strip_hook.verify.expectation import Expectation, Findings
from cargo_strip_hook.verify.kit.classes import Needs, of_several, told_apart
from cargo_strip_hook.verify.kit.names import encoded
from cargo_strip_hook.verify.macho.compare import Compared
from cargo_strip_hook.verify.macho.definitions import Definitions
from cargo_strip_hook.verify.macho.locations import Locations
from cargo_strip_hook.verify.macho.objc import IMAGE_INFO
from cargo_strip_hook.verify.macho.read import BY_SYMBOLS, Object
from cargo_strip_hook.verify.macho.sections import Borders, are_alone
from cargo_strip_hook.verify.macho.unwind import Records

_LIVE_SUPPORT = 0x08000000


def check(
    after: Object,
    where: Locations,
    definitions: Definitions,
    read_of_it: tuple[Compared, Records, tuple[Array, Array]],
    expectation: Expectation,
    findings: Findings,
) -> None:
    """What is one subsection was one before, or the same exports need each part of it.

    What an export is in always is one, for another library's definition may take its place.
    `read_of_it`: the references of the members' pieces, their unwind records, and what always lives
    (see `roots.living`).
    """
    granularity, made = expectation.granularity, definitions.made
    if granularity is None:
        return
    names = sorted(name for name in made.found if name in made.commons)
    locations = [min(made.found[name]) for name in names]
    address = np.append(where.address, np.array(locations, np.int64))
    homes = _homes(after, where, address)
    alone = homes.copy()
    if granularity is not Granularity.SECTION:
        external = _of_externals(after, where, definitions)
        alone[~is_among(homes, homes[external][homes[external] >= 0])] = -1
    alone[: len(where.size)][_of_sets(where, made.ends) >= 0] = -1
    wrong = of_several(alone, np.arange(len(homes)))
    if granularity is Granularity.CLASS:
        graph = _Graph(where, definitions, names)
        needs = graph.needs(*read_of_it, encoded(expectation.exports))
        wrong = np.append(wrong, told_apart(homes, needs))
    wrong = unique(wrong)
    for at in address[wrong].tolist():
        findings.add("parts of a subsection that linkers could tell apart", f"at {at:#x}")


def _of_externals(after: Object, where: Locations, definitions: Definitions) -> Array:
    """The pieces that external definitions of the result are in."""
    external = after.externals()
    names = after.names(external[after.placed[external]])
    numbers = definitions.symbols(names)
    pieces, _ = where.pieces_of_symbols(numbers[numbers >= 0])
    return pieces[pieces >= 0]


def _homes(after: Object, where: Locations, address: Array) -> Array:
    """Where the subsection of each piece, and of each common behind them, begins.

    -1 for what has no bytes, and where linkers take apart by itself.
    """
    home = np.append(where.home, after.sections_at(address[len(where.home) :]))
    kind = after.table["flags"][np.maximum(home, 1) - 1] & 0xFF
    apart = (home <= 0) | are_alone(kind)
    apart |= after.table["name"][np.maximum(home, 1) - 1] == IMAGE_INFO  # all are one
    apart[: len(where.size)] |= where.size == 0
    begin = Borders(after).before(np.maximum(home, 1), address)
    return np.where(apart, -1, begin)


def _of_sets(where: Locations, ends: Iterable[bytes]) -> Array:
    """The number of the set, among those with `ends`, that each piece is an element of; or -1."""
    number = np.full(len(where.section), -1, np.int64)
    table = where.members.table
    for n, name in enumerate(_set_names(ends)):
        segment, section = name.split(b"$", 1)
        mine = (table["segment"] == segment) & (table["name"] == section)
        number[mine[where.section - 1]] = n
    return number


def _set_names(ends: Iterable[bytes]) -> list[bytes]:
    """`segment$section` of each set."""
    return sorted({name.split(b"$", 2)[2] for name in ends if name.count(b"$") == 3})


class _Graph:
    """Who needs whom: pieces, then `commons`, then the sets whose ends somebody wants."""

    def __init__(self, where: Locations, definitions: Definitions, commons: list[bytes]) -> None:
        self.where, self.definitions = where, definitions
        first = len(where.section)
        self._special = {name: first + n for n, name in enumerate(commons)}
        self._first_set = first + len(commons)
        sets = _set_names(definitions.made.ends)
        self.count = self._first_set + len(sets)
        number = {name: self._first_set + n for n, name in enumerate(sets)}
        for name in definitions.made.ends:
            if name.count(b"$") == 3:
                self._special[name] = number[name.split(b"$", 2)[2]]

    def needs(
        self,
        compared: Compared,
        unwinds: Records,
        alive: tuple[Array, Array],
        exports: Iterable[bytes],
    ) -> Needs:
        """The needs of all pieces. `alive`: see `roots.living`."""
        edges = [*self._references(compared), *self._unwound(unwinds), *self._together()]
        source, target = (np.concatenate(side) for side in zip(*edges, strict=True))
        root, marked = alive
        marked, _ = self.where.pieces_of_symbols(marked)
        always = np.concatenate([np.flatnonzero(root), marked[marked >= 0]])
        numbers = self.definitions.symbols(exports)
        shown, _ = self.where.pieces_of_symbols(numbers[numbers >= 0])
        return Needs(self.count, source, target, shown, always)

    def _of_names(self, symbols: Array) -> Array:
        """The piece that each of these symbols of the members means, -1 for none; so for -1."""
        used = unique(symbols[symbols >= 0])
        before = self.where.members
        counts = used.copy()
        external = np.flatnonzero(before.entries["type"][used] & 0xE1 == 1)
        counts[external] = self.definitions.symbols(before.names(used[external]))
        piece = np.where(counts >= 0, self.where.pieces_of_symbols(counts)[0], -1)
        return np.append(piece, -1)[np.where(symbols >= 0, np.searchsorted(used, symbols), -1)]

    def _references(self, compared: Compared) -> list[tuple[Array, Array]]:
        references, source, piece = compared.references, compared.pieces, compared.piece
        for symbol, name in compared.special.items():
            piece[symbol] = self._special.get(name, -1)
        target = piece[references["symbol"]]
        local = np.flatnonzero(references["symbol"] < 0)
        target[local] = self.where.pieces_of_addresses(references["addend"][local])
        edges = [(source, target)]
        pairs = np.flatnonzero(references["minus"] >= 0)
        if len(pairs):
            edges.append((source[pairs], piece[references["minus"][pairs]]))
        table = self.where.members.table
        support = table["flags"] & _LIVE_SUPPORT != 0
        support = np.append(support[self.where.section - 1], False)
        if support.any():
            mine = [(here[support[here]], there[support[here]]) for here, there in edges]
            edges += [(there, here) for here, there in mine]
        return edges

    def _unwound(self, unwinds: Records) -> list[tuple[Array, Array]]:
        """A function needs what its unwind records refer to."""
        rows = unwinds.rows
        addresses = np.stack([rows["function"], rows["lsda"], rows["personality_address"]])
        function, lsda, routine = self.where.pieces_of_addresses(addresses)
        named = self._of_names(rows["personality"].astype(np.int64))
        return [(function, lsda), (function, routine), (function, named)]

    def _together(self) -> list[tuple[Array, Array]]:
        """What lives as one: the elements of a set, and files that linkers do not take apart."""
        where = self.where
        number = _of_sets(where, self.definitions.made.ends)
        elements = np.flatnonzero(number >= 0)
        whole = number[elements] + self._first_set
        edges = [(elements, whole), (whole, elements)]
        flags = np.array([c.flags for c in where.members.commands], np.int64)
        if (flags & BY_SYMBOLS == 0).any():
            file = where.members.table["file"][where.section - 1]
            rows = np.flatnonzero(flags[file] & BY_SYMBOLS == 0)
            rows = rows[np.argsort(file[rows], kind="stable")]
            same = file[rows][1:] == file[rows][:-1]
            edges += [(rows[:-1][same], rows[1:][same]), (rows[1:][same], rows[:-1][same])]
        return edges


__all__ = ["check"]
