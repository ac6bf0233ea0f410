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
    Location,
    Told,
    crates_of,
    is_own,
    member_digests,
    states_of,
)

_NO_STATE = (b".data.rel.ro", b".bss.rel.ro", b".data.DW.ref.")
_SET_OF_INITIALISERS = (SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY)


def live_state(original: Archive, compared: Compared) -> Live:
    """Collect what one library keeps, after it was compared."""
    seen = compared.seen
    assert isinstance(seen, Seen)
    pair = seen.pair
    locations = _Locations(seen, compared.loaded)
    crates = _crates(pair, locations)
    before = pair.before
    state = _is_state(pair)
    names = _names(pair, pair.section[state])

    def told(row: int) -> Told:
        section = int(pair.section[row])
        member = int(before.sections["object"][section])
        inside = b"%d" % (section - int(before.section_base[member]))
        return Told(names.get(section, ()), pair.members[member], inside, crates[member])

    return Live(
        original.slice.name,
        states_of(state, locations.pairs, locations.key, told),
        member_digests(original),
        _seams(pair, locations),
        _starts(pair, locations, crates),
    )


class _Locations:
    """Pieces of one library by where they are; `pairs` are rows (source, target) of references."""

    def __init__(self, seen: Seen, loaded: Sequence[int]) -> None:
        pair, self.shared = seen.pair, seen.shared
        self.pair = pair
        self.bases = pair.after.section_base
        self.objects = [0, *(number + 1 for number in loaded)]
        self.order = np.argsort(pair.location, kind="stable")
        self.sorted = pair.location[self.order]
        self.pairs = self._references(seen)

    def key(self, row: int) -> Location:
        """The object and the place of a row: below 0 it is this library's alone."""
        location = int(self.pair.location[row])
        if self.shared is not None:
            return (0 if self.shared[row] else -1), location
        position = int(np.searchsorted(self.bases, location >> STEP, side="right")) - 1
        inside = location - (int(self.bases[position]) << STEP)
        return self.objects[position] or -1, inside

    def rows_at(self, location: Array) -> Array:
        """The row of the piece that a symbol's place is in."""
        at = np.maximum(np.searchsorted(self.sorted, location, side="right") - 1, 0)
        return self.order[at]

    def _references(self, seen: Seen) -> Array:
        pair = self.pair
        if seen.sides is None or seen.resolution is None:
            return np.zeros((0, 2), np.int64)
        old = seen.sides.before
        location = _targets(seen.resolution)[old["symbol"]]
        known = location >= 0
        source = pair.row[old["section"][known]]
        target = self.rows_at(location[known])
        keys = unique((source * len(pair.row) + target)[source != target])
        return np.stack([keys // len(pair.row), keys % len(pair.row)], axis=1)


def _targets(resolution: Resolution) -> Array:
    """For each symbol the place that a reference to it means, -1 for none."""
    known = resolution.before
    location = np.where(known.kind == Kind.LOCATION, known.base, -1)
    for row in np.flatnonzero(known.kind == Kind.NAME).tolist():
        location[row] = resolution.export_location.get(int(known.base[row]), -1)
    return location


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


def _crates(pair: Pair, locations: _Locations) -> list[str]:
    """For each object of the original its crate."""
    owner = pair.before.sections["object"][pair.section]
    return crates_of(pair.members, owner[locations.pairs])


def _seams(pair: Pair, locations: _Locations) -> dict[bytes, Location]:
    s = pair.before.symbols
    rows = np.flatnonzero((s["binding"] != STB_LOCAL) & (s["section"] > 0))
    rows = rows[pair.row[s["section"][rows]] >= 0]
    found = {}
    for row, name in zip(rows.tolist(), pair.before.strings(s["name"][rows]), strict=True):
        if SEAMS.search(name):
            found[name] = locations.key(int(pair.row[s["section"][row]]))
    return found


def _starts(pair: Pair, locations: _Locations, crates: Sequence[str]) -> frozenset[Location]:
    s = pair.before.sections[pair.section]
    initial = np.zeros(len(s), np.bool_)
    for kind in _SET_OF_INITIALISERS:
        initial |= s["type"] == kind
    for name in (b".init_array", b".fini_array", b".ctors", b".dtors"):
        initial |= pair.before.names_begin(name)[pair.section]
    found = set()
    for source, target in locations.pairs[initial[locations.pairs[:, 0]]].tolist():
        crate = crates[int(s["object"][target])]
        if locations.key(source)[0] < 0 and not is_own(crate):
            found.add(locations.key(target))
    return frozenset(found)


__all__ = ["live_state"]
