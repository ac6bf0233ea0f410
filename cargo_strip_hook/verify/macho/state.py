"""What state a Mach-O library of a set keeps, and where it is: see `kit/state.py`.

Sources: mach-o/loader.h (section types); the names of sections are those of compilers and of the
runtimes that look for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.verify.arrays import Array, is_among, rows_of
from cargo_strip_hook.verify.kit.sets import Compared
from cargo_strip_hook.verify.kit.state import (
    SEAMS,
    Live,
    Location,
    Told,
    crates_of,
    is_own,
    member_digests,
    states_of,
)
from cargo_strip_hook.verify.macho.read import STEP
from cargo_strip_hook.verify.macho.sections import INITIALISERS
from cargo_strip_hook.verify.macho.sharing import Seen

_CODE = 0x80000400
_THREAD = np.array([0x11, 0x12, 0x13], np.uint32)
_PLAIN = np.array([0x0, 0x1, 0xB], np.uint32)
_LITERALS = np.array([0x2, 0x3, 0x4, 0x5, 0x6, 0xE], np.uint32)
# Nobody goes through all that there is in sections of these names
_CONSTANT = (b"__const", b"__ustring", b"__const_coal", b"__cfstring", b"__got", b"__nl_symbol_ptr")
_WRITTEN = (b"__data", b"__bss", b"__common", b"__datacoal_nt")
_TEXT = (b"__text", b"__textcoal_nt", b"__StaticInit")


def live_state(original: Archive, compared: Compared) -> Live:
    """Collect what one library keeps, after it was compared."""
    seen = compared.seen
    assert isinstance(seen, Seen)
    pieces = _Pieces(seen, compared.loaded)
    table = seen.before.table[pieces.section - 1]
    file = table["file"].astype(np.int64)
    crates = crates_of(seen.titles, file[pieces.pairs])
    names = _names(pieces)
    state = _is_state(table) & (pieces.size > 0)

    def told(row: int) -> Told:
        home = int(file[row])
        section = int(pieces.section[row]) - int(seen.before.section_first[home])
        inside = b"%d %d" % (section, int(pieces.start[row]))
        return Told(names.get(row, ()), seen.titles[home], inside, crates[home])

    return Live(
        original.slice.name,
        states_of(state, pieces.pairs, pieces.key, told),
        member_digests(original),
        _seams(pieces),
        _starts(pieces, table, crates),
        _walked(pieces, table),
    )


class _Pieces:
    """What of one library went where; `pairs` are rows (source, target) of references."""

    def __init__(self, seen: Seen, loaded: Sequence[int]) -> None:
        self.seen = seen
        self.objects = [0, *(number + 1 for number in loaded)]
        where = self.where = seen.compared.where
        keys = (where.section.astype(np.int64) << STEP) + where.start
        # of copies the last one is what references mean; what has no size is where others are
        last = np.append(keys[1:] != keys[:-1], True)[: len(keys)]
        self.rows = np.flatnonzero(last)
        self.section = where.section[self.rows].astype(np.int64)
        self.start, self.size = where.start[self.rows], where.size[self.rows]
        self.address = where.address[self.rows]
        self.pairs = self._references()

    def key(self, row: int) -> Location:
        """The object and the place of a piece: below 0 it is in the small library."""
        address = int(self.address[row])
        return self.objects[address >> STEP] or -1, address & ((1 << STEP) - 1)

    def _piece(self, address: Array) -> Array:
        """The piece that each address of the result is in."""
        order = np.lexsort((self.size, self.address))
        at = np.searchsorted(self.address[order], address, side="right") - 1
        return np.asarray(order[np.maximum(at, 0)])

    def _references(self) -> Array:
        before, definitions = self.seen.before, self.seen.compared.definitions
        homes = np.unique(self.section)
        homes = homes[~before.table["zerofill"][homes - 1]]
        end = np.zeros(1, np.bool_)
        where = self.where
        mine = before.relocations(homes, lambda home, offset: where.find(home, offset, end) >= 0)
        mine = np.concatenate([mine, before.pointers()])
        field = where.find(mine["section"], mine["offset"], end)
        mine, field = rows_of(mine, field >= 0), field[field >= 0]
        address = np.full(len(before.entries) + 1, -1, np.int64)
        placed = np.flatnonzero(before.placed)
        address[placed] = where.of_symbols(placed)
        outside = before.externals()
        address[outside] = definitions.of_all(before.names(outside))
        target = np.where(mine["symbol"] < 0, where.of_addresses(mine["addend"]), -1)
        target = np.where(mine["symbol"] >= 0, address[mine["symbol"]], target)
        minus = address[mine["minus"]]  # -1 is that of no symbol
        source = np.concatenate([field, field])
        target = np.concatenate([target, minus])
        both = np.stack([self._piece(source), self._piece(target)], 1)[target >= 0]
        return np.unique(both[both[:, 0] != both[:, 1]], axis=0)


def _begins(table: Array, names: Sequence[bytes]) -> Array:
    found = np.zeros(len(table), np.bool_)
    for name in names:
        found |= np.char.startswith(table["name"], name)
    return found


def _is_state(table: Array) -> Array:
    """bool by row: whether a program may write there."""
    kind = table["flags"] & 0xFF
    written = is_among(kind, _PLAIN) & is_among(table["name"], np.array(_WRITTEN))
    return np.asarray(written | is_among(kind, _THREAD))


def _walked(pieces: _Pieces, table: Array) -> frozenset[Location]:
    """Pieces of the common library of which a program may look for all by their section's name."""
    kind = table["flags"] & 0xFF
    known = is_among(kind, _LITERALS) | is_among(kind, _THREAD) | is_among(kind, INITIALISERS)
    known |= _is_state(table) | is_among(table["name"], np.array(_CONSTANT))
    known |= is_among(table["name"], np.array(_TEXT)) & (table["flags"] & _CODE != 0)
    known |= table["name"] == b"__gcc_except_tab"
    odd = ~known | _begins(table, (b"__objc_", b"__swift"))
    locations = map(pieces.key, np.flatnonzero(odd).tolist())
    return frozenset(location for location in locations if location[0] >= 0)


