"""Relocations of live atoms: what they refer to in the new object, and which are applied.

A distance within one output section that no linker can change is stored and dropped. But linkers
that make a table of the functions which may be called through pointers look for relocations to the
symbols of functions (control flow guard; LLVM's lld, `Writer::markSymbolsWithRelocations`): where
the address of a function is taken, one to a symbol of its own stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cargo_strip_hook.formats.coff import kinds
from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.addresses import Placed
from cargo_strip_hook.formats.coff.machine import Machine, Mode
from cargo_strip_hook.formats.coff.reader import KIND_FUNCTION
from cargo_strip_hook.link.arrays import unique
from cargo_strip_hook.link.contents import Patch, read_input
from cargo_strip_hook.link.fields import Field
from cargo_strip_hook.link.model import Bool, Int64, Program, Reach, SpecialIndex
from cargo_strip_hook.link.output import Relocations
from cargo_strip_hook.link.relocate import Bound, bind, embedded, refuse, store

_UNWIND = (kinds.PDATA, kinds.XDATA, kinds.EH_FRAME, b".gcc_except_table")


@dataclass(frozen=True, slots=True)
class Taken:
    """The functions whose addresses are taken: `locations` that need symbols of functions, sorted.

    `symbols`: program-wide symbols that relocations of members without tables of such functions
    name; they may be of other files, and of no function.
    """

    locations: Int64
    symbols: Int64


def relocate(
    program: Program, machine: Machine, live: Bool, placed: Placed, guarded: Bool
) -> tuple[Relocations, list[Patch], Taken]:
    """Rewrite the relocations of all that lives: (those that are left, by location; patches; …).

    `guarded`: for each unit whether it lists the functions whose addresses it takes itself. Where
    one does, the new object has such a list; else linkers see that by its relocations. Raises
    `LinkError` for a reference that cannot be kept.
    """
    home = program.relocations["atom"]
    bound = bind(program, live, placed, live[home] & (placed.section[home] >= 0))
    # an .eh_frame stays whole: what it says of dead functions is left without a place
    dead = bound.gone & (bound.input["reach"] == Reach.REVERSE)
    bound = bound.rows(~dead) if dead.any() else bound
    lost = bound.gone | (bound.atom == SpecialIndex.ELSEWHERE)
    help = "it was discarded for another of its name, or holds no code or data"
    refuse(program, bound, lost, "refers to a section that is not part of a program", help)
    mode, distance = machine.mode[bound.type], machine.distance[bound.type]
    field = np.where(distance != Field.NONE, distance, machine.adds[bound.type])
    addend = embedded(program, bound, np.where(bound.local, field, Field.NONE))

    taken = _takes(program, machine, placed, bound)
    unit = program.unit_of(bound.input["atom"])
    listed = unique(bound.definition[taken & ~guarded[unit]])
    own = taken & bound.local & (not guarded.any())
    location = bound.location
    # linkers add nothing to what stands in a branch: it has to be empty
    near = bound.inside & ((mode == Mode.ADDS) | (addend == 0))
    # one reference stays in each section, which may be all that is left of a program
    of_near = np.flatnonzero(bound.inside & own)
    of_near = of_near[np.argsort(location[of_near], kind="stable")]
    near[of_near[np.diff(location[of_near], prepend=-1) != 0]] = False
    position = bound.position(placed)
    value = bound.target_offset + addend - bound.offset - machine.trailing[bound.type]
    applied, patches = store(near, distance, value, position)
    own &= ~applied & (mode == Mode.ADDS)
    adds = bound.local & ~applied & (mode == Mode.ADDS) & ~own
    addend += np.where(adds, bound.target_offset, 0)
    patches += store(adds, machine.adds[bound.type], addend, position, frozenset(Field))[1]
    exact = bound.local & ((mode == Mode.EXACT) | own)
    functions = unique(location[exact & taken])
    left = np.flatnonzero(~applied)
    left = left[np.lexsort((bound.offset[left], bound.section[left]))]
    rewritten = Relocations(
        bound.section,
        bound.offset,
        bound.type,
        np.where(bound.local, np.int32(-1), bound.definition),
        bound.target_section,
        np.where(exact, bound.target_offset, 0),
        addend,
        exact,
    )
    return rewritten.rows(left), patches, Taken(functions, listed)


def _takes(program: Program, machine: Machine, placed: Placed, bound: Bound) -> Bool:
    """Which relocations take the address of what may be a function.

    Tables for unwinding are no calls through pointers.
    """
    unwinds = np.array([k.name in _UNWIND for k in placed.kinds], np.bool_)
    takes: Bool = (bound.input["reach"] == Reach.FORWARD) & ~unwinds[bound.section]
    function = program.symbols["kind"][bound.definition] == KIND_FUNCTION
    function &= bound.atom >= 0
    function &= placed.sections.executable[placed.section[np.maximum(bound.atom, 0)]]
    takes &= function | (bound.atom == SpecialIndex.UNDEFINED)
    near = placed.sections.executable[bound.section] & (machine.distance[bound.type] != Field.NONE)
    if machine.number == coff.AMD64:
        # by the byte before: call, jmp, jcc; of others only lea takes an address that is not here
        rows = np.flatnonzero(takes & near)
        fields = bound.input[rows]
        first, second = read_input(program, fields["atom"], fields["offset"] - 2, 2).T
        branch = (second == 0xE8) | (second == 0xE9)
        branch |= (first == 0x0F) & (second & 0xF0 == 0x80)
        takes[rows] = ~branch & (function[rows] | (first == 0x8D))
    else:
        takes &= ~near
    return takes


__all__ = ["Taken", "relocate"]
