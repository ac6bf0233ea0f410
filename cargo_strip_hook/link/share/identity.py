"""Whose an atom is and what it is called: what decides for state besides its bytes.

Source of the names of members: rustc, `compiler/rustc_codegen_ssa/src/back` and
`compiler/rustc_session/src/config.rs` (`OutputFilenames::temp_path_for_cgu`): `CRATE-HASH.….o`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from cargo_strip_hook.demangle import crate_of
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.model import Array, Bool, Int32, Int64
from cargo_strip_hook.link.pages import release_all
from cargo_strip_hook.link.share.model import Joined, Library, Sharing, Sort

C_OBJECTS = "(C objects)"
NAMELESS = re.compile(
    rb"\Z|\.|l_|\$|_?(anon\.|GCC_except_table|switch\.table|vtable\.|alloc_[0-9a-f]{32}|str\.|"
    rb"__unnamed_|ltmp\d|DW\.ref\.)"
)
_MEMBER = re.compile(r"((?:\w+\.)?(\w+)-[0-9a-f]{16})\..*\.o|((\w+))\..*\.rcgu\.o")
# The crates of a toolchain's own library. What std is built from besides is found by reference:
# a program may have crates of those names of its own, too.
CORE = frozenset(
    ("std", "core", "alloc", "panic_unwind", "panic_abort", "compiler_builtins", "std_detect")
)
_PARTS = frozenset(
    (
        *CORE, "unwind", "object", "memchr", "addr2line", "gimli", "cfg_if", "rustc_demangle",
        "hashbrown", "miniz_oxide", "adler", "adler2", "libc", "allocator_api2", "wasi",
        "hermit_abi", "dlmalloc", "fortanix_sgx_abi", "r_efi", "r_efi_alloc",
        "rustc_std_workspace_core", "rustc_std_workspace_alloc", "rustc_std_workspace_std",
        "proc_macro", "test", "sysroot",
        "windows_link", "windows_targets", "moto_rt", "unicode_width", "getopts",
    )
)  # fmt: skip
# What joins std with the allocator and the panic runtime that a library was built with.
_GUARDS = re.compile(
    rb"_?(_R\w*_7___rustc\d+_*)?(__rust_(alloc|dealloc|realloc|alloc_zeroed|alloc_error_handler"
    rb"|no_alloc_shim_is_unstable\w*|start_panic|panic_cleanup|drop_panic|foreign_exception)"
    rb"|rust_eh_personality|_?rust_begin_unwind|rust_panic)"
)


@dataclass(frozen=True, slots=True, eq=False)
class Identities:
    """By atom of a `Joined`, where it is live: what it is called and whose it is.

    `name` (S16) is a digest of what an atom can only be matched by; empty where that is nothing.
    `called` (S16) is one of its first name, as a hint. `crate` is the number of the atom's crate in
    `crates`, its name and what keeps crates of one name apart. `toolchain`: whether its member is
    one of the toolchain's own. `guard` are atoms of the allocator shim and the panic runtime.
    """

    name: Array
    called: Array
    crate: Int32
    crates: tuple[tuple[str, str], ...]
    toolchain: Bool
    guard: Bool


def member_crate(member: str) -> tuple[str, str]:
    """(crate, what its members begin with) of an object by its name; `C_OBJECTS` for others."""
    found = _MEMBER.fullmatch(member)
    if not found:
        return C_OBJECTS, ""
    return found[2] or found[4], found[1] or ""


def identify(joined: Joined, sharing: Sharing) -> Identities:
    """Find out what atoms are called and whose they are."""
    live, described = joined.live, joined.described
    count = len(live)
    kinds = [member_crate(unit.name) for unit in joined.program.units]
    pairs = _pairs(joined)
    ours = _toolchain(kinds, pairs)
    for unit, first in enumerate(_components(kinds, pairs)):
        if kinds[unit][0] == C_OBJECTS:
            kinds[unit] = C_OBJECTS, f"{first}"
    unit_of = np.repeat(np.arange(len(kinds)), np.diff(joined.program.atom_base))
    numbers: dict[tuple[str, str], int] = {}
    of_unit = np.array([numbers.setdefault(k, len(numbers)) for k in kinds], np.int32)
    crate = of_unit[unit_of]
    name, called = np.zeros(count, "S16"), np.zeros(count, "S16")
    guard = np.zeros(count, np.bool_)
    state = live & (described.sort == Sort.STATE)
    named = (described.sort == Sort.CONSTANT) | (described.sort == Sort.INITIALISER)
    named &= live & ~described.copied
    rows, names = _names(joined, sharing, live & ~described.copied)
    symbols = joined.program.symbols
    full: dict[int, list[bytes]] = {}
    atoms, values = symbols["atom"][rows], symbols["value"][rows]
    for atom, value, text, is_state, matters in zip(
        atoms.tolist(),
        values.tolist(),
        names,
        state[atoms].tolist(),
        (state | named)[atoms].tolist(),
        strict=True,
    ):
        if NAMELESS.match(text):
            continue
        if matters:
            full.setdefault(atom, []).append(b"%d %s" % (value, text))
        if not called[atom]:
            called[atom] = _digest(text)
        if _GUARDS.fullmatch(text):
            guard[atom] = True
        if is_state and (found := crate_of(text.decode("latin-1"))):
            key = (found, kinds[int(unit_of[atom])][1])
            crate[atom] = numbers.setdefault(key, len(numbers))
    for atom in np.flatnonzero(state | named).tolist():
        given = full.get(atom, [])
        if not given and not state[atom]:
            continue
        text = b"\n".join(sorted(given))
        unit = int(unit_of[atom])
        if not given or not any(crate_of(g.split(b" ", 1)[1].decode("latin-1")) for g in given):
            # C's static names say nothing: its member and, without a name, the place in it
            where = b"" if given else _in_member(joined, atom)
            text += b"\0%s\0%s" % (joined.program.units[unit].name.encode(), where)
        name[atom] = _digest(text)
    release_all(one.data for one in joined.program.units)  # names were read of them all
    return Identities(name, called, crate, tuple(numbers), ours[unit_of] & live, guard & live)


def _in_member(joined: Joined, atom: int) -> bytes:
    """Where an atom is in its member."""
    row = joined.program.atoms[atom]
    return b"%d %d" % (row["section"], row["offset"])


def _names(joined: Joined, sharing: Sharing, wanted: Bool) -> tuple[Int64, list[bytes]]:
    """The symbols of the wanted atoms, and their names."""
    rows_of, names = [], []
    for number, one in enumerate(joined.libraries):
        first, base = int(joined.atom_base[number]), int(joined.symbol_base[number])
        atom = one.program.symbols["atom"]
        rows = np.flatnonzero((atom >= 0) & wanted[first + np.maximum(atom, 0)])
        rows_of.append(rows + base)
        names += sharing.names(one.program, rows)
    return np.concatenate(rows_of), names


def _digest(text: bytes) -> bytes:
    return blake2b(text, digest_size=16).digest().replace(b"\0", b"\1")


def _pairs(joined: Joined) -> list[tuple[int, int]]:
    """(unit, unit that it refers to), each pair once."""
    program = joined.program
    count = len(program.units)
    of_unit = np.repeat(np.arange(count), np.diff(program.atom_base))
    rows = program.relocations
    target = program.symbols["atom"][program.definition[rows["symbol"]]]
    chosen = target >= 0
    keys = unique(of_unit[rows["atom"][chosen]] * count + of_unit[target[chosen]])
    return [divmod(key, count) for key in keys.tolist()]


def _components(kinds: list[tuple[str, str]], pairs: list[tuple[int, int]]) -> list[int]:
    """For each unit the first one of those that C's objects are bound to by references.

    What is state of one C library cannot be told by names. Its objects refer to one another, or
    something else refers to several of them: these are taken for one.
    """
    first = list(range(len(kinds)))

    def find(unit: int) -> int:
        while first[unit] != unit:
            first[unit] = unit = first[first[unit]]
        return unit

    last: dict[int, int] = {}  # the C object that another one referred to before
    for unit, target in pairs:
        if kinds[target][0] != C_OBJECTS:
            continue
        other = unit if kinds[unit][0] == C_OBJECTS else last.setdefault(unit, target)
        one, two = sorted((find(other), find(target)))
        first[two] = one
    return [find(unit) for unit in range(len(kinds))]


def _toolchain(kinds: list[tuple[str, str]], pairs: list[tuple[int, int]]) -> Bool:
    """bool for each unit: whether its crate is the toolchain's own.

    That are std's own crates, and those of the crates that std is built from which they refer to.
    """
    known = {n for n, (crate, prefix) in enumerate(kinds) if crate in CORE and prefix}
    prefixes = {kinds[n] for n in known}
    while True:
        more = {kinds[b] for a, b in pairs if kinds[a] in prefixes} - prefixes
        more = {(crate, prefix) for crate, prefix in more if crate in _PARTS and prefix}
        if not more:
            break
        prefixes |= more
    return np.array([kind in prefixes for kind in kinds], np.bool_)


def toolchain_digests(joined: Joined, identities: Identities) -> list[bytes]:
    """For each library what tells apart all members of the toolchain's; empty where it has none.

    Which crates are the toolchain's is known by all libraries together.
    """
    of_unit = np.repeat(np.arange(len(joined.program.units)), np.diff(joined.program.atom_base))
    chosen = set(of_unit[identities.toolchain].tolist())
    prefixes = {member_crate(joined.program.units[n].name)[1] for n in chosen}
    # to compare is far faster than to hash
    known: dict[tuple[str, int], list[memoryview]] = {}
    return [_members(one, prefixes, known) for one in joined.libraries]


def _members(
    library: Library, prefixes: set[str], known: dict[tuple[str, int], list[memoryview]]
) -> bytes:
    """`known` are the different members of a name and size that were there before."""
    found = []
    for item in library.members.values():
        if member_crate(item.name)[1] not in prefixes:
            continue
        others = known.setdefault((item.name, len(item.data)), [])
        octets = np.frombuffer(item.data, np.uint8)
        number = len(others)
        for at, other in enumerate(others):
            same = np.array_equal(octets, np.frombuffer(other, np.uint8))
            if same:
                number = at
                break
        if number == len(others):
            others.append(item.data)
        found.append(b"%s\0%d %d" % (item.name.encode(), len(item.data), number))
    release_all([o for others in known.values() for o in others])
    release_all([item.data for item in library.members.values()])
    return blake2b(b"\n".join(sorted(found)), digest_size=32).digest() if found else b""


__all__ = ["CORE", "C_OBJECTS", "Identities", "identify", "member_crate", "toolchain_digests"]
