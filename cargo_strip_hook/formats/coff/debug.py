"""DWARF of live units: sections joined by name, relocations rewritten.

Sources: DWARF 5, section 7.4; Microsoft, "PE Format", for references between sections (SECREL).
What refers to dead code gets a tombstone as linkers write it: 0, and 1 in `.debug_ranges` and
`.debug_loc` of DWARF 4, where 0 would end a list early.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.file import CoffFile
from cargo_strip_hook.formats.coff.kinds import SectionKind
from cargo_strip_hook.formats.coff.machine import Machine, Mode
from cargo_strip_hook.formats.coff.place import Placed
from cargo_strip_hook.formats.coff.reader import CoffUnit
from cargo_strip_hook.formats.coff.relocate import STEP, Rewritten
from cargo_strip_hook.link.model import LINK_MAP, Array, Bool, Int64, Program, SpecialIndex

_TOMBSTONE_ONE = (b".debug_ranges", b".debug_loc")


@dataclass(frozen=True, slots=True)
class Debug:
    """Sections that follow those of the program, their contents and relocations.

    `left_out`: members whose debug information cannot be kept, and why.
    """

    kinds: tuple[SectionKind, ...]
    sizes: Int64
    align: Int64
    blob: Array  # uint8, all contents one behind the other
    relocations: Rewritten
    left_out: tuple[tuple[str, str], ...]
    link_map: Array  # PLACEMENT


def collect(program: Program, machine: Machine, live: Bool, placed: Placed) -> Debug:
    """The debug sections of every unit with a live atom."""
    order: dict[bytes, int] = {}
    sizes: list[int] = []
    aligns: list[int] = []
    pieces: list[tuple[int, int, int, int]] = []  # unit, section, output section, offset
    for number in program.live_units(live):
        native: CoffUnit = program.units[number].native
        for section in native.debug:
            name = native.names[section]
            size = int(native.sections["size"][section])
            if not name.startswith(b".debug_"):
                continue
            out = order.setdefault(name, len(order))
            if out == len(sizes):
                sizes.append(0)
                aligns.append(1)
            shift = (int(native.sections["flags"][section]) & coff.SCN_ALIGN_MASK) >> 20
            align = 1 << max(shift - 1, 0)
            at = -(-sizes[out] // align) * align
            pieces.append((number, section, out, at))
            sizes[out], aligns[out] = at + size, max(aligns[out], align)

    total = np.array(sizes, np.int64)
    start = np.cumsum(total) - total
    blob = np.zeros(int(total.sum()), np.uint8)
    first = len(placed.kinds)
    names = list(order)
    found: list[tuple[Int64, ...]] = []
    of_unit: dict[int, list[tuple[int, int, int]]] = {}
    for number, section, out, at in pieces:
        of_unit.setdefault(number, []).append((section, out, at))
    for number, mine in of_unit.items():
        f = CoffFile(program.units[number].name, program.units[number].data)
        base = np.full((len(f.sections), 2), -1, np.int64)
        for section, out, at in mine:
            base[section] = out, at
            contents = f.contents(section)
            begin = int(start[out]) + at
            blob[begin : begin + len(contents)] = np.frombuffer(contents, np.uint8)
        rows = f.relocations(np.array([s for s, _, _ in mine], np.int64))
        if len(rows):
            one = np.array([n in _TOMBSTONE_ONE for n in names], np.bool_)
            found.append(
                _rewrite(program, machine, live, placed, number, f, rows, base, (start, blob, one))
            )
    columns = [np.concatenate(c) for c in zip(*found, strict=True)] if found else _empty()
    by_place = np.lexsort((columns[1], columns[0]))
    out_section, offset, kind, target, at_place = (c[by_place] for c in columns)
    inside = at_place != 0
    exact = inside & (machine.mode[kind] == Mode.EXACT)
    rewritten = Rewritten(out_section + first, offset, kind, target, inside, exact)
    flags = coff.DEBUG & ~coff.SCN_ALIGN_MASK
    kinds = tuple(SectionKind(n, flags, root=True) for n in names)
    told = np.zeros(len(pieces), LINK_MAP)
    for row, (number, section, out, at) in enumerate(pieces):
        size = int(program.units[number].native.sections["size"][section])
        member = program.units[number].index
        told[row] = member, section + 1, 0, size, first + out + 1, at
    return Debug(kinds, total, np.array(aligns, np.int64), blob, rewritten, (), told)


def _empty() -> list[Int64]:
    return [np.zeros(0, np.int64) for _ in range(5)]


@dataclass(slots=True)
class Targets:
    """What relocations refer to in the new object. Arrays by relocation.

    `target` is a program-wide symbol, or where `place` is set the start of an output section, to
    whose field `adds` is added. What is `dead` is not in the new object. `home`: the output
    section, -1 for what is not inside.
    """

    target: Int64
    place: Bool
    adds: Int64
    dead: Bool
    home: Int64


def targets(
    program: Program, live: Bool, placed: Placed, number: int, rows: Array
) -> tuple[Targets, Int64]:
    """(targets, those that are in sections which are no atoms) of a unit's relocations."""
    native: CoffUnit = program.units[number].native
    symbol = int(program.symbol_base[number]) + native.numbers[rows["symbol"]]
    definition = program.definition[symbol].astype(np.int64)
    place = program.symbols["atom"][definition].astype(np.int64)
    value = program.symbols["value"][definition].copy()
    # what is said of the loser of a COMDAT holds for the winner only where the two are alike
    own = program.symbols["atom"][symbol]
    lost = (own >= 0) & program.discarded[np.maximum(own, 0)]
    place = np.where(lost, program.twin[np.maximum(own, 0)], place)
    value = np.where(lost, program.symbols["value"][symbol], value)
    at = np.maximum(place, 0)
    alive = (place >= 0) & live[at] & (placed.section[at] >= 0)
    whole = alive & (~placed.kept[definition] | lost)
    home = np.where(alive, placed.section[at], -1).astype(np.int64)
    found = Targets(
        np.where(whole, home << STEP, definition),
        whole,
        np.where(whole, placed.offset[at] + value, 0),
        ((place >= 0) | lost) & ~alive,
        home,
    )
    return found, np.flatnonzero(place == SpecialIndex.ELSEWHERE)


