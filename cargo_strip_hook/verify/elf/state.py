"""What state an ELF library of a set keeps, and where it is: see `kit/state.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.verify.arrays import Array, is_among, unique
from cargo_strip_hook.verify.elf.mapping import Kind, Pair, Resolution
from cargo_strip_hook.verify.elf.read import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_TLS,
    SHF_WRITE,
    SHT_FINI_ARRAY,
    SHT_INIT_ARRAY,
    SHT_PREINIT_ARRAY,
    STB_LOCAL,
    STEP,
    STT_SECTION,
)
from cargo_strip_hook.verify.elf.sharing import Seen
from cargo_strip_hook.verify.kit.sets import Compared
from cargo_strip_hook.verify.kit.state import (
    SEAMS,
    Live,
    Place,
    State,
    crates_of,
    is_mangled,
    is_own,
    member_digests,
)

_NO_STATE = (b".data.rel.ro", b".bss.rel.ro", b".data.DW.ref.")
_SET_OF_INITIALISERS = (SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY)


def live_state(original: Archive, compared: Compared) -> Live:
    """Collect what one library keeps, after it was compared."""
    seen = compared.seen
    assert isinstance(seen, Seen)
    pair = seen.pair
    places = _Places(seen, compared.loaded)
    crates = _crates(pair, places)
    before = pair.before
    state = _is_state(pair)
    names = _names(pair, pair.section[state])
    states = []
    users: dict[int, set[Place]] = {}
    for source, target in places.pairs[state[places.pairs[:, 1]]].tolist():
        users.setdefault(target, set()).add(places.key(source))
    for row in np.flatnonzero(state).tolist():
        section = int(pair.section[row])
        member = int(before.sections["object"][section])
        called = b"\0".join(sorted(names.get(section, ())))
        if not is_mangled(names.get(section, ())):
            called += b"\0" + pair.members[member].encode()
            if section not in names:
                called += b"\0%d" % (section - int(before.section_base[member]))
        states.append(State(places.key(row), called, crates[member], frozenset(users.get(row, ()))))
    return Live(
        original.slice.name,
        tuple(states),
        member_digests(original),
        _seams(pair, places),
        _starts(pair, places, crates),
    )


class _Places:
    """Pieces of one library by where they are; `pairs` are rows (source, target) of references."""

    def __init__(self, seen: Seen, loaded: Sequence[int]) -> None:
        pair, self.shared = seen.pair, seen.shared
        self.pair = pair
        self.bases = pair.after.section_base
        self.objects = [0, *(number + 1 for number in loaded)]
        self.order = np.argsort(pair.place, kind="stable")
        self.sorted = pair.place[self.order]
        self.pairs = self._references(seen)

    def key(self, row: int) -> Place:
        """The object and the place of a row: below 0 it is this library's alone."""
        place = int(self.pair.place[row])
        if self.shared is not None:
            return (0 if self.shared[row] else -1), place
        position = int(np.searchsorted(self.bases, place >> STEP, side="right")) - 1
        inside = place - (int(self.bases[position]) << STEP)
        return self.objects[position] or -1, inside

    def rows_at(self, place: Array) -> Array:
        """The row of the piece that a symbol's place is in."""
        at = np.maximum(np.searchsorted(self.sorted, place, side="right") - 1, 0)
        return self.order[at]

    def _references(self, seen: Seen) -> Array:
        pair = self.pair
        if seen.sides is None or seen.resolution is None:
            return np.zeros((0, 2), np.int64)
        old = seen.sides.before
        place = _targets(seen.resolution)[old["symbol"]]
        known = place >= 0
        source = pair.row[old["section"][known]]
        target = self.rows_at(place[known])
        keys = unique((source * len(pair.row) + target)[source != target])
        return np.stack([keys // len(pair.row), keys % len(pair.row)], axis=1)


def _targets(resolution: Resolution) -> Array:
    """For each symbol the place that a reference to it means, -1 for none."""
    known = resolution.before
    place = np.where(known.kind == Kind.PLACE, known.base, -1)
    for row in np.flatnonzero(known.kind == Kind.NAME).tolist():
        place[row] = resolution.export_place.get(int(known.base[row]), -1)
    return place


def _is_state(pair: Pair) -> Array:
    """bool for each row: whether a program may write there."""
    s = pair.before.sections[pair.section]
    flags = s["flags"]
    found = (flags & SHF_ALLOC != 0) & (flags & (SHF_WRITE | SHF_TLS) != 0) & (s["size"] > 0)
    found &= flags & SHF_EXECINSTR == 0
    for kind in _SET_OF_INITIALISERS:
        found &= s["type"] != kind
    for name in (*_NO_STATE, b".init_array", b".fini_array", b".ctors", b".dtors"):
        found &= ~pair.before.names_begin(name)[pair.section]
    return np.asarray(found)


def _names(pair: Pair, sections: Array) -> dict[int, set[bytes]]:
    """The names in some sections of the original."""
    s = pair.before.symbols
    found: dict[int, set[bytes]] = {}
    rows = np.flatnonzero((s["section"] > 0) & (s["kind"] != STT_SECTION))
    rows = rows[is_among(s["section"][rows], sections)]
    texts = pair.before.strings(s["name"][rows])
    for row, text in zip(rows.tolist(), texts, strict=True):
        if text and not text.startswith((b".L", b"$")):
            what = b"%d %s" % (int(s["value"][row]), text)
            found.setdefault(int(s["section"][row]), set()).add(what)
    return found


def _crates(pair: Pair, places: _Places) -> list[str]:
    """For each object of the original its crate."""
    owner = pair.before.sections["object"][pair.section]
    return crates_of(pair.members, owner[places.pairs])


def _seams(pair: Pair, places: _Places) -> dict[bytes, Place]:
    s = pair.before.symbols
    rows = np.flatnonzero((s["binding"] != STB_LOCAL) & (s["section"] > 0))
    rows = rows[pair.row[s["section"][rows]] >= 0]
    found = {}
    for row, name in zip(rows.tolist(), pair.before.strings(s["name"][rows]), strict=True):
        if SEAMS.search(name):
            found[name] = places.key(int(pair.row[s["section"][row]]))
    return found


def _starts(pair: Pair, places: _Places, crates: Sequence[str]) -> frozenset[Place]:
    s = pair.before.sections[pair.section]
    initial = np.zeros(len(s), np.bool_)
    for kind in _SET_OF_INITIALISERS:
        initial |= s["type"] == kind
    for name in (b".init_array", b".fini_array", b".ctors", b".dtors"):
        initial |= pair.before.names_begin(name)[pair.section]
    found = set()
    for source, target in places.pairs[initial[places.pairs[:, 0]]].tolist():
        crate = crates[int(s["object"][target])]
        if places.key(source)[0] < 0 and not is_own(crate):
            found.add(places.key(target))
    return frozenset(found)


__all__ = ["live_state"]
