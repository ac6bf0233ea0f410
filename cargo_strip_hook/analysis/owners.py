"""Which crate each byte of a program belongs to: by names, and by references where there is none.

The bytes of an atom are cut into ranges. A range begins at a symbol, or, among bytes that no symbol
names, where a relocation points to; it ends where the next one begins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.analysis.objects import Objects
from cargo_strip_hook.demangle import crate_of
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.model import Array, Int32, Int64, Reach

NOT_MANGLED = "(not mangled)"
C_OBJECTS = "(C objects)"
OTHER = "(other)"

# Compilers' names for constants, jump tables and labels: they do not tell the owner.
_NAMELESS = re.compile(
    rb"\.|l_|\$|_?(anon\.|GCC_except_table|switch\.table|vtable\.|alloc_[0-9a-f]{32}|str\.|"
    rb"__unnamed_|ltmp\d)"
)
# rustc names objects `crate-hash.….rcgu.o`, behind the library's own crate where LTO made them,
# and those of the library's own crate `crate.….rcgu.o`
_MEMBER = re.compile(r"(?:(?:\w+\.)?(\w+)-[0-9a-f]{16}|(\w+))\..*\.rcgu\.o")
_PADDING = 16  # bytes between two symbols that belong to the first one: alignment of code
_ROUNDS = 64  # how far from a name something without one may be


@dataclass(frozen=True, slots=True)
class Ranges:
    """Ranges of bytes, sorted by atom and offset; those of an atom add up to its size.

    `owner` is the index of each in `owners`. `symbol` is the symbol that it begins with, -1 where
    no symbol there tells the owner.
    """

    atom: Int64
    offset: Int64
    size: Int64
    owner: Int32
    symbol: Int64
    owners: tuple[str, ...]


class _Owners:
    """Numbers of crates, and of the names for what belongs to no crate."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {OTHER: 0, NOT_MANGLED: 1, C_OBJECTS: 2}
        self.known: dict[bytes, int] = {}

    def of(self, name: str) -> int:
        return self.number.setdefault(name, len(self.number))

    def of_symbol(self, name: bytes) -> int:
        """The owner by a symbol's name: -1 where it says nothing, 1 where it is no Rust name."""
        owner = self.known.get(name)
        if owner is None:
            if not name or _NAMELESS.match(name):
                owner = -1
            else:
                crate = crate_of(name.decode("latin-1"))
                owner = 1 if crate is None else self.of(crate)
            self.known[name] = owner
        return owner


def find_owners(objects: Objects) -> Ranges:
    """Cut all atoms into ranges, and find the owner of each range."""
    owners = _Owners()
    symbols = objects.symbols
    defined = np.flatnonzero(symbols["atom"] >= 0)
    own = np.array([owners.of_symbol(objects.names[n]) for n in defined.tolist()], np.int32)
    of_member, is_c = _members(objects, owners)
    unmangled = np.where(is_c, 2, 1)  # what a name that is not mangled is in an object
    if len(objects.units) > 1 or (of_member >= 0).any():
        unit = objects.unit_of_section[objects.section[symbols["atom"][defined]]]
        plain = own == 1
        own[plain] = np.where(of_member[unit] >= 0, of_member[unit], unmangled[unit])[plain]
    ranges = _cut(objects, defined, own)
    owner = _by_reference(objects, ranges)
    left = np.flatnonzero(owner < 0)
    unit = objects.unit_of_section[objects.section[ranges.atom[left]]]
    owner[left] = np.where(of_member[unit] >= 0, of_member[unit], np.where(is_c[unit], 2, 0))
    return Ranges(
        ranges.atom, ranges.offset, ranges.size, owner, ranges.symbol, tuple(owners.number)
    )


def _members(objects: Objects, owners: _Owners) -> tuple[Int64, Array]:
    """(the crate that each object was compiled from, -1 for none; whether it comes from C)."""
    matches = [_MEMBER.match(u.name) for u in objects.units]
    crates = np.array([owners.of(m[1] or m[2]) if m else -1 for m in matches], np.int64)
    # a library of one object was joined from those of all crates
    is_c = np.array([not m and len(objects.units) > 1 for m in matches], np.bool_)
    return crates, is_c


def _key(atom: Array, offset: Array) -> Int64:
    """One number that sorts by atom, then by offset."""
    return (np.asarray(atom, np.int64) << 32) + np.asarray(offset, np.int64)


