"""Whether state that libraries of a set share may be one, by an argument of its own.

Writable data is one in two libraries only where nothing tells them apart: a toolchain's, where all
its members are the same files and one allocator serves both; a crate's, where the same code is all
that touches it in both, and where all that this crate keeps is shared with it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.verify.arrays import Array, unique
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
from cargo_strip_hook.verify.elf.sharing import Compared
from cargo_strip_hook.verify.expectation import Findings

# The crates of Rust's own library, as rustc names their objects
_OWN = frozenset(
    (
        *("std", "core", "alloc", "panic_unwind", "panic_abort", "compiler_builtins"),
        *("std_detect", "unwind", "object", "memchr", "addr2line", "gimli", "cfg_if", "libc"),
        *("rustc_demangle", "hashbrown", "miniz_oxide", "adler", "adler2", "proc_macro", "test"),
        *(f"rustc_std_workspace_{part}" for part in ("core", "alloc", "std")),
    )
)
_RUST = re.compile(r"(?:\w+\.)?(\w+)-([0-9a-f]{16})\.")
_RUST_ALONE = re.compile(r"(\w+)\..*\.rcgu\.o")
_SEAMS = re.compile(
    rb"(?:__rust_(?:alloc|dealloc|realloc|alloc_zeroed|start_panic|panic_cleanup)"
    rb"|rust_eh_personality)\Z"
)
_NO_STATE = (b".data.rel.ro", b".bss.rel.ro", b".data.DW.ref.")
_SET_OF_INITIALISERS = (SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY)

Place = tuple[int, int]  # object and place in it; objects of small libraries are no one else's


@dataclass(frozen=True)
class _State:
    """One piece of state that lives in a library."""

    place: Place
    name: bytes
    crate: str
    users: frozenset[Place]


@dataclass(frozen=True)
class Live:
    """The state of one library, and what decides whether it may be shared.

    `digests` of the members of each crate of the toolchain's; `seams` the places of what joins the
    toolchain's library to an allocator and a panic runtime; `starts`: functions (not the
    toolchain's) that an initialiser of the small library runs.
    """

    name: str
    states: tuple[_State, ...]
    digests: dict[str, bytes]
    seams: dict[bytes, Place]
    starts: frozenset[Place]


def live_state(original: Archive, compared: Compared) -> Live:
    """Collect what one library keeps, after it was compared."""
    pair = compared.pair
    assert pair is not None
    places = _Places(compared)
    crates = _crates(pair, places)
    before = pair.before
    names = _names(pair)
    states = []
    users: dict[int, set[Place]] = {}
    state = _is_state(pair)
    for source, target in places.pairs[state[places.pairs[:, 1]]].tolist():
        users.setdefault(target, set()).add(places.key(source))
    for row in np.flatnonzero(state).tolist():
        section = int(pair.section[row])
        member = int(before.sections["object"][section])
        called = b"\0".join(sorted(names.get(section, ())))
        if not _mangled(names.get(section, ())):
            called += b"\0" + pair.members[member].encode()
            if section not in names:
                called += b"\0%d" % (section - int(before.section_base[member]))
        states.append(
            _State(places.key(row), called, crates[member], frozenset(users.get(row, ())))
        )
    return Live(
        original.slice.name,
        tuple(states),
        _digests(original),
        _seams(pair, places),
        _starts(pair, places, crates),
    )


class _Places:
    """Pieces of one library by where they are; `pairs` are rows (source, target) of references."""

    def __init__(self, compared: Compared) -> None:
        assert compared.pair is not None
        pair, self.shared = compared.pair, compared.shared
        self.pair = pair
        self.bases = pair.after.section_base
        self.objects = [0, *(number + 1 for number in compared.loaded)]
        self.order = np.argsort(pair.place, kind="stable")
        self.sorted = pair.place[self.order]
        self.pairs = self._references(compared)

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

    def _references(self, compared: Compared) -> Array:
        pair = self.pair
        if compared.seen is None:
            return np.zeros((0, 2), np.int64)
        sides, resolution = compared.seen
        old = sides.before
        place = _targets(resolution)[old["symbol"]]
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


def _names(pair: Pair) -> dict[int, set[bytes]]:
    """The names in each section of the original."""
    s = pair.before.symbols
    found: dict[int, set[bytes]] = {}
    rows = np.flatnonzero((s["section"] > 0) & (s["kind"] != STT_SECTION))
    rows = rows[pair.row[s["section"][rows]] >= 0]
    texts = pair.before.strings(s["name"][rows])
    for row, text in zip(rows.tolist(), texts, strict=True):
        if text and not text.startswith((b".L", b"$")):
            what = b"%d %s" % (int(s["value"][row]), text)
            found.setdefault(int(s["section"][row]), set()).add(what)
    return found


def _mangled(names: Iterable[bytes]) -> bool:
    return any(re.match(rb"\d+ _?_(R[A-Z]|ZN)", name) for name in names)


def _crate(member: str) -> str:
    """The crate of an object, with what tells crates of one name apart; "" for one of C's."""
    found = _RUST.match(member)
    if found:
        return f"{found[1]}-{found[2]}"
    alone = _RUST_ALONE.fullmatch(member)
    return alone[1] if alone else ""


