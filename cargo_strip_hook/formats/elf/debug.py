"""Debug information of live units: sections joined by name, relocations rewritten.

What describes nothing that lives is left out (see `dwarf`); references to it become tombstones, as
linkers write them. Source: DWARF 5, section 7.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.debugchoice import DEAD, Choice, Ranges, Targets
from cargo_strip_hook.formats.elf.debuginput import (
    Batch,
    Slots,
    bad_section,
    batches,
    find_slots,
    out_of_range,
    overlapping,
    plain,
    stored_addends,
)
from cargo_strip_hook.formats.elf.file import elf_unit
from cargo_strip_hook.formats.elf.machine import TYPES, Machine
from cargo_strip_hook.formats.elf.relocate import Placed, exact
from cargo_strip_hook.link.arrays import begins, rows_of, unique
from cargo_strip_hook.link.contributions import ENDED_BY_ZEROS, stacked
from cargo_strip_hook.link.model import (
    LINK_MAP,
    Array,
    Bool,
    Int32,
    Int64,
    Program,
    SpecialIndex,
    Unit,
)

Chunk = bytes | bytearray | memoryview
# what changes in an input section: offsets in it, and uint8[n, width] that goes there
_Patches = tuple[tuple[Int64, Array], ...]


@dataclass(frozen=True, slots=True)
class Contribution:
    """What an output section has of one input section.

    `offset` is where it begins in the output, `size` its bytes there. `ranges` (starts, sizes) are
    those of the input that it is made of, None for all of it. `patches` change the input:
    tombstones, and what the contents hold for relocations.
    """

    unit: int
    section: int
    offset: int
    size: int
    ranges: Ranges
    patches: _Patches


@dataclass(frozen=True, slots=True)
class DebugSection:
    """One output section.

    `relocations`: (REL or RELA rows whose r_info has the type only, their targets), in the order
    of the contributions. A target is a program-wide symbol, or ~section for an output section.
    """

    name: bytes
    type: int
    flags: int
    entsize: int
    align: int
    size: int
    contributions: tuple[Contribution, ...]
    relocations: tuple[tuple[Array, Int32], ...]


@dataclass(frozen=True, slots=True)
class Debug:
    """The debug sections of a result; they follow those of `Placed`.

    `targets`: those of all relocations, sorted, each once. `link_map`: LINK_MAP rows of all
    parts; sections are counted from 1.
    """

    sections: tuple[DebugSection, ...]
    targets: Int32
    link_map: Array


def collect(program: Program, machine: Machine, live: Bool, placed: Placed) -> Debug:
    """The debug sections of every unit that has live code or data which they describe."""
    slots = find_slots(program, program.live_units(live))
    targets = _targets(program, machine, live, placed, slots)
    relocations = list(batches(program, machine, slots))
    record = elf_unit(program.units[0]).relocation
    layout = _laid_out(slots, Choice(program, slots, targets, relocations).choose())
    used = np.zeros(len(program.symbols) + len(placed.sections.start) + len(slots.names), np.bool_)
    rewritten: list[list[tuple[Array, Int32]]] = [[] for _ in slots.names]
    patches: dict[int, _Patches] = {}
    while relocations:  # of each batch either the old rows or the new ones are kept
        batch = relocations.pop(0)
        fields = _fields(program, machine, slots, targets, layout, batch)
        patches |= _patches(program, machine, slots, batch, fields)
        left = fields.kept & (fields.target != DEAD) & (fields.type != 0)
        target = fields.target[left]
        columns = {"offset": fields.new_offset[left], "info": fields.type[left]}
        if not machine.rel:
            columns["addend"] = fields.addend[left]
        if len(target):
            rows = rows_of(record, len(target), **columns)
            rewritten[int(slots.rows["out"][batch.slots[0]])].append((rows, target))
            used[target] = True  # negative ones count from the end
    positive = np.flatnonzero(used[: len(program.symbols)])
    negative = np.flatnonzero(used[len(program.symbols) :]) - (len(used) - len(program.symbols))
    contributions: list[list[Contribution]] = [[] for _ in slots.names]
    columns_of_slots = [slots.rows[name].tolist() for name in ("out", "unit", "section")]
    columns_of_slots += [layout.offset.tolist(), layout.size.tolist()]
    for slot, (out, unit, section, offset, size) in enumerate(zip(*columns_of_slots, strict=True)):
        if slot in layout.ranges:
            change = patches.get(slot, ())
            ranges = layout.ranges[slot]
            contributions[out].append(Contribution(unit, section, offset, size, ranges, change))
    sections = tuple(
        DebugSection(
            slots.names[out],
            *slots.headers[int(out)],
            int(layout.align[out]),
            int(layout.end[out]),
            tuple(contributions[out]),
            tuple(rewritten[out]),
        )
        for out in np.flatnonzero(layout.number >= 0).tolist()
    )
    return Debug(
        sections,
        np.concatenate((negative, positive)).astype(np.int32),
        _link_map(program, slots, layout, len(placed.sections.start)),
    )


def _targets(
    program: Program, machine: Machine, live: Bool, placed: Placed, slots: Slots
) -> Targets:
    definition = program.definition.astype(np.int64)
    symbols = program.symbols
    holder = symbols["atom"][definition]
    inside = holder >= 0
    atom = np.where(inside, holder, 0)
    alive = inside & live[atom]
    dead = inside & ~alive
    target, delta = definition.copy(), np.zeros(len(definition), np.int64)
    same = np.zeros(len(definition), np.bool_)
    if program.discarded.any():
        # a member of a losing COMDAT group is described by the winner's unit only
        own = symbols["atom"]
        lost = (own >= 0) & program.discarded[np.maximum(own, 0)]
        # unless the two are alike: then what is said of the loser holds for the winner, too
        prevailing = program.prevailing[np.where(lost, own, 0)]
        same = lost & (prevailing >= 0)
        same &= live[np.where(same, prevailing, 0)]
        lost &= ~same
        dead = (dead | lost) & ~same
        alive &= ~lost & ~same
        target[same] = ~placed.section[prevailing[same]].astype(np.int64)
        delta[same] = placed.offset[prevailing[same]] + symbols["value"][same]
    kind = symbols["kind"][definition]
    whole = alive & ~placed.kept[definition] & (kind != elf.STT_TLS)
    whole &= exact(program, machine, placed, definition, placed.section[atom], kind)
    target[whole] = ~placed.section[atom[whole]].astype(np.int64)
    delta[whole] = placed.offset[atom[whole]] + symbols["value"][definition[whole]]

    first_slot = len(placed.sections.start)
    elsewhere = np.flatnonzero(holder == SpecialIndex.ELSEWHERE)
    there = definition[elsewhere]
    units = np.searchsorted(program.symbol_base, there, side="right") - 1
    shndx = np.concatenate([elf_unit(u).shndx for u in program.units])[there]
    slot = slots.of_section[slots.section_base[units] + shndx]
    target[elsewhere] = np.where(slot >= 0, ~(first_slot + slot.astype(np.int64)), DEAD)
    delta[elsewhere] = symbols["value"][there]
    target[dead] = DEAD
    return Targets(target.astype(np.int32), delta, alive | same, first_slot)


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """Where the kept slots go.

    By slot: `kept` (bool), `offset` (int64, bytes in the output section), `size` (int64), and of
    the kept ones their `ranges`. By output section: `end`, `align`, `number`, which counts those
    that are not empty, and is -1 for others.
    """

    ranges: dict[int, Ranges]
    kept: Bool
    offset: Int64
    size: Int64
    end: Int64
    align: Int64
    number: Int64

    def move(self, slot: int, offsets: Int64) -> tuple[Int64, Bool]:
        """(offsets in the output section, whether they are in a kept range) of a slot's offsets."""
        ranges = self.ranges[slot]
        if ranges is None:
            return offsets + self.offset[slot], np.ones(len(offsets), np.bool_)
        starts, sizes = ranges
        which = np.maximum(np.searchsorted(starts, offsets, side="right") - 1, 0)
        inside = offsets - starts[which]
        where = self.offset[slot] + (np.cumsum(sizes) - sizes)[which] + inside
        return where, (inside >= 0) & (inside < sizes[which])