def _names(pieces: _Pieces) -> dict[int, set[bytes]]:
    """By piece what the members call it: the place in it, and the name."""
    before = pieces.seen.before
    numbers = np.flatnonzero(before.placed)
    at = pieces.where.of_symbols(numbers)
    numbers, at = numbers[at >= 0], at[at >= 0]
    rows = pieces._piece(at)
    found: dict[int, set[bytes]] = {}
    for row, offset, name in zip(
        rows.tolist(), (at - pieces.address[rows]).tolist(), before.names(numbers), strict=True
    ):
        if name[:1] not in (b"", b"L", b"l", b"."):
            found.setdefault(row, set()).add(b"%d %s" % (offset, name))
    return found


def _seams(pieces: _Pieces) -> dict[bytes, Location]:
    before = pieces.seen.before
    numbers = before.externals()
    numbers = numbers[before.placed[numbers]]
    at = pieces.where.of_symbols(numbers)
    rows = pieces._piece(at)
    found = {}
    for name, row, there in zip(
        before.names(numbers), rows.tolist(), (at >= 0).tolist(), strict=True
    ):
        if there and SEAMS.search(name):
            found[name] = pieces.key(row)
    return found


def _starts(pieces: _Pieces, table: Array, crates: Sequence[str]) -> frozenset[Location]:
    """What initialisers of the small library run, but for the toolchain's own."""
    initial = is_among(table["flags"] & 0xFF, INITIALISERS)
    found = set()
    for source, target in pieces.pairs[initial[pieces.pairs[:, 0]]].tolist():
        if pieces.key(source)[0] < 0 and not is_own(crates[int(table["file"][target])]):
            found.add(pieces.key(target))
    return frozenset(found)


__all__ = ["live_state"]