def _crates(pair: Pair, places: _Places) -> list[str]:
    """For each object of the original its crate; C's objects that refer to each other are one."""
    crates = [_crate(member) for member in pair.members]
    owner = pair.before.sections["object"][pair.section]
    first = list(range(len(crates)))

    def find(one: int) -> int:
        while first[one] != one:
            one = first[one]
        return one

    for source, target in np.unique(owner[places.pairs], axis=0).tolist():
        if not crates[source] and not crates[target]:
            low, high = sorted((find(source), find(target)))
            first[high] = low
    return [crate or f"\0{find(n)}" for n, crate in enumerate(crates)]


def _digests(original: Archive) -> dict[str, bytes]:
    """A digest of all members of each crate of the toolchain's."""
    found: dict[str, list[bytes]] = {}
    for member in original.members:
        crate = _crate(member.name)
        if "-" in crate and crate.split("-")[0] in _OWN:
            one = hashlib.sha256(original.data(member)).digest()
            found.setdefault(crate, []).append(member.name.encode() + one)
    return {crate: b"".join(sorted(parts)) for crate, parts in found.items()}


def _seams(pair: Pair, places: _Places) -> dict[bytes, Place]:
    s = pair.before.symbols
    rows = np.flatnonzero((s["binding"] != STB_LOCAL) & (s["section"] > 0))
    rows = rows[pair.row[s["section"][rows]] >= 0]
    found = {}
    for row, name in zip(rows.tolist(), pair.before.strings(s["name"][rows]), strict=True):
        if _SEAMS.search(name):
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
        if places.key(source)[0] < 0 and crate.split("-")[0] not in _OWN:
            found.add(places.key(target))
    return frozenset(found)


def check_state(libraries: Sequence[Live], findings: Findings) -> None:
    """Compare the state of libraries that share a piece of it, two by two."""
    holders: dict[Place, list[tuple[Live, _State]]] = {}
    for library in libraries:
        for state in library.states:
            if state.place[0] >= 0:
                holders.setdefault(state.place, []).append((library, state))
        for place in library.starts:
            if place[0] >= 0:
                findings.add("an initialiser runs shared code for one library", library.name)
    compared: set[tuple[str, str, str]] = set()
    for shared in holders.values():
        one, first = shared[0]
        for other, second in shared[1:]:
            _same(one, first, other, second, findings)
            key = (one.name, other.name, first.crate)
            if key not in compared:
                compared.add(key)
                _all_of_it(one, first.crate, other, second.crate, findings)


def _toolchain(one: Live, crate: str, other: Live) -> bool:
    """Whether a crate is of a toolchain that both libraries have."""
    return crate in one.digests and crate in other.digests


def _same(one: Live, first: _State, other: Live, second: _State, findings: Findings) -> None:
    where = f"{first.name[:80]!r} of {one.name} and {other.name}"
    if first.name != second.name:
        findings.add("state of two names is one", where)
    if _toolchain(one, first.crate, other):
        return
    if first.users != second.users:
        findings.add("state is one that different code refers to", where)
    if any(place[0] < 0 for place in (*first.users, *second.users)):
        findings.add("state is one that code of one library refers to", where)


def _all_of_it(one: Live, crate: str, other: Live, second: str, findings: Findings) -> None:
    """All that goes with a piece of state is shared as well."""
    where = f"{crate!r} of {one.name} and {other.name}"
    if one.digests or other.digests:
        both = one.digests.keys() & other.digests.keys()
        core = {c for c in one.digests.keys() | other.digests.keys() if _core(c)}
        if core - both or any(one.digests[c] != other.digests[c] for c in both):
            findings.add("state of two toolchains is one", where)
        for name in one.seams.keys() & other.seams.keys():
            if one.seams[name] != other.seams[name] or one.seams[name][0] < 0:
                findings.add("state of two runtimes is one", where)
    if _toolchain(one, crate, other):
        mine = {s.name: s.place for s in one.states if s.crate in both}
        other_places = {s.name: s.place for s in other.states if s.crate in both}
        for name in mine.keys() & other_places.keys():
            if mine[name] != other_places[name] or mine[name][0] < 0:
                findings.add("a part of a toolchain's state is shared, not all", where)
        return
    places = {s.place for s in one.states if s.crate == crate}
    theirs = {s.place for s in other.states if s.crate == second}
    if places != theirs or any(place[0] < 0 for place in places):
        findings.add("a part of a crate's state is shared, not all", where)


def _core(crate: str) -> bool:
    return crate.split("-", maxsplit=1)[0] in (
        "std",
        "core",
        "alloc",
        "panic_unwind",
        "panic_abort",
    )


__all__ = ["Live", "check_state", "live_state"]
