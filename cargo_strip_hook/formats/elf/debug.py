"""Debug information of live units: sections joined by name, relocations rewritten.

What describes nothing that lives is left out (see `dwarf`). Source: DWARF 5, section 7.4;
tombstones as linkers write them (0, and 1 in `.debug_ranges` and `.debug_loc` of DWARF 4, where 0
would end a list early).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cargo_strip_hook.core.errors import ObjectError
from cargo_strip_hook.formats.elf import layouts as elf
from cargo_strip_hook.formats.elf.debuginput import (
    Batch,
    Slots,
    batches,
    find_slots,
    out_of_range,
    overlapping,
    plain,
    stored_addends,
)
from cargo_strip_hook.formats.elf.debugparts import DEAD, Choice, Parts, Targets
from cargo_strip_hook.formats.elf.elements import name_elements
from cargo_strip_hook.formats.elf.machine import TYPES, Machine
from cargo_strip_hook.formats.elf.relocate import Placed, exact
from cargo_strip_hook.link.arrays import unique
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

_TOMBSTONE_ONE = (b".debug_ranges", b".debug_loc")

Chunk = bytes | bytearray | memoryview
_Addends = tuple[tuple[Int64, Array], ...]
# what changes in the contents of a slot, as in `DebugPiece`: words, halves, value, addends
_Patches = tuple[Int64, Int64, int, _Addends]


@dataclass(frozen=True, slots=True)
class DebugPiece:
    """What an output section has of one input section.

    `offset` is where it begins in the output, `size` its bytes there. `starts`, `sizes`: the parts
    of the input that it is made of, None for all of it. `words` and `halves` are the offsets in
    the input of 8- and 4-byte fields that take the tombstone `value`; `addends`: (offsets in the
    input, uint8[n, width]) of what stands in the contents for relocations.
    """

    unit: int
    section: int
    offset: int
    size: int
    parts: Parts
    words: Int64
    halves: Int64
    value: int
    addends: _Addends


@dataclass(frozen=True, slots=True)
class DebugSection:
    """One output section.

    `relocations`: (REL or RELA rows whose r_info has the type only, their targets as in
    `Applied`), in the order of the pieces.
    """

    name: bytes
    type: int
    flags: int
    entsize: int
    align: int
    size: int
    pieces: tuple[DebugPiece, ...]
    relocations: tuple[tuple[Array, Int32], ...]


@dataclass(frozen=True, slots=True)
class Debug:
    """The debug sections of a result; they follow those of `Placed`.

    `targets`: those of all relocations, sorted, each once. `link_map`: PLACEMENT rows of all
    parts; sections are counted from 1.
    """

    sections: tuple[DebugSection, ...]
    targets: Int32
    link_map: Array


def collect(program: Program, machine: Machine, live: Bool, placed: Placed) -> Debug:
    """The debug sections of every unit that has live code or data which they describe."""
    units = unique(program.unit_of(np.flatnonzero(live))).tolist()
    slots = find_slots(program, units)
    targets = _targets(program, machine, live, placed, slots)
    relocations = list(batches(program, machine, slots))
    symbols = [_symbols(program, slots, batch) for batch in relocations]
    for number, batch in enumerate(relocations):
        symbols[number], addend = name_elements(program, symbols[number], batch.addend)
        relocations[number] = replace(batch, addend=addend)
    parts = Choice(program, slots, targets, relocations, symbols).choose()
    layout = _Layout(slots, parts)
    used = np.zeros(len(program.symbols) + len(placed.start) + len(slots.names), np.bool_)
    rewritten: list[list[tuple[Array, Int32]]] = [[] for _ in slots.names]
    patches: dict[int, _Patches] = {}
    for batch, symbol in zip(relocations, symbols, strict=True):
        new = _rewrite(program, machine, slots, targets, layout, batch, symbol)
        patches.update(new.patches)
        if len(new.rows):
            rewritten[int(slots.rows["out"][batch.slots[0]])].append((new.rows, new.targets))
            used[new.targets] = True  # negative ones count from the end
    positive = np.flatnonzero(used[: len(program.symbols)])
    negative = np.flatnonzero(used[len(program.symbols) :]) - (len(used) - len(program.symbols))
    pieces: list[list[DebugPiece]] = [[] for _ in slots.names]
    none = np.zeros(0, np.int64)
    columns = [slots.rows[name].tolist() for name in ("out", "unit", "section")]
    for slot, out, unit, section, offset, size in zip(
        range(len(slots.rows)), *columns, layout.at.tolist(), layout.size.tolist(), strict=True
    ):
        if slot in parts:
            words, halves, value, addends = patches.get(slot, (none, none, 0, ()))
            pieces[out].append(
                DebugPiece(unit, section, offset, size, parts[slot], words, halves, value, addends)
            )
    sections = tuple(
        DebugSection(
            slots.names[out],
            kind,
            flags,
            entsize,
            int(layout.align[out]),
            int(layout.end[out]),
            tuple(pieces[out]),
            tuple(rewritten[out]),
        )
        for out, (kind, flags, entsize) in ((out, slots.headers[out]) for out in layout.outputs)
    )
    return Debug(
        sections,
        np.concatenate((negative, positive)).astype(np.int32),
        layout.link_map(program, len(placed.start)),
    )


def _targets(
    program: Program, machine: Machine, live: Bool, placed: Placed, slots: Slots
) -> Targets:
    definition = program.definition.astype(np.int64)
    symbols = program.symbols
    place = symbols["atom"][definition]
    inside = place >= 0
    atom = np.where(inside, place, 0)
    alive = inside & live[atom]
    dead = inside & ~alive
    target, delta = definition.copy(), np.zeros(len(definition), np.int64)
    alike = np.zeros(len(definition), np.bool_)
    if program.discarded.any():
        # a member of a losing COMDAT group is described by the winner's unit only
        own = symbols["atom"]
        lost = (own >= 0) & program.discarded[np.maximum(own, 0)]
        # unless the two are alike: then what is said of the loser holds for the winner, too
        twin = program.prevailing[np.where(lost, own, 0)]
        alike = lost & (twin >= 0)
        alike &= live[np.where(alike, twin, 0)]
        lost &= ~alike
        dead = (dead | lost) & ~alike
        alive &= ~lost & ~alike
        target[alike] = ~placed.section[twin[alike]].astype(np.int64)
        delta[alike] = placed.offset[twin[alike]] + symbols["value"][alike]
    kind = symbols["kind"][definition]
    whole = alive & ~placed.kept[definition] & (kind != elf.STT_TLS)
    whole &= exact(program, machine, placed, definition, placed.section[atom], kind)
    target[whole] = ~placed.section[atom[whole]].astype(np.int64)
    delta[whole] = placed.offset[atom[whole]] + symbols["value"][definition[whole]]

    first_slot = len(placed.start)
    elsewhere = np.flatnonzero(place == SpecialIndex.ELSEWHERE)
    there = definition[elsewhere]
    units = np.searchsorted(program.symbol_base, there, side="right") - 1
    shndx = np.concatenate([u.native.shndx for u in program.units])[there]
    slot = slots.of_section[slots.section_base[units] + shndx]
    target[elsewhere] = np.where(slot >= 0, ~(first_slot + slot.astype(np.int64)), DEAD)
    delta[elsewhere] = symbols["value"][there]
    target[dead] = DEAD
    return Targets(target.astype(np.int32), delta, alive | alike, first_slot)


def _symbols(program: Program, slots: Slots, batch: Batch) -> Int32:
    """The program-wide symbol of each relocation."""
    shift = program.units[0].native.records.symbol_shift
    first = program.symbol_base[slots.rows["unit"][batch.slots]]
    symbol: Int32 = (batch.rows["info"] >> shift).astype(np.int32)
    symbol += np.repeat(first, batch.counts).astype(np.int32)
    return symbol


class _Layout:
    """Where the kept slots go.

    By slot: `kept`, `at` (bytes in the output section), `size`. By output section: `end`, `align`,
    `number` (position among those that are not empty, which `outputs` lists).
    """

    def __init__(self, slots: Slots, parts: dict[int, Parts]) -> None:
        rows = slots.rows
        self.slots, self.parts = slots, parts
        self.kept = np.zeros(len(rows), np.bool_)
        self.kept[list(parts)] = True
        self.at, self.size = np.zeros(len(rows), np.int64), rows["size"].copy()
        for slot, part in parts.items():
            if part is not None:
                self.size[slot] = part[1].sum()
        self.end = np.zeros(len(slots.names), np.int64)
        self.align = np.ones(len(slots.names), np.int64)
        end, align = self.end.tolist(), self.align.tolist()
        chosen = np.flatnonzero(self.kept)
        places = []
        for out, step, size in zip(
            rows["out"][chosen].tolist(),
            rows["align"][chosen].tolist(),
            self.size[chosen].tolist(),
            strict=True,
        ):
            at = -(-end[out] // step) * step
            places.append(at)
            end[out], align[out] = at + size, max(align[out], step)
        self.at[chosen] = places
        self.end[:], self.align[:] = end, align
        self.outputs = sorted(set(rows["out"][chosen].tolist()))
        self.number = np.full(len(slots.names), -1, np.int64)
        self.number[self.outputs] = np.arange(len(self.outputs))

    def move(self, slot: int, offsets: Int64) -> tuple[Int64, Bool]:
        """(offsets in the output section, whether they are in a kept part) of a slot's offsets."""
        part = self.parts[slot]
        if part is None:
            return offsets + self.at[slot], np.ones(len(offsets), np.bool_)
        starts, sizes = part
        which = np.maximum(np.searchsorted(starts, offsets, side="right") - 1, 0)
        inside = offsets - starts[which]
        where = self.at[slot] + (np.cumsum(sizes) - sizes)[which] + inside
        return where, (inside >= 0) & (inside < sizes[which])

    def link_map(self, program: Program, first_section: int) -> Array:
        """PLACEMENT rows of all kept parts."""
        members = np.array([u.index for u in program.units], np.int32)
        chosen = np.flatnonzero(self.kept)
        parts = [self.parts[slot] for slot in chosen.tolist()]
        counts = np.array([1 if part is None else len(part[0]) for part in parts], np.int64)
        slot = np.repeat(chosen, counts)
        rows = self.slots.rows[slot]
        out = np.zeros(len(slot), LINK_MAP)
        out["member"] = members[rows["unit"]]
        out["section"] = rows["section"]
        out["size"] = rows["size"]
        divided = np.repeat(np.array([part is not None for part in parts], np.bool_), counts)
        for column, name in enumerate(("offset", "size")):
            each = [part[column] for part in parts if part is not None]
            out[name][divided] = np.concatenate(each) if each else 0
        out["out_section"] = first_section + self.number[rows["out"]] + 1
        ends = np.cumsum(out["size"])
        before = (ends - out["size"])[np.cumsum(counts) - counts]
        out["out_offset"] = self.at[slot] + ends - out["size"] - np.repeat(before, counts)
        return out


