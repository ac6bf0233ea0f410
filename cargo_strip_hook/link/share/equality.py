"""Which atoms of different libraries are equal: the coarsest bisimulation of their graphs.

Two atoms are equal when their contents are, and what they refer to in the same way is equal. Atoms
begin with a colour for what each is by itself; colours are mixed with those of what atoms refer
to until no colour splits any more. Colours are hashes. So the result is compared field by field
at the end, and what is found to be different gets colours of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from cargo_strip_hook.link.arrays import isin, unique
from cargo_strip_hook.link.model import Array, Binding, Bool, Int64, Reach, SpecialIndex
from cargo_strip_hook.link.share.model import Joined, Sharing

_ODD = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_BUCKETS = 20  # bits
_SHAPE = ("tag", "offset", "type", "addend", "value", "kinds", "outside")


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """All that live atoms refer to, sorted by `source`.

    `target` is an atom, -1 for what is outside of the library: then `outside` is the number of the
    name (from 1 on). `shape` (int64[n, 7]) is how: what kind of reference it is, and of a
    relocation the fields that must agree. `backward`: whether it is the target that refers.
    `edge` (uint64) is a hash of the shape.
    """

    source: Int64
    target: Int64
    shape: Array
    backward: Bool
    edge: Array


def references(joined: Joined, sharing: Sharing) -> tuple[References, tuple[bytes, ...]]:
    """What the live atoms refer to, and the names of what is outside (number 1 is the first)."""
    program, live = joined.program, joined.live
    symbols = program.symbols
    rows = program.relocations[live[program.relocations["atom"]]]
    rows = rows[rows["type"] != 0]  # nothing, in every format that has such
    definition = program.definition[rows["symbol"]]
    meant = symbols["atom"][definition]
    inside = (meant >= 0) & live[np.maximum(meant, 0)]
    target = np.where(inside, meant, -1)
    number, names = _outside(joined, sharing, definition, inside)
    back = np.flatnonzero(
        ((rows["reach"] == Reach.REVERSE) | (rows["reach"] == Reach.BOTH)) & inside
    )
    links = joined.described.links
    links = links[live[links["source"]] & live[links["target"]]]
    edges = program.edges[live[program.edges["source"]] & live[program.edges["target"]]]
    pairs = [
        (rows["atom"], target),
        (target[back], rows["atom"][back]),
        (edges["source"], edges["target"]),
        (links["source"], links["target"]),
        (links["target"], links["source"]),
    ]
    source = np.concatenate([source for source, _ in pairs])
    order = np.argsort(source, kind="stable")
    counts = [len(source) for source, _ in pairs]
    backward = np.zeros(len(order), np.bool_)
    backward[counts[0] : counts[0] + counts[1]] = True
    # what the columns have of relocations; edges and links have nothing besides their tag
    first = np.flatnonzero(order < counts[0] + counts[1])
    which = order[first]
    again = which >= counts[0]
    which[again] = back[which[again] - counts[0]]
    shape = np.zeros((len(order), len(_SHAPE)), np.int64)
    shape[:, 0] = np.repeat(np.arange(1, 6), counts)[order]
    for at, column in enumerate(_columns(symbols, rows, definition, inside), 1):
        shape[first, at] = column[which]
    shape[first, 6] = number[which]
    edge = np.zeros(len(order), np.uint64)
    for column in shape.T:
        edge = _mix((edge ^ column.astype(np.uint64)) * _ODD)
    return (
        References(
            source[order].astype(np.int64),
            np.concatenate([target for _, target in pairs])[order].astype(np.int64),
            shape,
            backward[order],
            edge,
        ),
        names,
    )


def _columns(symbols: Array, rows: Array, definition: Array, inside: Bool) -> Iterator[Array]:
    """What of relocations must agree, and of the symbols they name: offset, type, … kinds."""
    yield rows["offset"]
    yield rows["type"]
    yield rows["addend"]
    yield symbols["value"][definition]
    said = rows["symbol"]
    visibility = symbols["visibility"][said]
    # a format without weak undefined symbols has a mark of its own, where others have visibility
    marked = symbols["native"][said] & ~visibility & 1 != 0
    is_weak = (symbols["binding"][said] == Binding.WEAK) | marked
    weak = np.where(inside, 0, is_weak).astype(np.int64)
    seen = np.where(inside, symbols["native"][definition] & 0xFC, visibility).astype(np.int64)
    named = symbols["kind"][said].astype(np.int64)
    kind = np.where(inside, symbols["kind"][definition], named)
    yield (named << 24) | (kind << 16) | (seen << 8) | weak


def _outside(
    joined: Joined, sharing: Sharing, definition: Array, inside: Bool
) -> tuple[Int64, tuple[bytes, ...]]:
    """For each reference the number of the name outside that it means, 0 for none; the names."""
    program = joined.program
    number = np.zeros(len(definition), np.int64)
    rows = unique(definition[~inside])
    of_row = np.zeros(len(rows), np.int64)
    known: dict[bytes, int] = {}
    owner = np.searchsorted(joined.symbol_base, rows, side="right") - 1
    for library, one in enumerate(joined.libraries):
        base = int(joined.symbol_base[library])
        mine = np.flatnonzero(owner == library)
        null = isin(rows[mine] - base, one.program.symbol_base)
        symbols = program.symbols[rows[mine]]
        for at, name, none, value, atom in zip(
            mine.tolist(),
            sharing.names(one.program, rows[mine] - base),
            null.tolist(),
            symbols["value"].tolist(),
            symbols["atom"].tolist(),
            strict=True,
        ):
            if atom == SpecialIndex.ABSOLUTE:
                name = b"\0absolute %d" % value
            elif none and not name:
                name = b"\0"
            elif name in one.imports:  # two libraries may take it from different places
                name += b"\0" + one.imports[name]
            of_row[at] = known.setdefault(name, len(known) + 1)
    number[~inside] = of_row[np.searchsorted(rows, definition[~inside])]
    return number, tuple(known)


def _mix(values: Array) -> Array:
    """The finaliser of splitmix64: every bit of the result depends on every bit of the value."""
    values = values ^ (values >> np.uint64(30))
    values = values * _FIRST
    values ^= values >> np.uint64(27)
    values *= _SECOND
    values ^= values >> np.uint64(31)
    out: Array = values
    return out


def hashed(columns: Sequence[Array]) -> Array:
    """uint64 for each row of S16 or integer columns of one length."""
    out = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        if column.dtype.kind == "S":
            halves = np.ascontiguousarray(column.astype("S16")).view(np.uint64).reshape(-1, 2)
            words = [halves[:, 0], halves[:, 1]]
        else:
            words = [column.astype(np.uint64)]
        for word in words:
            out = _mix((out ^ word) * _ODD)
    return out


class Colours:
    """The colour of each of some atoms, refined step by step. It only ever splits colours.

    `may` tells of all atoms which have a colour; `refers` are the references of all, and what those
    refer to (inside) that have one has one, too.
    """

    def __init__(self, may: Bool, refers: References, first: list[Array]) -> None:
        self.atoms = np.flatnonzero(may)
        row_of = np.full(len(may), -1, np.int64)
        row_of[self.atoms] = np.arange(len(self.atoms))
        self.row_of = row_of
        self.refers = refers
        self.rows = np.flatnonzero(may[refers.source])
        self.source = row_of[refers.source[self.rows]]
        self.edge = refers.edge[self.rows]
        inside = refers.target[self.rows] >= 0
        self.target = row_of[np.maximum(refers.target[self.rows], 0)]
        assert (self.target[inside] >= 0).all()
        self.inside = inside
        begins = np.flatnonzero(np.r_[True, self.source[1:] != self.source[:-1]])
        self.begins = begins if len(self.source) else np.zeros(0, np.int64)
        self.having = self.source[self.begins]
        self.colour = hashed(first)
        self.classes = 0

    def add(self, which: Array, what: Array) -> None:
        """Mix something (uint64) into the colours of some of the atoms, by their positions."""
        self.colour[which] = _mix((self.colour[which] ^ what) * _ODD)

    def refine(self) -> None:
        """Mix in the colours of what atoms refer to, until no colour splits."""
        base = self.colour
        colour = base
        known = distinct(colour)
        while True:
            mixed = np.where(self.inside, colour[np.maximum(self.target, 0)], np.uint64(1))
            mixed = _mix(self.edge ^ (mixed * _ODD))
            total = np.zeros(len(colour), np.uint64)
            if len(self.begins):
                total[self.having] = np.add.reduceat(mixed, self.begins)
            colour = _mix(base ^ (total * _FIRST + _ODD))
            found = distinct(colour)
            if found <= known:
                break
            known = found
        self.colour, self.classes = colour, known

    def numbers(self) -> Int64:
        """Classes as numbers, in no order that means anything."""
        order = np.argsort(self.colour)
        ordered = self.colour[order]
        new = np.ones(len(order), np.bool_)
        new[1:] = ordered[1:] != ordered[:-1]
        numbers = np.empty(len(order), np.int64)
        numbers[order] = np.cumsum(new) - 1
        return numbers

    def odd(self, facts: list[Array]) -> Array:
        """Positions of atoms that only look like the first of their class: hashes collided.

        `facts` are columns that atoms of a class must agree in, besides what they refer to.
        """
        number = self.numbers()
        first = np.full(self.classes, -1, np.int64)
        first[number[::-1]] = np.arange(len(number))[::-1]
        same = np.ones(len(number), np.bool_)
        for column in facts:
            same &= column == column[first[number]]
        counts = np.bincount(self.source, minlength=len(number))
        same &= counts == counts[first[number]]
        target = np.where(self.inside, number[np.maximum(self.target, 0)], -1)
        columns = [target, *self.refers.shape[self.rows].T[::-1], self.source]
        # where hashes of shapes collide, what is equal may look odd, which shares less
        order = np.lexsort((target, self.edge, self.source))
        start = np.cumsum(counts) - counts
        row = np.arange(len(order)) - start[self.source]
        compared = start[first[number[self.source]]] + row
        valid = np.flatnonzero(same[self.source])
        wrong = np.zeros(len(order), np.bool_)
        for column in columns[:-1]:
            ordered = column[order]
            wrong[valid] |= ordered[valid] != ordered[compared[valid]]
        same[self.source[wrong]] = False
        return np.flatnonzero(~same)


def distinct(values: Array) -> int:
    """How many different uint64 hashes there are: without sorting most of them."""
    rows = np.arange(len(values), dtype=np.int32)
    bucket = values >> np.uint64(64 - _BUCKETS)
    table = np.empty(1 << _BUCKETS, np.int32)
    table[bucket] = rows
    first = table[bucket]
    others = values[values[first] != values]  # in one bucket with a different one
    return int((first == rows).sum()) + len(unique(others))


def word(text: bytes) -> int:
    """A hash of a text, of 64 bits."""
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


__all__ = ["Colours", "References", "distinct", "hashed", "references", "word"]
