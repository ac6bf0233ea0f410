"""Relocations of live atoms: what they refer to in the new object, and which are settled.

A reference within one subsection that no linker can change is stored and dropped. All others name
a symbol at exactly the place they mean, so that addends stay as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.file import STEP
from cargo_strip_hook.formats.macho.marks import resolvers
from cargo_strip_hook.formats.macho.place import Placed
from cargo_strip_hook.formats.macho.relocations import SUBTRACTOR
from cargo_strip_hook.link.arrays import isin
from cargo_strip_hook.link.model import Array, AtomFlag, Bool, Int32, Int64, Program, SpecialIndex

_MASK = (1 << STEP) - 1
_DIRECT = np.array((mo.X86_64_SIGNED, mo.X86_64_BRANCH, *mo.X86_64_TRAILING), np.uint32)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Entries to be written, in their order within a section.

    `target` is a place (section << STEP | offset) that needs a symbol, or ~s for the program-wide
    symbol s. `type` is r_type | r_pcrel << 4 | r_length << 5. `adds`: the value of an ADDEND entry
    that goes before, 0 for none. `extern` entries name the symbol, the others its section and
    have the address in the field.
    """

    section: Int64
    offset: Int64
    type: Int64
    target: Int64
    adds: Int64
    extern: Bool


@dataclass(frozen=True, slots=True)
class _Entries:
    """Entries as in `Rewritten`, each with its whole addend. Arrays by entry.

    Of entries at the same place, the one with the lower `sequence` stands first.
    """

    section: Int64
    offset: Int64
    type: Int64
    target: Int64
    addend: Int64
    sequence: Int64
    extern: Bool

    def columns(self) -> tuple[Array, ...]:
        """All columns, in the order of the fields."""
        place = self.section, self.offset
        return *place, self.type, self.target, self.addend, self.sequence, self.extern

    def of(self, which: Array) -> _Entries:
        """The entries at these indices, int64, in this order."""
        return _Entries(*(column[which] for column in self.columns()))


def joined_entries(parts: Sequence[Rewritten]) -> Rewritten:
    """Several tables as one, by section."""
    names = ("section", "offset", "type", "target", "adds", "extern")
    columns = [np.concatenate([getattr(p, name) for p in parts]) for name in names]
    order = np.argsort(columns[0], kind="stable")
    return Rewritten(*(c[order] for c in columns))


def rewrite(program: Program, cputype: int, live: Bool, placed: Placed, kept: Bool) -> Rewritten:
    """Rewrite all relocations of what lives; changes `placed.blob`.

    Raises `LinkError` for a reference that cannot be kept.
    """
    every = program.relocations
    rows = every[live[every["atom"]] & (placed.section[every["atom"]] >= 0)]
    definition = program.definition[rows["symbol"]].astype(np.int64)
    where = program.symbols["atom"][definition]
    _refuse_lost(program, live, rows, where)
    local = (where >= 0) & ~kept[definition]
    atom = np.where(where >= 0, where, 0)
    entries = _entries(program, placed, kept, rows, (definition, local, atom))
    # what is bound to a resolver is what it returns, and never the resolver
    plain = local & ~resolvers(program)[definition]
    block = placed.block[rows["atom"]]
    done = _settle(cputype, placed, entries, block, np.where(plain, placed.block[atom], -1))
    left = entries.of(np.flatnonzero(~done & (entries.type < mo.PC_RELATIVE)))
    distances = entries.of(np.flatnonzero(entries.type >= mo.PC_RELATIVE))
    tables = [table.columns() for table in (left, *_pairs(distances, cputype))]
    written = _Entries(*(np.concatenate(columns) for columns in zip(*tables, strict=True)))
    adds = _store_addends(cputype, placed, written)
    # Apple's assembler and LLVM's write the highest address first, pairs in their order
    order = np.lexsort((written.sequence, -written.offset, written.section))
    last = written.of(order)
    return Rewritten(last.section, last.offset, last.type, last.target, adds[order], last.extern)


