"""DWARF of live units: sections joined by name, relocations rewritten.

Sources: DWARF 5, section 7.4; Microsoft, "PE Format", for references between sections (SECREL).
What refers to dead code gets a tombstone as linkers write it: 0, and 1 in `.debug_ranges` and
`.debug_loc` of DWARF 4, where 0 would end a list early.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from cargo_strip_hook.formats.coff import layouts as coff
from cargo_strip_hook.formats.coff.file import CoffFile
from cargo_strip_hook.formats.coff.kinds import SectionKind
from cargo_strip_hook.formats.coff.machine import Machine, Mode
from cargo_strip_hook.formats.coff.place import Placed
from cargo_strip_hook.formats.coff.reader import CoffUnit
from cargo_strip_hook.link.addresses import STEP, begin_of
from cargo_strip_hook.link.model import LINK_MAP, Array, Bool, Int64, Program, SpecialIndex
from cargo_strip_hook.link.output import Relocations

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
    relocations: Relocations
    left_out: tuple[tuple[str, str], ...]
    link_map: Array  # PLACEMENT


@dataclass(frozen=True, slots=True)
class _Joined:
    """The sections of all units by name, and what each holds.

    `names`, `sizes` and `aligns` are by output section, counted from 0 among these sections.
    """

    names: list[bytes]
    sizes: Int64
    aligns: Int64
    pieces: list[tuple[int, int, int, int]]  # unit, section, output section, offset


def collect(program: Program, machine: Machine, live: Bool, placed: Placed) -> Debug:
    """The debug sections of every unit with a live atom."""
    joined = _join(program, live)
    start = np.cumsum(joined.sizes) - joined.sizes
    blob = np.zeros(int(joined.sizes.sum()), np.uint8)
    first = len(placed.kinds)
    of_unit: dict[int, list[tuple[int, int, int]]] = {}
    for number, section, out, offset in joined.pieces:
        of_unit.setdefault(number, []).append((section, out, offset))
    tables = [nothing()]
    for number, mine in of_unit.items():
        f = CoffFile(program.units[number].name, program.units[number].data)
        base = np.full((len(f.sections), 2), -1, np.int64)
        for section, out, offset in mine:
            base[section] = out, offset
            contents = f.contents(section)
            begin = int(start[out]) + offset
            blob[begin : begin + len(contents)] = np.frombuffer(contents, np.uint8)
        rows = f.relocations(np.array([s for s, _, _ in mine], np.int64))
        refers, elsewhere = targets(program, live, placed, number, rows)
        refers = _into_records(refers, elsewhere, f, rows, base, first)
        section, begin = base[rows["atom"]].T
        kind = rows["type"].astype(np.int64)
        tables.append(References(section, begin + rows["offset"], kind, refers))
    references = concatenated(tables)
    one = np.array([name in _TOMBSTONE_ONE for name in joined.names], np.bool_)
    store(machine, blob, start, references, one)
    flags = coff.DEBUG & ~coff.SCN_ALIGN_MASK
    return Debug(
        tuple(SectionKind(name, flags, root=True) for name in joined.names),
        joined.sizes,
        joined.aligns,
        blob,
        rewritten(machine, references, first),
        (),
        _link_map(program, joined, first),
    )


def _join(program: Program, live: Bool) -> _Joined:
    """Put the sections of the same name behind one another."""
    order: dict[bytes, int] = {}
    sizes: list[int] = []
    aligns: list[int] = []
    pieces: list[tuple[int, int, int, int]] = []
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
            offset = -(-sizes[out] // align) * align
            pieces.append((number, section, out, offset))
            sizes[out], aligns[out] = offset + size, max(aligns[out], align)
    return _Joined(list(order), np.array(sizes, np.int64), np.array(aligns, np.int64), pieces)


def _link_map(program: Program, joined: _Joined, first: int) -> Array:
    """`LINK_MAP` rows of the pieces; `first` is the number of their first output section from 0."""
    link_map = np.zeros(len(joined.pieces), LINK_MAP)
    for row, (number, section, out, offset) in enumerate(joined.pieces):
        size = int(program.units[number].native.sections["size"][section])
        member = program.units[number].index
        link_map[row] = member, section + 1, 0, size, first + out + 1, offset
    return link_map


@dataclass(frozen=True, slots=True)
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
    place = np.where(lost, program.prevailing[np.maximum(own, 0)], place)
    value = np.where(lost, program.symbols["value"][symbol], value)
    atom = np.maximum(place, 0)
    alive = (place >= 0) & live[atom] & (placed.section[atom] >= 0)
    whole = alive & (~placed.kept[definition] | lost)
    home = np.where(alive, placed.section[atom], -1).astype(np.int64)
    refers = Targets(
        np.where(whole, home << STEP, definition),
        whole,
        np.where(whole, placed.offset[atom] + value, 0),
        ((place >= 0) | lost) & ~alive,
        home,
    )
    return refers, np.flatnonzero(place == SpecialIndex.ELSEWHERE)


@dataclass(frozen=True, slots=True)
class References:
    """Relocations of debug information in the new object. Arrays by relocation.

    `section` counts from 0 among the sections of this information; `offset` is that of the field.
    """

    section: Int64
    offset: Int64
    type: Int64
    targets: Targets


def nothing() -> References:
    """No relocations."""
    empty, never = np.zeros(0, np.int64), np.zeros(0, np.bool_)
    return References(empty, empty, empty, Targets(empty, never, empty, never, empty))


def concatenated(tables: list[References]) -> References:
    """Several tables as one, in their order."""
    refers = [t.targets for t in tables]
    return References(
        np.concatenate([t.section for t in tables]),
        np.concatenate([t.offset for t in tables]),
        np.concatenate([t.type for t in tables]),
        Targets(
            np.concatenate([t.target for t in refers]),
            np.concatenate([t.place for t in refers]),
            np.concatenate([t.adds for t in refers]),
            np.concatenate([t.dead for t in refers]),
            np.concatenate([t.home for t in refers]),
        ),
    )


def store(machine: Machine, blob: Array, start: Int64, references: References, one: Bool) -> None:
    """Add to fields of `blob` what is added, and put a tombstone into those of what is dead.

    Arrays by section: `start` is where each begins in the blob, `one` whether its tombstone is 1.
    """
    refers, field = references.targets, start[references.section] + references.offset
    mode, width = machine.mode[references.type], machine.width[references.type]
    for size, form in ((4, "<u4"), (8, "<u8")):
        chosen = np.flatnonzero(refers.place & ~refers.dead & (mode == Mode.ADDS) & (width == size))
        octets = field[chosen, None] + np.arange(size)
        word = np.ascontiguousarray(blob[octets]).view(form).reshape(-1)
        word = word + refers.adds[chosen].astype(form)
        blob[octets] = word.astype(form).view(np.uint8).reshape(-1, size)
    for size in (2, 4, 8):
        chosen = np.flatnonzero(refers.dead & (width == size))
        octets = field[chosen, None] + np.arange(size)
        blob[octets] = 0
        blob[field[chosen]] = one[references.section[chosen]]


def rewritten(machine: Machine, references: References, first: int) -> Relocations:
    """The entries of what is not dead, by section and offset; `first`: the first section's number.

    Those at the same offset keep their order.
    """
    refers = references.targets
    left = np.flatnonzero(~refers.dead)
    left = left[np.lexsort((references.offset[left], references.section[left]))]
    kind, inside = references.type[left], refers.place[left]
    exact = inside & (machine.mode[kind] == Mode.EXACT)
    section = references.section[left] + first
    target, none = refers.target[left], np.zeros(len(left), np.int64)
    return Relocations(
        section.astype(np.int32),
        references.offset[left],
        kind,
        np.where(inside, -1, target).astype(np.int32),
        np.where(inside, target >> STEP, -1).astype(np.int32),
        none,
        none,
        exact,
    )


def _into_records(
    refers: Targets, elsewhere: Int64, f: CoffFile, rows: Array, base: Int64, first: int
) -> Targets:
    """The targets, where the rows `elsewhere` name symbols of sections that are no atoms.

    Such a symbol's place is in the file's own record. `base`: (output section, offset) of each
    section of the file; `first`: the number of the first of these output sections.
    """
    if not len(elsewhere):
        return refers
    symbols = f.symbols[rows["symbol"][elsewhere]]
    section = symbols["section"].astype(np.int64)
    inside = (section > 0) & (section <= len(base))
    out = np.where(inside[:, None], base[np.where(inside, section - 1, 0)], -1)
    kept = out[:, 0] >= 0
    mine = elsewhere[kept]
    target, adds = refers.target.copy(), refers.adds.copy()
    place, dead = refers.place.copy(), refers.dead.copy()
    target[mine] = (out[kept, 0] + first) << STEP
    adds[mine] = out[kept, 1] + symbols["value"][kept].astype(np.int64)
    place[mine] = True
    dead[elsewhere[~kept]] = True
    return Targets(target, place, adds, dead, refers.home)


def combined(first: Debug, second: Debug) -> Debug:
    """The sections of both, one behind the other: `second` was made to follow `first`."""
    return Debug(
        first.kinds + second.kinds,
        np.concatenate([first.sizes, second.sizes]),
        np.concatenate([first.align, second.align]),
        np.concatenate([first.blob, second.blob]),
        Relocations.joined([first.relocations, second.relocations]),
        first.left_out + second.left_out,
        np.concatenate([first.link_map, second.link_map]),
    )


def with_sections(
    placed: Placed, contents: list[Array], debug: Debug
) -> tuple[Placed, list[Array]]:
    """The program's sections and their contents, and the debug sections behind them."""
    size = np.concatenate([placed.size, debug.sizes])
    stored = np.concatenate([placed.stored, np.ones(len(debug.kinds), np.bool_)])
    code = np.concatenate([placed.executable, np.zeros(len(debug.kinds), np.bool_)])
    behind = replace(
        placed,
        size=size,
        stored=stored,
        executable=code,
        start=begin_of(size, stored),
        kinds=(*placed.kinds, *debug.kinds),
    )
    ends = np.cumsum([0, *debug.sizes]).tolist()
    return behind, contents + [debug.blob[a:b] for a, b in itertools.pairwise(ends)]
