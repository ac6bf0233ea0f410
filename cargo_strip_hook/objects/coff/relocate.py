"""Relocations of live atoms: what they refer to in the new object, and which are settled.

A distance within one output section that no linker can change is stored and dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.errors import LinkError
from cargo_strip_hook.objects.coff.machine import Machine, Mode, Settled
from cargo_strip_hook.objects.coff.place import Placed
from cargo_strip_hook.objects.model import Array, Bool, Int64, Place, Program, Reach

# (section << STEP) + offset is a place; sections are smaller
STEP = 40


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Relocations to be written, sorted by output section and offset.

    `target` is a program-wide symbol, or where `place` is set a place in the new object. A place
    at the start of a section is the section's own symbol.
    """

    section: Int64
    offset: Int64
    type: Int64
    target: Int64
    place: Bool


def rewrite(program: Program, machine: Machine, live: Bool, placed: Placed) -> Rewritten:
    """Rewrite the relocations of all that lives; changes `placed.blob`.

    Raises `LinkError` for a reference that cannot be kept.
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
    lost = gone | (where == Place.ELSEWHERE)
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

    done = _settle(
        machine, placed, kind, field, offset, local & (target_section == section), target_offset
    )
    mode = machine.mode[kind]
    adds = local & ~done & (mode == Mode.ADDS)
    for width, form in ((4, "<u4"), (8, "<u8")):
        mine = np.flatnonzero(adds & (machine.width[kind] == width))
        if len(mine):
            octets = field[mine, None] + np.arange(width)
            word = np.ascontiguousarray(placed.blob[octets]).view(form).reshape(-1)
            word = word + target_offset[mine].astype(form)
            placed.blob[octets] = word.astype(form).view(np.uint8).reshape(-1, width)
    exact = np.where(mode == Mode.EXACT, target_offset, 0)
    target = np.where(local, (target_section << STEP) + exact, definition)
    left = np.flatnonzero(~done)
    left = left[np.lexsort((offset[left], section[left]))]
    return Rewritten(section[left], offset[left], kind[left], target[left], local[left])


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
    settled = machine.settled[kind]
    for way in (Settled.REL32, Settled.BRANCH26, Settled.BRANCH19, Settled.BRANCH14):
        mine = np.flatnonzero(inside & (settled == way))
        if not len(mine):
            continue
        octets = field[mine, None] + np.arange(4)
        word = np.ascontiguousarray(placed.blob[octets]).view("<u4").reshape(-1)
        distance = target[mine] - offset[mine]
        if way is Settled.REL32:
            addend = word.view("<i4").astype(np.int64)
            value = distance + addend - machine.trailing[kind[mine]]
            fits = (value >= -(1 << 31)) & (value < 1 << 31)
            new = value.astype("<i4").view("<u4")
        else:
            bits, shift = {Settled.BRANCH26: (26, 0), Settled.BRANCH19: (19, 5)}.get(way, (14, 5))
            mask = ((1 << bits) - 1) << shift
            scaled = distance >> 2
            # linkers add nothing to what stands in a branch: it has to be empty
            fits = (distance & 3 == 0) & (word & np.uint32(mask) == 0)
            fits &= (scaled >= -(1 << (bits - 1))) & (scaled < 1 << (bits - 1))
            new = word | ((scaled << shift) & mask).astype(np.uint32)
        placed.blob[octets[fits]] = new[fits].astype("<u4").view(np.uint8).reshape(-1, 4)
        done[mine[fits]] = True
    return done