def _refuse_lost(program: Program, live: Bool, rows: Array, where: Array) -> None:
    """Raise `LinkError` for a reference to what is not live; `where`: the atom of each, or -1."""
    lost = (where == SpecialIndex.ELSEWHERE) | (
        (where >= 0) & ~live[np.where(where >= 0, where, 0)]
    )
    if lost.any():
        first = rows["atom"][np.flatnonzero(lost)[:1]]
        name = program.units[int(program.unit_of(first)[0])].name
        raise LinkError(f"a relocation in {name} refers to a section that is no part of a program")


def _entries(
    program: Program,
    placed: Placed,
    kept: Bool,
    rows: Array,
    refers: tuple[Int64, Bool, Array],
) -> _Entries:
    """An entry for each of the `rows`, in their order.

    `refers`: (definition, whether that is a place, its atom) of each.
    """
    definition, local, atom = refers
    record = program.atoms["flags"][rows["atom"]] & AtomFlag.SEPARATE != 0
    addend = rows["addend"].copy()
    target = placed.key(atom) + program.symbols["value"][definition]
    # unwind records mean the exact place, which gets a symbol; compact ones have its address, as
    # compilers write them: zig's linker takes a symbol there for the start of its subsection
    compact = record & local & (rows["type"] == 3 << 5)
    exact = compact | (record & local & (rows["type"] >= mo.PC_RELATIVE))
    target[exact] += addend[exact]
    addend[exact] = 0
    addend[compact] = placed.address[target[compact] >> STEP] + (target[compact] & _MASK)
    routine = compact & (rows["offset"] == 16)
    personality = _personalities(program, placed, kept, np.where(routine, target, -1))
    named = personality >= 0
    target[named], addend[named] = ~personality[named], 0
    target[~local] = ~definition[~local]
    return _Entries(
        placed.section[rows["atom"]].astype(np.int64),
        placed.offset[rows["atom"]] + rows["offset"],
        rows["type"].astype(np.int64),
        target,
        addend,
        np.arange(len(rows)) * 2,
        ~compact | (target < 0),
    )


def _personalities(program: Program, placed: Placed, kept: Bool, places: Int64) -> Int64:
    """The symbol that is kept at each of the `places`: int64, program-wide, -1 for none.

    Compilers give a compact-unwind entry the address of a routine in its own file. By its name it
    coalesces with that of other libraries.
    """
    symbol = np.full(len(places), -1, np.int64)
    names = np.flatnonzero(kept & (program.symbols["atom"] >= 0))
    keys = placed.key(program.symbols["atom"][names]) + program.symbols["value"][names]
    order = np.argsort(keys)
    keys, names = keys[order], names[order]
    rows = np.flatnonzero(places >= 0)
    if not len(names) or not len(rows):
        return symbol
    nearest = np.minimum(np.searchsorted(keys, places[rows]), len(keys) - 1)
    same = keys[nearest] == places[rows]
    symbol[rows[same]] = names[nearest[same]]
    return symbol


def _pairs(distances: _Entries, cputype: int) -> tuple[_Entries, _Entries]:
    """The distances of FDEs, as pairs: target - (start of the section) - offset in the section."""
    width = np.where(distances.type == mo.PC_RELATIVE, 3, 2) << 5
    first = replace(
        distances,
        type=width | SUBTRACTOR[cputype],
        target=distances.section << STEP,
        addend=distances.addend * 0,
    )
    second = replace(
        distances,
        type=width | mo.UNSIGNED,
        addend=-distances.offset,
        sequence=distances.sequence + 1,
    )
    return first, second


def _settle(cputype: int, placed: Placed, entries: _Entries, block: Int32, to: Int32) -> Bool:
    """Store what cannot change any more in `placed.blob`; True for those entries.

    By entry: `block` holds the field and `to` the target, -1 where that is named or in no block.
    """
    inside = (block >= 0) & (to == block)
    settle = _settle_arm64 if cputype == mo.CPU_TYPE_ARM64 else _settle_x86_64
    done = np.zeros(len(block), np.bool_)
    done[settle(placed, entries, inside)] = True
    done[_settle_differences(placed, entries, to, SUBTRACTOR[cputype])] = True
    return done


