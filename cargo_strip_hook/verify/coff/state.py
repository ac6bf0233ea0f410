"""What state a COFF library of a set keeps, and where it is: see `kit/state.py`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.verify.coff.constraints import alternates
from cargo_strip_hook.verify.coff.locations import LOCATION, STEP, Pair, definitions, meanings
from cargo_strip_hook.verify.coff.order import contents
from cargo_strip_hook.verify.coff.read import BSS, CODE, STATIC, Array
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
from cargo_strip_hook.verify.loading import loading

_WRITE = 0x8000_0000
_STARTS = (b".CRT$", b".ctors", b".dtors", b".rtc$")
_RECORDS = (b".pdata", b".xdata", b".eh_frame", b".gcc_except_table")
# Nobody writes what describes the types of exceptions, nor rustc's pointers to other crates' data
_CONSTANT = re.compile(rb"\?\?_R0|\w*rust_panic_type_info\Z|_?_imp_")


def live_state(original: Archive, compared: Compared) -> Live:
    """Collect what one library keeps, after it was compared."""
    pair = compared.seen
    assert isinstance(pair, Pair)
    locations = _Locations(original, pair)
    owner = pair.position
    crates = crates_of(pair.titles, owner[locations.pairs])
    names, constant = _names(pair)
    state = _is_state(pair)
    state[sorted(constant)] = False

    def told(row: int) -> Told:
        member = int(owner[row])
        inside = b"%d" % int(pair.rows["section"][row])
        return Told(names.get(row, ()), pair.titles[member], inside, crates[member])

    return Live(
        original.slice.name,
        states_of(state, locations.pairs, locations.key, told),
        member_digests(original),
        _seams(pair, locations),
        _starts(pair, locations, crates),
    )


class _Locations:
    """Pieces of one library by where they are; `pairs` are rows (source, target) of references."""

    def __init__(self, original: Archive, pair: Pair) -> None:
        self.pair = pair
        assert pair.after.home is not None
        self.home = pair.after.home
        self.order = np.lexsort((pair.rows["size"], pair.location))
        self.sorted = pair.location[self.order]
        order = loading(
            original,
            pair.expectation,
            lambda: contents(original, dict(zip(pair.indices, pair.objects, strict=True))),
        )
        self.found = definitions(pair, alternates(pair), order)
        self.pairs = self._references()

    def key(self, row: int) -> Location:
        """The object and the place of a row: below 0 it is in the small library."""
        location = int(self.pair.location[row])
        section = location >> STEP
        position = int(self.home[section])
        first = int(np.searchsorted(self.home[1:], position)) + 1
        return self.pair.numbers[position], location - (first << STEP)

    def rows_at(self, location: Array) -> Array:
        """The row of the piece that a symbol's place is in."""
        at = np.maximum(np.searchsorted(self.sorted, location, side="right") - 1, 0)
        return np.asarray(self.order[at])

    def _references(self) -> Array:
        pair = self.pair
        parts = [np.zeros((0, 2), np.int64)]
        for member, o in enumerate(pair.objects):
            meaning = meanings(pair, self.found, member)
            rows = o.relocations
            location = pair.find(member, rows["section"], rows["offset"])
            target = np.where(meaning.kind == LOCATION, meaning.base, -1)[rows["symbol"]]
            told = np.array([name.startswith(_RECORDS) for name in o.names], np.bool_)
            chosen = (location >= 0) & (target >= 0) & ~told[rows["section"]]
            source = (pair.first[member] + rows["section"][chosen]).astype(np.int64) << STEP
            source += rows["offset"][chosen]
            row = np.searchsorted(pair.key, source, side="right") - 1
            parts.append(np.stack([row, self.rows_at(target[chosen])], axis=1))
        every = np.concatenate(parts)
        return np.unique(every[every[:, 0] != every[:, 1]], axis=0)


def _sections(pair: Pair) -> tuple[Array, list[bytes]]:
    """(characteristics, name) of the section that each row is of."""
    flags = np.concatenate([o.sections["flags"] for o in pair.objects])[pair.section]
    names = [name for o in pair.objects for name in o.names]
    return flags, [names[n] for n in pair.section.tolist()]


def _is_state(pair: Pair) -> Array:
    """bool for each row: whether a program may write there."""
    flags, names = _sections(pair)
    tls = np.array([n == b".tls" or n.startswith(b".tls$") for n in names], np.bool_)
    found = ((flags & (_WRITE | BSS)) != 0) | tls
    found &= (flags & CODE == 0) & (pair.rows["size"] > 0)
    found &= ~np.array([n.startswith((*_STARTS, *_RECORDS)) for n in names], np.bool_)
    return np.asarray(found)


def _names(pair: Pair) -> tuple[dict[int, set[bytes]], set[int]]:
    """(the names in each piece of the original, the rows of what nobody writes)."""
    found: dict[int, set[bytes]] = {}
    constant: set[int] = set()
    for member, o in enumerate(pair.objects):
        symbols = o.symbols
        named = (symbols["section"] > 0) & ~o.auxiliary
        named &= (symbols["class"] != STATIC) | (symbols["aux"] == 0)
        rows = np.flatnonzero(named)
        section, value = symbols["section"][rows], symbols["value"][rows].astype(np.int64)
        inside = pair.find(member, section, value) >= 0
        rows, section, value = rows[inside], section[inside], value[inside]
        key = ((pair.first[member] + section).astype(np.int64) << STEP) + value
        row = np.searchsorted(pair.key, key, side="right") - 1
        columns = (row.tolist(), value.tolist(), o.names_of(rows))
        for at, location, name in zip(*columns, strict=True):
            if name and not name.startswith((b".L", b"$")):
                found.setdefault(at, set()).add(b"%d %s" % (location, name))
                if _CONSTANT.match(name):
                    constant.add(at)
    return found, constant


def _seams(pair: Pair, locations: _Locations) -> dict[bytes, Location]:
    found = {}
    for member, (o, ext) in enumerate(zip(pair.objects, pair.before, strict=True)):
        chosen = ext.index[ext.defined & (o.symbols["section"][ext.index] > 0)]
        for row, name in zip(chosen.tolist(), o.names_of(chosen), strict=True):
            if SEAMS.search(name):
                section = np.array([o.symbols["section"][row]])
                value = np.array([o.symbols["value"][row]], np.int64)
                at = pair.find(member, section, value)
                if at[0] >= 0:
                    found[name] = locations.key(int(locations.rows_at(at)[0]))
    return found


def _starts(pair: Pair, locations: _Locations, crates: Sequence[str]) -> frozenset[Location]:
    flags, names = _sections(pair)
    initial = np.array([n.startswith(_STARTS) for n in names], np.bool_)
    found = set()
    for source, target in locations.pairs[initial[locations.pairs[:, 0]]].tolist():
        own = is_own(crates[int(pair.position[target])])
        if locations.key(source)[0] < 0 and flags[target] & CODE and not own:
            found.add(locations.key(target))
    return frozenset(found)


__all__ = ["live_state"]