def store(
    machine: Machine, blob: Array, field: Int64, kind: Int64, found: Targets, one: Bool
) -> None:
    """Add to fields of `blob` what is added, and put a tombstone into those of what is dead."""
    mode, width = machine.mode[kind], machine.width[kind]
    for size, form in ((4, "<u4"), (8, "<u8")):
        chosen = np.flatnonzero(found.place & ~found.dead & (mode == Mode.ADDS) & (width == size))
        octets = field[chosen, None] + np.arange(size)
        word = np.ascontiguousarray(blob[octets]).view(form).reshape(-1)
        word = word + found.adds[chosen].astype(form)
        blob[octets] = word.astype(form).view(np.uint8).reshape(-1, size)
    for size in (2, 4, 8):
        chosen = np.flatnonzero(found.dead & (width == size))
        octets = field[chosen, None] + np.arange(size)
        blob[octets] = 0
        blob[field[chosen]] = one[chosen]


def _rewrite(
    program: Program,
    machine: Machine,
    live: Bool,
    placed: Placed,
    number: int,
    f: CoffFile,
    rows: Array,
    base: Int64,
    output: tuple[Int64, Array, Bool],
) -> tuple[Int64, ...]:
    """(output section, offset, type, target, whether that is a place) of a unit's relocations.

    `base`: (output section, offset) of each section of the unit. Changes the contents.
    """
    start, blob, one = output
    found, elsewhere = targets(program, live, placed, number, rows)
    section, begin = base[rows["atom"]].T
    offset = begin + rows["offset"]
    kind = rows["type"].astype(np.int64)
    if len(elsewhere):
        # the symbol of a section that is no atom: its place is in the file's own record
        symbols = f.symbols[rows["symbol"][elsewhere]]
        where = symbols["section"].astype(np.int64)
        inside = (where > 0) & (where <= len(base))
        out = np.where(inside[:, None], base[np.where(inside, where - 1, 0)], -1)
        kept = out[:, 0] >= 0
        mine = elsewhere[kept]
        found.target[mine] = (out[kept, 0] + len(placed.kinds)) << STEP
        found.adds[mine] = out[kept, 1] + symbols["value"][kept].astype(np.int64)
        found.place[mine] = True
        found.dead[elsewhere[~kept]] = True
    store(machine, blob, start[section] + offset, kind, found, one[section])
    left = ~found.dead
    columns = (section, offset, kind, found.target, found.place.astype(np.int64))
    return tuple(column[left] for column in columns)


def combined(first: Debug, second: Debug) -> Debug:
    """The sections of both, one behind the other: `second` was made to follow `first`."""
    return Debug(
        first.kinds + second.kinds,
        np.concatenate([first.sizes, second.sizes]),
        np.concatenate([first.align, second.align]),
        np.concatenate([first.blob, second.blob]),
        all_relocations(first.relocations, second.relocations),
        first.left_out + second.left_out,
        np.concatenate([first.link_map, second.link_map]),
    )


def unwind_output(placed: Placed, debug: Debug) -> Placed:
    """The program's sections and the debug sections behind them."""
    end = int(placed.start[-1])
    return replace(
        placed,
        start=np.concatenate(
            [placed.start[:-1], end + np.cumsum(debug.sizes) - debug.sizes, [end + len(debug.blob)]]
        ),
        blob=np.concatenate([placed.blob, debug.blob]),
        kinds=(*placed.kinds, *debug.kinds),
    )


def all_relocations(first: Rewritten, second: Rewritten) -> Rewritten:
    """The relocations of the program and those of what follows it."""
    fields = ("section", "offset", "type", "target", "place", "exact")
    return Rewritten(*(np.concatenate([getattr(first, n), getattr(second, n)]) for n in fields))