def _cut(objects: Objects, defined: Int64, own: Int32) -> Ranges:
    """The ranges, with the owner of those that a symbol names."""
    symbols, atoms = objects.symbols[defined], objects.atoms
    atom, value, size = symbols["atom"], symbols["value"], symbols["size"]
    count = len(atoms)
    sizes = atoms["size"]
    inside = (own >= 0) & (value >= 0) & (value < sizes[atom])
    begins = _key(atom[inside], value[inside])
    # of several symbols at one offset, the first that is a Rust name, else the first
    order = np.lexsort((own[inside] == 1, begins))
    begins, numbers = begins[order], np.flatnonzero(inside)[order]
    first = np.ones(len(begins), np.bool_)
    first[1:] = begins[1:] != begins[:-1]
    begins, numbers = begins[first], numbers[first]

    # what lies between the end of a symbol and the next one has no name
    following = np.concatenate([begins[1:], [-1]])
    end = begins + size[numbers]
    of = atom[numbers].astype(np.int64)
    limit = np.where(following >> 32 == of, following, _key(of, sizes[of]))
    gaps = end[(size[numbers] > 0) & (limit - end >= _PADDING)]
    whole = _key(np.arange(count), np.zeros(count, np.int64))
    gaps = np.concatenate([whole, gaps])

    named = _named_at(begins, gaps)
    references = _references(objects, named)
    starts = unique(np.concatenate([begins, gaps, references]))
    nearest = np.searchsorted(begins, starts)
    known = np.minimum(nearest, len(begins) - 1) if len(begins) else np.zeros(len(starts), np.int64)
    hit = begins[known] == starts if len(begins) else np.zeros(len(starts), np.bool_)
    owner = np.full(len(starts), -1, np.int32)
    symbol = np.full(len(starts), -1, np.int64)
    owner[hit] = own[numbers][known[hit]]
    symbol[hit] = defined[numbers[known[hit]]]
    of = starts >> 32
    offset = starts - (of << 32)
    end = np.concatenate([starts[1:], [-1]])
    size = np.where(end >> 32 == of, end, _key(of, sizes[of])) - starts
    return Ranges(of, offset, size, owner, symbol, ())


def _named_at(begins: Int64, gaps: Int64) -> tuple[Int64, Array]:
    """(starts, whether a symbol names what begins there)."""
    starts = np.concatenate([begins, gaps])
    named = np.concatenate([np.ones(len(begins), np.bool_), np.zeros(len(gaps), np.bool_)])
    order = np.lexsort((~named, starts))
    starts, named = starts[order], named[order]
    first = np.ones(len(starts), np.bool_)
    first[1:] = starts[1:] != starts[:-1]
    return starts[first], named[first]


def _references(objects: Objects, named: tuple[Int64, Array]) -> Int64:
    """Where relocations point to among the bytes that no symbol names."""
    starts, is_named = named
    relocations = objects.relocations
    target = objects.symbols["atom"][relocations["symbol"]]
    chosen = (target >= 0) & (relocations["reach"] == Reach.FORWARD)
    target = target[chosen].astype(np.int64)
    size = objects.atoms["size"][target]
    value = objects.symbols["value"][relocations["symbol"][chosen]] + relocations["addend"][chosen]
    keys = _key(target, np.clip(value, 0, np.maximum(size - 1, 0)))
    position = np.searchsorted(starts, keys, side="right") - 1
    return keys[~is_named[position]] if len(keys) else keys


def _by_reference(objects: Objects, ranges: Ranges) -> Int32:
    """The owner of each range; one without a name has the owner of the first that refers to it.

    An unwind record has the owner of the function that it refers to. -1 where nothing tells.
    """
    keys = _key(ranges.atom, ranges.offset)
    relocations, symbols = objects.relocations, objects.symbols
    target = symbols["atom"][relocations["symbol"]]
    rows = relocations[target >= 0]
    target = target[target >= 0].astype(np.int64)

    def range_of(atom: Array, offset: Array) -> Int64:
        limit = np.maximum(objects.atoms["size"][atom] - 1, 0)
        key = _key(atom, np.clip(offset, 0, limit))
        return np.asarray(np.searchsorted(keys, key, side="right") - 1, np.int64)

    here = range_of(rows["atom"], rows["offset"])
    there = range_of(target, symbols["value"][rows["symbol"]] + rows["addend"])
    back = rows["reach"] == Reach.REVERSE
    edges = objects.edges
    zero = np.zeros(len(edges), np.int64)
    source = np.concatenate([np.where(back, there, here), range_of(edges["source"], zero)])
    sink = np.concatenate([np.where(back, here, there), range_of(edges["target"], zero)])
    owner: Int32 = ranges.owner.copy()
    wanted = owner[sink] < 0
    source, sink = source[wanted], sink[wanted]
    for _ in range(_ROUNDS):
        reached = (owner[source] >= 0) & (owner[sink] < 0)
        if not reached.any():
            break
        # backwards, so that the first of several is the one that stays
        owner[sink[reached][::-1]] = owner[source[reached][::-1]]
    return owner