def _laid_out(slots: Slots, ranges: dict[int, Ranges]) -> _Layout:
    """Put the `ranges` of the slots behind one another; slots without any are left out."""
    rows = slots.rows
    kept = np.zeros(len(rows), np.bool_)
    kept[list(ranges)] = True
    offset, size = np.zeros(len(rows), np.int64), rows["size"].copy()
    for slot, one in ranges.items():
        if one is not None:
            size[slot] = one[1].sum()
    offset[kept], end, align = stacked(rows[kept], size[kept], len(slots.names))
    outputs = unique(rows["out"][kept])
    number = np.full(len(slots.names), -1, np.int64)
    number[outputs] = np.arange(len(outputs))
    return _Layout(ranges, kept, offset, size, end, align, number)


def _link_map(program: Program, slots: Slots, layout: _Layout, first_section: int) -> Array:
    """LINK_MAP rows of all kept ranges."""
    chosen = np.flatnonzero(layout.kept)
    ranges = [layout.ranges[slot] for slot in chosen.tolist()]
    counts = np.array([1 if one is None else len(one[0]) for one in ranges], np.int64)
    slot = np.repeat(chosen, counts)
    rows = slots.rows[slot]
    offset, size = np.zeros(len(slot), np.int64), rows["size"].copy()
    divided = np.repeat(np.array([one is not None for one in ranges], np.bool_), counts)
    for column, values in enumerate((offset, size)):
        each = [one[column] for one in ranges if one is not None]
        values[divided] = np.concatenate(each) if each else 0
    before = np.cumsum(size) - size
    return rows_of(
        LINK_MAP,
        len(slot),
        member=np.array([u.index for u in program.units], np.int32)[rows["unit"]],
        section=rows["section"],
        offset=offset,
        size=size,
        out_section=first_section + layout.number[rows["out"]] + 1,
        out_offset=layout.offset[slot]
        + before
        - np.repeat(before[np.cumsum(counts) - counts], counts),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Fields:
    """What the relocations of a batch are in the output; arrays by relocation.

    `offset` is that of the field in the input section, `new_offset` in the output section, where
    it is `kept`. `width` is that of an absolute value in bytes, 0 for types that are no whole
    field. `target`: as in `DebugSection`, or DEAD.
    """

    type: Int64
    width: Array
    offset: Int64
    new_offset: Int64
    kept: Bool
    target: Int32
    addend: Int64


def _fields(
    program: Program,
    machine: Machine,
    slots: Slots,
    targets: Targets,
    layout: _Layout,
    batch: Batch,
) -> _Fields:
    """Find out where the relocations of a batch go, and what they refer to.

    Raises `ObjectError` for one that refers to something outside of its target's section, or whose
    field overlaps another one.
    """
    rows, counts = batch.rows, batch.counts
    kind = (rows["info"] & elf_unit(program.units[0]).records.type_mask).astype(np.int64)
    target, addend = _refer(program, slots, targets, layout, batch)
    width = machine.absolute_types[np.minimum(kind, TYPES - 1)]
    kept = np.repeat(layout.kept[batch.slots], counts)
    offset = rows["offset"].astype(np.int64)
    twice = _overlap(counts, offset, width)
    if twice >= 0:
        raise overlapping(program, slots, batch, twice)
    new_offset = offset + np.repeat(layout.offset[batch.slots], counts)
    borders = begins(counts).tolist()
    for slot, span in zip(batch.slots.tolist(), map(slice, borders, borders[1:]), strict=True):
        if layout.ranges.get(slot) is not None:
            new_offset[span], kept[span] = layout.move(slot, offset[span])
            last = np.maximum(width[span].astype(np.int64), 1) - 1
            end, _ = layout.move(slot, offset[span] + last)
            across = kept[span] & (end != new_offset[span] + last)
            if across.any():
                raise out_of_range(program, slots, batch, span.start + int(across.argmax()))
    return _Fields(kind, width, offset, new_offset, kept, target, addend)


def _patches(
    program: Program, machine: Machine, slots: Slots, batch: Batch, fields: _Fields
) -> dict[int, _Patches]:
    """What changes in the contents, by slot: tombstones, and for REL the new addends."""
    records: elf.Records = elf_unit(program.units[0]).records
    order: Literal["little", "big"] = "little" if records.order == "<" else "big"
    name = slots.names[int(slots.rows["out"][batch.slots[0]])]
    tombstone = int(name in ENDED_BY_ZEROS)
    dead = fields.kept & (fields.target == DEAD)
    changed = (fields.target < 0) | batch.explicit
    stored = fields.kept & ~dead & (fields.type != 0) & changed & machine.rel
    chosen = np.flatnonzero(stored | (dead & ((fields.width == 4) | (fields.width == 8))))
    borders = np.searchsorted(chosen, begins(batch.counts))
    by_slot: dict[int, _Patches] = {}
    for number in np.flatnonzero(borders[1:] > borders[:-1]).tolist():
        slot = int(batch.slots[number])
        unit = program.units[int(slots.rows["unit"][slot])]
        mine = chosen[borders[number] : borders[number + 1]]
        alive = mine[stored[mine]]
        kind, offset, addend = (c[alive] for c in (fields.type, fields.offset, fields.addend))
        patches = list(stored_addends(machine, unit, kind, offset, addend))
        for width in (8, 4):
            fits = mine[dead[mine] & (fields.width[mine] == width)]
            octets = np.frombuffer(tombstone.to_bytes(width, order), np.uint8)
            patches.append((fields.offset[fits], np.broadcast_to(octets, (len(fits), width))))
        by_slot[slot] = tuple(patches)
    return by_slot


def _refer(
    program: Program, slots: Slots, targets: Targets, layout: _Layout, batch: Batch
) -> tuple[Int32, Int64]:
    """(target as in `DebugSection`, or DEAD; addend) of each relocation of a batch."""
    target = targets.target[batch.symbol]
    addend = batch.addend + targets.delta[batch.symbol]
    debug = np.flatnonzero((target < ~(targets.first_slot - 1)) & (target != DEAD))
    there = ~target[debug] - targets.first_slot
    stays = layout.kept[there]
    beyond = stays & ((addend[debug] < 0) | (addend[debug] > slots.rows["size"][there]))
    if beyond.any():
        raise out_of_range(program, slots, batch, int(debug[beyond.argmax()]))
    moved = layout.offset[there] + addend[debug]
    for slot in unique(there[stays]).tolist():
        if layout.ranges[slot] is not None:
            mine = np.flatnonzero(there == slot)
            moved[mine], _ = layout.move(slot, addend[debug[mine]])
    number = layout.number[slots.rows["out"][there]].astype(np.int32)
    target[debug] = np.where(stays, ~(number + targets.first_slot), DEAD)
    addend[debug] = moved
    return target, addend


def _overlap(counts: Array, offset: Int64, width: Array) -> int:
    """The first of the relocations whose field overlaps another one of its section, or -1.

    `width` is 0 for types that are no whole field: two of these may be at one place.
    """
    section = np.repeat(np.arange(len(counts)), counts)
    fields = np.flatnonzero(width > 0)
    start, width = (section[fields] << 48) + offset[fields], width[fields]
    if not (start[1:] < start[:-1] + width[:-1]).any():  # nearly always they are in order
        return -1
    order = np.argsort(start, kind="stable")
    near = start[order][1:] < start[order][:-1] + width[order][:-1]
    return int(fields[order][1:][near][0]) if near.any() else -1


def _contents(unit: Unit, contribution: Contribution) -> Iterator[Chunk]:
    """The bytes of a contribution as they are written."""
    data: Chunk = plain(unit, contribution.section)
    octets = np.frombuffer(data, np.uint8)
    changes = []
    for offsets, stored in contribution.patches:
        width = stored.shape[1]
        if (offsets + width > len(octets)).any():
            what = "a relocation of debug information is out of range"
            raise bad_section(unit, contribution.section, what)
        # RELA relocations mostly have fields that hold it already
        where = offsets[:, None] + np.arange(width)
        differs = (octets[where] != stored).any(axis=1)
        if differs.any():
            changes.append((where[differs], stored[differs]))
    if changes:
        data = bytearray(data)
        octets = np.frombuffer(data, np.uint8)
        for where, stored in changes:
            octets[where] = stored
    if contribution.ranges is None:
        yield data
        return
    starts, sizes = contribution.ranges
    if len(starts) <= 8:
        view = memoryview(data)
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
            yield view[start : start + size]
        return
    edges = np.zeros(len(octets) + 1, np.int8)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + sizes, -1)
    yield octets[np.cumsum(edges[:-1]) > 0].tobytes()


def stream(program: Program, section: DebugSection) -> Iterator[Chunk]:
    """The contents of an output section, with the padding between the contributions."""
    position = 0
    for contribution in section.contributions:
        if contribution.offset > position:
            yield bytes(contribution.offset - position)
        yield from _contents(program.units[contribution.unit], contribution)
        position = contribution.offset + contribution.size


def inputs(
    program: Program, sections: Iterable[DebugSection], names: Iterable[bytes]
) -> Iterator[memoryview | bytes]:
    """The whole contents of each input section that a section with one of `names` has parts of."""
    for section in sections:
        if section.name in names:
            for contribution in section.contributions:
                yield plain(program.units[contribution.unit], contribution.section)


__all__ = ["Contribution", "Debug", "DebugSection", "collect", "inputs", "stream"]
