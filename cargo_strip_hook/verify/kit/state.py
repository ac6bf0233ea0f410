"""Whether state that libraries of a set share may be one, by an argument of its own.

Writable data is one in two libraries only where nothing tells them apart: a toolchain's, where all
its members are the same files and one allocator serves both; a crate's, where the same code is all
that touches it in both, and where all that this crate keeps is shared with it. A format says which
state lives where.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.verify.arrays import Array
from cargo_strip_hook.verify.expectation import Findings

# The crates of Rust's own library, as rustc names their objects
OWN = frozenset(
    (
        *("std", "core", "alloc", "panic_unwind", "panic_abort", "compiler_builtins"),
        *("std_detect", "unwind", "object", "memchr", "addr2line", "gimli", "cfg_if", "libc"),
        *("rustc_demangle", "hashbrown", "miniz_oxide", "adler", "adler2", "proc_macro", "test"),
        *(f"rustc_std_workspace_{part}" for part in ("core", "alloc", "std")),
    )
)
_RUST = re.compile(r"(?:\w+\.)?(\w+)-([0-9a-f]{16})\.")
_RUST_ALONE = re.compile(r"(\w+)\..*\.rcgu\.o")
SEAMS = re.compile(
    rb"(?:__rust_(?:alloc|dealloc|realloc|alloc_zeroed|start_panic|panic_cleanup)"
    rb"|rust_eh_personality)\Z"
)

Location = tuple[int, int]  # object and place in it; objects of small libraries are no one else's


@dataclass(frozen=True)
class State:
    """One piece of state that lives in a library."""

    location: Location
    name: bytes
    crate: str
    users: frozenset[Location]


@dataclass(frozen=True)
class Live:
    """The state of one library, and what decides whether it may be shared.

    `digests` of the members of each crate of the toolchain's; `seams` the places of what joins the
    toolchain's library to an allocator and a panic runtime; `starts`: functions (not the
    toolchain's) that an initialiser of the small library runs; `walked`: what of the common library
    a program may look for by the name of its section.
    """

    name: str
    states: tuple[State, ...]
    digests: dict[str, bytes]
    seams: dict[bytes, Location]
    starts: frozenset[Location]
    walked: frozenset[Location] = frozenset()


def is_mangled(names: Iterable[bytes]) -> bool:
    """Whether one of the names, each behind a place and a space, is one of Rust's."""
    return any(re.match(rb"\d+ _?_(R[A-Z]|ZN)", name) for name in names)


class Told(NamedTuple):
    """What there is to say of a piece of state: its names, and where it is in which member."""

    names: Collection[bytes]
    member: str
    inside: bytes
    crate: str


def states_of(
    state: Array, pairs: Array, key: Callable[[int], Location], told: Callable[[int], Told]
) -> tuple[State, ...]:
    """The pieces that are `state` (bool by row), each with what refers to it.

    `pairs` are rows (source, target) of references. A name of Rust's is enough to know state by;
    others say something in their member only.
    """
    users: dict[int, set[Location]] = {}
    for source, target in pairs[state[pairs[:, 1]]].tolist():
        users.setdefault(target, set()).add(key(source))
    states = []
    for row in np.flatnonzero(state).tolist():
        names, member, inside, crate = told(row)
        called = b"\0".join(sorted(names))
        if not is_mangled(names):
            called += b"\0" + member.encode()
            if not names:
                called += b"\0" + inside
        states.append(State(key(row), called, crate, frozenset(users.get(row, ()))))
    return tuple(states)


def _crate(member: str) -> str:
    """The crate of an object, with what tells crates of one name apart; "" for one of C's."""
    found = _RUST.match(member)
    if found:
        return f"{found[1]}-{found[2]}"
    alone = _RUST_ALONE.fullmatch(member)
    return alone[1] if alone else ""


def crates_of(members: Sequence[str], pairs: Array) -> list[str]:
    """For each object its crate; C's objects that refer to each other are one.

    `members` are their names, `pairs` rows (object, object that it refers to).
    """
    crates = [_crate(member) for member in members]
    first = list(range(len(crates)))

    def find(one: int) -> int:
        while first[one] != one:
            one = first[one]
        return one

    for source, target in np.unique(pairs, axis=0).tolist():
        if not crates[source] and not crates[target]:
            low, high = sorted((find(source), find(target)))
            first[high] = low
    return [crate or f"\0{find(n)}" for n, crate in enumerate(crates)]


def is_own(crate: str) -> bool:
    """Whether a crate has a name that one of Rust's own library has."""
    return crate.split("-", maxsplit=1)[0] in OWN


def member_digests(original: Archive) -> dict[str, bytes]:
    """A digest of all members of each crate of the toolchain's."""
    found: dict[str, list[bytes]] = {}
    for member in original.members:
        crate = _crate(member.name)
        if "-" in crate and is_own(crate):
            one = hashlib.sha256(original.data(member)).digest()
            found.setdefault(crate, []).append(member.name.encode() + one)
    return {crate: b"".join(sorted(parts)) for crate, parts in found.items()}


def check_state(libraries: Sequence[Live], findings: Findings) -> None:
    """Compare the state of libraries that share a piece of it, two by two."""
    holders: dict[Location, list[tuple[Live, State]]] = {}
    for library in libraries:
        for state in library.states:
            if state.location[0] >= 0:
                holders.setdefault(state.location, []).append((library, state))
        for location in library.starts:
            if location[0] >= 0:
                findings.add("an initialiser runs shared code for one library", library.name)
        if library.walked:
            findings.add("what a program looks for by its section is shared", library.name)
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


def _same(one: Live, first: State, other: Live, second: State, findings: Findings) -> None:
    where = f"{first.name[:80]!r} of {one.name} and {other.name}"
    if first.name != second.name:
        findings.add("state of two names is one", where)
    if _toolchain(one, first.crate, other):
        return
    if first.users != second.users:
        findings.add("state is one that different code refers to", where)
    if any(location[0] < 0 for location in (*first.users, *second.users)):
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
        mine = {s.name: s.location for s in one.states if s.crate in both}
        other_locations = {s.name: s.location for s in other.states if s.crate in both}
        for name in mine.keys() & other_locations.keys():
            if mine[name] != other_locations[name] or mine[name][0] < 0:
                findings.add("a part of a toolchain's state is shared, not all", where)
        return
    locations = {s.location for s in one.states if s.crate == crate}
    theirs = {s.location for s in other.states if s.crate == second}
    if locations != theirs or any(location[0] < 0 for location in locations):
        findings.add("a part of a crate's state is shared, not all", where)


def _core(crate: str) -> bool:
    return crate.split("-", maxsplit=1)[0] in (
        "std",
        "core",
        "alloc",
        "panic_unwind",
        "panic_abort",
    )


__all__ = [
    "SEAMS",
    "Live",
    "Location",
    "State",
    "Told",
    "check_state",
    "crates_of",
    "is_mangled",
    "is_own",
    "member_digests",
    "states_of",
]