def _settle_arm64(placed: Placed, entries: _Entries, inside: Bool) -> Int64:
    """Store the branches `inside` a subsection that reach; the indices of their entries."""
    value = (entries.target & _MASK) + entries.addend - entries.offset
    distance = value >> 2
    mine = inside & (entries.type & 0xF == mo.ARM64_BRANCH26) & (value & 3 == 0)
    mine &= (distance >= -(1 << 25)) & (distance < 1 << 25)
    rows = np.flatnonzero(mine)
    octets = _octets(placed, entries, rows, 4)
    word = np.ascontiguousarray(placed.blob[octets]).view("<u4").reshape(-1)
    word = word & np.uint32(0xFC000000) | (distance[rows] & 0x3FFFFFF).astype(np.uint32)
    placed.blob[octets] = word.astype("<u4").view(np.uint8).reshape(-1, 4)
    return rows


def _settle_x86_64(placed: Placed, entries: _Entries, inside: Bool) -> Int64:
    """Store the distances `inside` a subsection; the indices of their entries."""
    direct = isin(entries.type & 0xF, _DIRECT) & (entries.type >> 5 & 3 == 2)
    rows = np.flatnonzero(inside & direct)
    value = (entries.target[rows] & _MASK) + entries.addend[rows] - entries.offset[rows]
    octets = _octets(placed, entries, rows, 4)
    placed.blob[octets] = (value - 4).astype("<i4").view(np.uint8).reshape(-1, 4)
    return rows


def _settle_differences(placed: Placed, entries: _Entries, to: Int32, subtractor: int) -> Int64:
    """Store the differences of two places in one subsection; the indices of both their entries."""
    first = np.flatnonzero((entries.type & 0xF == subtractor) & (entries.type < mo.PC_RELATIVE))
    same = (to[first] >= 0) & (to[first] == to[first + 1])
    done = [first[:0]]
    for power, form in ((2, "<i4"), (3, "<i8")):
        a = first[same & (entries.type[first] >> 5 & 3 == power)]
        b = a + 1
        number = entries.target[b] + entries.addend[b] - entries.target[a]
        octets = _octets(placed, entries, a, 1 << power)
        placed.blob[octets] = number.astype(form).view(np.uint8).reshape(-1, 1 << power)
        done += [a, b]
    return np.concatenate(done)


def _octets(placed: Placed, entries: _Entries, rows: Int64, size: int) -> Int64:
    """The indices in the blob of the fields of these entries: int64, a row of `size` for each."""
    start = placed.start[entries.section[rows]] + entries.offset[rows]
    octets: Int64 = start[:, None] + np.arange(size)
    return octets


def _store_addends(cputype: int, placed: Placed, entries: _Entries) -> Int64:
    """Put addends where the processor's entries have them; ADDEND entries are given back.

    Returns the value of each one's ADDEND entry, int64, 0 for none. Changes `placed.blob`. Raises
    `LinkError` for an addend that no entry can hold.
    """
    native = entries.type & 0xF
    stored = native != SUBTRACTOR[cputype]
    adds = np.zeros(len(native), np.int64)
    if cputype == mo.CPU_TYPE_ARM64:
        stored &= native == mo.UNSIGNED
        rest = (native != mo.UNSIGNED) & (native != SUBTRACTOR[cputype])
        adds = np.where(rest, entries.addend, 0)
        if (np.abs(adds) >= 1 << 23).any():
            raise LinkError("a relocation's addend does not fit into 24 bits")
    for power, form in ((0, "<i1"), (1, "<i2"), (2, "<i4"), (3, "<i8")):
        rows = np.flatnonzero(stored & (entries.type >> 5 & 3 == power))
        if len(rows):
            octets = entries.addend[rows].astype(form).view(np.uint8).reshape(-1, 1 << power)
            placed.blob[_octets(placed, entries, rows, 1 << power)] = octets
    return adds