@dataclass(frozen=True, slots=True, eq=False)
class _Rewritten:
    """The relocations of a batch as the output has them.

    `rows` and `targets` are as in `DebugSection`; `patches`: by slot, what changes in its contents.
    """

    rows: Array
    targets: Int32
    patches: dict[int, _Patches]


def _rewrite(
    program: Program,
    machine: Machine,
    slots: Slots,
    targets: Targets,
    layout: _Layout,
    batch: Batch,
    symbol: Array,
) -> _Rewritten:
    """Make the relocations of a batch those of the output: `batch.rows` are used up by that.

    `symbol`: the program-wide symbol of each. Raises `ObjectError` for one that refers to
    something outside of its target's section, or whose field overlaps another one.
    """
    rows, counts = batch.rows, batch.counts
    records: elf.Records = program.units[0].native.records
    kind = (rows["info"] & records.type_mask).astype(np.int64)
    target, addend = _refer(program, slots, targets, layout, batch, symbol)
    dead = target == DEAD
    width = machine.absolute_types[np.minimum(kind, TYPES - 1)]
    one = int(slots.names[int(slots.rows["out"][batch.slots[0]])] in _TOMBSTONE_ONE)
    kept = np.repeat(layout.kept[batch.slots], counts)
    offset = rows["offset"].astype(np.int64)
    twice = _overlap(counts, offset, width)
    if twice >= 0:
        raise overlapping(program, slots, batch, twice)
    place = offset + np.repeat(layout.at[batch.slots], counts)
    borders = np.concatenate(([0], np.cumsum(counts)))
    for i, slot in enumerate(batch.slots.tolist()):
        if layout.parts.get(slot) is not None:
            span = slice(int(borders[i]), int(borders[i + 1]))
            place[span], kept[span] = layout.move(slot, offset[span])
            last = np.maximum(width[span].astype(np.int64), 1) - 1
            across = kept[span] & (layout.move(slot, offset[span] + last)[0] != place[span] + last)
            if across.any():
                raise out_of_range(program, slots, batch, span.start + int(across.argmax()))
    left = ~dead & (kind != 0) & kept
    words = np.flatnonzero(dead & kept & (width == 8))
    halves = np.flatnonzero(dead & kept & (width == 4))
    of_words, of_halves = np.searchsorted(words, borders), np.searchsorted(halves, borders)
    changed = (of_words[1:] > of_words[:-1]) | (of_halves[1:] > of_halves[:-1]) | machine.rel
    patches: dict[int, _Patches] = {}
    for i in np.flatnonzero(changed).tolist():
        slot, span = int(batch.slots[i]), slice(int(borders[i]), int(borders[i + 1]))
        unit = program.units[int(slots.rows["unit"][slot])]
        moved = np.flatnonzero(left[span] & (target[span] < 0)) + span.start
        patches[slot] = (
            offset[words[of_words[i] : of_words[i + 1]]],
            offset[halves[of_halves[i] : of_halves[i + 1]]],
            one,
            stored_addends(machine, unit, kind[moved], offset[moved], addend[moved]),
        )
    rows["offset"] = place
    rows["info"] = kind
    if not machine.rel:
        rows["addend"] = addend
    if not left.all():
        rows, target = rows[left], target[left]
    return _Rewritten(rows, target, patches)


