"""Relocations of live atoms: what they refer to in the new object, and which are settled.

A distance within one output section that no linker can change is stored and dropped. But linkers
that make a table of the functions which may be called through pointers look for relocations to the
symbols of functions (control flow guard; LLVM's lld, `Writer::markSymbolsWithRelocations`): where
the address of a function is taken, one to a symbol of its own stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.formats.coff import kinds
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.machine import Applied, Machine, Mode
from cargo_strip_hook.formats.coff.place import Placed
from cargo_strip_hook.formats.coff.reader import KIND_FUNCTION
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.model import Array, Bool, Int64, Program, Reach, SpecialIndex

# (section << STEP) + offset is a place; sections are smaller
STEP = 40
_UNWIND = (kinds.PDATA, kinds.XDATA, kinds.EH_FRAME, b".gcc_except_table")


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Relocations to be written, sorted by output section and offset.

    `target` is a program-wide symbol, or where `place` is set a place in the new object: with
    `exact` a symbol that stands there, without it the section's own symbol.
    """

    section: Int64
    offset: Int64
    type: Int64
    target: Int64
    place: Bool
    exact: Bool


@dataclass(frozen=True, slots=True)
class Taken:
    """The functions whose addresses are taken: `places` that need symbols of functions, sorted.

    `symbols`: program-wide symbols that relocations of members without tables of such functions
    name; they may be of other files, and of no function.
    """

    places: Int64
    symbols: Int64


def rewrite(
    program: Program, machine: Machine, live: Bool, placed: Placed, guarded: Bool
) -> tuple[Rewritten, Taken]:
    """Rewrite the relocations of all that lives; changes `placed.blob`.

    `guarded`: for each unit whether it lists the functions whose addresses it takes itself. Where
    one does, the new object has such a list; else linkers see that by its relocations. Raises
    `LinkError` for a reference that cannot be kept.
    """
    every = program.relocations
    rows = every[live[every["atom"]] & (placed.section[every["atom"]] >= 0)]
    definition = program.definition[rows["symbol"]].astype(np.int64)
    where = program.symbols["atom"][definition]
    inside = where >= 0
    at = np.where(inside, where, 0)
    gone = inside & (~live[at] | (placed.section[at] < 0))
    # an .eh_frame stays whole: what it says of dead functions is left without a place
    rows, definition, inside, at, gone, where = _without_dead(
        rows, definition, inside, at, gone, where
    )
    lost = gone | (where == SpecialIndex.ELSEWHERE)
    if lost.any():
        unit = program.units[int(program.unit_of(rows["atom"][lost][:1])[0])]
        raise LinkError(
            f"a relocation in {unit.name} refers to a section that is not part of the program",
            help="it was discarded for another of its name, or holds no code or data",
        )
    section = placed.section[rows["atom"]].astype(np.int64)
    offset = placed.offset[rows["atom"]] + rows["offset"]
    kind = rows["type"].astype(np.int64)
    local = inside & ~placed.kept[definition]
    target_section = np.where(local, placed.section[at], -1).astype(np.int64)
    target_offset = np.where(local, placed.offset[at] + program.symbols["value"][definition], 0)
    field = placed.start[section] + offset

    taken = _takes(program, machine, placed, rows, definition, field)
    listed = unique(definition[taken & ~guarded[program.unit_of(rows["atom"])]])
    own = taken & local & (not guarded.any())
    place = (target_section << STEP) + target_offset
    near = local & (target_section == section)
    # one reference stays in each section, which may be all that is left of a program
    of_near = np.flatnonzero(near & own)
    of_near = of_near[np.argsort(place[of_near], kind="stable")]
    first = np.diff(place[of_near], prepend=-1) != 0
    near[of_near[first]] = False
    done = _settle(machine, placed, kind, field, offset, near, target_offset)
    mode = machine.mode[kind]
    own &= ~done & (mode == Mode.ADDS)
    adds = local & ~done & (mode == Mode.ADDS) & ~own
    for width, form in ((4, "<u4"), (8, "<u8")):
        mine = np.flatnonzero(adds & (machine.width[kind] == width))
        if len(mine):
            octets = field[mine, None] + np.arange(width)
            word = np.ascontiguousarray(placed.blob[octets]).view(form).reshape(-1)
            word = word + target_offset[mine].astype(form)
            placed.blob[octets] = word.astype(form).view(np.uint8).reshape(-1, width)
    exact = local & ((mode == Mode.EXACT) | own)
    target = np.where(local, np.where(exact, place, target_section << STEP), definition)
    functions = unique(place[exact & taken])
    left = np.flatnonzero(~done)
    left = left[np.lexsort((offset[left], section[left]))]
    columns = (section[left], offset[left], kind[left], target[left], local[left], exact[left])
    return Rewritten(*columns), Taken(functions, listed)


