"""Relocations of live atoms: what they refer to in the new object, and which are applied.

A reference within one subsection that no linker can change is stored and dropped. All others name
a symbol at exactly the location they mean, so that addends stay as they were.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.addresses import Placed
from cargo_strip_hook.formats.macho.machine import Machine
from cargo_strip_hook.formats.macho.marks import resolvers
from cargo_strip_hook.link.contents import Patch
from cargo_strip_hook.link.fields import Field
from cargo_strip_hook.link.model import AtomFlag, Bool, Int32, Int64, Program, SpecialIndex
from cargo_strip_hook.link.output import Relocations
from cargo_strip_hook.link.relocate import Bound, bind, refuse, store

_EVERY = frozenset(Field)


def relocate(
    program: Program, machine: Machine, live: Bool, placed: Placed
) -> tuple[Relocations, list[Patch]]:
    """Rewrite the relocations of what lives: (those that are left, in their order; patches).

    Where the processor has addends in the fields, patches store them. Raises `LinkError` for a
    reference that cannot be kept.
    """
    home = program.relocations["atom"]
    bound = bind(program, live, placed, live[home] & (placed.section[home] >= 0))
    lost = bound.gone | (bound.atom == SpecialIndex.ELSEWHERE)
    refuse(program, bound, lost, "refers to a section that is not part of a program")
    every = _entries(program, placed, bound)
    applied, patches = _apply(program, machine, placed, bound, every)
    left = _with_pairs(every.rows(~applied), machine)
    if (np.abs(left.addend[machine.explicit[left.type]]) >= 1 << 23).any():
        raise LinkError("a relocation's addend does not fit into 24 bits")
    position = placed.sections.start[left.section] + left.offset
    field = machine.embedded[left.type]
    patches += store(field != Field.NONE, field, left.addend, position, _EVERY)[1]
    # Apple's assembler and LLVM's write the highest address first, pairs in their order
    return left.rows(np.lexsort((-left.offset, left.section))), patches


def _entries(program: Program, placed: Placed, bound: Bound) -> Relocations:
    """An entry for each of `bound`, in their order, with its whole addend."""
    record = program.atoms["flags"][bound.input["atom"]] & AtomFlag.SEPARATE != 0
    addend, target_offset = bound.addend.copy(), bound.target_offset.copy()
    # unwind records mean the exact location, which gets a symbol; compact ones have its address, as
    # compilers write them: zig's linker takes a symbol there for the start of its subsection
    compact = record & bound.local & (bound.type == 3 << 5)
    exact = compact | (record & bound.local & (bound.type >= mo.PC_RELATIVE))
    target_offset[exact] += addend[exact]
    addend[exact] = 0
    addend[compact] = placed.address[bound.target_section[compact]] + target_offset[compact]
    symbol = np.where(bound.local, np.int32(-1), bound.definition)
    every = Relocations(
        bound.section,
        bound.offset,
        bound.type,
        symbol,
        bound.target_section,
        target_offset,
        addend,
        ~compact,
    )
    routine = compact & (bound.input["offset"] == 16)
    personality = _personalities(program, placed, np.where(routine, every.location, -1))
    named = personality >= 0
    symbol[named], addend[named] = personality[named], 0
    return every


def _personalities(program: Program, placed: Placed, locations: Int64) -> Int64:
    """The symbol that is kept at each of the `locations`: int64, program-wide, -1 for none.

    Compilers give a compact-unwind entry the address of a routine in its own file. By its name it
    coalesces with that of other libraries.
    """
    symbol = np.full(len(locations), -1, np.int64)
    names = np.flatnonzero(placed.kept & (program.symbols["atom"] >= 0))
    keys = placed.location(program.symbols["atom"][names]) + program.symbols["value"][names]
    order = np.argsort(keys, kind="stable")  # a member's own name before one of ours
    keys, names = keys[order], names[order]
    rows = np.flatnonzero(locations >= 0)
    if not len(names) or not len(rows):
        return symbol
    nearest = np.minimum(np.searchsorted(keys, locations[rows]), len(keys) - 1)
    same = keys[nearest] == locations[rows]
    symbol[rows[same]] = names[nearest[same]]
    return symbol


def _with_pairs(entries: Relocations, machine: Machine) -> Relocations:
    """The distances of FDEs as pairs: target - (start of the section) - offset in the section."""
    is_distance = entries.type >= mo.PC_RELATIVE
    both = entries.rows(np.repeat(np.arange(len(is_distance)), 1 + is_distance))
    which = np.flatnonzero(is_distance) + np.arange(int(is_distance.sum()))
    first, second = np.zeros((2, len(both.type)), np.bool_)
    first[which] = second[which + 1] = True
    width = np.where(both.type == mo.PC_RELATIVE, 3, 2) << 5
    kind = np.where(first, width | machine.subtractor, both.type)
    return replace(
        both,
        type=np.where(second, width | mo.UNSIGNED, kind),
        symbol=np.where(first, np.int32(-1), both.symbol),
        target_section=np.where(first, both.section, both.target_section),
        target_offset=np.where(first, 0, both.target_offset),
        addend=np.where(second, -both.offset, np.where(first, 0, both.addend)),
    )


def _apply(
    program: Program, machine: Machine, placed: Placed, bound: Bound, entries: Relocations
) -> tuple[Bool, list[Patch]]:
    """(the entries whose value cannot change any more, patches that store it)."""
    # what is bound to a resolver is what it returns, and never the resolver
    plain = bound.local & ~resolvers(program)[bound.definition]
    block = placed.block[bound.input["atom"]]
    target = np.where(plain, placed.block[np.maximum(bound.atom, 0)], -1)
    position = bound.position(placed)
    distance = entries.target_offset + entries.addend - entries.offset - machine.trailing
    inside = (block >= 0) & (target == block)
    applied, patches = store(inside, machine.distance[entries.type], distance, position)
    pairs = _differences(machine, entries, target)
    difference = np.zeros(len(position), np.int64)
    first, second = np.flatnonzero(pairs), np.flatnonzero(pairs) + 1
    difference[first] = entries.location[second] + entries.addend[second] - entries.location[first]
    # both entries of a pair are of one width
    field = np.roll(machine.embedded[entries.type], -1)
    done, more = store(pairs, field, difference, position)
    applied |= done
    applied[1:] |= done[:-1]
    return applied, patches + more


def _differences(machine: Machine, entries: Relocations, target: Int32) -> Bool:
    """Which entries are the first of a pair of locations in one subsection; `target`: the block."""
    pairs: Bool = (entries.type & 0xF == machine.subtractor) & (entries.type < mo.PC_RELATIVE)
    pairs &= (entries.type >> 5 & 3 >= 2) & (target >= 0)
    pairs[:-1] &= target[1:] == target[:-1]
    return pairs


__all__ = ["relocate"]