def _refer(
    program: Program, slots: Slots, targets: Targets, layout: _Layout, batch: Batch, symbol: Array
) -> tuple[Int32, Int64]:
    """(target as in `DebugSection`, or `DEAD`; addend) of each relocation of a batch."""
    target = targets.target[symbol]
    addend = batch.addend + targets.delta[symbol]
    debug = np.flatnonzero((target < ~(targets.first_slot - 1)) & (target != DEAD))
    there = ~target[debug] - targets.first_slot
    stays = layout.kept[there]
    beyond = stays & ((addend[debug] < 0) | (addend[debug] > slots.rows["size"][there]))
    if beyond.any():
        raise out_of_range(program, slots, batch, int(debug[beyond.argmax()]))
    moved = layout.at[there] + addend[debug]
    for slot in unique(there[stays]).tolist():
        if layout.parts[slot] is not None:
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


def _contents(unit: Unit, piece: DebugPiece) -> Iterator[Chunk]:
    """The bytes of a piece as they are written."""
    data: Chunk = plain(unit, piece.section)
    octets = np.frombuffer(data, np.uint8)
    order: Literal["little", "big"] = "little" if unit.native.records.order == "<" else "big"
    patches = list(piece.addends)
    for offsets, width in ((piece.words, 8), (piece.halves, 4)):
        if not len(offsets):
            continue
        if (offsets + width > len(octets)).any():
            raise ObjectError(
                "a relocation of debug information is out of range",
                member=unit.name,
                offset=int(unit.native.sections["offset"][piece.section]),
            )
        wanted = np.frombuffer(piece.value.to_bytes(width, order), np.uint8)
        # those of RELA relocations mostly hold it already
        where = offsets[:, None] + np.arange(width)
        differs = (octets[where] != wanted).any(axis=1)
        if differs.any():
            patches.append((offsets[differs], np.broadcast_to(wanted, (int(differs.sum()), width))))
    if patches:
        data = bytearray(data)
        octets = np.frombuffer(data, np.uint8)
        for offsets, stored in patches:
            octets[offsets[:, None] + np.arange(stored.shape[1])] = stored
    if piece.parts is None:
        yield data
        return
    starts, sizes = piece.parts
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
    """The contents of an output section, piece by piece, with the padding between them."""
    at = 0
    for piece in section.pieces:
        if piece.offset > at:
            yield bytes(piece.offset - at)
        yield from _contents(program.units[piece.unit], piece)
        at = piece.offset + piece.size


def inputs(
    program: Program, sections: Iterable[DebugSection], names: Iterable[bytes]
) -> Iterator[memoryview | bytes]:
    """The whole contents of each input section that a section with one of `names` has parts of."""
    for section in sections:
        if section.name in names:
            for piece in section.pieces:
                yield plain(program.units[piece.unit], piece.section)


__all__ = ["Debug", "DebugPiece", "DebugSection", "collect", "inputs", "stream"]