def _takes(
    program: Program, machine: Machine, placed: Placed, rows: Array, definition: Int64, field: Int64
) -> Bool:
    """bool for each relocation: whether it takes the address of what may be a function.

    `field`: where it is in `placed.blob`. Tables for unwinding are no calls through pointers.
    """
    home = placed.section[rows["atom"]]
    told = np.array([k.name in _UNWIND for k in placed.kinds], np.bool_)
    code = np.array([k.flags & coff.SCN_CNT_CODE != 0 for k in placed.kinds], np.bool_)
    where = program.symbols["atom"][definition]
    found: Bool = (rows["reach"] == Reach.FORWARD) & ~told[home]
    inside = where >= 0
    function = inside & (program.symbols["kind"][definition] == KIND_FUNCTION)
    function &= code[placed.section[np.where(inside, where, 0)]]
    found &= function | (where == SpecialIndex.UNDEFINED)
    kind = rows["type"]
    if machine.number == coff.AMD64:
        # by the byte before: call, jmp, jcc; of others only lea takes an address that is not here
        near = np.flatnonzero(found & (machine.applied[kind] == Applied.REL32) & code[home])
        before = placed.blob[np.maximum(field[near], 2)[:, None] - np.array([2, 1])]
        branch = (before[:, 1] == 0xE8) | (before[:, 1] == 0xE9)
        branch |= (before[:, 0] == 0x0F) & (before[:, 1] & 0xF0 == 0x80)
        found[near] = ~branch & (function[near] | (before[:, 0] == 0x8D))
    else:
        found &= (machine.applied[kind] == Applied.NO) | ~code[home]
    return found


def _without_dead(
    rows: Array, definition: Int64, inside: Bool, at: Array, gone: Bool, where: Array
) -> tuple[Array, Int64, Bool, Array, Bool, Array]:
    kept = ~(gone & (rows["reach"] == Reach.REVERSE))
    if kept.all():
        return rows, definition, inside, at, gone, where
    return rows[kept], definition[kept], inside[kept], at[kept], gone[kept], where[kept]


def _settle(
    machine: Machine,
    placed: Placed,
    kind: Int64,
    field: Int64,
    offset: Int64,
    inside: Bool,
    target: Int64,
) -> Bool:
    """Store the distances that cannot change any more; True for those relocations."""
    done = np.zeros(len(kind), np.bool_)
    applied = machine.applied[kind]
    for way in (Applied.REL32, Applied.BRANCH26, Applied.BRANCH19, Applied.BRANCH14):
        mine = np.flatnonzero(inside & (applied == way))
        if not len(mine):
            continue
        octets = field[mine, None] + np.arange(4)
        word = np.ascontiguousarray(placed.blob[octets]).view("<u4").reshape(-1)
        distance = target[mine] - offset[mine]
        if way is Applied.REL32:
            addend = word.view("<i4").astype(np.int64)
            value = distance + addend - machine.trailing[kind[mine]]
            fits = (value >= -(1 << 31)) & (value < 1 << 31)
            new = value.astype("<i4").view("<u4")
        else:
            bits, shift = {Applied.BRANCH26: (26, 0), Applied.BRANCH19: (19, 5)}.get(way, (14, 5))
            mask = ((1 << bits) - 1) << shift
            scaled = distance >> 2
            # linkers add nothing to what stands in a branch: it has to be empty
            fits = (distance & 3 == 0) & (word & np.uint32(mask) == 0)
            fits &= (scaled >= -(1 << (bits - 1))) & (scaled < 1 << (bits - 1))
            new = word | ((scaled << shift) & mask).astype(np.uint32)
        placed.blob[octets[fits]] = new[fits].astype("<u4").view(np.uint8).reshape(-1, 4)
        done[mine[fits]] = True
    return done
