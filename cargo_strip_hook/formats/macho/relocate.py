"""Relocations of live atoms: what they refer to in the new object, and which are settled.

A reference within one subsection that no linker can change is stored and dropped. All others name
a symbol at exactly the place they mean, so that addends stay as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.file import STEP
from cargo_strip_hook.formats.macho.marks import resolvers
from cargo_strip_hook.formats.macho.place import Placed
from cargo_strip_hook.formats.macho.relocations import SUBTRACTOR
from cargo_strip_hook.link.arrays import isin
from cargo_strip_hook.link.model import Array, AtomFlag, Bool, Int64, Program, SpecialIndex

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
    lost = (where == SpecialIndex.ELSEWHERE) | (
        (where >= 0) & ~live[np.where(where >= 0, where, 0)]
    )
    if lost.any():
        first = rows["atom"][np.flatnonzero(lost)[:1]]
        name = program.units[int(program.unit_of(first)[0])].name
        raise LinkError(f"a relocation in {name} refers to a section that is no part of a program")
    local = (where >= 0) & ~kept[definition]
    at = np.where(where >= 0, where, 0)
    record = program.atoms["flags"][rows["atom"]] & AtomFlag.SEPARATE != 0
    addend = rows["addend"].copy()
    target = placed.key(at) + program.symbols["value"][definition]
    # unwind records mean the exact place, which gets a symbol; compact ones have its address, as
    # compilers write them: zig's linker takes a symbol there for the start of its subsection
    compact = record & local & (rows["type"] == 3 << 5)
    exact = compact | (record & local & (rows["type"] >= mo.PC_RELATIVE))
    target[exact] += addend[exact]
    addend[exact] = 0
    addend[compact] = placed.address[target[compact] >> STEP] + (target[compact] & _MASK)
    _name_personalities(program, placed, kept, compact & (rows["offset"] == 16), target, addend)
    compact &= target >= 0
    target[~local] = ~definition[~local]

    section = placed.section[rows["atom"]].astype(np.int64)
    offset = placed.offset[rows["atom"]] + rows["offset"]
    kind = rows["type"].astype(np.int64)
    # what is bound to a resolver is what it returns, and never the resolver
    plain = local & ~resolvers(program)[definition]
    done = _settle(cputype, placed, rows, plain, at, target, section, offset, addend)
    sequence = np.arange(len(rows)) * 2
    left = np.flatnonzero(~done & (kind < mo.PC_RELATIVE))
    fields = (section, offset, kind, target, addend, sequence, ~compact)
    columns = [tuple(c[left] for c in fields)]
    columns += _distances(np.flatnonzero(kind >= mo.PC_RELATIVE), cputype, fields)
    section, offset, kind, target, addend, sequence, extern = (
        np.concatenate(c) for c in zip(*columns, strict=True)
    )
    adds = _store_addends(cputype, placed, kind, section, offset, addend)
    # Apple's assembler and LLVM's write the highest address first, pairs in their order
    order = np.lexsort((sequence, -offset, section))
    section, offset, kind, target, adds, extern = (
        c[order] for c in (section, offset, kind, target, adds, extern)
    )
    return Rewritten(section, offset, kind, target, adds, extern != 0)


def _name_personalities(
    program: Program, placed: Placed, kept: Bool, which: Bool, target: Int64, addend: Int64
) -> None:
    """Compilers give a compact-unwind entry the address of a routine in its own file.

    By its name it coalesces with that of other libraries. Changes the arrays.
    """
    names = np.flatnonzero(kept & (program.symbols["atom"] >= 0))
    keys = placed.key(program.symbols["atom"][names]) + program.symbols["value"][names]
    order = np.argsort(keys)
    keys, names = keys[order], names[order]
    rows = np.flatnonzero(which)
    if not len(names) or not len(rows):
        return
    found = np.minimum(np.searchsorted(keys, target[rows]), len(keys) - 1)
    same = keys[found] == target[rows]
    target[rows[same]] = ~names[found[same]]
    addend[rows[same]] = 0


def _distances(which: Int64, cputype: int, fields: tuple[Array, ...]) -> list[tuple[Array, ...]]:
    """The distances of FDEs, as pairs: target - (start of the section) - offset in the section."""
    section, offset, kind, target, addend, sequence, extern = (c[which] for c in fields)
    width = np.where(kind == mo.PC_RELATIVE, 3, 2) << 5
    start = section << STEP
    first = (section, offset, width | SUBTRACTOR[cputype], start, addend * 0, sequence, extern)
    second = (section, offset, width | mo.UNSIGNED, target, -offset, sequence + 1, extern)
    return [first, second]


def _settle(
    cputype: int,
    placed: Placed,
    rows: Array,
    local: Bool,
    at: Array,
    target: Int64,
    section: Int64,
    offset: Int64,
    addend: Int64,
) -> Bool:
    """Store what cannot change any more; True for those entries."""
    block = placed.block[rows["atom"]]
    inside = local & (block >= 0) & (placed.block[at] == block)
    native = rows["type"].astype(np.int64) & 0xF
    short = rows["type"] >> 5 & 3 == 2
    done = np.zeros(len(rows), np.bool_)
    value = (target & _MASK) + addend - offset
    start = placed.start[section] + offset
    if cputype == mo.CPU_TYPE_ARM64:
        distance = value >> 2
        mine = inside & (native == mo.ARM64_BRANCH26) & (value & 3 == 0)
        mine &= (distance >= -(1 << 25)) & (distance < 1 << 25)
        found = np.flatnonzero(mine)
        fields = start[found, None] + np.arange(4)
        word = np.ascontiguousarray(placed.blob[fields]).view("<u4").reshape(-1)
        word = word & np.uint32(0xFC000000) | (distance[found] & 0x3FFFFFF).astype(np.uint32)
    else:
        direct = isin(native, _DIRECT)
        found = np.flatnonzero(inside & direct & short)
        fields = start[found, None] + np.arange(4)
        word = (value[found] - 4).astype("<i4")
    placed.blob[fields] = (
        word.astype("<u4" if word.dtype.kind == "u" else "<i4").view(np.uint8).reshape(-1, 4)
    )
    done[found] = True

    # a difference of two places in one subsection is a number
    first = np.flatnonzero(native == SUBTRACTOR[cputype])
    first = first[rows["type"][first] < mo.PC_RELATIVE]
    second = first + 1
    same = local[first] & local[second] & (placed.block[at[first]] == placed.block[at[second]])
    same &= placed.block[at[first]] >= 0
    for power, form in ((2, "<i4"), (3, "<i8")):
        chosen = same & (rows["type"][first] >> 5 & 3 == power)
        a, b = first[chosen], second[chosen]
        number = target[b] + addend[b] - target[a]
        fields = start[a, None] + np.arange(1 << power)
        placed.blob[fields] = number.astype(form).view(np.uint8).reshape(-1, 1 << power)
        done[a] = done[b] = True
    return done


def _store_addends(
    cputype: int, placed: Placed, kind: Int64, section: Int64, offset: Int64, addend: Int64
) -> Int64:
    """Put addends where the processor's entries have them; ADDEND entries are given back.

    Raises `LinkError` for an addend that no entry can hold.
    """
    native = kind & 0xF
    stored = native != SUBTRACTOR[cputype]
    adds = np.zeros(len(kind), np.int64)
    if cputype == mo.CPU_TYPE_ARM64:
        stored &= native == mo.UNSIGNED
        rest = (native != mo.UNSIGNED) & (native != SUBTRACTOR[cputype])
        adds = np.where(rest, addend, 0)
        if (np.abs(adds) >= 1 << 23).any():
            raise LinkError("a relocation's addend does not fit into 24 bits")
    start = placed.start[section] + offset
    for power, form in ((0, "<i1"), (1, "<i2"), (2, "<i4"), (3, "<i8")):
        found = np.flatnonzero(stored & (kind >> 5 & 3 == power))
        if len(found):
            octets = addend[found].astype(form).view(np.uint8).reshape(-1, 1 << power)
            placed.blob[start[found, None] + np.arange(1 << power)] = octets
    return adds
